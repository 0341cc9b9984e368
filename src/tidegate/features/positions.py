# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""The first and the last row of a frame, or those that meet a filter."""

from __future__ import annotations

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import NULL, VALUE, Answer, Operation, meets
from tidegate.features.history import Rows, at
from tidegate.features.layout import R_COUNT, R_FIRST
from tidegate.features.memory import Words

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
def shift_position(acc: Words, b: int, p: int) -> None:
    """Follow the row whose number grew by one when row p was inserted."""
    if acc[b] >= p:
        acc[b] += 1
