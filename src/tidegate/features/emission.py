"""The words that calls gave to Arrow's buffers, in the order of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import BYTES, INT, WORDS
from tidegate.features.foresight import AHEAD
from tidegate.features.layout import BOOLEAN, DECIMAL
from tidegate.features.memory import HEAP, Words, bytes_at, kernel, prefetch, words_at


@inline
def _emit_valid(states: Any, ranks: Words, n: int, valid: Any) -> tuple[int, int]:
    """Write the bits of what is valid; how many nulls there are, errors among them."""
    nulls, errors, byte = 0, 0, 0
    for i in range(n):
        state = int(states[ranks[i]])
        there = state & 1
        nulls += 1 - there
        errors += state >> 1
        byte |= there << (i & 7)
        if i & 7 == 7:
            valid[i >> 3] = byte
            byte = 0
    if n & 7 != 0:
        valid[n >> 3] = byte
    return nulls, errors


@inline
def _emit_byte(
    given: Words, states: Any, ranks: Words, first: int, last: int, values: Words
) -> tuple[int, int]:
    """Write up to eight words; the bits of what is valid, and how many errors there are."""
    byte, errors = 0, 0
    for i in range(first, last):
        state = int(states[ranks[i]])
        there = state & 1
        values[i] = given[ranks[i]] if there else 0
        byte |= there << (i - first)
        errors += state >> 1
    return byte, errors


@inline
def _emit_words(
    given: int, states: Any, ranks: Words, n: int, valid: Any, values: Words
) -> tuple[int, int]:
    """Write words and the bits of what is valid; how many nulls there are, errors among them."""
    there, errors, words, whole = 0, 0, words_at(given), n & ~7
    for first in range(0, whole, 8):
        if first + AHEAD + 8 <= n:
            for i in range(first + AHEAD, first + AHEAD + 8):
                prefetch(given + 8 * ranks[i])
        byte, wrong = _emit_byte(words, states, ranks, first, first + 8, values)
        valid[first >> 3] = byte
        there, errors = there + _ones(byte), errors + wrong
    if whole < n:
        byte, wrong = _emit_byte(words, states, ranks, whole, n, values)
        valid[whole >> 3] = byte
        there, errors = there + _ones(byte), errors + wrong
    return n - there, errors


@inline
def _ones(byte: int) -> int:
    """How many bits of a byte are set."""
    pairs = byte - ((byte >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return (fours + (fours >> 4)) & 0xF


@inline
def _emit_decimals(given: Words, states: Any, ranks: Words, n: int, values: Words) -> None:
    for i in range(n):
        k = ranks[i]
        word = given[k] if states[k] == 1 else 0
        values[2 * i], values[2 * i + 1] = word, word >> 63


@inline
def _emit_booleans(given: Words, states: Any, ranks: Words, n: int, values: Any) -> None:
    for i in range(n):
        if i & 7 == 0:
            values[i >> 3] = 0
        if states[ranks[i]] == 1:
            values[i >> 3] |= (given[ranks[i]] & 1) << (i & 7)


@kernel(types.void(WORDS, BYTES, WORDS, INT, WORDS, INT, INT, BYTES))
def emit(
    out: Words, status: Any, ranks: Words, n: int, plan: Words, first: int, last: int, slab: Any
) -> None:
    """Write the results of the calls [first, last) as Arrow's buffers, rows in the batch's order.

    `plan` has five words for each: its form, where in `slab` validity and values begin; then come
    out the number of nulls and of errors.
    """
    top = slab.ctypes.data
    for c in range(first, last):
        form, address = plan[5 * c], out.ctypes.data + 8 * c * n
        given, place = words_at(address), words_at(ranks.ctypes.data)
        states = bytes_at(status.ctypes.data + c * n)
        valid, to = bytes_at(top + plan[5 * c + 1]), top + plan[5 * c + 2]
        if form in (BOOLEAN, DECIMAL):
            found = _emit_valid(states, place, n, valid)
            if form == BOOLEAN:
                _emit_booleans(given, states, place, n, bytes_at(to))
            else:
                _emit_decimals(given, states, place, n, words_at(to))
        else:
            found = _emit_words(address, states, place, n, valid, words_at(to))
        plan[5 * c + 3], plan[5 * c + 4] = found
    slab[len(slab) - 1] = 0  # what is not used any more may be freed


@kernel(types.int64(types.int64[:, ::1], WORDS, WORDS, WORDS, INT, types.int32[::1]))
def measure(directory: Any, ids: Words, ranks: Words, places: Words, n: int, bounds: Any) -> int:
    """The bounds of the texts at `places` in the heaps of their rows' shards; how long they are."""
    total = 0
    bounds[0] = 0
    for i in range(n):
        if places[i] != 0:
            shard = directory[ids[3 * ranks[i] + 2] & (len(directory) - 1)]
            total += words_at(shard[HEAP])[places[i] + 1]
        bounds[i + 1] = total
    return total


@kernel(types.void(types.int64[:, ::1], WORDS, WORDS, WORDS, INT, types.int32[::1], BYTES))
def spell(
    directory: Any, ids: Words, ranks: Words, places: Words, n: int, bounds: Any, data: Any
) -> None:
    """Write the texts at `places` between their bounds."""
    for i in range(n):
        if places[i] != 0:
            shard = directory[ids[3 * ranks[i] + 2] & (len(directory) - 1)]
            text, start = bytes_at(shard[HEAP] + 8 * (places[i] + 2)), np.int64(bounds[i])
            for k in range(np.int64(bounds[i + 1]) - start):
                data[start + k] = text[k]
