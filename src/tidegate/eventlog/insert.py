"""Rows on their way into the file: many in a statement, a lone one in a statement of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from tidegate.eventlog import scan
from tidegate.eventlog.commit import Call
from tidegate.eventlog.rows import Row

# Rows go in by the dozen: each statement lets go of the interpreter lock, and getting it back among
# many waiting threads costs more than the row.
_INSERT_SIZES = (32, 8, 1)
_INSERTS = {
    size: "INSERT INTO entries VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * size)
    for size in _INSERT_SIZES
}
# One row behind the last one known, if that is still the last: a transaction in one statement.
_INSERT_ALONE = (
    "INSERT INTO entries SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? "
    "WHERE (?, ?) = (SELECT first_offset, count FROM entries ORDER BY first_offset DESC LIMIT 1)"
)


def insert_alone(
    conn: sqlite3.Connection, calls: Sequence[Call], known: scan.Tail
) -> scan.Tail | None:
    """Insert and commit the only entry of the only call; the new end, or None: nothing was done.

    It saves three statements, after each of which this thread would have to wait for its turn.
    """
    call = calls[0]
    if len(calls) > 1 or len(call.entries) > 1 or known.row is None:
        return None
    if known.damaged_from is not None:
        return None
    row = call.entries[0].row(known.next_offset)
    if conn.execute(_INSERT_ALONE, (*row, *known.row)).rowcount != 1:
        return None
    call.offsets = [known.next_offset]
    return scan.Tail((row[0], row[1]), known.next_offset + call.entries[0].count)


def insert(conn: sqlite3.Connection, calls: Sequence[Call], tail: scan.Tail) -> scan.Tail:
    """Insert the entries of the calls behind `tail`, tell each call its offsets; the new end."""
    offset, rows, done = tail.next_offset, list[Row](), 0
    for call in calls:
        call.offsets = []
        for entry in call.entries:
            call.offsets.append(offset)
            rows.append(entry.row(offset))
            offset += entry.count
    for size in _INSERT_SIZES:
        while len(rows) - done >= size:
            conn.execute(_INSERTS[size], [v for row in rows[done : done + size] for v in row])
            done += size
    return scan.Tail((rows[-1][0], rows[-1][1]), offset)
