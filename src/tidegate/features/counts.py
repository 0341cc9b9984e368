# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""How many rows are let in, and how many of them are true."""

from __future__ import annotations

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import NULL, VALUE, Answer, Operation, mover, never, passes
from tidegate.features.history import Rows
from tidegate.features.layout import R_ALL, R_COUNT
from tidegate.features.memory import Words

# Count: the rows let in. Law: adding and evicting are inverse, exactly.


@inline
def add_count(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Let a row in."""
    if passes(heap, row, op):
        acc[b] += 1


@inline
def evict_count(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Take a row out."""
    if passes(heap, row, op):
        acc[b] -= 1


move_count = mover(add_count, evict_count, never, 1)


@inline
def read_count(
    acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, read: int, limit: int, scale: int
) -> Answer:
    """How many rows were let in, or how many different values."""
    return acc[b], VALUE


# Trues: the rows let in, and those of them that are true.


@inline
def add_true(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Let a row in."""
    if passes(heap, row, op):
        acc[b] += 1
        acc[b + 1] += heap[row + op.value]


@inline
def evict_true(acc: Words, b: int, heap: Words, row: int, op: Operation) -> None:
    """Take a row out."""
    if passes(heap, row, op):
        acc[b] -= 1
        acc[b + 1] -= heap[row + op.value]


move_true = mover(add_true, evict_true, never, 2)


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
