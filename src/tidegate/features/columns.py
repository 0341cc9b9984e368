"""Columns of Arrow on their way in and out: keys to identities, values to words, words to columns.

A column is described by five words: its form, and the addresses of its values, its validity and
its bounds (0: none), and where in them its rows begin.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from tidegate.events.fingerprints import SIP_START, inline, sip_round
from tidegate.features.layout import BOOLEAN, DECIMAL, HASHED, PLAIN, TEXT
from tidegate.features.memory import Words, bounds_at, bytes_at, real, unfolded, words_at
from tidegate.schema import ColumnType, Kind

FORM, VALUES, VALID, BOUNDS, OFFSET = range(5)
DESCRIPTION = 5
DOUBLE_KEY = 8  # the form of a double where it is a key: -0.0 is 0.0, all NaN are one

WORDS = types.int64[::1]
BYTES = types.uint8[::1]
GIVEN = types.Array(types.int64, 1, "C", readonly=True)  # what others own may be read-only
INT = types.int64

_EE, _DD, _FF = np.uint64(0xEE), np.uint64(0xDD), np.uint64(0xFF)

_State = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

_FORMS = {Kind.DECIMAL: DECIMAL, Kind.BOOLEAN: BOOLEAN, Kind.TEXT: TEXT, Kind.JSON: TEXT}


def key_form(kind: ColumnType) -> int:
    """The form of a key column."""
    return DOUBLE_KEY if kind.kind is Kind.DOUBLE else _FORMS.get(kind.kind, PLAIN)


@inline
def _absorb(state: _State, word: np.uint64) -> _State:
    v0, v1, v2, v3 = state
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return v0 ^ word, v1, v2, v3


@inline
def _begin(k0: int, k1: int) -> _State:
    a, b = np.uint64(k0), np.uint64(k1)
    return SIP_START[0] ^ a, SIP_START[1] ^ b ^ _EE, SIP_START[2] ^ a, SIP_START[3] ^ b


@inline
def _finish(state: _State) -> tuple[Any, Any]:
    """The 128 bits of SipHash-2-4."""
    v0, v1, v2, v3 = state
    v2 ^= _EE
    for _ in range(4):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    first = v0 ^ v1 ^ v2 ^ v3
    v1 ^= _DD
    for _ in range(4):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return np.int64(first), np.int64(v0 ^ v1 ^ v2 ^ v3)


@unfolded
def _hash_of_word(k0: int, k1: int, word: np.uint64) -> int:
    """The first of the two words that `_finish` gives for one word.

    Without calls, so that a loop over it goes through several rows at once.
    """
    v0, v1, v2, v3 = _begin(k0, k1)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3 ^ word)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = sip_round(v0 ^ word, v1, v2 ^ _EE, v3)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    return int(np.int64(v0 ^ v1 ^ v2 ^ v3))


@unfolded
def name_words(values: Words, first: int, last: int, k0: int, k1: int, ids: Words) -> None:
    """What `identify` gives for the rows of one column of words without nulls."""
    for i in range(first, last):
        word = values[i]
        hashed = _hash_of_word(k0, k1, np.uint64(word))
        ids[3 * i], ids[3 * i + 1], ids[3 * i + 2] = word, 0, hashed


@inline
def _absorb_text(state: _State, start: int, size: int) -> _State:
    """Take in the length, then the bytes, eight at a time."""
    state = _absorb(state, np.uint64(size + 2))
    whole = size >> 3
    for k in range(whole):
        state = _absorb(state, np.uint64(words_at(start + 8 * k)[0]))
    rest, tail = size & 7, np.uint64(0)
    for k in range(rest):
        tail |= np.uint64(bytes_at(start)[8 * whole + k]) << np.uint64(8 * k)
    return _absorb(state, tail) if rest > 0 else state


@inline
def is_null(columns: Words, c: int, i: int) -> bool:
    """Whether row i of the column described from word c on is null."""
    if columns[c + VALID] == 0:
        return False
    k = columns[c + OFFSET] + i
    return bool(((bytes_at(columns[c + VALID])[k >> 3] >> (k & 7)) & 1) == 0)


@inline
def text_of(columns: Words, c: int, i: int) -> tuple[Any, Any]:
    """Where the text of row i begins, and how many bytes it has."""
    bounds, k = bounds_at(columns[c + BOUNDS]), columns[c + OFFSET] + i
    return columns[c + VALUES] + np.int64(bounds[k]), np.int64(bounds[k + 1] - bounds[k])


@inline
def word_of(columns: Words, c: int, i: int, k0: int, k1: int) -> int:
    """The word of a value that is not null; for a text that must come back, its row."""
    form, k = columns[c + FORM], columns[c + OFFSET] + i
    if form == PLAIN:
        return int(words_at(columns[c + VALUES])[k])
    if form == DECIMAL:
        return int(words_at(columns[c + VALUES])[2 * k])
    if form == BOOLEAN:
        return int((np.int64(bytes_at(columns[c + VALUES])[k >> 3]) >> (k & 7)) & 1)
    if form == HASHED:
        start, size = text_of(columns, c, i)
        return int(_finish(_absorb_text(_begin(k0, k1), start, size))[0])
    if form == DOUBLE_KEY:
        word = words_at(columns[c + VALUES])[k]
        x = real(word)
        if math.isnan(x):
            return 0x7FF8000000000000
        return 0 if x == 0.0 else int(word)
    return i


@inline
def rehash(id0: int, id1: int, k0: int, k1: int, hashed: int) -> int:
    """The seeded hash of an identity, which may be a hash already."""
    if hashed:
        return id0
    return int(_hash_of_word(k0, k1, np.uint64(id0) ^ (np.uint64(id1) << np.uint64(63))))


@inline
def identify(columns: Words, keys: int, i: int, k0: int, k1: int) -> tuple[int, int, int]:
    """The identity of a row's key, 128 bits, and a seeded hash of it.

    One column of a fixed width is its own identity. Else it is a keyed hash of each value after a
    word that tells null (0), a fixed width (1) and the length of a text (2 more) apart.
    """
    if keys == 1 and columns[FORM] != TEXT:
        word, tag = 0, 1
        if not is_null(columns, 0, i):
            word, tag = word_of(columns, 0, i, k0, k1), 0
        return word, tag, rehash(word, tag, k0, k1, 0)
    state = _begin(k0, k1)
    for column in range(keys):
        c = DESCRIPTION * column
        if is_null(columns, c, i):
            state = _absorb(state, np.uint64(0))
        elif columns[c + FORM] == TEXT:
            start, size = text_of(columns, c, i)
            state = _absorb_text(state, start, size)
        else:
            state = _absorb(state, np.uint64(1))
            state = _absorb(state, np.uint64(word_of(columns, c, i, k0, k1)))
    a, b = _finish(state)
    return a, b, a
