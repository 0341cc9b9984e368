"""Memory asked for ahead of its use, so that the waits for it overlap."""

from __future__ import annotations

from tidegate.events.fingerprints import inline
from tidegate.features.distinct import SHORT, foresee_distinct
from tidegate.features.history import CHUNK_BITS, Rows, at, rows_of
from tidegate.features.inputs import Batch
from tidegate.features.keys import home_of
from tidegate.features.layout import (
    BASE,
    CALLS,
    COUNT,
    DISTINCTS,
    DISTINCTS_AT,
    FRAMES,
    HEADER,
    RECORD,
    WIDTH,
)
from tidegate.features.memory import (
    DIRECTORY,
    DONE_GROUPS,
    GROUPS,
    HEAP,
    RECORDS,
    TABLE,
    TABLE_BITS,
    Words,
    prefetch,
    words_at,
)

# Rows and keys whose memory is asked for together, ahead of its use: enough for the waits to
# overlap, few enough for all of it to stay near the processor.
TILE = 32
LINE = 64
_LEAVING = 3  # rows that are asked for ahead of their leaving a frame
_TOLD_APART = 2  # of them, those whose values are looked for in tables
_NEAR = 2048  # rows
AHEAD = 24  # rows between asking for memory and its use where each row's is known at once


@inline
def foresee_slots(directory: int, shards: int, ids: Words, lo: int, hi: int) -> None:
    """Ask for the slots of the tables in which names [lo, hi), of any shards, have their keys."""
    for k in range(lo, hi):
        hashed = ids[3 * k + 2]
        shard = words_at(directory + 8 * DIRECTORY * (hashed & (shards - 1)))
        prefetch(shard[TABLE] + 8 * home_of(hashed, shard[TABLE_BITS]))


@inline
def _ask(first: int, last: int) -> None:
    """Ask for the memory from an address on to before the last one."""
    for line in range(first, last, LINE):
        prefetch(line)
    prefetch(last - 1)


@inline
def foresee_keys(
    directory: int, shards: int, program: Words, batch: Batch, lo: int, hi: int, words: int
) -> None:
    """Ask for the first words of the records of the keys of rows [lo, hi), of any shards."""
    for k in range(lo, hi):
        prefetch(batch.address + 8 * k * program[WIDTH])
        hashed = batch.ids[3 * k + 2]
        shard = words_at(directory + 8 * DIRECTORY * (hashed & (shards - 1)))
        table, bits = words_at(shard[TABLE]), shard[TABLE_BITS]
        slot = home_of(hashed, bits)
        while table[slot] != 0 and (table[slot] ^ hashed) >> 32 != 0:
            slot = (slot + 1) & ((1 << bits) - 1)
        if table[slot] != 0:
            record = shard[RECORDS] + 8 * (table[slot] & 0xFFFFFFFF) * program[RECORD]
            _ask(record, record + 8 * words)


@inline
def foresee_records(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for the records of the next groups of a shard, and for what is known of their first rows.

    It was near the processor when the rows were grouped, but many other rows came since.
    """
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    firsts = words_at(batch.work + 8 * (batch.n + lo))
    row, results = 8 * program[WIDTH], 8 * program[CALLS]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        record = shard[RECORDS] + 8 * work[g]
        _ask(record, record + 8 * program[RECORD])
        k = firsts[g]
        _ask(batch.address + row * k, batch.address + row * (k + 1))
        for line in range(0, results, LINE):
            prefetch(batch.results + results * k + line)


@inline
def foresee_run(program: Words, batch: Batch, start: int, end: int) -> None:
    """Ask for the listed rows from `start` to before `end`, and for what is known of them.

    A small batch is near since it was read.
    """
    if batch.n <= _NEAR:
        return
    row, results = 8 * program[WIDTH], 8 * program[CALLS]
    listed = words_at(batch.work + 8 * 4 * batch.n)
    for x in range(start, end):
        k = listed[x]
        prefetch(batch.address + row * k)
        prefetch(batch.address + row * (k + 1) - 8)
        prefetch(batch.horizon + 8 * k)
        prefetch(batch.results + results * k)
        prefetch(batch.results + results * (k + 1) - 8)


@inline
def foresee_places(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for what says where the next groups' rows and values lie.

    That is the lists of their chunks, and the pairs of their first rows' values in tables.
    """
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    firsts, c = words_at(batch.work + 8 * (batch.n + lo)), program[DISTINCTS_AT]
    records, count = words_at(shard[RECORDS]), program[DISTINCTS]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        r = work[g]
        rows = rows_of(shard, program, records, r)
        if rows.chunked > 0:
            chunks, base = shard[HEAP] + 8 * rows.block, records[r + BASE] - rows.origin
            prefetch(chunks + 8 * (base >> CHUNK_BITS))
            prefetch(chunks + 8 * ((base + records[r + COUNT]) >> CHUNK_BITS))
            for frame in range(program[FRAMES]):
                s = records[r + HEADER + 2 * frame]
                prefetch(chunks + 8 * ((s - rows.origin) >> CHUNK_BITS))
        for d in range(count):
            table = records[r + program[c + d] + 1]
            if table != 0:
                word = program[c + count + 2 * d]
                foresee_distinct(rows, table, batch.rows[firsts[g] * rows.width + word])


@inline
def foresee_rows(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for the rows that the next groups' frames begin with, the oldest, and the next to come.

    Of a frame it is as many as may leave it, and all of them where its values are looked through.
    """
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    records, heap = words_at(shard[RECORDS]), shard[HEAP]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        r = work[g]
        if records[r + COUNT] > 0:
            rows = rows_of(shard, program, records, r)
            base, size = records[r + BASE], 8 * rows.width
            last = base + records[r + COUNT]
            oldest, end = heap + 8 * at(rows, base), heap + 8 * at(rows, last - 1) + 2 * size
            if rows.chunked == 0 and end - oldest <= 16 * LINE:
                _ask(oldest, end)
            else:
                _ask(end - size, end)
                _ask(oldest, oldest + _LEAVING * size + 8)
                for frame in range(program[FRAMES]):
                    s = records[r + HEADER + 2 * frame]
                    if s < last:
                        start = heap + 8 * at(rows, s)
                        _ask(start, start + _LEAVING * size + 8)
                _foresee_short(rows, program, records, r, last, end)


@inline
def _foresee_short(rows: Rows, program: Words, records: Words, r: int, last: int, end: int) -> None:
    """Ask for the rows before `last` of frames that are short enough to be looked through."""
    c, count = program[DISTINCTS_AT], program[DISTINCTS]
    for d in range(count):
        s = records[r + HEADER + 2 * program[c + count + 2 * d + 1]]
        if records[r + program[c + d] + 1] == 0 and s < last:
            start = rows.shard[HEAP] + 8 * at(rows, s)
            _ask(start, min(end, start + 8 * SHORT * rows.width))


@inline
def foresee_tables(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for the pairs of the values that leave first for the next groups' rows."""
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    records, count, c = words_at(shard[RECORDS]), program[DISTINCTS], program[DISTINCTS_AT]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        r = work[g]
        for d in range(count):
            table = records[r + program[c + d] + 1]
            if table != 0:
                rows, word = rows_of(shard, program, records, r), program[c + count + 2 * d]
                s = records[r + HEADER + 2 * program[c + count + 2 * d + 1]]
                last = records[r + BASE] + records[r + COUNT] - 1
                for p in range(s, min(s + _TOLD_APART, last)):
                    foresee_distinct(rows, table, rows.heap[at(rows, p) + word])
