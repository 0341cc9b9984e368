"""A heap without gaps.

Blocks of sizes that nobody asks for any more stay free; where much is free, all that is held moves
to a new heap.
"""

from __future__ import annotations

from typing import Any

from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import INT, WORDS
from tidegate.features.distinct import moved_to, place_of, slots_of
from tidegate.features.history import (
    CHUNK,
    CHUNK_BITS,
    at,
    capacity_of,
    free_deferred,
    rows_of,
    words_of_chunk,
)
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
    TEXTS,
    TEXTS_AT,
    WIDTH,
)
from tidegate.features.memory import (
    HEAP,
    HEAP_TOP,
    HEAP_USED,
    RECORDS,
    RECORDS_USED,
    Words,
    allocate,
    kernel,
    words_at,
)

_SPARSE_WORDS = 4096  # less is not worth moving


@inline
def _move_words(shard: Words, old: Words, place: int, words: int, size: int) -> int:
    """A block of `size` words in the heap, with words of the old one; its place."""
    heap, there = words_at(shard[HEAP]), allocate(shard, size)
    for k in range(words):
        heap[there + k] = old[place + k]
    return there


@inline
def _move_block(shard: Words, program: Words, old: Words, records: Words, r: int) -> None:
    width, capacity, count = program[WIDTH], records[r + CAPACITY], records[r + COUNT]
    start = records[r + BASE] - records[r + ORIGIN]
    if capacity > 0:
        # No larger than it was, so that the new heap is sure to have room.
        size = min(capacity, count + (count >> 3)) * width
        place = records[r + BLOCK] + start * width
        records[r + BLOCK] = _move_words(shard, old, place, count * width, size)
        records[r + CAPACITY] = capacity_of(size, width)
        records[r + ORIGIN] = records[r + BASE]
    elif capacity < 0:
        held = (start + count + CHUNK - 1) >> CHUNK_BITS
        words = -capacity * words_of_chunk(program)
        directory = _move_words(shard, old, records[r + BLOCK], words, words)
        records[r + BLOCK], heap, size = directory, words_at(shard[HEAP]), CHUNK * width
        for k in range(held):
            heap[directory + k] = _move_words(shard, old, heap[directory + k], size, size)


@kernel(types.void(WORDS, WORDS, INT))
def relocate(facts: Words, plan: Words, address: int) -> None:
    """Move all blocks of a shard from the heap at an address to its present one, which is empty."""
    shard, program, old = words_at(facts.ctypes.data), words_at(plan.ctypes.data), words_at(address)
    records, width = words_at(shard[RECORDS]), program[RECORD]
    for index in range(1, shard[RECORDS_USED]):
        r = index * width
        if records[r + FRONTIER] == FREED:
            continue
        _move_block(shard, program, old, records, r)
        rows = rows_of(shard, program, records, r)
        for p in range(records[r + BASE], records[r + BASE] + records[r + COUNT]):
            for t in range(program[TEXTS]):
                at_text = at(rows, p) + program[program[TEXTS_AT] + t]
                place = rows.heap[at_text]
                if place != 0:
                    words = 2 + ((old[place + 1] + 7) >> 3)
                    rows.heap[at_text] = _move_words(shard, old, place, words, words)
        for d in range(program[DISTINCTS]):
            b = r + program[program[DISTINCTS_AT] + d] + 1
            if records[b] != 0:
                words = 2 * slots_of(records[b])
                place = _move_words(shard, old, place_of(records[b]), words, words)
                records[b] = moved_to(records[b], place)


@kernel(types.void(WORDS))
def settle(facts: Words) -> None:
    """Free what the last results still referred to."""
    free_deferred(words_at(facts.ctypes.data))


@kernel(types.int64(types.int64[:, ::1], INT))
def next_sparse(directory: Any, first: int) -> int:
    """The first shard from `first` on much of whose heap is free; their number if there is none."""
    for s in range(first, len(directory)):
        top = directory[s, HEAP_TOP]
        if top > _SPARSE_WORDS and 2 * top > 3 * directory[s, HEAP_USED]:
            return s
    return len(directory)
