"""How many different values a frame has."""

from __future__ import annotations

import math

import numpy as np

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import Operation, passes
from tidegate.features.history import Rows, at
from tidegate.features.layout import KEY0, KEY1
from tidegate.features.memory import HEAP, Words, allocate, prefetch, real, release

# Distinct: how many different values, and a table of them with their counts, 0 while the frame is
# short enough to look through. Law: exact; adding and evicting are inverse.
# A table is pairs (value, count), as many as a power of two: its place in the heap and, in the
# lowest bits, which power make one word, so that a value's pair is found without reading more.

SHORT = 32
_POWER_BITS = 6
_LEAST_POWER = 6  # of a table: twice the values of a frame that is looked through
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
def slots_of(table: int) -> int:
    """How many pairs a table has room for."""
    return 1 << (table & ((1 << _POWER_BITS) - 1))


@inline
def place_of(table: int) -> int:
    """Where in the heap a table begins."""
    return table >> _POWER_BITS


@inline
def moved_to(table: int, place: int) -> int:
    """A table as large, at another place."""
    return (place << _POWER_BITS) | (table & ((1 << _POWER_BITS) - 1))


@inline
def foresee_distinct(rows: Rows, table: int, value: int) -> None:
    """Ask for the memory of a value's pair in a table."""
    pair = place_of(table) + 2 * _slot(rows, value, slots_of(table))
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
def count_distinct(rows: Rows, op: Operation, s: int, e: int) -> int:
    """How many different values a frame has, looked through."""
    count = 0
    for p in range(s, e):
        row = at(rows, p)
        if passes(rows.heap, row, op):
            value = _canonical(rows.heap[row + op.value], op.double)
            if not _holds(rows, op, value, s, p):
                count += 1
    return count


@inline
def _new_table(rows: Rows, power: int) -> int:
    place, words = allocate(rows.shard, 2 << power), 2 << power
    for k in range(words):
        rows.heap[place + k] = 0
    return (place << _POWER_BITS) | power


@inline
def _find(rows: Rows, table: int, value: int) -> int:
    """The pair of the value, or the empty one where it would stand."""
    heap, place, slots = rows.heap, place_of(table), slots_of(table)
    i = _slot(rows, value, slots)
    while heap[place + 2 * i + 1] != 0 and heap[place + 2 * i] != value:
        i = (i + 1) & (slots - 1)
    return int(place + 2 * i)


@inline
def _larger(rows: Rows, table: int) -> int:
    heap, power = rows.heap, table & ((1 << _POWER_BITS) - 1)
    larger, place = _new_table(rows, power + 1), place_of(table)
    for pair in range(place, place + (2 << power), 2):
        if heap[pair + 1] != 0:
            there = _find(rows, larger, heap[pair])
            heap[there], heap[there + 1] = heap[pair], heap[pair + 1]
    release(rows.shard, place, 2 << power)
    return larger


@inline
def enter(acc: Words, b: int, rows: Rows, op: Operation, p: int) -> None:
    """Enter row p into the table."""
    row, heap = at(rows, p), rows.heap
    if not passes(heap, row, op):
        return
    value, table = _canonical(heap[row + op.value], op.double), acc[b + 1]
    pair = _find(rows, table, value)
    if heap[pair + 1] == 0:
        heap[pair] = value
        acc[b] += 1
    heap[pair + 1] += 1
    if 2 * acc[b] > slots_of(table):
        acc[b + 1] = _larger(rows, table)


@inline
def leave(acc: Words, b: int, rows: Rows, op: Operation, p: int) -> None:
    """Take row p out of the table."""
    row, heap = at(rows, p), rows.heap
    if not passes(heap, row, op):
        return
    table = acc[b + 1]
    pair = _find(rows, table, _canonical(heap[row + op.value], op.double))
    heap[pair + 1] -= 1
    if heap[pair + 1] == 0:
        acc[b] -= 1
        _close_gap(rows, table, (pair - place_of(table)) >> 1)


@inline
def _close_gap(rows: Rows, table: int, gap: int) -> None:
    """Move pairs back over an emptied one, so that no search ends too early (Knuth, 6.4 R)."""
    heap, place, slots = rows.heap, place_of(table), slots_of(table)
    i = (gap + 1) & (slots - 1)
    while heap[place + 2 * i + 1] != 0:
        home = _slot(rows, heap[place + 2 * i], slots)
        if ((i - home) & (slots - 1)) >= ((i - gap) & (slots - 1)):
            heap[place + 2 * gap] = heap[place + 2 * i]
            heap[place + 2 * gap + 1] = heap[place + 2 * i + 1]
            heap[place + 2 * i + 1] = 0
            gap = i
        i = (i + 1) & (slots - 1)


@inline
def tabulate(acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int) -> None:
    """Begin a table, or empty the one there is, and enter the frame's rows."""
    if acc[b + 1] == 0:
        acc[b + 1] = _new_table(rows, _LEAST_POWER)
    else:
        place, words = place_of(acc[b + 1]), 2 * slots_of(acc[b + 1])
        for k in range(words):
            rows.heap[place + k] = 0
    acc[b] = 0
    for p in range(s, e):
        enter(acc, b, rows, op, p)


@inline
def drop_table(acc: Words, b: int, rows: Rows) -> None:
    """Free the table of distinct values, if there is one."""
    if acc[b + 1] != 0:
        release(rows.shard, place_of(acc[b + 1]), 2 * slots_of(acc[b + 1]))
        acc[b + 1] = 0


@inline
def _shift_short(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move forward without a table: what leaves or enters is looked for among the rest."""
    if s2 >= e:
        acc[b] = count_distinct(rows, op, s2, e2)
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
        enter(acc, b, rows, op, p)
    for p in range(e, e2):
        enter(acc, b, rows, op, p)
    for p in range(s, s2):
        leave(acc, b, rows, op, p)
    for p in range(e2, e):
        leave(acc, b, rows, op, p)


@inline
def move_distinct(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> None:
    """Move the distinct values from frame (s, e) to (s2, e2)."""
    size = e2 - s2
    if acc[b + 1] != 0 and 4 * size < SHORT:
        drop_table(acc, b, rows)
        acc[b] = count_distinct(rows, op, s2, e2)
    elif acc[b + 1] != 0:
        shift_table(acc, b, rows, op, s, e, s2, e2)
    elif size > SHORT:
        tabulate(acc, b, rows, op, s2, e2)
    elif s2 < s or e2 < e:
        acc[b] = count_distinct(rows, op, s2, e2)
    else:
        _shift_short(acc, b, rows, op, s, e, s2, e2)


@inline
def glance_distinct(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
) -> int:
    """How many different values frame (s2, e2) has; what (s, e) has stays as it is."""
    if e2 - s2 <= SHORT:
        return count_distinct(rows, op, s2, e2)
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
