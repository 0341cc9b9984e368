"""The versions that a data folder tells of: those in their table, and those only in the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tidegate.controls import ControlRecord, VersionRecord, control_record
from tidegate.eventlog.contract import Entry, EventLog
from tidegate.warehouse import checkpoint
from tidegate.warehouse.feed import TableFeed, Written

_COLUMNS = ("version", "change", "author", "message", "folder_version", "files")
_FILES: msgspec.json.Decoder[dict[str, str]] = msgspec.json.Decoder(dict[str, str])
_ROWS = 64


@dataclass(frozen=True, slots=True)
class Logged:
    """A version and the log offset at which the stream switched to it."""

    offset: int
    record: VersionRecord


def versions_at_work(tables: Path, log: EventLog) -> list[Logged]:
    """The version that decided where the tables end, and all later ones, oldest first.

    Empty where nothing was decided yet, or where what decided is older than the table of versions.
    """
    noted = checkpoint.read(tables)
    position = noted.position if noted else 0
    first = max(position, log.first_offset)
    later = [
        Logged(offset, record)
        for offset, record in records_of(log.controls(first))
        if isinstance(record, VersionRecord)
    ]
    known = [v for v in table_versions(tables) if v.offset < position]
    return [*known[-1:], *later]


def table_versions(tables: Path) -> Iterator[Logged]:
    """The rows of the table of versions in order of the log; none where there is no such table."""
    if not (tables / "versions" / "_delta_log").is_dir():
        return
    table = Written(tables / "versions")
    feed = TableFeed(table, table.end, columns=_COLUMNS)
    for delivery in feed.deliveries(0, until=table.end(), rows_max=_ROWS):
        for row in delivery.rows.to_pylist():
            files = _FILES.decode(row.pop("files"))
            offset = row.pop("log_offset")
            yield Logged(offset, VersionRecord(files=files, **row))


def records_of(entries: list[Entry]) -> Iterator[tuple[int, ControlRecord]]:
    """Offset and record of each record of control entries."""
    for entry in entries:
        for offset, raw in enumerate(entry.records, start=entry.first_offset):
            yield offset, control_record(raw, offset=offset)
