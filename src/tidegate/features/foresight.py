"""Memory asked for ahead of its use, so that the waits for it overlap."""

from __future__ import annotations

from tidegate.events.fingerprints import inline
from tidegate.features.distinct import foresee_distinct
from tidegate.features.history import at, rows_of
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
    RUN,
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
AHEAD = 24  # rows between asking for memory and its use where each row's is known at once


@inline
def foresee_keys(
    directory: int, shards: int, program: Words, batch: Batch, lo: int, hi: int
) -> None:
    """Ask for the memory in which the keys of rows [lo, hi), of any shards, will be found."""
    for k in range(lo, hi):
        hashed = batch.ids[3 * k + 2]
        shard = words_at(directory + 8 * DIRECTORY * (hashed & (shards - 1)))
        prefetch(shard[TABLE] + 8 * home_of(hashed, shard[TABLE_BITS]))
        prefetch(batch.address + 8 * k * program[WIDTH])
    for k in range(lo, hi):
        hashed = batch.ids[3 * k + 2]
        shard = words_at(directory + 8 * DIRECTORY * (hashed & (shards - 1)))
        table, bits = words_at(shard[TABLE]), shard[TABLE_BITS]
        slot = home_of(hashed, bits)
        while table[slot] != 0 and (table[slot] ^ hashed) >> 32 != 0:
            slot = (slot + 1) & ((1 << bits) - 1)
        if table[slot] != 0:
            record = shard[RECORDS] + 8 * (table[slot] & 0xFFFFFFFF) * program[RECORD]
            prefetch(record)
            prefetch(record + 8 * RUN)


@inline
def foresee_records(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for the records of the next groups of a shard, and for what is known of their first rows.

    It was near the processor when the rows were grouped, but many other rows came since.
    """
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    firsts, n = words_at(batch.work + 8 * (batch.n + lo)), batch.n
    row, results = 8 * program[WIDTH], 8 * program[CALLS]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        record = shard[RECORDS] + 8 * work[g]
        for line in range(0, 8 * program[RECORD], LINE):
            prefetch(record + line)
        k, last = firsts[g], firsts[n + g]
        prefetch(batch.work + 8 * k)
        prefetch(batch.address + row * k)
        prefetch(batch.address + row * (k + 1) - 1)
        prefetch(batch.address + row * last)
        for line in range(0, results, LINE):
            prefetch(batch.results + results * k + line)


@inline
def foresee_rows(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for the rows that the frames of the next groups begin with, and for those behind."""
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    records, heap = words_at(shard[RECORDS]), shard[HEAP]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        r = work[g]
        if records[r + COUNT] > 0:
            rows = rows_of(shard, program, records, r)
            base, count = records[r + BASE], records[r + COUNT]
            end = heap + 8 * (at(rows, base + count - 1) + 2 * rows.width)
            if rows.chunked == 0 and 8 * count * rows.width <= 16 * LINE:
                for line in range(heap + 8 * at(rows, base), end, LINE):
                    prefetch(line)
            else:
                for frame in range(program[FRAMES]):
                    s = records[r + HEADER + 2 * frame]
                    if s < base + count:
                        prefetch(heap + 8 * at(rows, s))
                        prefetch(heap + 8 * at(rows, s) + LINE)
            prefetch(end - 1)
            for d in range(program[DISTINCTS]):
                table = records[r + program[program[DISTINCTS_AT] + d] + 1]
                if table != 0:
                    prefetch(heap + 8 * table)


@inline
def foresee_tables(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for what the next groups' first rows, and those that leave for them, find in tables."""
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    firsts = words_at(batch.work + 8 * (batch.n + lo))
    records, count = words_at(shard[RECORDS]), program[DISTINCTS]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        r = work[g]
        for d in range(count):
            c = program[DISTINCTS_AT]
            table = records[r + program[c + d] + 1]
            if table != 0:
                rows, word = rows_of(shard, program, records, r), program[c + count + 2 * d]
                s = records[r + HEADER + 2 * program[c + count + 2 * d + 1]]
                foresee_distinct(rows, table, batch.rows[firsts[g] * rows.width + word])
                foresee_distinct(rows, table, rows.heap[at(rows, s) + word])
