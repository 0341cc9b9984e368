"""Snapshots read back."""

from __future__ import annotations

from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import operation
from tidegate.features.columns import GIVEN, WORDS
from tidegate.features.distinct import tabulate
from tidegate.features.history import Rows, at, make_room, rows_of
from tidegate.features.keys import create_key, find_key, hash_of
from tidegate.features.layout import (
    A_BASE,
    A_KIND,
    ACCUMULATOR,
    ACCUMULATORS_AT,
    BASE,
    COUNT,
    DISTINCT,
    F_FIRST,
    F_LAST,
    FRAME,
    FRAMES,
    FRAMES_AT,
    HEADER,
    ID0,
    ID1,
    ORIGIN,
    RECORD,
    RUN,
    TEXTS,
    TEXTS_AT,
)
from tidegate.features.memory import RECORDS, ROWS, Words, allocate, kernel, words_at
from tidegate.features.packing import behind


@inline
def _unpack_rows(rows: Rows, base: int, count: int, data: Words, i: int) -> int:
    p, end = base, base + count
    while p < end:
        piece = behind(rows, p, end)
        start, size = at(rows, p), piece * rows.width
        for k in range(size):
            rows.heap[start + k] = data[i + k]
        i, p = i + size, p + piece
    return i


@inline
def _unpack_texts(rows: Rows, base: int, count: int, data: Words, i: int) -> int:
    heap, program = rows.heap, rows.program
    for p in range(base, base + count):
        for t in range(program[TEXTS]):
            size, place = data[i], 0
            i += 1
            if size >= 0:
                whole = (size + 7) >> 3
                place = allocate(rows.shard, 2 + whole)
                heap[place + 1] = size
                for k in range(whole):
                    heap[place + 2 + k] = data[i + k]
                i += whole
            heap[at(rows, p) + program[program[TEXTS_AT] + t]] = place
    return i


@inline
def _tables(program: Words, records: Words, r: int, rows: Rows) -> None:
    """Make again the tables of distinct values, from the rows of their frames."""
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
        for number in range(program[f + F_FIRST], program[f + F_LAST]):
            a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
            b = r + program[a + A_BASE]
            if program[a + A_KIND] == DISTINCT and records[b + 1] != 0:
                records[b + 1] = 0
                op = operation(program, a, r)
                tabulate(records, b, rows, op, records[held], records[held + 1])


@inline
def _begun(shard: Words, program: Words, data: Words, i: int, slot: int, hashed: int) -> int:
    """A record for the key whose first fragment begins at word i, with room for all of its rows."""
    records, width = words_at(shard[RECORDS]), program[RECORD]
    r = create_key(shard, width, data[i + ID0], data[i + ID1], hashed, slot)
    for k in range(width):
        records[r + k] = data[i + k]
    records[r + RUN], records[r + COUNT] = -1, 0
    make_room(shard, program, records, r, data[i + COUNT])
    records[r + COUNT] = data[i + COUNT]
    shard[ROWS] += data[i + COUNT]
    return int(r)


@kernel(types.void(WORDS, WORDS, GIVEN))
def unpack(facts: Words, plan: Words, given: Words) -> None:
    """Read fragments of keys into a shard that has room for them."""
    shard, program = words_at(facts.ctypes.data), words_at(plan.ctypes.data)
    records, data, i = words_at(shard[RECORDS]), words_at(given.ctypes.data), 0
    while i < len(given):
        id0, id1 = data[i + ID0], data[i + ID1]
        first, count = data[i + ORIGIN], data[i + RUN]
        hashed = hash_of(program, id0, id1)
        r, slot = find_key(shard, program[RECORD], id0, id1, hashed)
        if r < 0:
            r = _begun(shard, program, data, i, slot, hashed)
        rows = rows_of(shard, program, records, r)
        i = _unpack_rows(rows, first, count, data, i + program[RECORD])
        i = _unpack_texts(rows, first, count, data, i)
        if first + count == records[r + BASE] + records[r + COUNT]:
            _tables(program, records, r, rows)
