"""The durable log of everything received: contract and SQLite implementation."""

from tidegate.eventlog.contract import Append, DamagedEntry, Entry, EntryKind, EventLog
from tidegate.eventlog.sqlite import SqliteLog

__all__ = ["Append", "DamagedEntry", "Entry", "EntryKind", "EventLog", "SqliteLog"]
