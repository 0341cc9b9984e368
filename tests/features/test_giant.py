"""A key with many more rows than a chunk has: it slows only itself, and that within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tidegate.features.entity import EntityState
from tidegate.features.history import CHUNK
from tidegate.features.plan import LOG_OFFSET, Aggregate, Call, EntityPlan, Frame

from .streams import BIGINT, DOUBLE, SECRET, Stream, bits, flat, held
from .test_amend import assert_close
from .test_long import taken, wandering
from .twin import Row, Twin

COUNT, MORE = 6 * CHUNK, 90
FRAMES = (Frame(False, 5 * COUNT, 0), Frame(False, 4 * COUNT, 30), Frame(True, 3 * CHUNK, 0))
EXTREMES = tuple(
    Call(aggregate, value, (DOUBLE, BIGINT)[value], frame, kept)
    for aggregate in (Aggregate.MIN, Aggregate.MAX)
    for value in (0, 1)
    for frame in range(len(FRAMES))
    for kept in (None, 0)
)
PLAN = EntityPlan(
    *(("card",), (BIGINT,), ("amount", "points"), (DOUBLE, BIGINT), ("night",), FRAMES, EXTREMES),
    lateness=COUNT,
    look_back=10 * COUNT,
)

# What the amounts do as rows come: the best of a frame is often its first row, or its last.
PATTERNS: dict[str, Callable[[int], float]] = {
    "falling": lambda n: -float(n),
    "rising": float,
    "waves": lambda n: math.sin(n / 400),
    "equal": lambda n: float(n // 2000),
    "odd": lambda n: (math.nan, -0.0, 0.0, math.inf, -1.5)[n * n % 5],
}


def giant(pattern: str) -> Stream:
    """One key's events two apart in time, some of the last late; nulls and filters among them."""
    random, value = np.random.default_rng(5), PATTERNS[pattern]
    events = []
    for n in range(COUNT + MORE):
        late = int(random.integers(0, 3 * CHUNK)) if n > COUNT and n % 9 == 0 else 0
        amount = None if random.random() < 0.05 else value(n - late)
        points = int(random.integers(-5, 5)) - n // 1000
        night = (None, True, False)[int(random.integers(3))]
        events.append(((1,), Row(2 * (n - late), (amount, points), (night,))))
    return Stream(PLAN, tuple(events))


def wanted(stream: Stream, first: int, rows: list[Row] | None = None) -> list[list[Any]]:
    """What the twin gives for the events from the first on; those before are as `rows` has them."""
    twin, events = Twin(stream.plan), stream.events
    twin.rows[(1,)] = [row for _, row in events[:first]] if rows is None else rows
    newest = stream.newest
    found = [twin.update(*events[n], newest=newest[n]) for n in range(first, len(events))]
    return [list(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_extremes_of_thousands_of_rows_are_what_the_twin_sees(pattern: str) -> None:
    stream = giant(pattern)
    found = taken(stream, EntityState(PLAN, key=SECRET), COUNT, *range(COUNT + 1, COUNT + 60))
    assert_close([column[COUNT:] for column in found], wanted(stream, COUNT))


@pytest.mark.parametrize("pattern", ["falling", "waves", "odd"])
def test_cuts_and_snapshots_change_no_extreme(pattern: str) -> None:
    """Whether the best of a chunk is known already, or has to be looked for."""
    stream = giant(pattern)
    whole = bits(taken(stream, EntityState(PLAN, key=SECRET)))
    assert bits(taken(stream, EntityState(PLAN, key=SECRET), *range(0, COUNT, 777))) == whole
    state, batch = EntityState(PLAN, key=SECRET), stream.batch()
    times, newest = np.array([row.time for _, row in stream.events]), np.array(stream.newest)
    found, cut = [], COUNT - 100
    for part in (slice(0, cut), slice(cut, None)):
        given = batch.slice(part.start, len(times[part]))
        found.append(state.update(given, times=times[part], newest=newest[part]))
        state = EntityState.restore(PLAN, list(state.snapshot()), key=SECRET)
    assert bits(flat(found, EXTREMES)) == whole


def test_a_corrected_value_is_seen_in_the_extremes_of_its_chunk() -> None:
    plan = replace(PLAN, values=(*PLAN.values, LOG_OFFSET), value_types=(DOUBLE, BIGINT, BIGINT))
    plain = giant("waves").events
    events = tuple((k, replace(r, values=(*r.values, n))) for n, (k, r) in enumerate(plain))
    stream, state, random = Stream(plan, events), EntityState(plan, key=SECRET), np.random
    rows = [row for _, row in events[:COUNT]]
    times, newest = np.array([r.time for _, r in events]), np.array(stream.newest)
    batch, found = stream.batch(), []
    taken(Stream(plan, events[:COUNT]), state)
    for n in random.default_rng(2).integers(COUNT // 2, COUNT, 20).tolist():
        other = (float(random.default_rng(n).integers(-3, 3)), n % 50, n)
        rows[n] = replace(rows[n], values=other)
    for n in [i for i, (row, (_, old)) in enumerate(zip(rows, events, strict=False)) if row != old]:
        given = Stream(plan, (((1,), rows[n]),)).batch()
        assert state.amend(given, times=times[n : n + 1], changed={"amount", "points"}) == 1
    found = [state.update(batch[COUNT:], times=times[COUNT:], newest=newest[COUNT:])]
    assert_close(flat(found, EXTREMES), wanted(stream, COUNT, rows))


@pytest.mark.parametrize("piece", [700, 3_000, 1 << 17])
@pytest.mark.parametrize("seed", range(3))
def test_a_giant_key_may_change_while_a_snapshot_has_it_in_part(
    piece: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come, come late far back, and go, between any two parts of the copy."""
    monkeypatch.setattr("tidegate.features.entity._PIECE_WORDS", piece)
    stream = wandering(6_000, keys=2, late=0.05, seed=20 + seed)
    begun = Stream(stream.plan, stream.events[:4_500])
    state, alone = (EntityState(stream.plan, key=SECRET, threads=2) for _ in range(2))
    taken(begun, state), taken(begun, alone)
    whole = held(stream.plan, state.snapshot())
    buffers = state.begin_snapshot().buffers()
    random, parts, ends = np.random.default_rng(seed), list[bytes](), list[int]()
    batch, newest = stream.batch(), np.array(stream.newest)
    times, first, found = np.array([r.time for _, r in stream.events]), 4_500, []
    while first < 6_000:
        parts += [bytes(p) for _, p in zip(range(int(random.integers(3))), buffers, strict=False)]
        last = min(6_000, first + int(random.integers(1, 60)))
        part = slice(first, last)
        found.append(
            state.update(batch.slice(first, last - first), times=times[part], newest=newest[part])
        )
        ends.append(last - 4_500)
        first = last
    parts += [bytes(part) for part in buffers]
    assert held(stream.plan, parts) == whole
    more = Stream(stream.plan, stream.events[4_500:])
    wanted = alone.update(batch[4_500:], times=times[4_500:], newest=newest[4_500:])
    assert bits(flat(found, more.plan.calls)) == bits(flat([wanted], more.plan.calls))


def test_an_update_keeps_of_a_giant_key_what_it_changes_and_no_more() -> None:
    stream, count = giant("rising"), 20 * CHUNK
    plan = replace(PLAN, frames=(Frame(False, 10**9, 0),) * 3, calls=EXTREMES[:4])
    rows = [((1,), Row(n, (float(n), n), (True,))) for n in range(count)]
    state = EntityState(plan, key=SECRET)
    taken(Stream(plan, tuple(rows)), state)
    del stream
    buffers = state.begin_snapshot().buffers()

    def come(time: int) -> int:
        given = Stream(plan, (((1,), Row(time, (0.0, 0), (True,))),)).batch()
        state.update(given, times=np.array([time]), newest=np.array([count]))
        return state.kept_bytes

    room = state.bytes_per_key + 100
    assert come(count) <= room
    assert come(count - 500) <= room + (501 + 6) * state.bytes_per_row
    assert come(count - 400) <= room + (501 + 6) * state.bytes_per_row
    whole = held(plan, buffers)
    assert len(whole) > count * state.bytes_per_row
    assert state.kept_bytes == 0


def test_a_giant_key_that_is_dead_is_freed_once_a_snapshot_has_it() -> None:
    stream = giant("rising")
    state = EntityState(PLAN, key=SECRET)
    taken(stream, state)
    whole = held(PLAN, state.snapshot())
    buffers = state.begin_snapshot().buffers()
    state.expire(100 * COUNT)
    assert state.keys == 1
    assert state.kept_bytes == 0
    assert held(PLAN, buffers) == whole
    state.expire(100 * COUNT)
    assert (state.keys, state.rows) == (0, 0)
