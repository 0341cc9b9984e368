# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""The least and the greatest value of a frame."""

from __future__ import annotations

import math
from typing import Any

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import NULL, VALUE, Answer, Operation, passes
from tidegate.features.history import Rows, at
from tidegate.features.memory import Words, real

# Extremes: the number of the row that is best (-1: none) and its rank, by which words of any type
# compare as integers. Law: the rank is that of the frame's best, looked for again when it leaves.


@inline
def rank(word: int, double: int, greatest: int) -> int:
    """An integer that is the greater, the better the value; NaN is the greatest double."""
    if double:
        x = real(word)
        if math.isnan(x):
            word = 0x7FF8000000000000
        elif x == 0.0:
            word = 0
        elif word < 0:
            word ^= 0x7FFFFFFFFFFFFFFF
    return word if greatest else ~word


@inline
def _unrank(best: int, double: int, greatest: int) -> int:
    word = best if greatest else ~best
    return word ^ 0x7FFFFFFFFFFFFFFF if double and word < 0 else word


@inline
def look_through(
    acc: Words, b: int, rows: Rows, op: Operation, greatest: int, first: int, last: int
) -> None:
    """Let the rows from the first to before the last in."""
    for p in range(first, last):
        row = at(rows, p)
        if passes(rows.heap, row, op):
            found = rank(rows.heap[row + op.value], op.double, greatest)
            # Of equals the latest, which stays the longest.
            if acc[b] < 0 or found > acc[b + 1] or (found == acc[b + 1] and p > acc[b]):
                acc[b], acc[b + 1] = p, found


def _extreme(greatest: int) -> Any:
    @inline
    def move(
        acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
    ) -> None:
        stays = s2 <= acc[b] < e2 or (acc[b] < 0 and s2 < e and s < e2)
        if not stays or s >= e:
            acc[b] = -1
            look_through(acc, b, rows, op, greatest, s2, e2)
            return
        look_through(acc, b, rows, op, greatest, s2, s)
        look_through(acc, b, rows, op, greatest, e, e2)

    return move


move_least = _extreme(0)
move_greatest = _extreme(1)


def _reader(greatest: int) -> Any:
    @inline
    def read_extreme(
        acc: Words,
        b: int,
        rows: Rows,
        op: Operation,
        s: int,
        e: int,
        read: int,
        limit: int,
        scale: int,
    ) -> Answer:
        if acc[b] < 0:
            return 0, NULL
        return _unrank(acc[b + 1], op.double, greatest), VALUE

    return read_extreme


read_least, read_greatest = _reader(0), _reader(1)
