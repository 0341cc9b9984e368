# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""The least and the greatest value of a frame."""

from __future__ import annotations

import math
from typing import Any

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import NULL, VALUE, Answer, Operation, passes
from tidegate.features.history import CHUNK, CHUNK_BITS, Rows, at, best_of
from tidegate.features.memory import Words, real

# Extremes: the number of the row that is best (-1: none) and its rank, by which words of any type
# compare as integers. Law: the rank is that of the frame's best, looked for again when it leaves:
# row by row, but for chunks that lie inside the frame, of which the best is found once. So what a
# frame of a million rows takes is bounded by twice the rows of a chunk and the number of chunks.


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
            _let_in(acc, b, p, rank(rows.heap[row + op.value], op.double, greatest))


@inline
def _let_in(acc: Words, b: int, p: int, found: int) -> None:
    # Of equals the latest, which stays the longest.
    if acc[b] < 0 or found > acc[b + 1] or (found == acc[b + 1] and p > acc[b]):
        acc[b], acc[b + 1] = p, found


@inline
def _know(rows: Rows, op: Operation, greatest: int, k: int) -> int:
    """Where the best of chunk k stands, which is full; it is looked for if it is not known."""
    place = best_of(rows, k, op.best)
    if rows.heap[place] == 0:
        first = rows.origin + (k << CHUNK_BITS)
        rows.heap[place] = -1
        look_through(rows.heap, place, rows, op, greatest, first, first + CHUNK)
        if rows.heap[place] >= 0:
            rows.heap[place] += 1 - first
    return place


@inline
def _look_over(
    acc: Words, b: int, rows: Rows, op: Operation, greatest: int, first: int, last: int
) -> None:
    """Let the rows from the first to before the last in, those of whole chunks together."""
    if rows.chunked == 0 or last - first < 2 * CHUNK:
        look_through(acc, b, rows, op, greatest, first, last)
        return
    begun = (first - rows.origin + CHUNK - 1) >> CHUNK_BITS
    ended = (last - rows.origin) >> CHUNK_BITS
    look_through(acc, b, rows, op, greatest, first, rows.origin + (begun << CHUNK_BITS))
    for k in range(begun, ended):
        place = _know(rows, op, greatest, k)
        if rows.heap[place] > 0:
            p = rows.origin + (k << CHUNK_BITS) + rows.heap[place] - 1
            _let_in(acc, b, p, rows.heap[place + 1])
    look_through(acc, b, rows, op, greatest, rows.origin + (ended << CHUNK_BITS), last)


def _extreme(greatest: int) -> Any:
    @inline
    def move(
        acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
    ) -> None:
        stays = s2 <= acc[b] < e2 or (acc[b] < 0 and s2 < e and s < e2)
        if not stays or s >= e:
            acc[b] = -1
            _look_over(acc, b, rows, op, greatest, s2, e2)
            return
        if s2 < s:
            _look_over(acc, b, rows, op, greatest, s2, s)
        if rows.chunked == 0:
            for p in range(e, e2):
                row = rows.block + (p - rows.origin) * rows.width
                if passes(rows.heap, row, op):
                    _let_in(acc, b, p, rank(rows.heap[row + op.value], op.double, greatest))
        else:
            _look_over(acc, b, rows, op, greatest, e, e2)
            # Chunks are known as the frame fills them, not all at once when its best leaves.
            for k in range((e - rows.origin) >> CHUNK_BITS, (e2 - rows.origin) >> CHUNK_BITS):
                _know(rows, op, greatest, k)

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
