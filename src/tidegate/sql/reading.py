"""Columns of Arrow as the machine of `registers` reads them; it says how they are described."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate.events.fingerprints import inline
from tidegate.sql.pointers import Words, bounds_at, bytes_at, words_at
from tidegate.sql.steps import BOOLEAN, DECIMAL, IF_EQUAL, IF_GREATER, IF_LESS, PLAIN


@inline
def is_known(columns: Words, c: int, i: int) -> int:
    """1 where row i of the column described from word c on is not null."""
    if columns[c + 2] == 0:
        return 1
    k = columns[c + 4] + i
    return int((np.int64(bytes_at(columns[c + 2])[k >> 3]) >> (k & 7)) & 1)


@inline
def load(columns: Words, c: int, n: int, values: Words, known: Any) -> None:
    """Fill a register with the column described from word c on; of texts what is known alone."""
    form, base, offset = columns[c], columns[c + 1], columns[c + 4]
    for i in range(n):
        known[i] = is_known(columns, c, i)
    if form == PLAIN:
        for i in range(n):
            values[i] = words_at(base)[offset + i]
    elif form == DECIMAL:
        for i in range(n):
            values[i] = words_at(base)[2 * (offset + i)]
    elif form == BOOLEAN:
        for i in range(n):
            k = offset + i
            values[i] = (np.int64(bytes_at(base)[k >> 3]) >> (k & 7)) & 1


@inline
def _compare_texts(a: int, size: int, b: int, other: int) -> int:
    """IF_LESS, IF_EQUAL or IF_GREATER, by bytes."""
    for k in range(min(size, other)):
        x, y = bytes_at(a)[k], bytes_at(b)[k]
        if x != y:
            return IF_LESS if x < y else IF_GREATER
    if size == other:
        return IF_EQUAL
    return IF_LESS if size < other else IF_GREATER


@inline
def _text(columns: Words, c: int, i: int) -> tuple[Any, Any]:
    """Where the text of row i begins, and its bytes."""
    bounds, k = bounds_at(columns[c + 3]), columns[c + 4] + i
    begin = np.int64(bounds[k])
    return columns[c + 1] + begin, np.int64(bounds[k + 1]) - begin


@inline
def compare_with_literal(
    columns: Words, c: int, literal: int, size: int, wanted: int, n: int, values: Words, known: Any
) -> None:
    """Compare texts with one of so many bytes; `wanted` are the outcomes that are true."""
    for i in range(n):
        known[i] = is_known(columns, c, i)
        values[i] = 0
        if known[i]:
            begin, own = _text(columns, c, i)
            values[i] = 1 if _compare_texts(begin, own, literal, size) & wanted else 0


@inline
def compare_with_column(
    columns: Words, c: int, other: int, wanted: int, n: int, values: Words, known: Any
) -> None:
    """Compare the texts of two columns; `wanted` are the outcomes that are true."""
    for i in range(n):
        known[i] = is_known(columns, c, i) & is_known(columns, other, i)
        values[i] = 0
        if known[i]:
            begin, own = _text(columns, c, i)
            there, size = _text(columns, other, i)
            values[i] = 1 if _compare_texts(begin, own, there, size) & wanted else 0


@inline
def find_texts(
    columns: Words, c: int, lists: Words, first: int, count: int, n: int, values: Words, known: Any
) -> None:
    """Look texts up in a list; `lists` has the address and the size of each text."""
    for i in range(n):
        known[i] = is_known(columns, c, i)
        values[i] = 0
        if known[i]:
            begin, own = _text(columns, c, i)
            for k in range(count):
                at = first + 2 * k
                if own == lists[at + 1] and _compare_texts(begin, own, lists[at], own) == IF_EQUAL:
                    values[i] = 1
                    break
