"""The words that calls gave to Arrow's buffers, in the order of the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import BYTES, INT, WORDS
from tidegate.features.foresight import LINE
from tidegate.features.layout import BOOLEAN, DECIMAL
from tidegate.features.memory import HEAP, Words, bytes_at, kernel, prefetch, words_at

_BLOCK = 32  # rows that are written column by column, while what they were given stays near
ROOM = _BLOCK  # words of scratch


class Target(NamedTuple):
    """Where a slab lies, how many calls there are, and scratch for `ROOM` words."""

    top: int
    calls: int
    places: Words


@inline
def _emit_valid(states: Any, places: Words, count: int, valid: Any) -> tuple[int, int]:
    """Write the bits of what is valid; how many nulls and how many errors there are."""
    bits, there, errors = 0, 0, 0
    for x in range(count):
        state = int(np.int64(states[places[x]]))
        bits |= (state & 1) << x
        there += state & 1
        errors += state >> 1
    for x in range(0, count, 8):
        valid[x >> 3] = (bits >> x) & 255
    return count - there, errors


# What is null is 0: the word and what its state makes of 1, which are all bits.


@inline
def _emit_words(given: Words, states: Any, places: Words, count: int, values: Words) -> None:
    for x in range(count):
        values[x] = given[places[x]] & -np.int64(states[places[x]] & 1)


@inline
def _emit_decimals(given: Words, states: Any, places: Words, count: int, values: Words) -> None:
    for x in range(count):
        word = given[places[x]] & -np.int64(states[places[x]] & 1)
        values[2 * x], values[2 * x + 1] = word, word >> 63


@inline
def _emit_booleans(given: Words, states: Any, places: Words, count: int, values: Any) -> None:
    bits = 0
    for x in range(count):
        bits |= int(given[places[x]] & np.int64(states[places[x]] & 1)) << x
    for x in range(0, count, 8):
        values[x >> 3] = (bits >> x) & 255


@inline
def _foresee_results(
    out: int, status: int, ranks: Words, calls: int, first: int, last: int
) -> None:
    """Ask for what the calls gave for the rows [first, last) of the batch."""
    for i in range(first, last):
        for line in range(out + 8 * calls * ranks[i], out + 8 * calls * (ranks[i] + 1), LINE):
            prefetch(line)
        prefetch(status + calls * ranks[i])


@inline
def columns_from(
    results: tuple[int, int], ranks: Words, first: int, last: int, planned: Words, to: Target
) -> None:
    """Write the rows [first, last) of the batch as Arrow's buffers; `first` is a multiple of 8.

    `results` are where the words and the states of the calls lie. `planned` has five words for
    each call: its form, where in the slab validity and values begin; then come out, added to what
    is there, the number of nulls and of errors.
    """
    (words, marks), (top, calls, places) = results, to
    for i in range(first, last, _BLOCK):
        count = min(_BLOCK, last - i)
        _foresee_results(words, marks, ranks, calls, i + count, min(i + count + _BLOCK, last))
        for x in range(count):
            places[x] = calls * ranks[i + x]
        for call in range(calls):
            c, given, states = 5 * call, words_at(words + 8 * call), bytes_at(marks + call)
            valid, there = bytes_at(top + planned[c + 1] + (i >> 3)), top + planned[c + 2]
            nulls, errors = _emit_valid(states, places, count, valid)
            planned[c + 3] += nulls
            planned[c + 4] += errors
            if planned[c] == BOOLEAN:
                _emit_booleans(given, states, places, count, bytes_at(there + (i >> 3)))
            elif planned[c] == DECIMAL:
                _emit_decimals(given, states, places, count, words_at(there + 16 * i))
            else:
                _emit_words(given, states, places, count, words_at(there + 8 * i))


@kernel(types.void(WORDS, BYTES, WORDS, INT, INT, WORDS, BYTES))
def emit(
    out: Words, status: Any, ranks: Words, first: int, last: int, plan: Words, slab: Any
) -> None:
    """As `columns_from`."""
    scratch = np.empty(ROOM, dtype=np.int64)
    to = Target(slab.ctypes.data, len(plan) // 5, words_at(scratch.ctypes.data))
    results, planned = (out.ctypes.data, status.ctypes.data), words_at(plan.ctypes.data)
    columns_from(results, words_at(ranks.ctypes.data), first, last, planned, to)
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
