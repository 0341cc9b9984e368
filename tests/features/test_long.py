"""Windows over many rows of one key: chunks, tables of values, late rows far back, no drift."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tidegate.errors import DamageError
from tidegate.features.entity import EntityState
from tidegate.features.plan import Aggregate, Call, EntityPlan, Frame

from .streams import BIGINT, BOOLEAN, DOUBLE, SECRET, TEXT, Stream, bits, close, expected, flat
from .twin import Row

HOUR = 3_600_000_000


def plan(*calls: Call, frames: tuple[Frame, ...], lateness: int = 0) -> EntityPlan:
    kinds = (DOUBLE, BIGINT, TEXT)
    names = ("amount", "points", "device")
    return EntityPlan(
        ("card",), (BIGINT,), names, kinds, ("night",), frames, calls, lateness, look_back=HOUR
    )


EVERYTHING = (
    Call(Aggregate.COUNT, None, BIGINT, 0),
    Call(Aggregate.COUNT, None, BIGINT, 1, 0),
    Call(Aggregate.SUM, 0, DOUBLE, 0),
    Call(Aggregate.AVG, 0, DOUBLE, 1),
    Call(Aggregate.SUM, 1, BIGINT, 1, 0),
    Call(Aggregate.STDDEV_SAMP, 0, DOUBLE, 0),
    Call(Aggregate.MIN, 0, DOUBLE, 0),
    Call(Aggregate.MAX, 1, BIGINT, 1),
    Call(Aggregate.COUNT_DISTINCT, 2, BIGINT, 0),
    Call(Aggregate.COUNT_DISTINCT, 1, BIGINT, 1, 0),
    Call(Aggregate.COUNT_DISTINCT, 0, BIGINT, 2),
    Call(Aggregate.FIRST, 2, TEXT, 0, 0),
    Call(Aggregate.LAST, 2, TEXT, 1, 0),
    Call(Aggregate.LAG, 2, TEXT, None, offset=1500),
)
FRAMES = (Frame(False, HOUR, 0), Frame(False, HOUR // 2, HOUR // 8), Frame(True, 40, 0))


def wandering(count: int, *, keys: int, late: float, seed: int) -> Stream:
    """Events a second or so apart, some of them late by up to the whole window."""
    random = np.random.default_rng(seed)
    steps = np.where(random.random(count) < 0.001, HOUR, random.integers(0, 3_000_000, count))
    times = np.cumsum(steps) - np.where(
        random.random(count) < late, random.integers(0, HOUR + HOUR // 4, count), 0
    )
    events = []
    for time in times.tolist():
        values = (float(random.normal()), int(random.integers(0, 400)), f"d{random.integers(90)}")
        key = (int(random.integers(keys)),)
        events.append((key, Row(time, values, (bool(random.random() < 0.6),))))
    return Stream(plan(*EVERYTHING, frames=FRAMES, lateness=HOUR // 4), tuple(events))


def taken(stream: Stream, state: EntityState, *ends: int) -> list[list[Any]]:
    """The results of the stream, its batches ending at `ends`."""
    batch, found, first = stream.batch(), [], 0
    times = np.array([row.time for _, row in stream.events])
    newest = np.array(stream.newest)
    for last in (*ends, len(times)):
        given = batch.slice(first, last - first)
        found.append(state.update(given, times=times[first:last], newest=newest[first:last]))
        first = last
    return flat(found, stream.plan.calls)


@pytest.fixture(scope="module")
def long() -> Stream:
    return wandering(2400, keys=1, late=0.03, seed=1)


def test_long_frames_see_what_the_twin_sees(long: Stream) -> None:
    found = taken(long, EntityState(long.plan, key=SECRET))
    for call, seen, wanted in zip(long.plan.calls, found, expected(long), strict=True):
        for row, (a, b) in enumerate(zip(seen, wanted, strict=True)):
            assert close(a, b), (row, call, a, b)


def test_cuts_threads_secrets_and_snapshots_change_no_bit_of_a_long_stream() -> None:
    stream = wandering(30_000, keys=40, late=0.02, seed=2)
    whole = bits(taken(stream, EntityState(stream.plan, key=SECRET)))
    ends = np.unique(np.random.default_rng(3).integers(0, 30_000, 60)).tolist()
    state = EntityState(stream.plan, key=bytes(16), threads=4)
    assert bits(taken(stream, state, *ends)) == whole
    assert bits(taken(stream, EntityState(stream.plan, key=SECRET, threads=3))) == whole


def test_a_snapshot_is_of_the_moment_when_it_was_begun() -> None:
    stream = wandering(20_000, keys=300, late=0.02, seed=4)
    begun, more = Stream(stream.plan, stream.events[:12_000]), stream.events[12_000:]
    state = EntityState(stream.plan, key=SECRET, threads=2)
    taken(begun, state)
    whole = b"".join(state.snapshot())
    buffers = state.begin_snapshot().buffers()
    begun_with = [bytes(next(buffers)) for _ in range(3)]
    taken(Stream(stream.plan, more), state)
    assert b"".join([*begun_with, *buffers]) == whole
    assert b"".join(state.snapshot()) != whole


def test_an_update_keeps_the_keys_that_it_touches_for_a_snapshot_and_no_others() -> None:
    count, per_key = 500, 200
    cards = np.tile(np.arange(count), per_key)
    times, ones = np.arange(count * per_key), np.ones(count * per_key)
    batch = pa.record_batch({"card": pa.array(cards), "amount": pa.array(ones)})
    state = EntityState(sums(start=count * per_key), key=SECRET)
    state.update(batch, times=times, newest=times)
    per_row, held, after = state.bytes_per_row, state.bytes, times[:5] + len(times)
    buffers = state.begin_snapshot().buffers()
    state.update(batch[:5], times=after, newest=after)
    assert 5 * per_key * per_row < state.kept_bytes <= 5 * (per_key * per_row + state.bytes_per_key)
    kept = state.kept_bytes
    state.update(batch[:5], times=after, newest=after)
    assert state.kept_bytes == kept
    state.update(batch[:count], times=times[:count] + len(times), newest=times[:count] + len(times))
    assert kept < state.kept_bytes <= held
    assert len(b"".join(buffers)) > count * per_key * per_row
    assert state.kept_bytes == 0


@pytest.mark.parametrize("renewed", [False, True])
def test_keys_that_are_freed_or_come_anew_change_no_snapshot_underway(
    renewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All records are freed and go to other keys, before the snapshot began or while it is read."""
    monkeypatch.setattr("tidegate.features.entity._PIECE_WORDS", 100)
    state, count, ones = EntityState(sums(start=1_000), key=SECRET), 2_000, np.ones(2_000)

    def come(first: int) -> None:
        batch = pa.record_batch(
            {"card": pa.array(np.arange(first, first + count)), "amount": pa.array(ones)}
        )
        times = np.full(count, 10 * first)
        state.update(batch, times=times, newest=times)

    come(0)
    if renewed:
        state.expire(5_000)
        assert state.keys == 0
    whole = b"".join(state.snapshot())
    buffers = state.begin_snapshot().buffers()
    begun_with = [bytes(next(buffers)) for _ in range(30 * (not renewed))]
    state.expire(5_000)
    come(count)
    assert b"".join([*begun_with, *buffers]) == whole


def test_updates_go_on_from_another_thread_while_a_snapshot_is_read() -> None:
    stream = wandering(20_000, keys=300, late=0.02, seed=10)
    begun, more = Stream(stream.plan, stream.events[:12_000]), stream.events[12_000:]
    state, alone = (EntityState(stream.plan, key=SECRET, threads=2) for _ in range(2))
    taken(begun, state), taken(begun, alone)
    whole = b"".join(state.snapshot())
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(b"".join, state.begin_snapshot().buffers())
        found = taken(Stream(stream.plan, more), state, *range(100, 8_000, 100))
        assert read.result() == whole
    assert bits(found) == bits(taken(Stream(stream.plan, more), alone))


def test_a_snapshot_in_the_middle_changes_no_bit_of_a_long_stream() -> None:
    stream = wandering(12_000, keys=5, late=0.02, seed=5)
    whole = bits(taken(stream, EntityState(stream.plan, key=SECRET)))
    state, half = EntityState(stream.plan, key=SECRET), 7_000
    batch, newest = stream.batch(), np.array(stream.newest)
    times = np.array([row.time for _, row in stream.events])
    before = state.update(batch[:half], times=times[:half], newest=newest[:half])
    kept = b"".join(state.snapshot())
    pieces = [kept[i : i + 4099] for i in range(0, len(kept), 4099)]
    again = EntityState.restore(stream.plan, pieces, key=SECRET)
    after = again.update(batch[half:], times=times[half:], newest=newest[half:])
    assert bits(flat([before, after], stream.plan.calls)) == whole


def steady(times: npt.NDArray[np.int64], amounts: npt.NDArray[np.float64]) -> pa.RecordBatch:
    zeros = np.zeros(len(times), dtype=np.int64)
    return pa.record_batch({"card": pa.array(zeros), "amount": pa.array(amounts)})


def sums(*, start: int, lateness: int = 0) -> EntityPlan:
    asked = (
        Call(Aggregate.SUM, 0, DOUBLE, 0),
        Call(Aggregate.VAR_POP, 0, DOUBLE, 0),
        Call(Aggregate.COUNT, None, BIGINT, 0),
    )
    frames = (Frame(False, start, 0),)
    return EntityPlan(
        ("card",), (BIGINT,), ("amount",), (DOUBLE,), (), frames, asked, lateness, look_back=0
    )


def test_ten_million_updates_of_one_key_leave_no_drift() -> None:
    random, state = np.random.default_rng(7), EntityState(sums(start=999), key=SECRET)
    for part in range(100):
        times = np.arange(part * 100_000, (part + 1) * 100_000)
        amounts = random.lognormal(3, 4, 100_000)
        found = state.update(steady(times, amounts), times=times, newest=times)
    last = amounts[-1000:]
    assert math.isclose(found[0].values[-1].as_py(), math.fsum(last), rel_tol=1e-15)
    mean = math.fsum(last) / 1000
    spread = math.fsum((last - mean) ** 2) / 1000
    assert math.isclose(found[1].values[-1].as_py(), spread, rel_tol=1e-12)


@pytest.mark.parametrize("outlier", [1e30, 1e300, -1e200, math.inf, math.nan])
def test_a_value_that_dwarfs_all_others_leaves_nothing_behind(outlier: float) -> None:
    state, times = EntityState(sums(start=99), key=SECRET), np.arange(300)
    amounts = np.full(300, 0.1)
    amounts[50] = outlier
    found = state.update(steady(times, amounts), times=times, newest=times)
    assert found[0].values[-1].as_py() == math.fsum([0.1] * 100)
    assert found[1].values[-1].as_py() == 0.0


def test_rows_late_by_half_a_million_find_their_place() -> None:
    count = 600_000
    state, times = EntityState(sums(start=count), key=SECRET), np.arange(0, 2 * count, 2)
    ones = np.ones(count)
    state.update(steady(times, ones), times=times, newest=times)
    late = np.array([times[-1] - 1_000_001, times[-1] - 31, times[-1]])
    newest = np.full(3, times[-1])
    found = state.update(steady(late, ones[:3]), times=late, newest=newest)
    reach = times[-1] - count  # what lies before it is before the horizon
    wanted = [1, (late[1] - reach) // 2 + 1 + 1, count // 2 + 1 + 2]
    assert found[2].values.to_pylist() == wanted
    assert found[0].values.to_pylist() == [float(n) for n in wanted]


def test_memory_is_bounded_by_the_windows_not_by_uptime() -> None:
    random = np.random.default_rng(8)
    state = EntityState(plan(*EVERYTHING, frames=FRAMES), key=SECRET)
    held = []
    for part in range(40):
        times = np.arange(5000) * (HOUR // 5000) + part * HOUR
        devices = [f"device {n}" for n in random.integers(0, 10**9, 5000)]
        columns: dict[str, pa.Array[Any]] = {
            "card": pa.array(random.integers(0, 10**6, 5000)),
            "amount": pa.array(random.random(5000)),
            "points": pa.array(random.integers(0, 10**6, 5000)),
            "device": pa.array(devices),
            "night": pa.array(random.random(5000) < 0.5),
        }
        batch = pa.RecordBatch.from_pydict(columns)
        state.update(batch, times=times, newest=times)
        held.append((state.keys, state.rows, state.bytes))
    late = np.array(held[20:])
    assert late[:, 0].max() < 15_500  # what was seen in three windows' time
    assert late[:, 1].max() < 15_500
    assert late[:, 2].max() < 1.1 * held[15][2]


def test_all_is_freed_once_no_window_reaches_it() -> None:
    stream = wandering(20_000, keys=2, late=0.02, seed=9)
    state = EntityState(stream.plan, key=SECRET)
    taken(stream, state)
    full = state.bytes
    state.expire(max(stream.newest) + 10 * HOUR)
    assert (state.keys, state.rows) == (0, 0)
    assert state.bytes < full / 2


def test_what_is_stored_takes_the_memory_that_is_promised() -> None:
    """At most 32 bytes an event and 8 for each value column, 400 for a key with 8 features."""
    asked = [Call(Aggregate.COUNT, None, BIGINT, f) for f in (0, 1)]
    asked += [Call(a, 0, DOUBLE, f) for a in (Aggregate.SUM, Aggregate.MAX) for f in (0, 1)]
    asked += [Call(Aggregate.AVG, 0, DOUBLE, 1), Call(Aggregate.STDDEV_SAMP, 0, DOUBLE, 0)]
    frames = (Frame(False, HOUR, 0), Frame(False, 1000 * HOUR, 0))
    kept = EntityPlan(
        ("card",), (BIGINT,), ("amount",), (DOUBLE,), (), frames, tuple(asked), 0, look_back=0
    )
    state, random, times = EntityState(kept, key=SECRET), np.random.default_rng(1), np.arange(10**6)
    cards = np.concatenate([random.permutation(10**5), random.integers(0, 10**5, 900_000)])
    batch = pa.record_batch({"card": pa.array(cards), "amount": pa.array(random.random(10**6))})
    state.update(batch[: 10**5], times=times[: 10**5], newest=times[: 10**5])
    first = state.bytes
    assert state.bytes_per_key <= 400
    assert first / state.keys <= 400 + 40
    state.update(batch[10**5 :], times=times[10**5 :], newest=times[10**5 :])
    assert state.rows == 10**6
    assert (state.bytes - 400 * state.keys) / state.rows <= 40


def test_a_snapshot_of_something_else_is_refused() -> None:
    stream = wandering(500, keys=5, late=0, seed=6)
    state = EntityState(stream.plan, key=SECRET)
    taken(stream, state)
    kept = b"".join(state.snapshot())
    other = plan(*EVERYTHING[:3], frames=FRAMES)
    for wrong, key, given, said in (
        (stream.plan, bytes(16), kept, "the key of a snapshot"),
        (other, SECRET, kept, "the plan of a snapshot"),
        (stream.plan, SECRET, b"x" * 8 + kept[8:], "the kind of a snapshot"),
        (stream.plan, SECRET, kept[:-8], "ends too early"),
        (stream.plan, SECRET, kept + bytes(8), "8 bytes too many"),
    ):
        with pytest.raises(DamageError, match=said):
            EntityState.restore(wrong, [given], key=key)


def test_arrays_that_are_read_only_are_taken(long: Stream) -> None:
    few = Stream(long.plan, long.events[:10])
    times = np.array([row.time for _, row in few.events])
    newest = np.array(few.newest)
    times.flags.writeable = newest.flags.writeable = False
    found = EntityState(few.plan, key=SECRET).update(few.batch(), times=times, newest=newest)
    assert flat([found], few.plan.calls)[0][0] == 1


def test_the_boolean_type_is_that_of_lag_exists() -> None:
    asked = (Call(Aggregate.LAG_EXISTS, None, BOOLEAN, None, offset=1),)
    stream = Stream(plan(*asked, frames=()), wandering(3, keys=1, late=0, seed=1).events)
    assert taken(stream, EntityState(stream.plan, key=SECRET)) == [[False, True, True]]
