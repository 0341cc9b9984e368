"""What a snapshot of the ids holds, as bytes: a checksum, then MessagePack."""

from __future__ import annotations

import zlib
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.errors import DamageError
from tidegate.events.fingerprints import Integers
from tidegate.events.runs import RunName

_VERSION = 1
_CHECKSUM_BYTES = 4
_PACKED = 1 << 16  # numbers that are packed at a time
_ENCODER = msgspec.msgpack.Encoder()


class _Head(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What comes first, so that it can be read without the ids."""

    version: int = _VERSION
    key_check: int
    horizon: int
    table_ids: int
    mask: int
    now: int
    last: int
    accepted: int
    runs: list[RunName]


class Held(_Head, frozen=True, array_like=True, kw_only=True):
    """All of it; the ids and changes are packed, see `packed`."""

    ids: int
    fingerprints: bytes
    offsets: bytes
    changes: int
    change_offsets: bytes
    change_times: bytes


_Read = TypeVar("_Read", bound=_Head)


def written(held: Held) -> bytearray:
    """What `read` reads; to be copied when what is held is gone, since both are large."""
    body = bytearray(_CHECKSUM_BYTES)
    _ENCODER.encode_into(held, body, _CHECKSUM_BYTES)
    body[:_CHECKSUM_BYTES] = _checksum(memoryview(body)[_CHECKSUM_BYTES:])
    return body


def read(data: bytes) -> Held:
    """What was written. Raises: DamageError."""
    return _read(data, Held)


def run_names(snapshot: bytes) -> frozenset[str]:
    """The names of the run files that a snapshot refers to. Raises: DamageError."""
    return frozenset(run.name for run in _read(snapshot, _Head).runs)


def _read(data: bytes, kind: type[_Read]) -> _Read:
    body = memoryview(data)[_CHECKSUM_BYTES:]
    if _checksum(body) != data[:_CHECKSUM_BYTES]:
        raise DamageError("the dedupe snapshot is damaged: its checksum does not match")
    try:
        held = msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise DamageError(f"the dedupe snapshot cannot be read: {error}") from error
    if held.version != _VERSION:
        raise DamageError(f"the dedupe snapshot is of version {held.version}, not {_VERSION}")
    return held


def _checksum(body: memoryview) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


def packed(numbers: Integers, order: npt.NDArray[np.intp] | None = None) -> bytes:
    """Numbers that ascend, if need be in that order; few are copied at a time."""
    parts, last = [], 0
    for first in range(0, len(numbers), _PACKED):
        some = slice(first, first + _PACKED)
        ascending = numbers[some] if order is None else numbers[order[some]]
        steps = np.diff(ascending, prepend=last).astype("<i8", copy=False)
        last = int(ascending[-1])
        parts.append(pa.compress(pa.py_buffer(steps.data), codec="zstd", asbytes=True))
    return b"".join(parts)


def unpacked(data: bytes, count: int) -> Integers:
    """So many numbers that were packed."""
    steps = pa.decompress(data, decompressed_size=8 * count, codec="zstd", asbytes=True)
    return np.cumsum(np.frombuffer(steps, dtype="<i8"), dtype=np.int64)
