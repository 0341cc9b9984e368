"""Avro object container files, encoded by whole columns.

Each function returns one encoded piece for each row, as a `pa.BinaryArray`; pieces joined in the
order of the schema make a record. Source: Apache Avro 1.11, "Binary Encoding" and "Object Container
Files".
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Pieces = Any  # pa.BinaryArray of one piece for each row, or a bytes scalar for all rows

BLOCK_RECORDS = 256
_VARINT_BYTES_MAX = 10


def longs(numbers: npt.NDArray[np.int64]) -> pa.BinaryArray:
    """Zigzag variable-length integers.

    >>> [piece.hex() for piece in longs(np.array([0, -1, 1, 64])).to_pylist()]
    ['00', '01', '02', '8001']
    """
    zigzag = ((numbers << 1) ^ (numbers >> 63)).astype(np.uint64)
    bits = np.arange(0, 7 * _VARINT_BYTES_MAX, 7, dtype=np.uint64)
    septets = zigzag[:, None] >> bits
    lengths = np.maximum((septets > 0).sum(axis=1), 1)
    position = np.arange(_VARINT_BYTES_MAX)
    goes_on = np.where(position < lengths[:, None] - 1, 0x80, 0).astype(np.uint64)
    encoded = ((septets & np.uint64(0x7F)) | goes_on).astype(np.uint8)
    content = encoded[position < lengths[:, None]]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    buffers = [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(content.tobytes())]
    return pa.Array.from_buffers(pa.binary(), len(numbers), buffers)  # type: ignore[return-value]


def doubles(numbers: npt.NDArray[np.float64]) -> pa.Array[Any]:
    """IEEE 754 doubles, little-endian."""
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(8), len(numbers), [None, pa.py_buffer(numbers.astype("<f8").tobytes())]
    )
    return fixed.cast(pa.binary())


def strings(column: Any) -> Pieces:
    """Texts or bytes, each after its length; null stays null."""
    content = column.cast(pa.binary())
    if isinstance(content, pa.ChunkedArray):
        content = content.combine_chunks()
    lengths = pc.fill_null(pc.binary_length(content), 0).to_numpy(zero_copy_only=False)
    return joined([longs(lengths.astype(np.int64)), content])


def string(text: str | bytes) -> bytes:
    """One text or bytes, after its length."""
    content = text.encode() if isinstance(text, str) else text
    return bytes(longs(np.array([len(content)]))[0].as_py()) + content


def entry(key: str, branch: int, values: Pieces) -> Pieces:
    """A block of a map with one entry, whose value is of the union's `branch`; null: no entry."""
    head = longs(np.array([1]))[0].as_py() + string(key) + longs(np.array([branch]))[0].as_py()
    return pc.fill_null(joined([head, values]), b"")


def joined(pieces: list[Pieces]) -> Pieces:
    """The pieces of each row one after the other; null where one of them is null."""
    typed = [pa.scalar(p, pa.binary()) if isinstance(p, bytes) else p for p in pieces]
    return pc.binary_join_element_wise(*typed, pa.scalar(b"", pa.binary()))


def container(schema: str, records: Iterable[pa.BinaryArray], *, marker: bytes) -> bytes:
    """A file of these records; `schema` is its JSON text, `marker` the 16 bytes between blocks.

    The records come in pieces, each with a multiple of `BLOCK_RECORDS`, the last one apart.
    """
    meta = longs(np.array([2]))[0].as_py()
    meta += string("avro.codec") + string("null") + string("avro.schema") + string(schema) + b"\0"
    file = io.BytesIO()  # whose value is not copied, as joined pieces would be
    file.writelines([b"Obj\x01", meta, marker])
    for piece in records:
        for first in range(0, len(piece), BLOCK_RECORDS):
            block: Any = piece[first : first + BLOCK_RECORDS]
            content = b"".join(block.to_pylist())
            sizes: Any = longs(np.array([len(block), len(content)])).to_pylist()
            file.writelines([*sizes, content, marker])
    return file.getvalue()
