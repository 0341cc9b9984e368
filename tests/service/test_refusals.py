"""Refusals are told once each, in time, and no faster than they may take time from others."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import OverloadedError, TidegateError
from tidegate.service.errors import Refusal
from tidegate.service.score.refusals import AT_ONCE, HELD_SECONDS_MAX, PACE, Refusals

ERROR = OverloadedError("too many", retry_after_seconds=1)


class Timeline:
    """A loop and its clock; time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self.told: list[tuple[float, int]] = []
        self.refusals = Refusals(cast(asyncio.AbstractEventLoop, self), clock=lambda: self.now)

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        heappush(self._calls, (self.now + seconds, next(self._numbers), call))

    def pass_to(self, now: float) -> None:
        while self._calls and self._calls[0][0] <= now:
            self.now, _, call = heappop(self._calls)
            call()
        self.now = now

    def put(self, name: int, seconds: float = 5.0) -> None:
        self.refusals.put(Reply(self, name), ERROR, until=self.now + seconds)

    @property
    def names(self) -> list[int]:
        return [name for _, name in self.told]

    @property
    def is_asleep(self) -> bool:
        return not self._calls


class Reply:
    def __init__(self, timeline: Timeline, name: int) -> None:
        self._timeline, self._name = timeline, name

    def refuse(self, error: TidegateError) -> None:
        assert isinstance(error, OverloadedError | Refusal)
        self._timeline.told.append((self._timeline.now, self._name))


def test_few_are_told_at_once() -> None:
    timeline = Timeline()
    for name in range(AT_ONCE):
        timeline.put(name)
    assert timeline.names == list(range(AT_ONCE))
    assert timeline.is_asleep


def test_a_storm_is_told_in_turn_and_at_its_pace() -> None:
    timeline = Timeline()
    storm = 1_200
    for name in range(storm):
        timeline.put(name)
    at_once = len(timeline.told)
    assert AT_ONCE <= at_once <= AT_ONCE + 1
    timeline.pass_to(timeline.now + 0.25)
    assert abs(len(timeline.told) - at_once - 0.25 * PACE) < 0.02 * PACE
    timeline.pass_to(timeline.now + HELD_SECONDS_MAX)
    assert timeline.names == list(range(storm))
    assert timeline.is_asleep


def test_nobody_is_held_longer_than_that_however_many_they_are() -> None:
    timeline = Timeline()
    for name in range(20_000):
        timeline.put(name)
    timeline.pass_to(timeline.now + HELD_SECONDS_MAX)
    assert len(timeline.told) == 20_000


def test_a_caller_with_little_time_is_told_before_the_others() -> None:
    timeline = Timeline()
    for name in range(1_000):
        timeline.put(name)
    timeline.put(-1, seconds=0.05)
    timeline.put(-2, seconds=0.0)
    timeline.pass_to(timeline.now + 0.05)
    assert {-1, -2} <= set(timeline.names)
    assert 900 not in timeline.names


def test_after_the_end_all_are_told_at_once() -> None:
    timeline = Timeline()
    for name in range(1_000):
        timeline.put(name)
    timeline.refusals.close()
    timeline.put(1_000)
    assert timeline.names == list(range(1_001))
    timeline.pass_to(timeline.now + 1)
    assert (len(timeline.told), timeline.is_asleep) == (1_001, True)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.4),  # seconds after those before
            st.integers(1, 700),  # who come together
            st.sampled_from((0.0, 0.02, 0.1, 0.5, 5.0)),  # seconds they have
        ),
        max_size=12,
    )
)
def test_each_is_told_once_and_in_time_and_others_no_faster_than_the_pace(
    storms: list[tuple[float, int, float]],
) -> None:
    timeline = Timeline()
    until: list[float] = []
    for pause, together, seconds in storms:
        timeline.pass_to(timeline.now + pause)
        for _ in range(together):
            until.append(timeline.now + min(seconds, HELD_SECONDS_MAX))
            timeline.put(len(until) - 1, seconds)
    timeline.pass_to(timeline.now + 2)
    assert sorted(timeline.names) == list(range(len(until)))
    assert all(at <= until[name] + 1e-9 for at, name in timeline.told)
    # Who was told with time left, at any moment and in the second after it.
    early = sorted(at for at, name in timeline.told if until[name] - at > 0.011)
    for place, at in enumerate(early):
        within = bisect_left(early, at + 1.0) - place
        assert within <= AT_ONCE + PACE + 2
