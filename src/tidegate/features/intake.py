"""Columns to rows of words in the order of their shards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import (
    DESCRIPTION,
    FORM,
    GIVEN,
    INT,
    OFFSET,
    VALID,
    VALUES,
    WORDS,
    identify,
    is_null,
    name_words,
    word_of,
)
from tidegate.features.layout import FLAGS, KEY0, KEY1, PLAIN, SPAN, TEXT, WIDTH
from tidegate.features.memory import Words, kernel, words_at

_TOGETHER = 128  # rows


@inline
def describe(described: Words, slots: Words, places: Words, count: int) -> None:
    """Write where the columns lie into their descriptions; that of column c has `slots[c]`."""
    for c in range(count):
        for w in range(DESCRIPTION - 1):
            described[DESCRIPTION * c + VALUES + w] = places[(DESCRIPTION - 1) * slots[c] + w]


@inline
def names_of(given: Words, program: Words, keys: int, first: int, last: int, ids: Words) -> None:
    """Identity (two words) and hash of the keys of rows [first, last), into `ids`."""
    k0, k1 = program[KEY0], program[KEY1]
    if keys == 1 and given[FORM] == PLAIN and given[VALID] == 0:
        name_words(words_at(given[VALUES] + 8 * given[OFFSET]), first, last, k0, k1, ids)
        return
    for i in range(first, last):
        a, b, h = identify(given, keys, i, k0, k1)
        ids[3 * i], ids[3 * i + 1], ids[3 * i + 2] = a, b, h


@kernel(types.void(WORDS, WORDS, INT, INT, INT, WORDS))
def name_keys(columns: Words, program: Words, keys: int, first: int, last: int, ids: Words) -> None:
    """As `names_of`."""
    given, named = words_at(columns.ctypes.data), words_at(ids.ctypes.data)
    names_of(given, words_at(program.ctypes.data), keys, first, last, named)


@inline
def ranks_of(ids: Words, shards: int, bounds: Words, order: Words, ranks: Words, n: int) -> None:
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


@kernel(types.void(WORDS, INT, WORDS, WORDS, WORDS, INT))
def place(ids: Words, shards: int, bounds: Words, order: Words, ranks: Words, n: int) -> None:
    """As `ranks_of`."""
    ranks_of(ids, shards, bounds, order, ranks, n)


@inline
def list_groups(groups: int, work: Words, n: int, lo: int, hi: int) -> None:
    """List the rows [lo, hi) group by group; instead of how many it has, where each ends is known.

    A chain from row to row would be waited for at each of them.
    """
    top = lo
    for g in range(2 * n + lo, 2 * n + lo + groups):
        count = work[g]
        work[g] = top
        top += count
    for k in range(lo, hi):
        g = 2 * n + work[k]
        place = work[g]
        work[4 * n + place], work[g] = k, place + 1


class Part(NamedTuple):
    """Rows [first, last) of a batch, and where among those in the order of shards each goes."""

    first: int
    last: int
    rows: Words
    ranks: Words
    width: int


@inline
def _mark_nulls(given: Words, c: int, v: int, part: Part) -> None:
    """Set flag v in the rows of a part where the column described from word c on is null."""
    if given[c + VALID] != 0:
        word, bit = 1 + v // FLAGS, np.int64(1) << (v % FLAGS)
        for i in range(part.first, part.last):
            if is_null(given, c, i):
                part.rows[part.ranks[i] * part.width + word] |= bit


@inline
def _mark_met(given: Words, c: int, v: int, part: Part) -> None:
    """Set flag v in the rows of a part where the condition is met."""
    word, bit = 1 + v // FLAGS, np.int64(1) << (v % FLAGS)
    for i in range(part.first, part.last):
        if not is_null(given, c, i) and word_of(given, c, i, 0, 0) != 0:
            part.rows[part.ranks[i] * part.width + word] |= bit


@inline
def _write_words(given: Words, c: int, word: int, part: Part, k0: int, k1: int) -> None:
    """Write the column described from word c on into a word of each row of a part."""
    if given[c + FORM] == PLAIN and given[c + VALID] == 0:
        values = words_at(given[c + VALUES] + 8 * given[c + OFFSET])
        for i in range(part.first, part.last):
            part.rows[part.ranks[i] * part.width + word] = values[i]
        return
    for i in range(part.first, part.last):
        there = part.ranks[i] * part.width + word
        if is_null(given, c, i):
            part.rows[there] = 0 if given[c + FORM] != TEXT else i
        else:
            part.rows[there] = word_of(given, c, i, k0, k1)


class Source(NamedTuple):
    """What rows are made of besides columns, by row, and what is written of each beside them."""

    times: Words
    newest: Words
    named: Words
    horizons: Words
    ids: Words


@inline
def rows_from(given: Words, shape: Words, program: Words, source: Source, part: Part) -> None:
    """Write the rows of a part, their horizons and names, where their ranks say.

    `shape` is (flags, values, filters, words, keys): behind the keys come the value columns whose
    nulls count, then the filters, then the columns of the words.
    """
    flags, values, filters, words = shape[0], shape[1], shape[2], shape[3]
    rows, width, k0, k1 = part.rows, part.width, program[KEY0], program[KEY1]
    ids, horizons, span = source.ids, source.horizons, program[SPAN]
    for i in range(part.first, part.last):
        k = part.ranks[i]
        rows[k * width], horizons[k] = source.times[i], source.newest[i] - span
        for w in range(3):
            ids[3 * k + w] = source.named[3 * i + w]
        for f in range(flags):
            rows[k * width + 1 + f] = 0
    c = DESCRIPTION * shape[4]
    for v in range(values):
        _mark_nulls(given, c + DESCRIPTION * v, v, part)
    for v in range(values, values + filters):
        _mark_met(given, c + DESCRIPTION * v, v, part)
    c += DESCRIPTION * (values + filters)
    for w in range(words):
        _write_words(given, c + DESCRIPTION * w, 1 + flags + w, part, k0, k1)


@kernel(
    types.void(*(WORDS, WORDS, GIVEN, GIVEN, WORDS, WORDS, WORDS, INT, INT), *(WORDS, WORDS, WORDS))
)
def load(
    columns: Words,
    shape: Words,
    times: Words,
    newest: Words,
    program: Words,
    ranks: Words,
    named: Words,
    first: int,
    last: int,
    rows: Words,
    horizons: Words,
    ids: Words,
) -> None:
    """Write the rows [first, last) of a batch as `rows_from` does.

    A few at a time are written column by column, so that they stay near the processor meanwhile.
    """
    source = Source(
        words_at(times.ctypes.data),
        words_at(newest.ctypes.data),
        words_at(named.ctypes.data),
        words_at(horizons.ctypes.data),
        words_at(ids.ctypes.data),
    )
    laid, given = words_at(program.ctypes.data), words_at(columns.ctypes.data)
    written, ranked = words_at(rows.ctypes.data), words_at(ranks.ctypes.data)
    for begun in range(first, last, _TOGETHER):
        part = Part(begun, min(last, begun + _TOGETHER), written, ranked, laid[WIDTH])
        rows_from(given, words_at(shape.ctypes.data), laid, source, part)
