"""The two small tables beside the entries: which offsets the log spans, and where consumers are.

The span is written when the log is trimmed and before the WAL is folded into the file, so that
the file itself says how far it must reach: a file that lost its last rows is found out. In between,
the WAL's own checksums stand in.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.errors import DamageError

_PAIR = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class Span:
    """The log holds `first_offset <= o < next_offset`, and maybe more that is newer."""

    first_offset: int
    next_offset: int


def write_span(conn: sqlite3.Connection, span: Span) -> None:
    """Write the span, within the transaction of the caller."""
    values = (span.first_offset, span.next_offset)
    conn.execute(
        "INSERT OR REPLACE INTO span (id, first_offset, next_offset, checksum) VALUES (1, ?, ?, ?)",
        (*values, _span_checksum(*values)),
    )


def read_span(conn: sqlite3.Connection) -> Span:
    """The span as last written. Raises: DamageError."""
    row = conn.execute("SELECT first_offset, next_offset, checksum FROM span").fetchone()
    match row:
        case (int() as first, int() as following, checksum) if (
            _span_checksum(first, following) == checksum
        ):
            return Span(first, following)
    raise DamageError("the span of the log does not match its checksum")


def read_positions(conn: sqlite3.Connection) -> dict[str, int]:
    """The durable position of each consumer. Raises: DamageError."""
    rows = conn.execute("SELECT consumer, position, checksum FROM positions").fetchall()
    return dict(_position(*row) for row in rows)


def damage(conn: sqlite3.Connection) -> str | None:
    """What is wrong with the span or the positions, if anything is."""
    for read in (read_span, read_positions):
        try:
            read(conn)
        except (DamageError, sqlite3.DatabaseError) as error:
            return str(error)
    return None


def add_position(conn: sqlite3.Connection, consumer: str, position: int) -> None:
    """Write the position of a consumer that may be new."""
    conn.execute(
        "INSERT OR REPLACE INTO positions (consumer, position, checksum) VALUES (?, ?, ?)",
        (consumer, position, _position_checksum(consumer, position)),
    )


def move_positions(conn: sqlite3.Connection, positions: Mapping[str, int]) -> None:
    """Move consumers forward; those that were forgotten meanwhile stay forgotten."""
    conn.executemany(
        "UPDATE positions SET position = ?2, checksum = ?3 WHERE consumer = ?1 AND position < ?2",
        [(name, at, _position_checksum(name, at)) for name, at in positions.items()],
    )


def remove_position(conn: sqlite3.Connection, consumer: str) -> None:
    """Remove a consumer; one that is not there is fine."""
    conn.execute("DELETE FROM positions WHERE consumer = ?", (consumer,))


def _position(consumer: str | bytes, position: int, checksum: int) -> tuple[str, int]:
    try:
        name = consumer.decode() if isinstance(consumer, bytes) else consumer
        if _position_checksum(name, position) == checksum:
            return name, position
    except (AttributeError, UnicodeDecodeError, struct.error):
        pass  # the value has lost its very type: damage all the same
    raise DamageError(f"the position of consumer {consumer!r} does not match its checksum")


def _span_checksum(first_offset: int, next_offset: int) -> int:
    return zlib.crc32(_PAIR.pack(first_offset, next_offset))


def _position_checksum(consumer: str, position: int) -> int:
    return zlib.crc32(_PAIR.pack(position, 0) + consumer.encode())
