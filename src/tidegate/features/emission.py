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

# What is planned of each call: its form, where in a slab its validity and its values begin, how
# many nulls and errors came out, and whether there is a word that stands for null, and which.
FORM, VALID_AT, VALUES_AT, NULLS, ERRORS, FILLED, FILL = range(7)
PLAN = 7

_BLOCK = 32  # rows that are written column by column, while what they were given stays near
ROOM = _BLOCK  # words of scratch


class Target(NamedTuple):
    """Where a slab lies, how many calls there are, and scratch for `ROOM` words."""

    top: int
    calls: int
    places: Words


@inline
def _emit_valid(states: Any, places: Words, count: int, valid: Any, filled: int) -> tuple[int, int]:
    """Write the bits of what is valid; how many nulls and how many errors there are.

    Where nulls are `filled` (1), only errors are not valid.
    """
    bits, there, errors = 0, 0, 0
    for x in range(count):
        state = int(np.int64(states[places[x]]))
        known = (state & 1) | (filled & ~(state >> 1))
        bits |= known << x
        there += known
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
def _emit_filled(
    given: Words, states: Any, places: Words, count: int, values: Words, fill: int
) -> None:
    """As `_emit_words`, with a word in the place of nulls."""
    for x in range(count):
        state = np.int64(states[places[x]])
        word = given[places[x]] & -(state & 1)
        values[x] = word | (fill & (state - 1) & ~-(state >> 1))


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

    `results` are where the words and the states of the calls lie. `planned` has `PLAN` words for
    each call; nulls and errors are added to what is there.
    """
    (words, marks), (top, calls, places) = results, to
    for i in range(first, last, _BLOCK):
        count = min(_BLOCK, last - i)
        _foresee_results(words, marks, ranks, calls, i + count, min(i + count + _BLOCK, last))
        for x in range(count):
            places[x] = calls * ranks[i + x]
        for call in range(calls):
            c, given, states = PLAN * call, words_at(words + 8 * call), bytes_at(marks + call)
            valid, there = bytes_at(top + planned[c + VALID_AT] + (i >> 3)), planned[c + VALUES_AT]
            nulls, errors = _emit_valid(states, places, count, valid, planned[c + FILLED])
            planned[c + NULLS] += nulls
            planned[c + ERRORS] += errors
            if planned[c + FORM] == BOOLEAN:
                _emit_booleans(given, states, places, count, bytes_at(top + there + (i >> 3)))
            elif planned[c + FORM] == DECIMAL:
                _emit_decimals(given, states, places, count, words_at(top + there + 16 * i))
            elif planned[c + FILLED]:
                values = words_at(top + there + 8 * i)
                _emit_filled(given, states, places, count, values, planned[c + FILL])
            else:
                _emit_words(given, states, places, count, words_at(top + there + 8 * i))


@kernel(types.void(WORDS, BYTES, WORDS, INT, INT, WORDS, BYTES))
def emit(
    out: Words, status: Any, ranks: Words, first: int, last: int, plan: Words, slab: Any
) -> None:
    """As `columns_from`."""
    scratch = np.empty(ROOM, dtype=np.int64)
    to = Target(slab.ctypes.data, len(plan) // PLAN, words_at(scratch.ctypes.data))
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
