"""The words that calls gave to Arrow's buffers, in the order of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import BYTES, INT, WORDS
from tidegate.features.foresight import AHEAD, LINE
from tidegate.features.layout import BOOLEAN, DECIMAL
from tidegate.features.memory import HEAP, Words, bytes_at, kernel, prefetch, words_at


@inline
def _emit_bits(states: Any, places: Words, count: int) -> tuple[int, int, int]:
    """For up to eight rows the bits of what is valid, how many there are, and how many errors."""
    byte, there, errors = 0, 0, 0
    for x in range(count):
        state = int(np.int64(states[places[x]]))
        byte |= (state & 1) << x
        there += state & 1
        errors += state >> 1
    return byte, there, errors


@inline
def _emit_words(given: Words, byte: int, places: Words, count: int, values: Words) -> None:
    for x in range(count):
        values[x] = given[places[x]] if (byte >> x) & 1 else 0


@inline
def _emit_decimals(given: Words, byte: int, places: Words, count: int, values: Words) -> None:
    for x in range(count):
        word = given[places[x]] if (byte >> x) & 1 else 0
        values[2 * x], values[2 * x + 1] = word, word >> 63


@inline
def _emit_booleans(given: Words, byte: int, places: Words, count: int) -> int:
    bits = 0
    for x in range(count):
        bits |= ((given[places[x]] & 1) << x) if (byte >> x) & 1 else 0
    return bits


@inline
def _foresee_results(
    out: int, status: int, ranks: Words, calls: int, first: int, last: int
) -> None:
    """Ask for what the calls gave for the rows [first, last) of the batch."""
    for i in range(first, last):
        for line in range(out + 8 * calls * ranks[i], out + 8 * calls * (ranks[i] + 1), LINE):
            prefetch(line)
        prefetch(status + calls * ranks[i])


@kernel(types.void(WORDS, BYTES, WORDS, INT, INT, WORDS, BYTES))
def emit(
    out: Words, status: Any, ranks: Words, first: int, last: int, plan: Words, slab: Any
) -> None:
    """Write the rows [first, last) of the batch as Arrow's buffers; `first` is a multiple of 8.

    `plan` has five words for each call: its form, where in `slab` validity and values begin; then
    come out, added to what is there, the number of nulls and of errors.
    """
    top, calls, given = slab.ctypes.data, len(plan) // 5, words_at(out.ctypes.data)
    ranked, planned = words_at(ranks.ctypes.data), words_at(plan.ctypes.data)
    states, scratch = bytes_at(status.ctypes.data), np.empty(8, dtype=np.int64)
    places, at = words_at(scratch.ctypes.data), (out.ctypes.data, status.ctypes.data)
    for i in range(first, last, 8):
        _foresee_results(at[0], at[1], ranked, calls, i + AHEAD, min(i + AHEAD + 8, last))
        count = min(8, last - i)
        for x in range(count):
            places[x] = calls * ranked[i + x]
        for c in range(0, 5 * calls, 5):
            byte, there, errors = _emit_bits(states, places, count)
            bytes_at(top + planned[c + 1])[i >> 3] = byte
            planned[c + 3] += count - there
            planned[c + 4] += errors
            form, to = planned[c], top + planned[c + 2]
            if form == BOOLEAN:
                bytes_at(to)[i >> 3] = _emit_booleans(given, byte, places, count)
            elif form == DECIMAL:
                _emit_decimals(given, byte, places, count, words_at(to + 16 * i))
            else:
                _emit_words(given, byte, places, count, words_at(to + 8 * i))
            for x in range(count):
                places[x] += 1
    slab[len(slab) - 1] = scratch[0] = 0  # what is not used any more may be freed


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
