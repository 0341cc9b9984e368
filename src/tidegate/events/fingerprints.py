"""Fingerprints of ids, and the table of the newest ones; a call takes a batch, off the GIL.

A fingerprint is the SipHash-2-4 of an id, straight from Arrow's buffers. The hash is keyed: who
does not know the key cannot choose ids that collide.

Source: Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF".
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit, types

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bounds = npt.NDArray[np.int32]

_Function = TypeVar("_Function", bound=Callable[..., Any])
NEW, UNSETTLED = -1, -2

_HUGE = 4 << 20

_waiting: list[tuple[Any, Any]] = []

# The types of the arguments that kernels take; Arrow's buffers are read-only.
BYTES = types.Array(types.uint8, 1, "C", readonly=True)
BOUNDS = types.Array(types.int32, 1, "C", readonly=True)
WORDS = types.uint64[::1]
INTEGERS = types.int64[::1]
PAIRS = types.int64[:, ::1]

_TABLE = types.uint64[:, ::1]


def inline(function: _Function) -> _Function:
    """The function, callable from the kernels of its own module."""
    return cast(_Function, njit(nogil=True)(function))


def kernel(signature: Any) -> Callable[[_Function], _Function]:
    """A decorator: native code for one signature, kept on disk, compiled by `compile_kernels`.

    Compilation waits until then, so that importing a module stays cheap. A kernel may only call
    `inline` functions of its own module, since the cache on disk looks at no other file. (Those of
    `features` look at several, this one among them.)
    """

    def decorate(function: _Function) -> _Function:
        compiled = njit(nogil=True, cache=True)(function)
        _waiting.append((compiled, signature))
        return cast(_Function, compiled)

    return decorate


def compile_kernels() -> None:
    """Compile all kernels of the modules imported so far, or load them from the cache on disk."""
    while _waiting:
        compiled, signature = _waiting.pop()
        compiled.compile(signature)
        compiled.disable_compile()


SIP_START = tuple(
    np.uint64(c)
    for c in (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
)
_8, _16, _24, _32 = np.uint64(8), np.uint64(16), np.uint64(24), np.uint64(32)
_40, _48, _56 = np.uint64(40), np.uint64(48), np.uint64(56)
_13, _51, _17, _47 = np.uint64(13), np.uint64(51), np.uint64(17), np.uint64(47)
_21, _43 = np.uint64(21), np.uint64(43)
_0, _1, _7, _FF = np.uint64(0), np.uint64(1), np.uint64(7), np.uint64(0xFF)
_2, _3, _4, _5, _6 = np.uint64(2), np.uint64(3), np.uint64(4), np.uint64(5), np.uint64(6)

_State = tuple[np.uint64, np.uint64, np.uint64, np.uint64]


@inline
def sip_round(v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64) -> _State:
    """One round of SipHash."""
    v0 += v1
    v1 = ((v1 << _13) | (v1 >> _51)) ^ v0
    v0 = (v0 << _32) | (v0 >> _32)
    v2 += v3
    v3 = ((v3 << _16) | (v3 >> _48)) ^ v2
    v0 += v3
    v3 = ((v3 << _21) | (v3 >> _43)) ^ v0
    v2 += v1
    v1 = ((v1 << _17) | (v1 >> _47)) ^ v2
    v2 = (v2 << _32) | (v2 >> _32)
    return v0, v1, v2, v3


@inline
def _word(data: Bytes, at: np.uint64) -> np.uint64:
    # Written out, so that the compiler makes it one load.
    return (
        np.uint64(data[at])
        | (np.uint64(data[at + _1]) << _8)
        | (np.uint64(data[at + _2]) << _16)
        | (np.uint64(data[at + _3]) << _24)
        | (np.uint64(data[at + _4]) << _32)
        | (np.uint64(data[at + _5]) << _40)
        | (np.uint64(data[at + _6]) << _48)
        | (np.uint64(data[at + _7]) << _56)
    )


@inline
def _hash(data: Bytes, at: np.uint64, end: np.uint64, k0: np.uint64, k1: np.uint64) -> np.uint64:
    v0, v1, v2, v3 = SIP_START[0] ^ k0, SIP_START[1] ^ k1, SIP_START[2] ^ k0, SIP_START[3] ^ k1
    last = ((end - at) & _FF) << _56
    while at + _8 <= end:
        word = _word(data, at)
        v3 ^= word
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
        v0 ^= word
        at += _8
    shift = _0
    while at < end:
        last |= np.uint64(data[at]) << shift
        shift += _8
        at += _1
    v3 ^= last
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0 ^= last
    v2 ^= _FF
    for _ in range(4):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@kernel(types.void(BYTES, BOUNDS, WORDS, WORDS))
def _hash_all(data: Bytes, bounds: Bounds, key: Words, out: Words) -> None:
    for i in range(len(out)):
        out[i] = _hash(data, np.uint64(bounds[i]), np.uint64(bounds[i + 1]), key[0], key[1])


_NO_BYTES = np.frombuffer(b"", dtype=np.uint8)
_NO_PAIRS: Words = np.empty((0, 2), dtype=np.uint64)
_NO_BOUNDS = np.frombuffer(bytes(4), dtype=np.int32)


def buffers(strings: pa.StringArray) -> tuple[Bytes, Bounds]:
    """The bytes of a string column and where each string lies in them, not copied.

    String i is `data[bounds[i]:bounds[i + 1]]`; bounds are int32 of shape (n + 1,).
    Raises: ValueError if the column is not of type `string` or has nulls.
    """
    if strings.type != pa.string() or strings.null_count:
        raise ValueError(f"expected strings without nulls, saw {strings.type}")
    _, bounds, data = strings.buffers()
    if bounds is None or not len(strings):
        return _NO_BYTES, _NO_BOUNDS
    first, count = strings.offset, len(strings) + 1
    whole = np.frombuffer(memoryview(bounds), dtype=np.int32, count=first + count)
    held = np.frombuffer(memoryview(data), dtype=np.uint8) if data else _NO_BYTES
    return _frozen(held), _frozen(whole[first:])


def _frozen(array: Any) -> Any:
    # A kernel has one signature, and buffers that Python made may be writable.
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def zeros(*shape: int) -> Words:
    """Zeros of uint64 in pages that cost no memory before they are written.

    Large ones lie in huge pages where the system has them: random access to small pages spends
    more time on finding the page than on the word in it.
    """
    size = 8 * math.prod(shape)
    if size < _HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(shape, dtype=np.uint64)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel built without them refuses.
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint64).reshape(shape)


def read_key(key: bytes) -> Words:
    """The two words of a key, shape (2,). Raises: ValueError if it is not 16 bytes long."""
    if len(key) != 16:
        raise ValueError(f"a key has 16 bytes, saw {len(key)}")
    return np.frombuffer(key, dtype="<u8").astype(np.uint64)


def hash_strings(data: Bytes, bounds: Bounds, *, key: Words) -> Words:
    """SipHash-2-4 of each string in `buffers`, uint64 of shape (n,).

    >>> words = hash_strings(*buffers(pa.array(["", "a"])), key=read_key(bytes(range(16))))
    >>> [f"{w:016x}" for w in words.tolist()]
    ['726fdb47dd0e0e31', '2ba3e8e9a71148ca']
    """
    compile_kernels()
    out = np.empty(len(bounds) - 1, dtype=np.uint64)
    _hash_all(data, bounds, key, out)
    return out


@inline
def _row_of(offsets: Integers, offset: int) -> int:
    low, high = 0, len(offsets)
    while low < high:
        middle = (low + high) // 2
        if offsets[middle] < offset:
            low = middle + 1
        else:
            high = middle
    return low


@inline
def _equal(data: Bytes, bounds: Bounds, a: int, b: int) -> bool:
    start, other, size = bounds[a], bounds[b], bounds[a + 1] - bounds[a]
    if bounds[b + 1] - other != size:
        return False
    for k in range(size):  # noqa: SIM110 - kernels have no generators
        if data[start + k] != data[other + k]:
            return False
    return True


@inline
def _find(
    table: Words,
    start: int,
    wanted: np.uint64,
    i: int,
    offsets: Integers,
    now: Integers,
    floor: int,
    data: Bytes,
    bounds: Bounds,
    horizon: int,
    settled: int,
) -> tuple[int, int]:
    """The first of row i, and the slot for it where that is `NEW` or `UNSETTLED`."""
    slot, expired = start, -1
    while table[slot, 1] != 0:
        if table[slot, 0] == wanted:
            held: Any = np.int64(table[slot, 1]) - 1
            if held >= offsets[0]:
                row = _row_of(offsets, held)
                live = now[i] - now[row] <= horizon
                if live and _equal(data, bounds, i, row):
                    return held, slot
            else:
                live = held >= floor
                if live and settled == 0:
                    return UNSETTLED, slot
            if not live:
                expired = slot
        slot = (slot + 1) & (len(table) - 1)
    # What has expired makes room, else an id that comes back for ever would grow a chain.
    return NEW, slot if expired < 0 else expired


@kernel(
    types.void(
        *(_TABLE, WORDS, INTEGERS, INTEGERS, INTEGERS, INTEGERS, BYTES, BOUNDS),
        *(INTEGERS, types.int64, PAIRS, INTEGERS, INTEGERS),
    )
)
def _admit(
    table: Words,
    fingerprints: Words,
    offsets: Integers,
    now: Integers,
    floors: Integers,
    known: Integers,
    data: Bytes,
    bounds: Bounds,
    limits: Integers,  # horizon, ids that fill the table, shift from fingerprint to slot
    settled: int,  # 1 when `known` has an answer for every hit on an earlier batch
    tail: Integers,
    counts: Integers,  # in and out: ids taken since the last run, changes in the tail, rows done
    firsts: Integers,
) -> None:
    """Walk the rows until the table is full, a hit is not settled, or none is left."""
    shift = np.uint64(limits[2])
    while counts[2] < len(offsets) and counts[0] < limits[1]:
        i = counts[2]
        first: Any = known[i]
        slot: Any = np.int64(fingerprints[i] >> shift)
        if first == NEW:
            first, slot = _find(
                table,
                slot,
                fingerprints[i],
                i,
                offsets,
                now,
                floors[i],
                data,
                bounds,
                limits[0],
                settled,
            )
        if first == UNSETTLED:
            return
        firsts[i] = first
        counts[2] += 1
        if first == NEW:
            table[slot, 0], table[slot, 1] = fingerprints[i], np.uint64(offsets[i] + 1)
            counts[0] += 1
            size = counts[1]
            if size == 0 or tail[size - 1, 1] != now[i]:
                tail[size, 0], tail[size, 1] = offsets[i], now[i]
                counts[1] += 1


@kernel(types.int64(_TABLE, WORDS, INTEGERS, types.int64, INTEGERS, types.int64, PAIRS))
def _collect(
    table: Words,
    fingerprints: Words,
    floors: Integers,
    below: int,
    limits: Integers,
    start: int,
    hits: Integers,
) -> int:
    """Hits `(row, offset)` of rows from `start` on among live offsets under `below`."""
    total, shift, slots = 0, np.uint64(limits[2]), len(table)
    for i in range(start, len(fingerprints)):
        slot = np.int64(fingerprints[i] >> shift)
        while table[slot, 1] != 0:
            held = np.int64(table[slot, 1]) - 1
            if table[slot, 0] == fingerprints[i] and floors[i] <= held < below:
                if total < len(hits):
                    hits[total, 0], hits[total, 1] = i, held
                total += 1
            slot = (slot + 1) & (slots - 1)
    return total


@kernel(types.int64(_TABLE, types.int64, _TABLE))
def _extract(table: Words, floor: int, out: Words) -> int:
    """Pairs whose offset is `floor` or more, by fingerprint and offset; how many there are."""
    total = 0
    for slot in range(len(table)):
        fingerprint, held = table[slot, 0], table[slot, 1]
        if held == 0 or np.int64(held) - 1 < floor:
            continue
        # Slots ascend with fingerprints, so that each pair moves but a step or two.
        held -= np.uint64(1)
        k = total
        while k > 0 and (
            out[k - 1, 0] > fingerprint or (out[k - 1, 0] == fingerprint and out[k - 1, 1] > held)
        ):
            out[k, 0], out[k, 1] = out[k - 1, 0], out[k - 1, 1]
            k -= 1
        out[k, 0], out[k, 1] = fingerprint, held
        total += 1
    return total


@kernel(types.void(_TABLE, INTEGERS, _TABLE))
def _fill(table: Words, limits: Integers, pairs: Words) -> None:
    shift, slots = np.uint64(limits[2]), len(table)
    for k in range(len(pairs)):
        slot = np.int64(pairs[k, 0] >> shift)
        while table[slot, 1] != 0:
            slot = (slot + 1) & (slots - 1)
        table[slot, 0], table[slot, 1] = pairs[k, 0], pairs[k, 1] + np.uint64(1)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A batch of n ids as arrays; `fingerprints` is uint64, the others int64, each of shape (n,).

    `now` is the latest ingest time up to each row, `floors` the offset from which on earlier
    batches are live for it, `known` the first of a row where that was read from the log. `firsts`
    is what comes out: the offset of the first, or `NEW`.
    """

    data: Bytes
    bounds: Bounds
    fingerprints: Words
    offsets: Integers
    now: Integers
    floors: Integers
    known: Integers
    firsts: Integers


class Table:
    """The newest ids by fingerprint: open addressing, at most 0.6 full at `ids` ids."""

    def __init__(self, ids: int, *, horizon: int) -> None:
        bits = max(1, int(ids / 0.6).bit_length())
        self._limits = np.array([horizon, ids, 64 - bits], dtype=np.int64)
        # An offset is kept as one more, so that 0 stands for none.
        self._slots = zeros(1 << bits, 2)
        # Kept, since fresh memory costs more than what is done in it.
        self._sorted = zeros(ids, 2)
        self.accepted = 0

    @property
    def full(self) -> bool:
        """Whether as many ids were accepted as it holds."""
        return self.accepted >= int(self._limits[1])

    @property
    def bytes_held(self) -> int:
        """Memory of all slots; those never written cost none."""
        return int(self._slots.nbytes + self._sorted.nbytes)

    def admit(
        self, rows: Rows, done: int, *, settled: bool, tail: Integers, size: int
    ) -> tuple[int, int]:
        """Decide on the rows from `done` on; gives (rows done, changes in the tail).

        Stops early when the table is full or, unless `settled`, at a hit on an earlier batch. New
        ids enter the table, and the changes of their times the tail, of which `size` are there.
        """
        counts = np.array([self.accepted, size, done], dtype=np.int64)
        _admit(
            self._slots,
            rows.fingerprints,
            rows.offsets,
            rows.now,
            rows.floors,
            rows.known,
            rows.data,
            rows.bounds,
            self._limits,
            int(settled),
            tail,
            counts,
            rows.firsts,
        )
        self.accepted, size, done = counts.tolist()
        return done, size

    def hits(self, rows: Rows, done: int, *, own: bool = False) -> Integers:
        """`(row, offset)` of live ids of earlier batches with the fingerprint of a row, (m, 2).

        With `own` also those of this batch, live or not.
        """
        found = np.empty((len(rows.offsets), 2), dtype=np.int64)
        floors, below = rows.floors, int(rows.offsets[0])
        if own:
            floors, below = np.minimum(floors, below), np.iinfo(np.int64).max
        given = (self._slots, rows.fingerprints, floors, below, self._limits, done)
        total = _collect(*given, found)
        if total > len(found):
            found = np.empty((total, 2), dtype=np.int64)
            _collect(*given, found)
        return found[:total]

    def live(self, floor: int, *, room: Words | None = None) -> Words:
        """Pairs (fingerprint, offset) of offset `floor` and more, sorted, uint64, (m, 2).

        They lie in `room`, of shape (ids, 2); without it, the next call writes over them.
        """
        room = self._sorted if room is None else room
        return room[: _extract(self._slots, floor, room)]

    def cleared(self) -> Self:
        """This one without any ids, all of its memory there."""
        self.refill(_NO_PAIRS)
        return self

    def refill(self, pairs: Words) -> None:
        """Hold these pairs and no others."""
        self._slots.fill(0)
        _fill(self._slots, self._limits, pairs)
        self.accepted = len(pairs)
