# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""Variances and standard deviations, by sums of deviations from a pivot."""

from __future__ import annotations

import math

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import NULL, VALUE, Answer, Operation, mover, number, passes
from tidegate.features.history import Rows, at
from tidegate.features.layout import R_COUNT, R_STD_POP, R_STD_SAMP, R_VAR_SAMP
from tidegate.features.memory import Words, bits, real
from tidegate.features.sums import add_exactly

# Variance: count, a pivot K (the first value since the frame was empty), the sums of x - K and of
# its square as double-doubles, what was dropped, and how many values are no number or too large
# to square. Law: as for sums; and equal values give exactly 0.

_SQUARABLE = 2.0**400


@inline
def _split(x: float) -> tuple[float, float]:
    c = 134217729.0 * x  # 2^27 + 1 (Veltkamp)
    high = c - (c - x)
    return high, x - high


@inline
def _square(x: float) -> tuple[float, float]:
    """The square of x as a double and its rounding error (Dekker)."""
    p = x * x
    high, low = _split(x)
    return p, ((high * high - p) + 2.0 * high * low) + low * low


@inline
def _deviate(acc: Words, b: int, x: float, sign: float) -> None:
    pivot = real(acc[b + 1])
    d = x - pivot
    v = d - x
    error = (x - (d - v)) - (pivot + v)
    p, q = _square(d)
    high, low, dropped = real(acc[b + 2]), real(acc[b + 3]), real(acc[b + 6])
    high2, low2 = real(acc[b + 4]), real(acc[b + 5])
    high, low, dropped = add_exactly(high, low, dropped, sign * d)
    high2, low2, dropped = add_exactly(high2, low2, dropped, sign * p)
    high2, low2, dropped = add_exactly(high2, low2, dropped, sign * (q + 2.0 * d * error))
    if error != 0.0:
        high, low, dropped = add_exactly(high, low, dropped, sign * error)
    acc[b + 2], acc[b + 3], acc[b + 6] = bits(high), bits(low), bits(dropped)
    acc[b + 4], acc[b + 5] = bits(high2), bits(low2)


@inline
def add_variance(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Let a row in."""
    if passes(heap, row, op):
        x = number(heap[row + op.value], op)
        if not abs(x) < _SQUARABLE:
            acc[b + 7] += 1
        else:
            if acc[b] == acc[b + 7]:
                for k in range(1, 7):
                    acc[b + k] = 0
                acc[b + 1] = bits(x)
            _deviate(acc, b, x, 1.0)
        acc[b] += 1


@inline
def evict_variance(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Take a row out."""
    if passes(heap, row, op):
        x = number(heap[row + op.value], op)
        acc[b] -= 1
        if not abs(x) < _SQUARABLE:
            acc[b + 7] -= 1
        else:
            _deviate(acc, b, x, -1.0)


@inline
def _spread(acc: Words, b: int) -> float:
    """The sum of the squared deviations from the mean: Q - S S / n, in double-doubles."""
    n = float(acc[b] - acc[b + 7])
    high, low = real(acc[b + 2]), real(acc[b + 3])
    p, q = _square(high)
    q += 2.0 * high * low
    share = p / n
    # What the quotient leaves over, with the product n * share taken exactly.
    product = share * n
    mh, ml = _split(share)
    nh, nl = _split(n)
    error = ((mh * nh - product) + mh * nl + ml * nh) + ml * nl
    rest = (((p - product) - error) + q) / n
    s = real(acc[b + 4]) - share
    v = s - real(acc[b + 4])
    error = (real(acc[b + 4]) - (s - v)) - (share + v)
    return max(0.0, s + (error + real(acc[b + 5]) - rest))


@inline
def worn_variance(acc: Words, b: int) -> bool:
    """Whether rounding could show, so that the frame is to be gone through anew."""
    squares = real(acc[b + 4])
    if squares == 0.0 or acc[b] == acc[b + 7]:
        return False
    spread = _spread(acc, b)
    return bool(spread < squares * 2.0**-50 or real(acc[b + 6]) > spread * 2.0**-50)


@inline
def _variance(acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, sample: int) -> float:
    """The variance of at least two values; one alone has none, as in DuckDB."""
    if acc[b] == 1:
        return 0.0
    if acc[b + 7] > 0:
        return _irregular(rows, op, s, e, sample)
    return float(_spread(acc, b) / (acc[b] - sample))


@inline
def _irregular(rows: Rows, op: Operation, s: int, e: int, sample: int) -> float:
    """The variance where values are no numbers or huge: looked up in the rows, scaled down."""
    n, mean, squares = 0.0, 0.0, 0.0
    for p in range(s, e):
        row = at(rows, p)
        if passes(rows.heap, row, op):
            x = number(rows.heap[row + op.value], op)
            if not math.isfinite(x):
                return math.nan
            n += 1.0
            x *= 2.0**-540
            d = x - mean
            mean += d / n
            squares += d * (x - mean)
    return float(squares / (n - sample) * 2.0**540 * 2.0**540)


move_variance = mover(add_variance, evict_variance, worn_variance, 8)


@inline
def read_variance(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """The variance or its root, or the number of values."""
    if read == R_COUNT:
        return acc[b], VALUE
    sample = 1 if read in (R_VAR_SAMP, R_STD_SAMP) else 0
    if acc[b] <= sample:
        return 0, NULL
    variance = _variance(acc, b, rows, op, s, e, sample)
    root = read in (R_STD_POP, R_STD_SAMP)
    return bits(math.sqrt(variance) if root else variance), VALUE
