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
    word_of,
)
from tidegate.features.layout import FLAGS, KEY0, KEY1, PLAIN, SPAN, TEXT, WIDTH
from tidegate.features.memory import Words, kernel, words_at

_TOGETHER = 128  # rows


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


class Part(NamedTuple):
    """Rows [first, last) of a batch, and where among those in the order of shards each goes."""

    first: int
    last: int
    rows: Words
    ranks: Words
    width: int


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
    """Write the rows [first, last) of a batch, their horizons and names, where their ranks say.

    `shape` is (flags, values, filters, words): first come the value columns whose nulls count,
    then the filters, then the columns of the words. A few rows at a time are written column by
    column, so that they stay near the processor meanwhile.
    """
    flags, values, filters, words = shape[0], shape[1], shape[2], shape[3]
    width, span, k0, k1 = program[WIDTH], program[SPAN], program[KEY0], program[KEY1]
    given, written = words_at(columns.ctypes.data), words_at(rows.ctypes.data)
    ranked = words_at(ranks.ctypes.data)
    for begun in range(first, last, _TOGETHER):
        part = Part(begun, min(last, begun + _TOGETHER), written, ranked, width)
        for i in range(begun, part.last):
            k = ranked[i]
            written[k * width], horizons[k] = times[i], newest[i] - span
            for w in range(3):
                ids[3 * k + w] = named[3 * i + w]
            for f in range(flags):
                written[k * width + 1 + f] = 0
        for v in range(values):
            _mark_nulls(given, DESCRIPTION * v, v, part)
        for v in range(values, values + filters):
            _mark_met(given, DESCRIPTION * v, v, part)
        for w in range(words):
            c = DESCRIPTION * (values + filters + w)
            _write_words(given, c, 1 + flags + w, part, k0, k1)
