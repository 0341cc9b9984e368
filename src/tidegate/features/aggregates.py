# ruff: noqa: ARG001 - all aggregates are called in one way, whatever each of them needs
"""Every kind of accumulator by its number: taken through a run of rows, or looked at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import Operation, meets, of_record, operation
from tidegate.features.counts import (
    add_count,
    add_true,
    evict_count,
    evict_true,
    move_count,
    move_true,
    read_count,
    read_true,
)
from tidegate.features.distinct import count_distinct, enter, glance_distinct, leave, move_distinct
from tidegate.features.extremes import (
    look_through,
    move_greatest,
    move_least,
    read_greatest,
    read_least,
)
from tidegate.features.history import Rows, at, rows_of
from tidegate.features.inputs import Batch, Lot, Run
from tidegate.features.layout import (
    A_FIRST,
    A_LAST,
    C_LIMIT,
    C_OUT,
    C_READ,
    C_SCALE,
    CALL,
    CALLS,
    CALLS_AT,
    COUNT_,
    DISTINCT,
    DOUBLE,
    FIRST_,
    GREATEST,
    INTEGER,
    LAST_,
    LEAST,
    R_COUNT,
    ROWS_,
    TRUE,
    VARIANCE,
)
from tidegate.features.memory import RECORDS, Words, unfolded, words_at
from tidegate.features.positions import move_first, move_last, read_position, read_rows
from tidegate.features.sums import (
    add_double,
    add_integer,
    evict_double,
    evict_integer,
    keep_sum,
    keep_whole,
    load_sum,
    load_whole,
    move_double,
    move_integer,
    read_double,
    read_integer,
    shift_sum,
    shift_whole,
    tell_sum,
    tell_whole,
    worn_double,
)
from tidegate.features.variance import (
    add_variance,
    evict_variance,
    move_variance,
    read_variance,
    worn_variance,
)


@inline
def include(
    acc: Words, kind: int, rows: Rows, op: Operation, s: int, e: int, b: int, p: int
) -> None:
    """Enter row p, which was inserted inside the frame (s, e), positions being shifted."""
    heap, row = rows.heap, at(rows, p)
    if kind == COUNT_:
        add_count(acc, b, heap, row, op)
    elif kind == TRUE:
        add_true(acc, b, heap, row, op)
    elif kind == INTEGER:
        add_integer(acc, b, rows, op, p)
    elif kind == DOUBLE:
        add_double(acc, b, heap, row, op)
    elif kind == VARIANCE:
        add_variance(acc, b, heap, row, op)
    elif kind == LEAST:
        look_through(acc, b, rows, op, 0, p, p + 1)
    elif kind == GREATEST:
        look_through(acc, b, rows, op, 1, p, p + 1)
    elif kind == FIRST_:
        if meets(heap, row, op):
            acc[b] = min(acc[b], p)
    elif kind == LAST_:
        if meets(heap, row, op):
            acc[b] = max(acc[b], p)
    elif kind == DISTINCT:
        if acc[b + 1] != 0:
            enter(acc, b, rows, op, p)
        else:
            acc[b] = count_distinct(rows, op, s, e)


def _runner(begin: Any, move: Any, read: Any, end: Any) -> tuple[Any, Any]:
    """What takes an accumulator through a run, and through a lot, and writes what its calls give.

    What `begin` gives is moved and read, and goes to `end`: the accumulator in registers, or where
    it lies.
    """

    @unfolded
    def write(
        acc: Words, held: Any, rows: Rows, op: Operation, s: int, e: int, batch: Batch, told: _Told
    ) -> None:
        """Write what the calls give for a row whose frame is (s, e)."""
        word, state = read(acc, held, rows, op, s, e, told.what, told.limit, told.scale)
        to = told.to + told.column
        batch.out[to], batch.status[to] = word, state
        if told.beside >= 0:
            to = told.to + told.beside
            word, state = read(acc, held, rows, op, s, e, R_COUNT, 0, 0)
            batch.out[to], batch.status[to] = word, state
            return
        program = told.program
        for d in range(told.first + CALL, told.last, CALL):
            what, limit, scale = program[d + C_READ], program[d + C_LIMIT], program[d + C_SCALE]
            word, state = read(acc, held, rows, op, s, e, what, limit, scale)
            to = told.to + program[d + C_OUT]
            batch.out[to], batch.status[to] = word, state

    @unfolded
    def run_through(
        acc: Words,
        rows: Rows,
        op: Operation,
        program: Words,
        a: int,
        s: int,
        e: int,
        batch: Batch,
        run: Run,
    ) -> None:
        held, told, calls = begin(acc, op.base), _told(program, a), program[CALLS]
        for x in range(run.size):
            s2, e2 = run.starts[x], run.ends[x]
            held = move(acc, held, rows, op, s, e, s2, e2)
            s, e = s2, e2
            write(acc, held, rows, op, s, e, batch, _to(told, calls * run.of[x]))
        end(acc, op.base, held)

    @unfolded
    def lot_through(program: Words, a: int, batch: Batch, lot: Lot) -> None:
        plain, told, calls = operation(program, a, 0), _told(program, a), program[CALLS]
        for x in range(lot.size):
            shard, r = words_at(lot.shards[x]), lot.records[x]
            acc = words_at(shard[RECORDS])
            rows, op = rows_of(shard, program, acc, r), of_record(plain, r)
            s, e = lot.starts[x], lot.ends[x]
            held = move(acc, begin(acc, op.base), rows, op, lot.begun[x], lot.ended[x], s, e)
            write(acc, held, rows, op, s, e, batch, _to(told, calls * lot.rows[x]))
            end(acc, op.base, held)

    return run_through, lot_through


class _Told(NamedTuple):
    """The calls of an accumulator, and from which place on results of a row are written.

    Of the first call all is known that is read of the program: what is stored could be the program,
    for all that the compiler knows. Most often there is one more, how many rows there are, for
    which no more is worked out: `beside` is its column, or -1.
    """

    program: Words
    first: int
    last: int
    column: int
    what: int
    limit: int
    scale: int
    beside: int
    to: int


@inline
def _told(program: Words, a: int) -> _Told:
    c = program[CALLS_AT] + CALL * program[a + A_FIRST]
    last = program[CALLS_AT] + CALL * program[a + A_LAST]
    counted = last - c == 2 * CALL and program[c + CALL + C_READ] == R_COUNT
    return _Told(
        program,
        c,
        last,
        program[c + C_OUT],
        program[c + C_READ],
        program[c + C_LIMIT],
        program[c + C_SCALE],
        program[c + CALL + C_OUT] if counted else -1,
        0,
    )


@inline
def _to(told: _Told, to: int) -> _Told:
    return _Told(
        told.program,
        told.first,
        told.last,
        told.column,
        told.what,
        told.limit,
        told.scale,
        told.beside,
        to,
    )


@inline
def _place(acc: Words, b: int) -> int:
    return b


@inline
def _done(acc: Words, b: int, held: int) -> None:
    """It is where it was."""


def _placed(move: Any, read: Any) -> tuple[Any, Any]:
    """Those of an accumulator that stays where it lies."""

    @inline
    def moved(
        acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int
    ) -> int:
        move(acc, b, rows, op, s, e, s2, e2)
        return b

    return _runner(_place, moved, read, _done)


@inline
def _stay(acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int) -> None:
    """Nothing to keep up."""


_run_rows, _lot_rows = _placed(_stay, read_rows)
_run_count, _lot_count = _placed(move_count, read_count)
_run_integer, _lot_integer = _runner(load_whole, shift_whole, tell_whole, keep_whole)
_run_double, _lot_double = _runner(load_sum, shift_sum, tell_sum, keep_sum)
_run_variance, _lot_variance = _placed(move_variance, read_variance)
_run_least, _lot_least = _placed(move_least, read_least)
_run_greatest, _lot_greatest = _placed(move_greatest, read_greatest)
_run_distinct, _lot_distinct = _placed(move_distinct, read_count)
_run_true, _lot_true = _placed(move_true, read_true)
_run_first, _lot_first = _placed(move_first, read_position)
_run_last, _lot_last = _placed(move_last, read_position)


@unfolded
def run_any(
    kind: int,
    acc: Words,
    rows: Rows,
    op: Operation,
    program: Words,
    a: int,
    s: int,
    e: int,
    batch: Batch,
    run: Run,
) -> None:
    """Take an accumulator of any kind through a run."""
    if kind == ROWS_:
        _run_rows(acc, rows, op, program, a, s, e, batch, run)
    elif kind == COUNT_:
        _run_count(acc, rows, op, program, a, s, e, batch, run)
    elif kind == INTEGER:
        _run_integer(acc, rows, op, program, a, s, e, batch, run)
    elif kind == DOUBLE:
        _run_double(acc, rows, op, program, a, s, e, batch, run)
    elif kind == VARIANCE:
        _run_variance(acc, rows, op, program, a, s, e, batch, run)
    elif kind == LEAST:
        _run_least(acc, rows, op, program, a, s, e, batch, run)
    elif kind == GREATEST:
        _run_greatest(acc, rows, op, program, a, s, e, batch, run)
    elif kind == DISTINCT:
        _run_distinct(acc, rows, op, program, a, s, e, batch, run)
    elif kind == TRUE:
        _run_true(acc, rows, op, program, a, s, e, batch, run)
    elif kind == FIRST_:
        _run_first(acc, rows, op, program, a, s, e, batch, run)
    elif kind == LAST_:
        _run_last(acc, rows, op, program, a, s, e, batch, run)


@unfolded
def lot_any(kind: int, program: Words, a: int, batch: Batch, lot: Lot) -> None:
    """Take an accumulator of any kind through a lot."""
    if kind == ROWS_:
        _lot_rows(program, a, batch, lot)
    elif kind == COUNT_:
        _lot_count(program, a, batch, lot)
    elif kind == INTEGER:
        _lot_integer(program, a, batch, lot)
    elif kind == DOUBLE:
        _lot_double(program, a, batch, lot)
    elif kind == VARIANCE:
        _lot_variance(program, a, batch, lot)
    elif kind == LEAST:
        _lot_least(program, a, batch, lot)
    elif kind == GREATEST:
        _lot_greatest(program, a, batch, lot)
    elif kind == DISTINCT:
        _lot_distinct(program, a, batch, lot)
    elif kind == TRUE:
        _lot_true(program, a, batch, lot)
    elif kind == FIRST_:
        _lot_first(program, a, batch, lot)
    elif kind == LAST_:
        _lot_last(program, a, batch, lot)


@inline
def run_once(
    kind: int,
    acc: Words,
    rows: Rows,
    op: Operation,
    program: Words,
    a: int,
    s: int,
    e: int,
    batch: Batch,
    run: Run,
) -> None:
    """The same where it is not worth code of its own."""
    run_any(kind, acc, rows, op, program, a, s, e, batch, run)


def _glancer(move: Any, read: Any, size: int) -> Any:
    """A function that reads an accumulator at another frame and leaves it as it is."""

    @inline
    def go(
        acc: Words,
        rows: Rows,
        op: Operation,
        program: Words,
        a: int,
        s: int,
        e: int,
        s2: int,
        e2: int,
        batch: Batch,
        k: int,
    ) -> None:
        for w in range(size):
            batch.copy[w] = acc[op.base + w]
        move(batch.copy, 0, rows, op, s, e, s2, e2)
        first = program[CALLS_AT] + CALL * program[a + A_FIRST]
        last = program[CALLS_AT] + CALL * program[a + A_LAST]
        for c in range(first, last, CALL):
            to = k * program[CALLS] + program[c + C_OUT]
            word, state = read(
                batch.copy,
                0,
                rows,
                op,
                s2,
                e2,
                program[c + C_READ],
                program[c + C_LIMIT],
                program[c + C_SCALE],
            )
            batch.out[to], batch.status[to] = word, state

    return go


_glance_rows = _glancer(_stay, read_rows, 0)
_glance_count = _glancer(move_count, read_count, 1)
_glance_integer = _glancer(move_integer, read_integer, 3)
_glance_double = _glancer(move_double, read_double, 6)
_glance_variance = _glancer(move_variance, read_variance, 8)
_glance_least = _glancer(move_least, read_least, 2)
_glance_greatest = _glancer(move_greatest, read_greatest, 2)
_glance_true = _glancer(move_true, read_true, 2)
_glance_first = _glancer(move_first, read_position, 1)
_glance_last = _glancer(move_last, read_position, 1)


@inline
def glance_any(
    kind: int,
    acc: Words,
    rows: Rows,
    op: Operation,
    program: Words,
    a: int,
    s: int,
    e: int,
    s2: int,
    e2: int,
    batch: Batch,
    k: int,
) -> None:
    """Read an accumulator of any kind at another frame, and leave it as it is."""
    if kind == ROWS_:
        _glance_rows(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == COUNT_:
        _glance_count(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == INTEGER:
        _glance_integer(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == DOUBLE:
        _glance_double(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == VARIANCE:
        _glance_variance(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == LEAST:
        _glance_least(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == GREATEST:
        _glance_greatest(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == TRUE:
        _glance_true(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == FIRST_:
        _glance_first(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == LAST_:
        _glance_last(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == DISTINCT:
        # Integers come back exactly, so that the table itself may go there and back.
        count = glance_distinct(acc, op.base, rows, op, s, e, s2, e2)
        for c in range(program[a + A_FIRST], program[a + A_LAST]):
            to = k * program[CALLS] + program[program[CALLS_AT] + CALL * c + C_OUT]
            batch.out[to], batch.status[to] = count, 1


# A row whose values are corrected leaves the frames that it lies in and enters them again.


@inline
def exclude(acc: Words, kind: int, rows: Rows, op: Operation, b: int, p: int) -> None:
    """Take row p out of its frame, which is whole again after `readmit`."""
    heap, row = rows.heap, at(rows, p)
    if kind == COUNT_:
        evict_count(acc, b, heap, row, op)
    elif kind == TRUE:
        evict_true(acc, b, heap, row, op)
    elif kind == INTEGER:
        evict_integer(acc, b, rows, op, p)
    elif kind == DOUBLE:
        evict_double(acc, b, heap, row, op)
    elif kind == VARIANCE:
        evict_variance(acc, b, heap, row, op)
    elif kind == DISTINCT and acc[b + 1] != 0:
        leave(acc, b, rows, op, p)


@inline
def readmit(
    acc: Words, kind: int, rows: Rows, op: Operation, s: int, e: int, b: int, p: int
) -> None:
    """Enter row p of the frame (s, e), which was taken out, with the values that it has now."""
    if kind == DOUBLE and worn_double(acc, b):
        move_double(acc, b, rows, op, s, s, s, e)
    elif kind == VARIANCE and worn_variance(acc, b):
        move_variance(acc, b, rows, op, s, s, s, e)
    elif kind == LEAST and acc[b] == p:
        move_least(acc, b, rows, op, s, s, s, e)
    elif kind == GREATEST and acc[b] == p:
        move_greatest(acc, b, rows, op, s, s, s, e)
    elif kind == FIRST_ and acc[b] == p:
        move_first(acc, b, rows, op, s, s, s, e)
    elif kind == LAST_ and acc[b] == p:
        move_last(acc, b, rows, op, s, s, s, e)
    else:
        include(acc, kind, rows, op, s, e, b, p)
