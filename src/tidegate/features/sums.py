# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""Sums and means, of integers in 128 bits and of doubles in double-doubles."""

from __future__ import annotations

import math

import numpy as np

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import (
    NULL,
    OVERFLOW,
    VALUE,
    Answer,
    Operation,
    mover,
    never,
    passes,
)
from tidegate.features.history import Rows, at
from tidegate.features.layout import R_COUNT, R_DOUBLE_SUM, R_INTEGER_SUM
from tidegate.features.memory import Words, bits, real

# Sum of integers: count, then 128 bits, low word first. Law: exact, inverse.


@inline
def _wide(acc: Words, b: int, word: int, high: int) -> None:
    low = np.uint64(acc[b + 1]) + np.uint64(word)
    carry = 1 if low < np.uint64(word) else 0
    acc[b + 1] = np.int64(low)
    acc[b + 2] += high + carry


@inline
def add_integer(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Let a row in."""
    if passes(heap, row, op):
        word = heap[row + op.value]
        acc[b] += 1
        _wide(acc, b, word, word >> 63)


@inline
def evict_integer(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Take a row out."""
    if passes(heap, row, op):
        word = heap[row + op.value]
        acc[b] -= 1
        # Less x is plus the bits of ~x and one more, over 128 bits.
        _wide(acc, b, ~word, ~(word >> 63))
        _wide(acc, b, 1, 0)


move_integer = mover(add_integer, evict_integer, never, 3)


@inline
def read_integer(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """The sum of integers, their mean or number."""
    if read == R_COUNT:
        return acc[b], VALUE
    if acc[b] == 0:
        return 0, NULL
    low, high = acc[b + 1], acc[b + 2]
    fits = high == (low >> 63)
    if read == R_INTEGER_SUM:
        if not fits or low > limit or low < -limit - 1:
            return 0, OVERFLOW
        return low, VALUE
    total = float(low) if fits else float(high) * 2.0**64 + float(np.uint64(low))
    return bits(total / float(acc[b]) / real(scale)), VALUE


# Sum of doubles: count, a double-double (Dekker), the bits that even that had to drop, and the
# values apart from it, in counts of 32 bits: huge ones and NaN, then infinities of either sign.
# Law: the error is below 2^-100 of the largest sum since the frame was last computed anew, and the
# frame is computed anew when what was dropped could show. While there are huge values, whose sum
# might overflow on the way, the rows are looked through, scaled down.

_HUGE = 2.0**960
_TINY = 2.0**-60
_LARGE = 2.0**60


@inline
def add_exactly(acc: Words, b: int, x: float, loss: int) -> None:
    """Add x to the double-double at b, and to `loss` what did not fit."""
    high, low = real(acc[b]), real(acc[b + 1])
    s = high + x
    v = s - high
    error = (high - (s - v)) + (x - v)
    t = low + error
    v = t - low
    dropped = (low - (t - v)) + (error - v)
    high = s + t
    v = high - s
    acc[b], acc[b + 1] = bits(high), bits((s - (high - v)) + (t - v))
    if dropped != 0.0:
        acc[loss] = bits(real(acc[loss]) + abs(dropped))


@inline
def _apart(acc: Words, b: int, x: float, step: int) -> None:
    if math.isnan(x):
        acc[b] += step
    elif math.isfinite(x):
        acc[b] += step << 32
    elif x > 0.0:
        acc[b + 1] += step << 32
    else:
        acc[b + 1] += step


@inline
def add_double(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Let a row in."""
    if passes(heap, row, op):
        x = real(heap[row + op.value])
        acc[b] += 1
        if abs(x) <= _HUGE:
            add_exactly(acc, b + 1, x, b + 3)
        else:
            _apart(acc, b + 4, x, 1)


@inline
def evict_double(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Take a row out."""
    if passes(heap, row, op):
        x = real(heap[row + op.value])
        acc[b] -= 1
        if abs(x) <= _HUGE:
            add_exactly(acc, b + 1, -x, b + 3)
        else:
            _apart(acc, b + 4, x, -1)
        if acc[b] == 0:
            for k in range(1, 6):
                acc[b + k] = 0


@inline
def worn_double(acc: Words, b: int) -> bool:
    """Whether what was dropped could show, so that the frame is to be added up anew."""
    return real(acc[b + 3]) > abs(real(acc[b + 1])) * 2.0**-64


@inline
def _sum(acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int) -> tuple[float, float]:
    """The sum, and by what it is still to be multiplied."""
    nans, infinite = acc[b + 4] & 0xFFFFFFFF, acc[b + 5]
    if nans == 0 and infinite == 0:
        if acc[b + 4] != 0:
            return _huge_sum(rows, op, s, e), _LARGE
        return float(real(acc[b + 1]) + real(acc[b + 2])), 1.0
    positive, negative = infinite >> 32, infinite & 0xFFFFFFFF
    if nans > 0 or (positive > 0 and negative > 0):
        return math.nan, 1.0
    return (math.inf if positive > 0 else -math.inf), 1.0


@inline
def _huge_sum(rows: Rows, op: Operation, s: int, e: int) -> float:
    """The sum of finite values, the largest of doubles among them, scaled down."""
    high, low = 0.0, 0.0
    for p in range(s, e):
        row = at(rows, p)
        if passes(rows.heap, row, op):
            x = real(rows.heap[row + op.value]) * _TINY
            total = high + x
            v = total - high
            low += (high - (total - v)) + (x - v)
            high = total
    return high + low


move_double = mover(add_double, evict_double, worn_double, 6)


@inline
def read_double(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """The sum of doubles, their mean or number."""
    if read == R_COUNT:
        return acc[b], VALUE
    if acc[b] == 0:
        return 0, NULL
    total, left = _sum(acc, b, rows, op, s, e)
    if read == R_DOUBLE_SUM:
        return bits(total * left), VALUE
    # The sum may be beyond doubles where the mean is not.
    return bits(total / float(acc[b]) * left), VALUE
