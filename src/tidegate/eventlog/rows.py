"""Entries as rows of the log's table and back, under a checksum of every field.

Payloads are compressed, where that makes them smaller: JSON shrinks to a fifth or less, and writing
less to the disk saves more time than compressing takes. What is read back is what came, byte for
byte.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from tidegate.errors import DamageError
from tidegate.eventlog.contract import Append, Entry, EntryKind, Prepared
from tidegate.records import Bounds, Records

# A blob of SQLite holds at most 1 GB; far below it, one entry should never fill the memory.
PAYLOAD_BYTES_MAX = 256 << 20

# Shorter payloads (a request or two) hardly shrink, and latency counts there.
_COMPRESSED_FROM_BYTES = 4096
_CODEC: Literal["zstd"] = "zstd"

Row = tuple[int, int, str, str, int, bytes, int, bytes, int]

_HEAD = struct.Struct("<qqqqqqq")
_PLACED = struct.Struct("<qI")
_INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Packed(Prepared):
    """An entry ready to be written, all but its offset; `size` is that of the plain payload."""

    count: int
    kind: str
    source: str
    ingest_time: int
    bounds: bytes
    size: int
    payload: bytes
    checksum: int

    def row(self, first_offset: int) -> Row:
        """The row at this offset; the offset goes into the checksum as well."""
        checksum = _placed(first_offset, self.checksum)
        head = (first_offset, self.count, self.kind, self.source, self.ingest_time)
        return (*head, self.bounds, self.size, self.payload, checksum)


def pack(entry: Append) -> Packed:
    """The entry checked, packed and summed.

    Raises: ValueError if the records do not fit their payload or a field cannot be stored.
    """
    records = entry.records
    _check(records, entry.ingest_time)
    kind, source = entry.kind.value, entry.source
    bounds = pack_bounds(records.starts, records.ends)
    size, payload = len(records.payload), _compressed(bytes(records.payload))
    count, time = len(records), entry.ingest_time
    checksum = _summed(count, kind.encode(), source.encode(), time, bounds, size, payload)
    return Packed(count, kind, source, time, bounds, size, payload, checksum)


def unpack(row: tuple[object, ...]) -> Entry:
    """The entry of a row read with texts as bytes.

    Raises: DamageError with the row's offset if the checksum does not match.
    """
    first_offset, count, kind, source, ingest_time, bounds, size, payload, checksum = row
    match first_offset, count, ingest_time, kind, source, bounds, size, payload:
        case (
            int() as first,
            int() as n,
            int() as time,
            bytes() as kind_,
            bytes() as source_,
            bytes() as bounds_,
            int() as size_,
            bytes() as block,
        ) if _placed(first, _summed(n, kind_, source_, time, bounds_, size_, block)) == checksum:
            records = Records(_plain(block, size_), *unpack_bounds(bounds_, n))
            return Entry(first, EntryKind(kind_.decode()), source_.decode(), time, records)
    offset = first_offset if isinstance(first_offset, int) else None
    raise DamageError(f"the entry at offset {offset} does not match its checksum", offset=offset)


def _compressed(payload: bytes) -> bytes:
    """The payload compressed, or as it is where that is no gain: the size tells which."""
    if len(payload) < _COMPRESSED_FROM_BYTES:
        return payload
    smaller: bytes = pa.compress(payload, codec=_CODEC, asbytes=True)
    return smaller if len(smaller) < len(payload) else payload


def _plain(block: bytes, size: int) -> bytes:
    if len(block) == size:
        return block
    plain: bytes = pa.decompress(block, decompressed_size=size, codec=_CODEC, asbytes=True)
    return plain


def pack_bounds(starts: Bounds, ends: Bounds) -> bytes:
    """Bounds as little-endian uint32.

    Only the lengths where each record begins one byte after the one before, as lines do; else all
    starts, then all ends. Which of the two it is shows in the size.
    """
    if starts[0] == 0 and not np.count_nonzero(starts[1:] != ends[:-1] + 1):
        return (ends - starts).astype("<u4").tobytes()
    return np.concatenate((starts, ends)).astype("<u4").tobytes()


def unpack_bounds(packed: bytes, count: int) -> tuple[Bounds, Bounds]:
    """Starts and ends as int64, each of shape (count,)."""
    values = np.frombuffer(packed, "<u4").astype(np.int64)
    if len(values) == 2 * count:
        return values[:count], values[count:]
    ends = np.cumsum(values + 1) - 1
    return ends - values, ends


def _check(records: Records, ingest_time: int) -> None:
    starts, ends = np.asarray(records.starts), np.asarray(records.ends)
    if len(starts) == 0:
        raise ValueError("an entry needs at least one record")
    if len(records.payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(
            f"{len(records.payload)} bytes; an entry holds {PAYLOAD_BYTES_MAX} at most"
        )
    if not _fit(starts, ends, len(records.payload)):
        raise ValueError("the bounds do not ascend within the payload")
    if not -_INT64_MAX <= ingest_time <= _INT64_MAX:
        raise ValueError(f"ingest time {ingest_time} is not an int64 of microseconds")


def _fit(starts: Bounds, ends: Bounds, size: int) -> bool:
    if len(starts) != len(ends) or not 0 <= starts[0] <= ends[0] or ends[-1] > size:
        return False
    # Single records come by the thousand; NumPy takes longer to begin than to look at one.
    is_one = len(starts) == 1
    return is_one or not (
        np.count_nonzero(starts > ends) or np.count_nonzero(ends[:-1] > starts[1:])
    )


def _summed(
    count: int,
    kind: bytes,
    source: bytes,
    ingest_time: int,
    bounds: bytes,
    size: int,
    payload: bytes,
) -> int:
    # The lengths are summed too, so that no byte can move from one field into the next.
    lengths = (len(kind), len(source), len(bounds), len(payload))
    checksum = zlib.crc32(_HEAD.pack(count, ingest_time, size, *lengths))
    for field in (kind, source, bounds, payload):
        checksum = zlib.crc32(field, checksum)
    return checksum


def _placed(first_offset: int, checksum: int) -> int:
    return zlib.crc32(_PLACED.pack(first_offset, checksum))
