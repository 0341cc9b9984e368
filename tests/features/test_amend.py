"""Labels on earlier events: what is kept of them is corrected, and everything made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidegate.features.entity import EntityState
from tidegate.features.plan import LOG_OFFSET, Aggregate, Call, EntityPlan, Frame
from tidegate.schema import ColumnType
from tidegate.sql.expression import Evaluated

from .streams import (
    BIGINT,
    BOOLEAN,
    SECRET,
    TEXT,
    Stream,
    bits,
    close,
    flat,
    plans,
    plans_of,
    results_of,
    streams,
    values_of,
)
from .twin import Key, Row, Twin


@dataclass(frozen=True)
class Correction:
    """From the place `after` in the stream on, event `number` has another row."""

    after: int
    number: int
    row: Row


@dataclass(frozen=True)
class Labelled:
    """A stream whose events are corrected on the way, in the columns `changed`."""

    stream: Stream
    changed: frozenset[str]
    corrections: tuple[Correction, ...]


def with_offsets(plan: EntityPlan) -> EntityPlan:
    return replace(plan, values=(*plan.values, LOG_OFFSET), value_types=(*plan.value_types, BIGINT))


@st.composite
def labelled(draw: st.DrawFn, chosen: st.SearchStrategy[EntityPlan]) -> Labelled:
    """A stream, and corrections of events long gone, of the newest, again and again."""
    plain = draw(streams(chosen))
    plan = plain.plan
    stream = Stream(
        with_offsets(plan),
        tuple(
            (key, replace(row, values=(*row.values, n)))
            for n, (key, row) in enumerate(plain.events)
        ),
    )
    names = [*plan.values, *plan.filters]
    changed = draw(st.sets(st.sampled_from(names), min_size=1))
    count = len(stream.events)
    found: list[Correction] = []
    for _ in range(draw(st.integers(0, 12)) if count else 0):
        number = draw(st.integers(0, count - 1))
        after = draw(st.integers(number + 1, count))
        row = stream.events[number][1]
        values = [
            draw(values_of(kind)) if name in changed else old
            for name, kind, old in zip(plan.values, plan.value_types, row.values, strict=False)
        ]
        filters = [
            draw(st.none() | st.booleans()) if name in changed else old
            for name, old in zip(plan.filters, row.filters, strict=True)
        ]
        found.append(Correction(after, number, Row(row.time, (*values, number), tuple(filters))))
    found.sort(key=lambda c: c.after)
    return Labelled(stream, frozenset(changed), tuple(found))


def batch_of(plan: EntityPlan, events: Sequence[tuple[Key, Row]]) -> pa.RecordBatch:
    return Stream(plan, tuple(events)).batch()


def run(case: Labelled, *, cuts: Sequence[int] = (), threads: int = 1, saved: int = -1) -> Any:
    """The results of the stream's batches, cut where corrections come and where `cuts` says.

    Before the event `saved` the state goes through a snapshot.
    """
    stream, plan = case.stream, case.stream.plan
    state = EntityState(plan, key=SECRET, threads=threads)
    times = np.array([row.time for _, row in stream.events], dtype=np.int64)
    newest, given_ = np.array(stream.newest, dtype=np.int64), stream.batch()
    count = len(times)
    places = {0, count, *(c.after for c in case.corrections), *cuts, max(saved, 0)}
    found: list[list[Evaluated]] = []
    ends = sorted(p for p in places if p <= count)
    for first, last in pairwise([*ends, count]):
        if first == saved:
            parts = [bytes(part) for part in state.snapshot()]
            state = EntityState.restore(plan, parts, key=SECRET, threads=threads)
        due = [c for c in case.corrections if c.after == first]
        rows = [(stream.events[c.number][0], c.row) for c in due]
        state.amend(
            batch_of(plan, rows),
            times=np.array([c.row.time for c in due], dtype=np.int64),
            changed=case.changed,
        )
        part = slice(first, last)
        found.append(
            state.update(given_.slice(first, last - first), times=times[part], newest=newest[part])
        )
    return flat(found, plan.calls)


def expected(case: Labelled) -> list[list[Any]]:
    """The same by the twin, which keeps all rows and computes every frame from scratch."""
    twin, stream = Twin(case.stream.plan), case.stream
    found = []
    for place, ((key, row), newest) in enumerate(zip(stream.events, stream.newest, strict=True)):
        for correction in case.corrections:
            if correction.after == place:
                for rows in twin.rows.values():
                    rows[:] = [
                        correction.row if r.values[-1] == correction.number else r for r in rows
                    ]
        found.append(twin.update(key, row, newest=newest))
    return [[row[c] for row in found] for c in range(len(stream.plan.calls))]


def assert_close(seen: list[list[Any]], wanted: list[list[Any]]) -> None:
    for column, other in zip(seen, wanted, strict=True):
        assert all(map(close, column, other)), (column, other)


@given(labelled(plans()))
def test_after_a_correction_everything_is_as_if_the_row_had_come_so(case: Labelled) -> None:
    assert_close(run(case), expected(case))


@given(labelled(st.sampled_from(sorted(a for a in Aggregate if "lag" not in a)).flatmap(plans_of)))
def test_each_aggregate_follows_corrections(case: Labelled) -> None:
    assert_close(run(case), expected(case))


@given(labelled(plans()), st.lists(st.integers(0, 60)), st.integers(-1, 60))
def test_cuts_threads_and_snapshots_change_no_bit(
    case: Labelled, cuts: list[int], saved: int
) -> None:
    plain = bits(run(case))
    assert bits(run(case, cuts=cuts, threads=2, saved=min(saved, len(case.stream.events)))) == plain


def long_plan(kind: ColumnType, aggregates: dict[Aggregate, ColumnType]) -> EntityPlan:
    frames = (Frame(rows=False, start=100_000, end=0), Frame(rows=False, start=5_000, end=100))
    calls = [
        Call(a, 0, given_, f, kept)
        for a, given_ in aggregates.items()
        for f in range(2)
        for kept in (None, 0)
    ]
    return EntityPlan(
        *(("k",), (BIGINT,), ("v",), (kind,), ("f",), frames, tuple(calls)),
        lateness=10,
        look_back=30,
    )


def test_a_key_with_thousands_of_rows_and_texts_is_corrected_in_its_chunks() -> None:
    """Frames long enough for tables of distinct values, and rows in several chunks."""
    rng = np.random.default_rng(7)
    plan = with_offsets(long_plan(TEXT, results_of(TEXT)))
    texts = [None, "", "a", "fraud", "legitimate", "x" * 30, *(f"t{i}" for i in range(200))]
    events = tuple(
        (
            (1,),
            Row(int(i // 3), (texts[rng.integers(len(texts))], i), (bool(rng.integers(2)),)),
        )
        for i in range(4_000)
    )
    corrections = []
    for after in range(0, 4_000, 50):
        for number in rng.integers(0, max(after, 1), size=3) if after else []:
            row = events[number][1]
            other = (texts[rng.integers(len(texts))], int(number))
            corrections.append(Correction(after, int(number), Row(row.time, other, (None,))))
    case = Labelled(Stream(plan, events), frozenset({"v", "f"}), tuple(corrections))
    assert [column[-1] for column in run(case)] == last_row(case)


def last_row(case: Labelled) -> list[Any]:
    """What the twin gives for the last event alone, all corrections made."""
    stream = case.stream
    rows = {n: row for n, (_, row) in enumerate(stream.events)}
    rows |= {c.number: c.row for c in case.corrections}
    twin = Twin(stream.plan)
    last = len(stream.events) - 1
    twin.rows[(1,)] = [rows[n] for n in range(last)]
    return twin.update((1,), stream.events[last][1], newest=stream.newest[-1])


def test_a_row_that_is_not_there_is_passed_over() -> None:
    plan = with_offsets(long_plan(BOOLEAN, {Aggregate.BOOL_OR: BOOLEAN}))
    state = EntityState(plan, key=SECRET)
    times = np.array([0], dtype=np.int64)
    state.update(batch_of(plan, [((1,), Row(0, (True, 5), (True,)))]), times=times, newest=times)

    def found(key: int, time: int, offset: int) -> int:
        given_ = batch_of(plan, [((key,), Row(time, (False, offset), (True,)))])
        at = np.array([time], dtype=np.int64)
        return state.amend(given_, times=at, changed={"v"})

    assert [found(1, 0, 5), found(2, 0, 5), found(1, 1, 5), found(1, 0, 4)] == [1, 0, 0, 0]
