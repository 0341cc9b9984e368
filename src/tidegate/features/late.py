"""One row that is late, or none: the frames around a time anywhere in a key's history."""

from __future__ import annotations

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import operation
from tidegate.features.aggregates import glance_any, include, run_once
from tidegate.features.history import Rows, at, first_from, insert, make_room, rows_of
from tidegate.features.inputs import Batch, Run
from tidegate.features.layout import (
    A_KIND,
    ACCUMULATOR,
    ACCUMULATORS_AT,
    BASE,
    COUNT,
    DISTINCT,
    F_END,
    F_EXCLUDE,
    F_FIRST,
    F_LAST,
    F_ROWS,
    F_START,
    FRAME,
    FRAMES,
    FRAMES_AT,
    FRONTIER,
    HEADER,
    LEAST,
    LOOK_BACK,
    TRUE,
    WIDTH,
)
from tidegate.features.memory import Words
from tidegate.features.packing import guard_rows
from tidegate.features.positions import shift_position
from tidegate.features.runs import put, read_lags


@inline
def _frame_at(
    rows: Rows, program: Words, f: int, base: int, p: int, own: int, time: int, horizon: int
) -> tuple[int, int]:
    """The frame of an event at `time` whose place is p; `own` is 1 if it is stored there."""
    end, until = program[f + F_END], p + own
    if program[f + F_EXCLUDE]:
        until = p
    if program[f + F_ROWS]:
        lower = max(time - program[LOOK_BACK], horizon)
        s = max(p - program[f + F_START], first_from(rows, lower, base, p))
        e = p - end + 1
    else:
        s = first_from(rows, max(time - program[f + F_START], horizon), base, until)
        e = until if end == 0 else first_from(rows, time - end + 1, base, until)
    return s, max(s, min(e, until))


@inline
def glance(
    shard: Words,
    program: Words,
    records: Words,
    r: int,
    p: int,
    own: int,
    time: int,
    horizon: int,
    batch: Batch,
    k: int,
) -> None:
    """What the calls give at `time`, whose place is p; the key stays as it is."""
    rows, base = rows_of(shard, program, records, r), records[r + BASE]
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
        s, e = records[held], records[held + 1]
        s2, e2 = _frame_at(rows, program, f, base, p, own, time, horizon)
        for number in range(program[f + F_FIRST], program[f + F_LAST]):
            a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
            op, kind = operation(program, a, r), program[a + A_KIND]
            glance_any(kind, records, rows, op, program, a, s, e, s2, e2, batch, k)
    read_lags(rows, program, base, p, max(time - program[LOOK_BACK], horizon), batch, k)


@inline
def _target(
    program: Words, f: int, s: int, e: int, p: int, time: int, frontier: int, last: int
) -> tuple[int, int, int]:
    """Where the newest row's frame lies after row p came in, and how it got there.

    Gives (s, e, way): way 0, the frame did not contain the row's place, which lies behind it; 1,
    it lies before; 2, inside. `last` is the newest row's number now.
    """
    by_rows, start = program[f + F_ROWS], program[f + F_START]
    reach = program[LOOK_BACK] if by_rows else start
    young = time >= frontier - reach
    if not by_rows:
        contained = young and time <= frontier - program[f + F_END]
        if p < s or (p == s and (contained or not young)):
            return (s if contained else s + 1), e + 1, 1
        return s, (e + 1 if contained else e), (2 if p < e else 0)
    end = last - program[f + F_END] + 1
    if program[f + F_EXCLUDE]:
        end = min(end, last)
    if p > s:
        first, way = max(last - start, s), (2 if p < e else 0)
    else:
        first, way = (s if p == s and young and s >= last - start else s + 1), 1
    return first, max(first, end), way


@inline
def take_late(shard: Words, program: Words, records: Words, r: int, batch: Batch, run: Run) -> None:
    """Store a row behind the frontier, let the newest frames know, give what it sees itself."""
    k = run.of[0]
    time, horizon = batch.rows[k * program[WIDTH]], batch.horizons[k]
    frontier = records[r + FRONTIER]
    make_room(shard, program, records, r, 1)
    rows, base = rows_of(shard, program, records, r), records[r + BASE]
    p = first_from(rows, time + 1, base, base + records[r + COUNT])
    guard_rows(shard, program, records, r, p, base + records[r + COUNT])
    insert(shard, program, records, r, p)
    put(rows, at(rows, p), batch, k)
    last = base + records[r + COUNT] - 1
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
        s, e = records[held], records[held + 1]
        s2, e2, way = _target(program, f, s, e, p, time, frontier, last)
        s, e = (s + 1 if way == 1 else s), (e + 1 if way > 0 else e)
        for number in range(program[f + F_FIRST], program[f + F_LAST]):
            a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
            op, kind = operation(program, a, r), program[a + A_KIND]
            if way > 0 and kind >= LEAST and kind != DISTINCT and kind != TRUE:
                shift_position(records, op.base, p)
            if way == 2:
                include(records, kind, rows, op, s, e, op.base, p)
            if s2 != s or e2 != e:
                run.starts[0], run.ends[0] = s2, e2
                run_once(kind, records, rows, op, program, a, s, e, batch, run)
        records[held], records[held + 1] = s2, e2
    glance(shard, program, records, r, p, 1, time, horizon, batch, k)
