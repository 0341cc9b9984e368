"""The keys of a shard: found, entered and freed."""

from __future__ import annotations

import numpy as np
from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import INT, WORDS, rehash
from tidegate.features.distinct import drop_table
from tidegate.features.history import free_rows, rows_of
from tidegate.features.layout import (
    BASE,
    BLOCK,
    COUNT,
    DISTINCTS,
    DISTINCTS_AT,
    FREED,
    FRONTIER,
    HASHED_KEYS,
    ID0,
    ID1,
    KEY0,
    KEY1,
    NEVER,
    RECORD,
    RUN,
)
from tidegate.features.memory import (
    CURSOR,
    KEYS,
    RECORDS,
    RECORDS_FREE,
    RECORDS_USED,
    TABLE,
    TABLE_BITS,
    Words,
    kernel,
    prefetch,
    words_at,
)
from tidegate.features.packing import guard_rows, is_awaited, keep_key, keep_out

# Keys of a shard: an open-addressing table of (32 bits of the hash, record).

FEW_STEPS = 32  # of a sweep, which are foreseen together


@inline
def home_of(entry: int, bits: int) -> int:
    """The slot where an entry is looked for first."""
    return int(np.int64(np.uint64(entry) >> np.uint64(64 - bits)))


@inline
def hash_of(program: Words, id0: int, id1: int) -> int:
    """The seeded hash of an identity."""
    return rehash(id0, id1, program[KEY0], program[KEY1], program[HASHED_KEYS])


@inline
def find_key(shard: Words, width: int, id0: int, id1: int, hashed: int) -> tuple[int, int]:
    """Where a key's record begins (-1: none), and the slot where it is or would be."""
    table, bits = words_at(shard[TABLE]), shard[TABLE_BITS]
    records = words_at(shard[RECORDS])
    mask, slot = (1 << bits) - 1, home_of(hashed, bits)
    while table[slot] != 0:
        if (table[slot] ^ hashed) >> 32 == 0:
            r = (table[slot] & 0xFFFFFFFF) * width
            if records[r + ID0] == id0 and records[r + ID1] == id1:
                return r, slot
        slot = (slot + 1) & mask
    return -1, slot


@inline
def create_key(shard: Words, width: int, id0: int, id1: int, hashed: int, slot: int) -> int:
    """A record for a new key; there is room in the records and in the table."""
    records = words_at(shard[RECORDS])
    index = shard[RECORDS_FREE]
    if index != 0:
        shard[RECORDS_FREE] = records[index * width + BLOCK]
    else:
        index = shard[RECORDS_USED]
        shard[RECORDS_USED] += 1
    r = index * width
    keep_out(shard, index, r)
    for k in range(width):
        records[r + k] = 0
    records[r + ID0], records[r + ID1] = id0, id1
    records[r + FRONTIER], records[r + RUN] = NEVER, -1
    words_at(shard[TABLE])[slot] = ((hashed >> 32) << 32) | index
    shard[KEYS] += 1
    return int(r)


@inline
def _forget(shard: Words, program: Words, r: int) -> None:
    """Free a key: its rows, tables, record and entry."""
    records, width = words_at(shard[RECORDS]), program[RECORD]
    keep_key(shard, program, r)
    base = records[r + BASE]
    guard_rows(shard, program, records, r, base, base + records[r + COUNT])
    empty_key(shard, program, records, r)
    hashed = hash_of(program, records[r + ID0], records[r + ID1])
    slot = find_key(shard, width, records[r + ID0], records[r + ID1], hashed)[1]
    table, bits = words_at(shard[TABLE]), shard[TABLE_BITS]
    mask = (1 << bits) - 1
    gap, i = slot, (slot + 1) & mask
    while table[i] != 0:  # move entries back over the gap (Knuth, 6.4 R)
        if ((i - home_of(table[i], bits)) & mask) >= ((i - gap) & mask):
            table[gap] = table[i]
            gap = i
        i = (i + 1) & mask
    table[gap] = 0
    records[r + FRONTIER], records[r + BLOCK] = FREED, shard[RECORDS_FREE]
    shard[RECORDS_FREE] = r // width
    shard[KEYS] -= 1


@inline
def empty_key(shard: Words, program: Words, records: Words, r: int) -> None:
    """Free the rows and tables of a key."""
    rows = rows_of(shard, program, records, r)
    for k in range(program[DISTINCTS]):
        drop_table(records, r + program[program[DISTINCTS_AT] + k], rows)
    free_rows(shard, program, records, r)


@inline
def foresee_sweep(shard: Words, program: Words, steps: int) -> None:
    """Ask for what `sweep_keys` is going to look at in at most `FEW_STEPS` steps."""
    if steps <= FEW_STEPS:
        first = shard[RECORDS] + 8 * ((shard[CURSOR] + 1) * program[RECORD] + FRONTIER)
        for step in range(steps):
            prefetch(first + 8 * step * program[RECORD])


@inline
def sweep_keys(shard: Words, program: Words, horizon: int, steps: int) -> None:
    """Free keys whose rows all lie before the horizon, looking at so many records."""
    records, width = words_at(shard[RECORDS]), program[RECORD]
    for _ in range(min(steps, shard[RECORDS_USED] - 1)):
        index = shard[CURSOR] + 1
        if index >= shard[RECORDS_USED]:
            index = 1
        shard[CURSOR] = index
        if steps > FEW_STEPS:
            prefetch(shard[RECORDS] + 8 * ((index + 8) * width + FRONTIER))
        frontier = records[index * width + FRONTIER]
        dead = frontier != FREED and frontier < horizon
        if dead and not is_awaited(shard, index * width):
            _forget(shard, program, index * width)


@kernel(types.void(WORDS, INT, WORDS, WORDS))
def rebuild_table(old: Words, bits: int, new: Words, shard: Words) -> None:
    """Enter the entries of a table into a larger one of 2^bits slots."""
    mask = (1 << bits) - 1
    for k in range(1 << shard[TABLE_BITS]):
        if old[k] != 0:
            slot = home_of(old[k], bits)
            while new[slot] != 0:
                slot = (slot + 1) & mask
            new[slot] = old[k]
