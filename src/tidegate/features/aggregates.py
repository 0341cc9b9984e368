# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""The aggregates: for each what it keeps of its frame, how a row enters and leaves, what it gives.

A frame holds the rows numbered s <= p < e. `move` takes an accumulator from the frame (s, e) to
(s2, e2): it evicts and adds single rows, or begins anew where that is less work, always by the
same rule, so that doubles depend on nothing but the order of the key's own events. An empty frame
is exact zero. `read` gives a word and a status: `NULL`, `VALUE`, or an error.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tidegate.events.fingerprints import inline
from tidegate.features.history import Rows, at
from tidegate.features.layout import (
    A_BASE,
    A_DOUBLE,
    A_FILTER,
    A_FILTER_AT,
    A_NULL,
    A_NULL_AT,
    A_SCALE,
    A_VALUE,
    COUNT_,
    DISTINCT,
    DOUBLE,
    FIRST_,
    GREATEST,
    INTEGER,
    KEY0,
    KEY1,
    LAST_,
    LEAST,
    R_ALL,
    R_COUNT,
    R_DOUBLE_SUM,
    R_FIRST,
    R_INTEGER_SUM,
    R_STD_POP,
    R_STD_SAMP,
    R_VAR_SAMP,
    TRUE,
    VARIANCE,
)
from tidegate.features.memory import HEAP, Words, allocate, bits, prefetch, real, release, unfolded

NULL, VALUE, OVERFLOW = 0, 1, 2

Answer = tuple[int, int]


class Operation(NamedTuple):
    """What an accumulator takes from a row: its value word, and the flags that let it in."""

    base: int
    value: int
    null_at: int
    null: int
    filter_at: int
    filter: int
    scale: float
    double: int


@inline
def operation(program: Words, a: int, r: int) -> Operation:
    """The operation that is described from word a of a program on, for the record at r."""
    return Operation(
        r + program[a + A_BASE],
        program[a + A_VALUE],
        program[a + A_NULL_AT],
        program[a + A_NULL],
        program[a + A_FILTER_AT],
        program[a + A_FILTER],
        real(program[a + A_SCALE]),
        program[a + A_DOUBLE],
    )


@inline
def passes(heap: Words, row: int, op: Operation) -> bool:
    """Whether the row meets the filter and its argument is not null."""
    kept = (heap[row + op.filter_at] & op.filter) == op.filter
    return bool(kept and (heap[row + op.null_at] & op.null) == 0)


@inline
def meets(heap: Words, row: int, op: Operation) -> bool:
    """Whether the row meets the filter, its argument null or not."""
    return bool((heap[row + op.filter_at] & op.filter) == op.filter)


@inline
def number(word: int, op: Operation) -> float:
    """The value of a word as a double."""
    return real(word) if op.double else word / op.scale


# Count: the rows let in. Law: adding and evicting are inverse, exactly.


@inline
def _add_count(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    if passes(heap, row, op):
        acc[b] += 1


@inline
def _evict_count(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    if passes(heap, row, op):
        acc[b] -= 1


# Trues: the rows let in, and those of them that are true.


@inline
def _add_true(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    if passes(heap, row, op):
        acc[b] += 1
        acc[b + 1] += heap[row + op.value]


@inline
def _evict_true(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    if passes(heap, row, op):
        acc[b] -= 1
        acc[b + 1] -= heap[row + op.value]


# Sum of integers: count, then 128 bits, low word first. Law: exact, inverse.


@inline
def _wide(acc: Words, b: int, word: int, high: int) -> None:
    low = np.uint64(acc[b + 1]) + np.uint64(word)
    carry = 1 if low < np.uint64(word) else 0
    acc[b + 1] = np.int64(low)
    acc[b + 2] += high + carry


@inline
def _add_integer(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    if passes(heap, row, op):
        word = heap[row + op.value]
        acc[b] += 1
        _wide(acc, b, word, word >> 63)


@inline
def _evict_integer(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    if passes(heap, row, op):
        word = heap[row + op.value]
        acc[b] -= 1
        # Less x is plus the bits of ~x and one more, over 128 bits.
        _wide(acc, b, ~word, ~(word >> 63))
        _wide(acc, b, 1, 0)


# Sum of doubles: count, a double-double (Dekker), the bits that even that had to drop, and the
# values apart from it, in counts of 32 bits: huge ones and NaN, then infinities of either sign.
# Law: the error is below 2^-100 of the largest sum since the frame was last computed anew, and the
# frame is computed anew when what was dropped could show. While there are huge values, whose sum
# might overflow on the way, the rows are looked through, scaled down.

_HUGE = 2.0**960
_TINY = 2.0**-60
_LARGE = 2.0**60


@inline
def _plus(acc: Words, b: int, x: float, loss: int) -> None:
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
def _add_double(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    if passes(heap, row, op):
        x = real(heap[row + op.value])
        acc[b] += 1
        if abs(x) <= _HUGE:
            _plus(acc, b + 1, x, b + 3)
        else:
            _apart(acc, b + 4, x, 1)


@inline
def _evict_double(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    if passes(heap, row, op):
        x = real(heap[row + op.value])
        acc[b] -= 1
        if abs(x) <= _HUGE:
            _plus(acc, b + 1, -x, b + 3)
        else:
            _apart(acc, b + 4, x, -1)
        if acc[b] == 0:
            for k in range(1, 6):
                acc[b + k] = 0


@inline
def _worn_double(acc: Words, b: int) -> bool:
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
    _plus(acc, b + 2, sign * d, b + 6)
    _plus(acc, b + 4, sign * p, b + 6)
    _plus(acc, b + 4, sign * (q + 2.0 * d * error), b + 6)
    if error != 0.0:
        _plus(acc, b + 2, sign * error, b + 6)


@inline
def _add_variance(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
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
def _evict_variance(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
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
def _worn_variance(acc: Words, b: int) -> bool:
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


# How an accumulator with `add` and `evict` moves, and what it gives.


def _mover(add: Any, evict: Any, worn: Any, size: int) -> Any:
    """A function that moves such an accumulator from one frame to another."""

    @inline
    def anew(acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int) -> None:
        for k in range(size):
            acc[b + k] = 0
        for p in range(s, e):
            add(acc, b, rows.heap, at(rows, p), op)

    @inline
    def anywhere(
        acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
    ) -> None:
        if e2 - s2 < abs(s2 - s) + abs(e2 - e) or s2 >= e or e2 <= s:
            anew(acc, b, rows, op, s2, e2)
            return
        for p in range(s2, s):
            add(acc, b, rows.heap, at(rows, p), op)
        for p in range(s, s2):
            evict(acc, b, rows.heap, at(rows, p), op)
        for p in range(e2, e):
            evict(acc, b, rows.heap, at(rows, p), op)
        if (s2 > s or e2 < e) and worn(acc, b):
            anew(acc, b, rows, op, s2, min(e, e2))
        for p in range(e, e2):
            add(acc, b, rows.heap, at(rows, p), op)

    # Nearly all moves are forward and short: their code stands by itself.
    @unfolded
    def move(
        acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
    ) -> None:
        if s <= s2 < e <= e2 and (s2 - s) + (e2 - e) <= e2 - s2:
            for p in range(s, s2):
                evict(acc, b, rows.heap, at(rows, p), op)
            if s2 > s and worn(acc, b):
                # Before the rows to come, so that a later row meets a good sum.
                anew(acc, b, rows, op, s2, e)
            for p in range(e, e2):
                add(acc, b, rows.heap, at(rows, p), op)
        elif s2 != s or e2 != e:
            anywhere(acc, b, rows, op, s, e, s2, e2)

    return move


@inline
def _never(acc: Words, b: int) -> bool:
    return False


move_count = _mover(_add_count, _evict_count, _never, 1)
move_true = _mover(_add_true, _evict_true, _never, 2)
move_integer = _mover(_add_integer, _evict_integer, _never, 3)
move_double = _mover(_add_double, _evict_double, _worn_double, 6)
move_variance = _mover(_add_variance, _evict_variance, _worn_variance, 8)


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
def _look(
    acc: Words, b: int, rows: Rows, op: Operation, greatest: int, first: int, last: int
) -> None:
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
            _look(acc, b, rows, op, greatest, s2, e2)
            return
        _look(acc, b, rows, op, greatest, s2, s)
        _look(acc, b, rows, op, greatest, e, e2)

    return move


move_least = _extreme(0)
move_greatest = _extreme(1)


# First: the number of the first row that meets the filter, or the end of what was searched.
# Last: that of the last row that does, or -1. Law: as if the frame were searched each time.


@inline
def move_first(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move the first row from frame (s, e) to (s2, e2)."""
    p = max(acc[b], s2) if s <= s2 and e <= e2 and s < e else s2
    while p < e2 and not meets(rows.heap, at(rows, p), op):
        p += 1
    acc[b] = p


@inline
def move_last(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move the last row from frame (s, e) to (s2, e2)."""
    forward = s <= s2 and e <= e2 and s < e
    stop = max(e, s2) if forward else s2
    p = e2 - 1
    while p >= stop and not meets(rows.heap, at(rows, p), op):
        p -= 1
    if p < stop:
        p = acc[b] if forward and acc[b] >= s2 else -1
    acc[b] = p


# Distinct: how many different values, and the place of a table of them with their counts, 0 while
# the frame is short enough to look through. Law: exact; adding and evicting are inverse.
# A table is `slots, used`, then pairs (value, count).

SHORT = 32
_M1, _M2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_33 = np.uint64(33)


@inline
def _canonical(word: int, double: int) -> int:
    if double:
        x = real(word)
        if math.isnan(x):
            return 0x7FF8000000000000
        if x == 0.0:
            return 0
    return word


@inline
def _slot(rows: Rows, value: int, slots: int) -> int:
    # The mixing of MurmurHash3 between two secret words, so that nobody chooses what collides.
    x = np.uint64(value) ^ np.uint64(rows.program[KEY0])
    x = (x ^ (x >> _33)) * _M1
    x = (x ^ (x >> _33)) * (_M2 ^ (np.uint64(rows.program[KEY1]) << np.uint64(1)))
    return int(np.int64((x ^ (x >> _33)) & np.uint64(slots - 1)))


@inline
def foresee_distinct(rows: Rows, table: int, value: int) -> None:
    """Ask for the memory of a value's pair in a table."""
    pair = table + 2 + 2 * _slot(rows, value, rows.heap[table])
    prefetch(rows.shard[HEAP] + 8 * pair)


@inline
def _holds(rows: Rows, op: Operation, value: int, first: int, last: int) -> bool:
    for p in range(first, last):
        row = at(rows, p)
        held = _canonical(rows.heap[row + op.value], op.double)
        if held == value and passes(rows.heap, row, op):
            return True
    return False


@inline
def _scan_distinct(rows: Rows, op: Operation, s: int, e: int) -> int:
    count = 0
    for p in range(s, e):
        row = at(rows, p)
        if passes(rows.heap, row, op):
            value = _canonical(rows.heap[row + op.value], op.double)
            if not _holds(rows, op, value, s, p):
                count += 1
    return count


@inline
def _new_table(rows: Rows, slots: int) -> int:
    table = allocate(rows.shard, 2 + 2 * slots)
    for k in range(2 + 2 * slots):
        rows.heap[table + k] = 0
    rows.heap[table] = slots
    return table


@inline
def _find(rows: Rows, table: int, value: int) -> int:
    """The pair of the value, or the empty one where it would stand."""
    heap, slots = rows.heap, rows.heap[table]
    i = _slot(rows, value, slots)
    while heap[table + 3 + 2 * i] != 0 and heap[table + 2 + 2 * i] != value:
        i = (i + 1) & (slots - 1)
    return int(table + 2 + 2 * i)


@inline
def _larger(rows: Rows, table: int) -> int:
    heap, slots = rows.heap, rows.heap[table]
    larger = _new_table(rows, 2 * slots)
    for i in range(slots):
        pair = table + 2 + 2 * i
        if heap[pair + 1] != 0:
            there = _find(rows, larger, heap[pair])
            heap[there], heap[there + 1] = heap[pair], heap[pair + 1]
    heap[larger + 1] = heap[table + 1]
    release(rows.shard, table, 2 + 2 * slots)
    return larger


@inline
def _enter(acc: Words, b: int, rows: Rows, op: Operation, p: int) -> None:
    row, heap = at(rows, p), rows.heap
    if not passes(heap, row, op):
        return
    value, table = _canonical(heap[row + op.value], op.double), acc[b + 1]
    pair = _find(rows, table, value)
    if heap[pair + 1] == 0:
        heap[pair] = value
        heap[table + 1] += 1
        acc[b] += 1
    heap[pair + 1] += 1
    if 2 * heap[table + 1] > heap[table]:
        acc[b + 1] = _larger(rows, table)


@inline
def _leave(acc: Words, b: int, rows: Rows, op: Operation, p: int) -> None:
    row, heap = at(rows, p), rows.heap
    if not passes(heap, row, op):
        return
    table = acc[b + 1]
    pair = _find(rows, table, _canonical(heap[row + op.value], op.double))
    heap[pair + 1] -= 1
    if heap[pair + 1] == 0:
        heap[table + 1] -= 1
        acc[b] -= 1
        _close_gap(rows, table, (pair - table - 2) >> 1)


@inline
def _close_gap(rows: Rows, table: int, gap: int) -> None:
    """Move pairs back over an emptied one, so that no search ends too early (Knuth, 6.4 R)."""
    heap, slots = rows.heap, rows.heap[table]
    i = (gap + 1) & (slots - 1)
    while heap[table + 3 + 2 * i] != 0:
        home = _slot(rows, heap[table + 2 + 2 * i], slots)
        if ((i - home) & (slots - 1)) >= ((i - gap) & (slots - 1)):
            heap[table + 2 + 2 * gap] = heap[table + 2 + 2 * i]
            heap[table + 3 + 2 * gap] = heap[table + 3 + 2 * i]
            heap[table + 3 + 2 * i] = 0
            gap = i
        i = (i + 1) & (slots - 1)


@inline
def tabulate(acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int) -> None:
    """Begin a table, or empty the one there is, and enter the frame's rows."""
    if acc[b + 1] == 0:
        acc[b + 1] = _new_table(rows, 2 * SHORT)
    else:
        table = acc[b + 1]
        for k in range(1, 2 + 2 * rows.heap[table]):
            rows.heap[table + k] = 0
    acc[b] = 0
    for p in range(s, e):
        _enter(acc, b, rows, op, p)


@inline
def drop_table(acc: Words, b: int, rows: Rows) -> None:
    """Free the table of distinct values, if there is one."""
    if acc[b + 1] != 0:
        release(rows.shard, acc[b + 1], 2 + 2 * rows.heap[acc[b + 1]])
        acc[b + 1] = 0


@inline
def _shift_short(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move forward without a table: what leaves or enters is looked for among the rest."""
    if s2 >= e:
        acc[b] = _scan_distinct(rows, op, s2, e2)
        return
    for p in range(s, s2):
        row = at(rows, p)
        if passes(rows.heap, row, op):
            value = _canonical(rows.heap[row + op.value], op.double)
            acc[b] -= 0 if _holds(rows, op, value, p + 1, e) else 1
    for p in range(e, e2):
        row = at(rows, p)
        if passes(rows.heap, row, op):
            value = _canonical(rows.heap[row + op.value], op.double)
            acc[b] += 0 if _holds(rows, op, value, s2, p) else 1


@inline
def shift_table(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move with a table, to a frame that may lie anywhere."""
    if s2 >= e or e2 <= s:
        tabulate(acc, b, rows, op, s2, e2)
        return
    for p in range(s2, s):
        _enter(acc, b, rows, op, p)
    for p in range(e, e2):
        _enter(acc, b, rows, op, p)
    for p in range(s, s2):
        _leave(acc, b, rows, op, p)
    for p in range(e2, e):
        _leave(acc, b, rows, op, p)


@inline
def move_distinct(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move the distinct values from frame (s, e) to (s2, e2)."""
    size = e2 - s2
    if acc[b + 1] != 0 and 4 * size < SHORT:
        drop_table(acc, b, rows)
        acc[b] = _scan_distinct(rows, op, s2, e2)
    elif acc[b + 1] != 0:
        shift_table(acc, b, rows, op, s, e, s2, e2)
    elif size > SHORT:
        tabulate(acc, b, rows, op, s2, e2)
    elif s2 < s or e2 < e:
        acc[b] = _scan_distinct(rows, op, s2, e2)
    else:
        _shift_short(acc, b, rows, op, s, e, s2, e2)


@inline
def glance_distinct(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> int:
    """How many different values frame (s2, e2) has; what (s, e) has stays as it is."""
    if e2 - s2 <= SHORT:
        return _scan_distinct(rows, op, s2, e2)
    if acc[b + 1] == 0:
        held = acc[b]
        tabulate(acc, b, rows, op, s2, e2)
        count = acc[b]
        drop_table(acc, b, rows)
        acc[b] = held
        return int(count)
    shift_table(acc, b, rows, op, s, e, s2, e2)
    count = acc[b]
    shift_table(acc, b, rows, op, s2, e2, s, e)
    return int(count)


# What is read out; `limit` is the greatest integer that fits, `scale` has the bits of
# the power of ten by which decimals are scaled.


@inline
def read_rows(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """What takes no accumulator: how many rows, the first row's value, the last row's."""
    if read == R_COUNT:
        return e - s, VALUE
    return _row(rows, op, s if read == R_FIRST else e - 1, s, e)


@inline
def read_position(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """The value of the first or last row that meets the filter."""
    return _row(rows, op, acc[b], s, e)


@inline
def _row(rows: Rows, op: Operation, p: int, s: int, e: int) -> Answer:
    if p < s or p >= e:
        return 0, NULL
    row = at(rows, p)
    if (rows.heap[row + op.null_at] & op.null) != 0:
        return 0, NULL
    return rows.heap[row + op.value], VALUE


@inline
def read_count(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """How many rows were let in, or how many different values."""
    return acc[b], VALUE


@inline
def read_true(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """Whether all or any are true, or how many values there are."""
    if read == R_COUNT:
        return acc[b], VALUE
    if acc[b] == 0:
        return 0, NULL
    if read == R_ALL:
        return (1 if acc[b + 1] == acc[b] else 0), VALUE
    return (1 if acc[b + 1] > 0 else 0), VALUE


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


# A row that arrives late shifts those behind it; where it falls inside the frame, it enters.


@inline
def shift_position(acc: Words, b: int, p: int) -> None:
    """Follow the row whose number grew by one when row p was inserted."""
    if acc[b] >= p:
        acc[b] += 1


@inline
def include(
    acc: Words, kind: int, rows: Rows, op: Operation, s: int, e: int, b: int, p: int
) -> None:
    """Enter row p, which was inserted inside the frame (s, e), positions being shifted."""
    heap, row = rows.heap, at(rows, p)
    if kind == COUNT_:
        _add_count(acc, b, heap, row, op)
    elif kind == TRUE:
        _add_true(acc, b, heap, row, op)
    elif kind == INTEGER:
        _add_integer(acc, b, heap, row, op)
    elif kind == DOUBLE:
        _add_double(acc, b, heap, row, op)
    elif kind == VARIANCE:
        _add_variance(acc, b, heap, row, op)
    elif kind == LEAST:
        _look(acc, b, rows, op, 0, p, p + 1)
    elif kind == GREATEST:
        _look(acc, b, rows, op, 1, p, p + 1)
    elif kind == FIRST_:
        if meets(heap, row, op):
            acc[b] = min(acc[b], p)
    elif kind == LAST_:
        if meets(heap, row, op):
            acc[b] = max(acc[b], p)
    elif kind == DISTINCT:
        if acc[b + 1] != 0:
            _enter(acc, b, rows, op, p)
        else:
            acc[b] = _scan_distinct(rows, op, s, e)
