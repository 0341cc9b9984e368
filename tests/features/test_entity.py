"""The windows of one entity against their slow, obvious twin, and the laws that hold for all."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.features.entity import EntityState, join, take_together
from tidegate.features.plan import Aggregate, EntityPlan
from tidegate.sql.columns import Columns, array_of
from tidegate.sql.expression import Evaluated

from .streams import (
    BIGINT,
    SECRET,
    Stream,
    array,
    bits,
    close,
    expected,
    flat,
    held,
    plain,
    plans_of,
    streams,
    updated,
)
from .twin import Twin

EXAMPLES = 150


def results(stream: Stream, *cuts: int, key: bytes = SECRET, threads: int = 1) -> list[list[Any]]:
    state = EntityState(stream.plan, key=key, threads=threads)
    return flat(updated(state, stream, cuts), stream.plan.calls)


@settings(max_examples=500)
@given(streams())
def test_each_event_sees_what_the_twin_sees(stream: Stream) -> None:
    found = results(stream)
    for call, seen, wanted in zip(stream.plan.calls, found, expected(stream), strict=True):
        for row, (a, b) in enumerate(zip(seen, wanted, strict=True)):
            assert close(a, b), (row, call, a, b)


FRAMED = [a for a in Aggregate if a not in (Aggregate.LAG, Aggregate.LAG_EXISTS)]


@pytest.mark.parametrize("aggregate", FRAMED)
@settings(max_examples=60)
@given(data=st.data())
def test_an_aggregate_that_moves_is_as_if_computed_anew(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    stream = data.draw(streams(plans_of(aggregate)))
    for seen, wanted in zip(results(stream), expected(stream), strict=True):
        for row, (a, b) in enumerate(zip(seen, wanted, strict=True)):
            assert close(a, b), (row, a, b)


@settings(max_examples=EXAMPLES)
@given(streams(), st.lists(st.integers(0, 60), max_size=8))
def test_it_does_not_matter_how_the_stream_was_cut(stream: Stream, cuts: list[int]) -> None:
    assert bits(results(stream, *cuts)) == bits(results(stream))
    assert bits(results(stream, *range(60))) == bits(results(stream))


@settings(max_examples=EXAMPLES)
@given(streams(), st.binary(min_size=16, max_size=16))
def test_no_secret_changes_a_result(stream: Stream, key: bytes) -> None:
    assert bits(results(stream, key=key)) == bits(results(stream))


@settings(max_examples=EXAMPLES)
@given(streams(), st.integers(0, 60))
def test_a_snapshot_at_any_point_changes_nothing(stream: Stream, at: int) -> None:
    state = EntityState(stream.plan, key=SECRET)
    begun = Stream(stream.plan, stream.events[:at])
    before = updated(state, begun)
    again = EntityState.restore(stream.plan, list(state.snapshot()), key=SECRET)
    assert (again.keys, again.rows) == (state.keys, state.rows)
    whole, batch = results(stream), stream.batch()
    times = np.array([row.time for _, row in stream.events], dtype=np.int64)[at:]
    newest = np.array(stream.newest, dtype=np.int64)[at:]
    after = again.update(batch.slice(at), times=times, newest=newest)
    assert bits(flat([*before, after], stream.plan.calls)) == bits(whole)


@settings(max_examples=EXAMPLES)
@given(streams(), st.integers(0, 60), st.sampled_from([3, 40, 4096]), st.data())
def test_a_snapshot_is_of_the_moment_when_it_was_begun(
    stream: Stream, at: int, piece: int, data: st.DataObject
) -> None:
    """Whatever changes, is freed or comes anew while it is read, in pieces of so many words."""
    state = EntityState(stream.plan, key=SECRET)
    updated(state, Stream(stream.plan, stream.events[:at]))
    batch, newest = stream.batch(), np.array(stream.newest, dtype=np.int64)
    times = np.array([row.time for _, row in stream.events], dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidegate.features.entity._PIECE_WORDS", piece)
        whole = held(stream.plan, state.snapshot())
        buffers, found = state.begin_snapshot().buffers(), []
        for i in range(at, len(times)):
            found += [bytes(b) for b in islice(buffers, data.draw(st.integers(0, 2)))]
            part = slice(i, i + 1)
            state.update(batch.slice(i, 1), times=times[part], newest=newest[part])
            if data.draw(st.booleans()):
                state.expire(int(newest[i]))
        assert held(stream.plan, [*found, *(bytes(b) for b in buffers)]) == whole


@settings(max_examples=EXAMPLES)
@given(streams())
def test_freeing_all_that_can_be_freed_changes_nothing(stream: Stream) -> None:
    state, found = EntityState(stream.plan, key=SECRET), []
    batch, newest = stream.batch(), np.array(stream.newest, dtype=np.int64)
    times = np.array([row.time for _, row in stream.events], dtype=np.int64)
    for i in range(len(times)):
        part = slice(i, i + 1)
        found.append(state.update(batch.slice(i, 1), times=times[part], newest=newest[part]))
        state.expire(int(newest[i]))
    found = found or [state.update(batch, times=times, newest=newest)]
    assert bits(flat(found, stream.plan.calls)) == bits(results(stream))


@settings(max_examples=EXAMPLES)
@given(streams())
def test_a_state_may_be_taken_together_with_others_or_alone(stream: Stream) -> None:
    state, found = EntityState(stream.plan, key=SECRET), []
    batch, newest = stream.batch(), np.array(stream.newest, dtype=np.int64)
    times = np.array([row.time for _, row in stream.events], dtype=np.int64)
    joints = [join([state]), join([state])]
    for i in range(len(times)):
        columns, part = Columns(batch.slice(i, 1)), slice(i, i + 1)
        given_times = {"times": times[part], "newest": newest[part]}
        [taken] = take_together([state], joints[i % 2], columns, **given_times)
        found.append([Evaluated(array_of(values), errors) for values, errors in taken.found()])
    found = found or [state.update(batch, times=times, newest=newest)]
    assert bits(flat(found, stream.plan.calls)) == bits(results(stream))


@settings(max_examples=EXAMPLES)
@given(streams(), st.integers(-30, 30))
def test_a_peek_sees_what_the_twin_sees_and_changes_nothing(stream: Stream, step: int) -> None:
    state, twin = EntityState(stream.plan, key=SECRET), Twin(stream.plan)
    updated(state, stream)
    for (key, row), newest in zip(stream.events, stream.newest, strict=True):
        twin.update(key, row, newest=newest)
    newest = max(stream.newest, default=0)
    before = b"".join(state.snapshot())
    keys = list(dict.fromkeys(repr(k) for k, _ in stream.events))
    held = {repr(k): k for k, _ in stream.events}
    names, types = stream.plan.keys, stream.plan.key_types
    columns = {n: array([held[k][i] for k in keys], types[i]) for i, n in enumerate(names)}
    found = state.peek(pa.RecordBatch.from_pydict(columns), time=newest + step, newest=newest)
    for row_, k in enumerate(keys):
        wanted = twin.peek(held[k], time=newest + step, newest=newest)
        for call, seen, value in zip(stream.plan.calls, found, wanted, strict=True):
            assert close(plain(seen, call.type)[row_], value), (k, call, value)
    assert b"".join(state.snapshot()) == before


def test_a_key_of_another_length_is_refused() -> None:
    plan = EntityPlan(("k",), (BIGINT,), (), (), (), (), (), lateness=0, look_back=0)
    with pytest.raises(ValueError, match="a key has 16 bytes, saw 5"):
        EntityState(plan, key=b"short")
