"""Times by which those who wait are answered: nobody before, everybody soon after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

import pytest

from tidegate.service.porter.deadlines import Deadlines


class Caller:
    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self.waits, self.until = True, perf_counter() + seconds


class Room:
    """Callers who wait, and who of them ran out of time, each with how late that was."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []
        self.deadlines: Deadlines[Caller] = Deadlines(asyncio.get_running_loop(), self._expire)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    def enter(self, name: str, seconds: float) -> Caller:
        caller = Caller(name, seconds)
        self.deadlines.add(caller, seconds)
        return caller

    def _expire(self, caller: Caller) -> None:
        self.told.append((caller.name, perf_counter() - caller.until))
        caller.waits = False

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(10.0):
            while self.names != list(names):
                await asyncio.sleep(0.001)


def run(test: Callable[[Room], Awaitable[None]]) -> None:
    async def work() -> None:
        await test(Room())

    asyncio.run(work())


def test_who_waits_is_told_of_in_turn_and_never_before_the_time() -> None:
    async def work(room: Room) -> None:
        room.enter("slow", 0.06)
        room.enter("a", 0.02)
        await asyncio.sleep(0.005)
        room.enter("b", 0.02)
        await room.until("a", "b", "slow")
        assert all(late >= 0.0 for _, late in room.told)

    run(work)


def test_who_was_answered_is_not_told_of() -> None:
    async def work(room: Room) -> None:
        first, _, last = (room.enter(name, 0.02) for name in ("first", "second", "last"))
        first.waits = last.waits = False
        await room.until("second")
        await asyncio.sleep(0.04)
        assert room.names == ["second"]

    run(work)


def test_nothing_is_held_of_those_who_were_answered() -> None:
    async def work(room: Room) -> None:
        for _ in range(1_000):
            room.enter("answered", 0.03).waits = False
        [queue] = room.deadlines._queues.values()
        assert len(queue) <= 2
        room.enter("waits", 0.03)
        await room.until("waits")
        assert not room.deadlines._queues
        room.enter("later", 0.0)
        await room.until("waits", "later")
        assert not room.deadlines._queues

    run(work)


def test_a_caller_whose_end_fails_holds_up_nobody_else() -> None:
    async def work() -> None:
        told = []

        def expire(caller: Caller) -> None:
            caller.waits = False
            told.append(caller.name)
            if caller.name == "bad":
                raise ValueError("bad")

        loop = asyncio.get_running_loop()
        failed: list[object] = []
        loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
        deadlines: Deadlines[Caller] = Deadlines(loop, expire)
        for name in ("bad", "good"):
            deadlines.add(Caller(name, 0.01), 0.01)
        async with asyncio.timeout(10.0):
            while told != ["bad", "good"]:
                await asyncio.sleep(0.001)
        assert [type(error) for error in failed] == [ValueError]

    asyncio.run(work())


@pytest.mark.parametrize("seconds", [1e-6, 0.0])
def test_the_shortest_times_end(seconds: float) -> None:
    async def work(room: Room) -> None:
        room.enter("a", seconds)
        await room.until("a")

    run(work)
