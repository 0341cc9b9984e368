"""Reading the entries of a log file through a connection, sound or damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from tidegate.errors import DamageError
from tidegate.eventlog import state
from tidegate.eventlog.contract import Entry, EntryKind
from tidegate.eventlog.rows import unpack

_COLUMNS = "first_offset, count, kind, source, ingest_time, bounds, size, payload, checksum"
# Sizes are asked for first: SQLite tells them without touching a payload.
_SIZES = """
SELECT first_offset, count, size FROM entries
WHERE first_offset >= (SELECT max(first_offset) FROM entries WHERE first_offset <= ?)
ORDER BY first_offset
"""
_ROWS = f"SELECT {_COLUMNS} FROM entries WHERE first_offset BETWEEN ? AND ? ORDER BY first_offset"
_LAST = "SELECT first_offset, count FROM entries ORDER BY first_offset DESC LIMIT 1"
_HEADS = "SELECT first_offset, count FROM entries ORDER BY first_offset"
_FROM = "SELECT first_offset FROM entries WHERE first_offset >= ? ORDER BY first_offset LIMIT 1"
_CONTROLS = "SELECT first_offset FROM entries WHERE first_offset >= ? AND kind = ? ORDER BY 1"
_AGES = "SELECT first_offset, count, ingest_time, length(payload) FROM entries ORDER BY 1"

# Payloads removed in one transaction, so that trimming keeps no append waiting for long.
TRIM_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the log: its last row as (first offset, count), and the offset after it.

    With damage there, `damaged_from` says where it begins and `next_offset` how far the log is
    known to have reached.
    """

    row: tuple[int, int] | None
    next_offset: int
    damaged_from: int | None = None


@contextmanager
def snapshot(conn: sqlite3.Connection) -> Iterator[None]:
    """Everything read inside sees the log at one moment, whatever is appended or trimmed."""
    conn.execute("BEGIN")
    try:
        yield
    finally:
        # On some errors SQLite has ended the transaction by itself.
        with suppress(sqlite3.Error):
            if conn.in_transaction:
                conn.execute("ROLLBACK")


def last_row(conn: sqlite3.Connection) -> tuple[int, int] | None:
    """First offset and count of the last row, not verified."""
    row: tuple[int, int] | None = conn.execute(_LAST).fetchone()
    return row


def tail(conn: sqlite3.Connection) -> Tail:
    """The end of the log, its last entry read and verified."""
    row = last_row(conn)
    reached = span(conn).next_offset
    if row is None:
        # An empty log has been trimmed up to its end, or never had an entry.
        begins = span(conn).first_offset
        return Tail(None, reached, None if begins == reached else begins)
    try:
        following = _entry(conn, row[0]).next_offset
    except DamageError:
        return Tail(row, max(reached, row[0] + 1), row[0])
    return Tail(row, max(reached, following), following if following < reached else None)


def span(conn: sqlite3.Connection) -> state.Span:
    """The span as written; where it is damaged, what the rows say."""
    with suppress(DamageError, sqlite3.DatabaseError):
        return state.read_span(conn)
    row: tuple[int] | None = conn.execute(_FROM, (0,)).fetchone()
    first = row[0] if row else 0
    return state.Span(first, first)


def controls(conn: sqlite3.Connection, offset: int) -> list[int]:
    """The first offsets of the control entries from `offset` on."""
    rows = conn.execute(_CONTROLS, (offset, EntryKind.CONTROL.value)).fetchall()
    return [first for (first,) in rows]


def read(conn: sqlite3.Connection, offset: int, *, bytes_max: int) -> list[Entry]:
    """The entries from the one holding `offset` on, up to `bytes_max` or to damage.

    Empty if no row holds `offset`. Raises: DamageError or sqlite3.Error if the first is damaged.
    """
    extent = _extent(conn, offset, bytes_max)
    entries: list[Entry] = []
    if extent is None:
        return entries
    try:
        with closing(conn.execute(_ROWS, extent)) as rows:
            for row in rows:
                entry = unpack(row)
                if entries and entry.first_offset != entries[-1].next_offset:
                    break  # a row is missing: the next read will say so
                entries.append(entry)
    except (DamageError, sqlite3.Error):
        if not entries:
            raise
    return entries if entries and entries[0].first_offset <= offset else []


def old(conn: sqlite3.Connection, first: int, *, limit: int, before_time: int) -> int:
    """The offset up to which entries from `first` on may be removed, a bounded part at a time.

    They end at or before `limit` and are older than `before_time`. Raises: DamageError at a gap.
    """
    left = TRIM_BYTES
    with closing(conn.execute(_AGES)) as ages:
        for found, count, ingest_time, size in ages:
            if found != first:
                raise DamageError(f"the entry at offset {first} is missing", offset=first)
            if left <= 0 or found + count > limit or ingest_time >= before_time:
                break
            first, left = found + count, left - size
    return first


def _number(value: object) -> int:
    """A value that damage may have made anything, as a number."""
    return value if isinstance(value, int) else 0


def damage_start(conn: sqlite3.Connection, offset: int) -> int:
    """The lowest offset of the damage that keeps `offset` from being read."""
    first: int
    expected = span(conn).first_offset
    with suppress(sqlite3.Error), closing(conn.execute(_HEADS)) as heads:
        for first, count in heads:
            after = first + _number(count)
            if expected <= offset < after and first >= expected:
                return expected  # the row itself, or rows missing before it
            if first >= expected:
                expected = after
    return min(expected, offset)


def resume(conn: sqlite3.Connection, after: int, *, end: int) -> int:
    """The lowest offset > `after` at which an entry can be looked up again, or `end`.

    Where SQLite cannot pass a damaged page, steps double until one lands behind it, then halve.
    """
    low, high, step = after, after + 1, 1
    while (found := _first_from(conn, high)) is None:
        low, step = high, step * 2
        high = low + step
        if high >= end:
            return end
    while high - low > 1:
        middle = (low + high) // 2
        nearer = _first_from(conn, middle)
        low, high = (middle, high) if nearer is None else (low, middle)
        found = found if nearer is None else nearer
    return min(found, end)


def _first_from(conn: sqlite3.Connection, offset: int) -> int | None:
    try:
        row = conn.execute(_FROM, (offset,)).fetchone()
    except sqlite3.DatabaseError:
        return None
    return max(offset, row[0]) if row else (1 << 63) - 1


def _entry(conn: sqlite3.Connection, first_offset: int) -> Entry:
    try:
        row = conn.execute(_ROWS, (first_offset, first_offset)).fetchone()
    except sqlite3.DatabaseError as error:
        raise DamageError(f"the entry cannot be read: {error}", offset=first_offset) from error
    return unpack(row or (first_offset,) + (None,) * 8)


def _extent(conn: sqlite3.Connection, offset: int, bytes_max: int) -> tuple[int, int] | None:
    """First and last `first_offset` to read; None if no row holds `offset`."""
    with closing(conn.execute(_SIZES, (offset,))) as sizes:
        first, count, size = next(sizes, (0, 0, 0))
        if not isinstance(count, int):
            raise DamageError("an entry has lost its count", offset=offset)
        if not first <= offset < first + count:
            return None
        last, left = first, bytes_max - _number(size)
        # Damage further on must not keep us from what is whole.
        with suppress(sqlite3.DatabaseError):
            for following, _, size in sizes:
                left -= _number(size)
                if left < 0:
                    break
                last = following
    return first, last
