# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""Sums and means, of integers in 128 bits and of doubles in double-doubles."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import (
    NULL,
    OVERFLOW,
    VALUE,
    Answer,
    Operation,
    passes,
)
from tidegate.features.history import Rows, at
from tidegate.features.layout import R_COUNT, R_DOUBLE_SUM, R_INTEGER_SUM
from tidegate.features.memory import Words, bits, real, unfolded

# Sum of integers: count, then 128 bits, low word first. Law: exact, inverse.


class Whole(NamedTuple):
    """The accumulator of a sum of integers; over a run of rows it stays in registers."""

    rows: int
    low: int
    high: int


@inline
def load_whole(acc: Words, b: int) -> Whole:
    """The sum that is kept from word b on."""
    return Whole(acc[b], acc[b + 1], acc[b + 2])


@inline
def keep_whole(acc: Words, b: int, kept: Whole) -> None:
    """Keep a sum from word b on."""
    acc[b], acc[b + 1], acc[b + 2] = kept.rows, kept.low, kept.high


@inline
def _let_in(held: Whole, rows: Rows, op: Operation, p: int, there: int) -> Whole:
    """With row p, if `there` has all bits; without it, if none."""
    heap, row = rows.heap, at(rows, p)
    there &= -int(passes(heap, row, op))
    word = heap[row + op.value] & there
    low = np.uint64(held.low) + np.uint64(word)
    carry = 1 if low < np.uint64(word) else 0
    return Whole(held.rows - there, int(np.int64(low)), held.high + (word >> 63) + carry)


@inline
def _let_out(held: Whole, rows: Rows, op: Operation, p: int, there: int) -> Whole:
    """The inverse of `_let_in`."""
    heap, row = rows.heap, at(rows, p)
    there &= -int(passes(heap, row, op))
    word = heap[row + op.value] & there
    low = np.uint64(held.low) - np.uint64(word)
    borrow = 1 if np.uint64(held.low) < np.uint64(word) else 0
    return Whole(held.rows + there, int(np.int64(low)), held.high - (word >> 63) - borrow)


@inline
def _whole_anywhere(
    held: Whole, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> Whole:
    if e2 - s2 < abs(s2 - s) + abs(e2 - e) or s2 >= e or e2 <= s:
        held, s, e = Whole(0, 0, 0), s2, s2
    for p in range(s2, s):
        held = _let_in(held, rows, op, p, -1)
    for p in range(s, s2):
        held = _let_out(held, rows, op, p, -1)
    for p in range(e2, e):
        held = _let_out(held, rows, op, p, -1)
    for p in range(e, e2):
        held = _let_in(held, rows, op, p, -1)
    return held


@unfolded
def shift_whole(
    acc: Words, held: Whole, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> Whole:
    """The sum of frame (s2, e2) from that of frame (s, e).

    Most often no more than two rows leave or enter, and nobody can foretell how many: they do so
    without a branch, which the compiler would make of comparisons.
    """
    if s <= s2 < e <= e2 and (s2 - s) + (e2 - e) <= e2 - s2:
        for _ in range(2):
            leaves = (s - s2) >> 63
            held = _let_out(held, rows, op, s, leaves)
            s -= leaves
        for p in range(s, s2):
            held = _let_out(held, rows, op, p, -1)
        for _ in range(2):
            enters = (e - e2) >> 63
            held = _let_in(held, rows, op, e - 1 - enters, enters)
            e -= enters
        for p in range(e, e2):
            held = _let_in(held, rows, op, p, -1)
    elif s2 != s or e2 != e:
        held = _whole_anywhere(held, rows, op, s, e, s2, e2)
    return held


@inline
def move_integer(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move the sum that is kept from word b on from frame (s, e) to (s2, e2)."""
    keep_whole(acc, b, shift_whole(acc, load_whole(acc, b), rows, op, s, e, s2, e2))


@inline
def add_integer(acc: Words, b: int, rows: Rows, op: Operation, p: int) -> None:
    """Let row p in."""
    keep_whole(acc, b, _let_in(load_whole(acc, b), rows, op, p, -1))


@inline
def evict_integer(acc: Words, b: int, rows: Rows, op: Operation, p: int) -> None:
    """Take row p out."""
    keep_whole(acc, b, _let_out(load_whole(acc, b), rows, op, p, -1))


_GREATEST = 2**63 - 1
_ONE = 0x3FF0000000000000  # the bits of 1.0


@inline
def tell_whole(
    acc: Words,
    held: Whole,
    rows: Rows,
    op: Operation,
    s: int,
    e: int,
    read: int,
    limit: int,
    scale: int,
) -> Answer:
    """The sum of integers, their mean or number."""
    if read == R_COUNT:
        return held.rows, VALUE
    if held.rows == 0:
        return 0, NULL
    low, high = held.low, held.high
    fits = high == (low >> 63)
    if read == R_INTEGER_SUM:
        # The least decimal has as many digits as the greatest; the least integer is one further.
        least = ~limit if limit == _GREATEST else -limit
        if not fits or low > limit or low < least:
            return 0, OVERFLOW
        return low, VALUE
    total = float(low) if fits else float(high) * 2.0**64 + float(np.uint64(low))
    mean = total / float(held.rows)
    return bits(mean if scale == _ONE else mean / real(scale)), VALUE


@inline
def read_integer(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """The sum of integers, their mean or number."""
    return tell_whole(acc, load_whole(acc, b), rows, op, s, e, read, limit, scale)


# Sum of doubles: count, a double-double (Dekker), the bits that even that had to drop, and the
# values apart from it, in counts of 32 bits: huge ones and NaN, then infinities of either sign.
# Law: the error is below 2^-100 of the largest sum since the frame was last computed anew, and the
# frame is computed anew when what was dropped could show. While there are huge values, whose sum
# might overflow on the way, the rows are looked through, scaled down.

_HUGE = 2.0**960
_TINY = 2.0**-60
_LARGE = 2.0**60


@inline
def add_exactly(high: float, low: float, dropped: float, x: float) -> tuple[float, float, float]:
    """The double-double and x together, and all that was dropped so far."""
    s = high + x
    v = s - high
    error = (high - (s - v)) + (x - v)
    t = low + error
    v = t - low
    dropped += abs((low - (t - v)) + (error - v))
    high = s + t
    v = high - s
    return high, (s - (high - v)) + (t - v), dropped


class Sum(NamedTuple):
    """The accumulator of a sum of doubles; over a run of rows it stays in registers."""

    rows: int
    high: float
    low: float
    dropped: float
    apart: int
    infinite: int


@inline
def load_sum(acc: Words, b: int) -> Sum:
    """The sum that is kept from word b on."""
    high, low, dropped = real(acc[b + 1]), real(acc[b + 2]), real(acc[b + 3])
    return Sum(acc[b], high, low, dropped, acc[b + 4], acc[b + 5])


@inline
def keep_sum(acc: Words, b: int, kept: Sum) -> None:
    """Keep a sum from word b on."""
    acc[b], acc[b + 4], acc[b + 5] = kept.rows, kept.apart, kept.infinite
    acc[b + 1], acc[b + 2], acc[b + 3] = bits(kept.high), bits(kept.low), bits(kept.dropped)


@inline
def _apart(held: Sum, x: float, step: int) -> Sum:
    """Count a value that is kept apart, or take it from the count."""
    apart, infinite = held.apart, held.infinite
    if math.isnan(x):
        apart += step
    elif math.isfinite(x):
        apart += step << 32
    elif x > 0.0:
        infinite += step << 32
    else:
        infinite += step
    return Sum(held.rows, held.high, held.low, held.dropped, apart, infinite)


@inline
def _enter(held: Sum, heap: Words, row: int, op: Operation) -> Sum:
    if passes(heap, row, op):
        x = real(heap[row + op.value])
        if abs(x) <= _HUGE:
            high, low, dropped = add_exactly(held.high, held.low, held.dropped, x)
            held = Sum(held.rows + 1, high, low, dropped, held.apart, held.infinite)
        else:
            held = _apart(
                Sum(held.rows + 1, held.high, held.low, held.dropped, held.apart, held.infinite),
                x,
                1,
            )
    return held


@inline
def _leave(held: Sum, heap: Words, row: int, op: Operation) -> Sum:
    if passes(heap, row, op):
        x = real(heap[row + op.value])
        if held.rows == 1:
            held = _EMPTY
        elif abs(x) <= _HUGE:
            high, low, dropped = add_exactly(held.high, held.low, held.dropped, -x)
            held = Sum(held.rows - 1, high, low, dropped, held.apart, held.infinite)
        else:
            held = _apart(
                Sum(held.rows - 1, held.high, held.low, held.dropped, held.apart, held.infinite),
                x,
                -1,
            )
    return held


_EMPTY = Sum(0, 0.0, 0.0, 0.0, 0, 0)


@inline
def _worn(held: Sum) -> bool:
    return held.dropped > abs(held.high) * 2.0**-64


@inline
def _anew(rows: Rows, op: Operation, s: int, e: int) -> Sum:
    held = _EMPTY
    for p in range(s, e):
        held = _enter(held, rows.heap, at(rows, p), op)
    return held


@inline
def _anywhere(held: Sum, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int) -> Sum:
    """As `mover` has it, of which this is the form that keeps the accumulator in registers."""
    if e2 - s2 < abs(s2 - s) + abs(e2 - e) or s2 >= e or e2 <= s:
        return _anew(rows, op, s2, e2)
    for p in range(s2, s):
        held = _enter(held, rows.heap, at(rows, p), op)
    for p in range(s, s2):
        held = _leave(held, rows.heap, at(rows, p), op)
    for p in range(e2, e):
        held = _leave(held, rows.heap, at(rows, p), op)
    if (s2 > s or e2 < e) and _worn(held):
        held = _anew(rows, op, s2, min(e, e2))
    for p in range(e, e2):
        held = _enter(held, rows.heap, at(rows, p), op)
    return held


@unfolded
def shift_sum(
    acc: Words, held: Sum, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> Sum:
    """The sum of frame (s2, e2) from that of frame (s, e)."""
    if s <= s2 < e <= e2 and (s2 - s) + (e2 - e) <= e2 - s2:
        for p in range(s, s2):
            held = _leave(held, rows.heap, at(rows, p), op)
        if s2 > s and _worn(held):
            held = _anew(rows, op, s2, e)
        for p in range(e, e2):
            held = _enter(held, rows.heap, at(rows, p), op)
    elif s2 != s or e2 != e:
        held = _anywhere(held, rows, op, s, e, s2, e2)
    return held


@inline
def move_double(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move the sum that is kept from word b on from frame (s, e) to (s2, e2)."""
    keep_sum(acc, b, shift_sum(acc, load_sum(acc, b), rows, op, s, e, s2, e2))


@inline
def add_double(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Let a row in."""
    keep_sum(acc, b, _enter(load_sum(acc, b), heap, row, op))


@inline
def evict_double(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Take a row out."""
    keep_sum(acc, b, _leave(load_sum(acc, b), heap, row, op))


@inline
def worn_double(acc: Words, b: int) -> bool:
    """Whether what was dropped could show, so that the frame is to be added up anew."""
    return bool(_worn(load_sum(acc, b)))


@inline
def _total(held: Sum, rows: Rows, op: Operation, s: int, e: int) -> tuple[float, float]:
    """The sum, and by what it is still to be multiplied."""
    nans, infinite = held.apart & 0xFFFFFFFF, held.infinite
    if nans == 0 and infinite == 0:
        if held.apart != 0:
            return _huge_sum(rows, op, s, e), _LARGE
        return held.high + held.low, 1.0
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


@inline
def tell_sum(
    acc: Words,
    held: Sum,
    rows: Rows,
    op: Operation,
    s: int,
    e: int,
    read: int,
    limit: int,
    scale: int,
) -> Answer:
    """The sum of doubles, their mean or number."""
    if read == R_COUNT:
        return held.rows, VALUE
    if held.rows == 0:
        return 0, NULL
    total, left = _total(held, rows, op, s, e)
    if read == R_DOUBLE_SUM:
        return bits(total * left), VALUE
    # The sum may be beyond doubles where the mean is not.
    return bits(total / float(held.rows) * left), VALUE


@inline
def read_double(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """The sum of doubles, their mean or number."""
    return tell_sum(acc, load_sum(acc, b), rows, op, s, e, read, limit, scale)
