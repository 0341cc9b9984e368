"""Columns to rows of words in the order of their shards."""

from __future__ import annotations

import numpy as np
from numba import types

from tidegate.features.columns import (
    DESCRIPTION,
    GIVEN,
    INT,
    WORDS,
    foresee,
    identify,
    is_null,
    word_of,
)
from tidegate.features.foresight import AHEAD
from tidegate.features.layout import KEY0, KEY1, SPAN, TEXT, WIDTH
from tidegate.features.memory import Words, kernel, prefetch, words_at


@kernel(types.void(WORDS, WORDS, INT, INT, INT, WORDS))
def name_keys(columns: Words, program: Words, keys: int, first: int, last: int, ids: Words) -> None:
    """Identity (two words) and hash of the keys of rows [first, last), into `ids`."""
    given = words_at(columns.ctypes.data)
    for i in range(first, last):
        a, b, h = identify(given, keys, i, program[KEY0], program[KEY1])
        ids[3 * i], ids[3 * i + 1], ids[3 * i + 2] = a, b, h


@kernel(types.void(WORDS, INT, WORDS, WORDS, WORDS, INT))
def place(ids: Words, shards: int, bounds: Words, order: Words, ranks: Words, n: int) -> None:
    """Put rows in the order of their shards: `order[k]` is the row at k, `ranks` the inverse.

    Shard s has the places from `bounds[s]` to before `bounds[s + 1]`.
    """
    mask = shards - 1
    for s in range(shards + 2):
        bounds[s] = 0
    for i in range(n):
        bounds[(ids[3 * i + 2] & mask) + 2] += 1
    for s in range(2, shards + 1):
        bounds[s] += bounds[s - 1]
    for i in range(n):
        s = (ids[3 * i + 2] & mask) + 1
        k = bounds[s]
        bounds[s] = k + 1
        order[k], ranks[i] = i, k


@kernel(
    types.void(*(WORDS, WORDS, GIVEN, GIVEN, WORDS, WORDS, WORDS, INT, INT), *(WORDS, WORDS, WORDS))
)
def load(
    columns: Words,
    shape: Words,
    times: Words,
    newest: Words,
    program: Words,
    order: Words,
    named: Words,
    first: int,
    last: int,
    rows: Words,
    horizons: Words,
    ids: Words,
) -> None:
    """Fill the places [first, last) with rows, horizons and the names of keys.

    `shape` is (flags, values, filters, words): first come the value columns whose nulls count,
    then the filters, then the columns of the words.
    """
    flags, values, filters, words = shape[0], shape[1], shape[2], shape[3]
    width, span = program[WIDTH], program[SPAN]
    given = words_at(columns.ctypes.data)
    for k in range(first, last):
        if k + AHEAD < last:  # the rows of a shard lie far apart in the batch
            i = order[k + AHEAD]
            prefetch(times.ctypes.data + 8 * i)
            prefetch(newest.ctypes.data + 8 * i)
            prefetch(named.ctypes.data + 24 * i)
            for w in range(words):
                foresee(given, DESCRIPTION * (values + filters + w), i)
        i, row = order[k], k * width
        rows[row], horizons[k] = times[i], newest[i] - span
        for w in range(3):
            ids[3 * k + w] = named[3 * i + w]
        for f in range(flags):
            rows[row + 1 + f] = 0
        for v in range(values):
            if is_null(given, DESCRIPTION * v, i):
                rows[row + 1 + v // 62] |= np.int64(1) << (v % 62)
        for v in range(values, values + filters):
            c = DESCRIPTION * v
            if not is_null(given, c, i) and word_of(given, c, i, 0, 0) != 0:
                rows[row + 1 + v // 62] |= np.int64(1) << (v % 62)
        for w in range(words):
            c = DESCRIPTION * (values + filters + w)
            there = row + 1 + flags + w
            if is_null(given, c, i):
                rows[there] = 0 if given[c] != TEXT else i
            else:
                rows[there] = word_of(given, c, i, program[KEY0], program[KEY1])
