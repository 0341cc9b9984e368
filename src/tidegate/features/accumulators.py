# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""What all accumulators have in common: what they take from a row, how those with `evict` move.

A frame holds the rows numbered s <= p < e. `move` takes an accumulator from the frame (s, e) to
(s2, e2): it evicts and adds single rows, or begins anew where that is less work, always by the
same rule, so that doubles depend on nothing but the order of the key's own events. An empty frame
is exact zero. `read` gives a word and a status: `NULL`, `VALUE`, or an error. Of what it is told,
`limit` is the greatest integer that fits, and `scale` has the bits of the power of ten by which
decimals are scaled. Each aggregate has a module with its law, its `move` and its `read`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tidegate.events.fingerprints import inline
from tidegate.features.history import Rows, at
from tidegate.features.layout import (
    A_BASE,
    A_BEST,
    A_DOUBLE,
    A_FILTER,
    A_FILTER_AT,
    A_NULL,
    A_NULL_AT,
    A_SCALE,
    A_VALUE,
)
from tidegate.features.memory import Words, real, unfolded

NULL, VALUE, OVERFLOW = 0, 1, 2
Answer = tuple[int, int]


class Operation(NamedTuple):
    """What an accumulator takes from a row: its value word, and the flags that let it in.

    `best` is which extreme of a chunk it may look up.
    """

    base: int
    value: int
    null_at: int
    null: int
    filter_at: int
    filter: int
    scale: float
    double: int
    best: int


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
        program[a + A_BEST],
    )


@inline
def of_record(op: Operation, r: int) -> Operation:
    """The operation for the record at r, from that for one at word 0."""
    return Operation(
        r + op.base,
        op.value,
        op.null_at,
        op.null,
        op.filter_at,
        op.filter,
        op.scale,
        op.double,
        op.best,
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


def mover(add: Any, evict: Any, worn: Any, size: int) -> Any:
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
def never(acc: Words, b: int) -> bool:
    """Nothing is lost."""
    return False
