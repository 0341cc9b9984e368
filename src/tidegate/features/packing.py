"""Snapshots: for each key its record, its rows, then the length and bytes of each row's texts.

Keys are copied in the order of their records, a piece at a time, while updates go on. A key that
is about to change before its turn is kept first, so that an update waits for the keys that it
touches and for no others. `COPIES` has a word for each record: 0 while it is as it was when the
snapshot began, else where it is kept, or -1 where it was no key's.
"""

from __future__ import annotations

from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import WORDS
from tidegate.features.history import CHUNK, Rows, at, rows_of
from tidegate.features.layout import (
    BASE,
    BLOCK,
    CAPACITY,
    COUNT,
    DISTINCTS,
    DISTINCTS_AT,
    FREED,
    FRONTIER,
    ORIGIN,
    RECORD,
    RUN,
    TEXTS,
    TEXTS_AT,
    WIDTH,
)
from tidegate.features.memory import (
    COPIES,
    COPY_END,
    COPY_NEXT,
    KEPT,
    KEPT_TOP,
    RECORDS,
    Words,
    kernel,
    words_at,
)


@inline
def keep_key(shard: Words, program: Words, r: int) -> None:
    """Let a snapshot underway have the key at word r as it is, before it changes or goes."""
    if shard[COPY_NEXT] <= r < shard[COPY_END]:
        copies, index = words_at(shard[COPIES]), r // program[RECORD]
        if copies[index] == 0:
            kept, to = words_at(shard[KEPT]), shard[KEPT_TOP]
            end = _pack_key(shard, program, words_at(shard[RECORDS]), r, kept, to + 1)
            kept[to], copies[index] = end - to - 1, to
            shard[KEPT_TOP] = end


@inline
def keep_out(shard: Words, index: int, r: int) -> None:
    """Let a snapshot underway pass over a record that was no key's when it began."""
    if shard[COPY_NEXT] <= r < shard[COPY_END]:
        copies = words_at(shard[COPIES])
        if copies[index] == 0:
            copies[index] = -1


@inline
def _packed(shard: Words, program: Words, records: Words, r: int) -> int:
    """Words that a key takes in a snapshot."""
    words = program[RECORD] + records[r + COUNT] * program[WIDTH]
    if program[TEXTS] > 0:
        rows = rows_of(shard, program, records, r)
        for p in range(records[r + BASE], records[r + BASE] + records[r + COUNT]):
            for t in range(program[TEXTS]):
                place = rows.heap[at(rows, p) + program[program[TEXTS_AT] + t]]
                words += 1 if place == 0 else 1 + ((rows.heap[place + 1] + 7) >> 3)
    return int(words)


@inline
def behind(rows: Rows, p: int, end: int) -> int:
    """How many of the rows from p to before `end` lie behind each other."""
    if rows.chunked == 0:
        return end - p
    return int(min(end - p, CHUNK - ((p - rows.origin) & (CHUNK - 1))))


@inline
def _pack_rows(rows: Rows, base: int, count: int, out: Words, to: int) -> int:
    p, end = base, base + count
    while p < end:
        piece = behind(rows, p, end)
        start, size = at(rows, p), piece * rows.width
        for k in range(size):
            out[to + k] = rows.heap[start + k]
        to, p = to + size, p + piece
    return to


@inline
def _pack_texts(rows: Rows, base: int, count: int, out: Words, to: int) -> int:
    heap, program = rows.heap, rows.program
    for p in range(base, base + count):
        for t in range(program[TEXTS]):
            place = heap[at(rows, p) + program[program[TEXTS_AT] + t]]
            out[to] = -1 if place == 0 else heap[place + 1]
            to += 1
            if place != 0:
                whole = (heap[place + 1] + 7) >> 3
                for k in range(whole):
                    out[to + k] = heap[place + 2 + k]
                to += whole
    return to


@inline
def _pack_key(shard: Words, program: Words, records: Words, r: int, out: Words, to: int) -> int:
    """Write a key from word `to` of `out` on; gives where that ends."""
    width, base, count = program[RECORD], records[r + BASE], records[r + COUNT]
    for k in range(width):
        out[to + k] = records[r + k]
    # Where things lie is not part of the state, only that they are there.
    out[to + BLOCK] = out[to + CAPACITY] = 0
    out[to + ORIGIN], out[to + RUN] = base, -1
    for d in range(program[DISTINCTS]):
        table = to + program[program[DISTINCTS_AT] + d] + 1
        out[table] = 1 if out[table] != 0 else 0
    rows = rows_of(shard, program, records, r)
    to = _pack_rows(rows, base, count, out, to + width)
    return _pack_texts(rows, base, count, out, to)


@inline
def _to_copy(shard: Words, program: Words, r: int) -> int:
    """Words that the record at word r takes in the snapshot underway, 0 if it was no key's."""
    records, copy = words_at(shard[RECORDS]), words_at(shard[COPIES])[r // program[RECORD]]
    if copy > 0:
        return int(words_at(shard[KEPT])[copy])
    if copy < 0 or records[r + FRONTIER] == FREED:
        return 0
    return _packed(shard, program, records, r)


@inline
def _copy(shard: Words, program: Words, r: int, size: int, out: Words, to: int) -> None:
    """Write the key at word r as it was when the snapshot began."""
    copy = words_at(shard[COPIES])[r // program[RECORD]]
    if copy > 0:
        kept = words_at(shard[KEPT])
        for k in range(size):
            out[to + k] = kept[copy + 1 + k]
    else:
        _pack_key(shard, program, words_at(shard[RECORDS]), r, out, to)


@kernel(types.int64(WORDS, WORDS, WORDS))
def pack(facts: Words, plan: Words, piece: Words) -> int:
    """Copy the next keys of a shard, as many as fit, behind two words: how many, and their words.

    Gives the words that were written, or 0 when no key is left. Where `piece` has no room for the
    next key, gives less than 0: how long it must be, negated.
    """
    shard, program = words_at(facts.ctypes.data), words_at(plan.ctypes.data)
    out, keys, to, size = words_at(piece.ctypes.data), 0, 2, 0
    while shard[COPY_NEXT] < shard[COPY_END]:
        r = shard[COPY_NEXT]
        size = _to_copy(shard, program, r)
        if to + size > len(piece):
            break
        if size > 0:
            _copy(shard, program, r, size, out, to)
            keys, to = keys + 1, to + size
        shard[COPY_NEXT] = r + program[RECORD]
    out[0], out[1] = keys, to - 2
    if keys > 0:
        return to
    return -(2 + size) if shard[COPY_NEXT] < shard[COPY_END] else 0
