"""Times by which those who wait are answered: set for thousands a second, and hardly ever reached.

A timer of the loop for each request costs as much as the reading of its head. Those who wait
equally long run out in the order in which they came: they stand in a queue, which has one timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """Who waits for an answer until a time (`perf_counter`)."""

    waits: bool
    until: float


Who = TypeVar("Who", bound=Waiting)


class Deadlines(Generic[Who]):
    """For one event loop; `expire` is called with who still waits when the time has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Who], None]) -> None:
        self._loop, self._expire = loop, expire
        self._queues: dict[float, deque[Who]] = {}  # by how many seconds they wait

    def add(self, who: Who, seconds: float) -> None:
        """Look after somebody who waits for so long, from now on or from shortly before."""
        queue = self._queues.get(seconds)
        if queue is None:
            self._queues[seconds] = deque((who,))
            self._loop.call_later(seconds, self._look, seconds)
            return
        while queue and not queue[0].waits:
            queue.popleft()
        queue.append(who)

    def _look(self, seconds: float) -> None:
        """Tell of those whose time has come, and look again when the next one's has."""
        queue, pause = self._queues[seconds], 0.0
        try:
            while queue:
                who = queue[0]
                pause = who.until - perf_counter()
                if who.waits and pause > 0.0:
                    break
                queue.popleft()
                if who.waits:
                    self._expire(who)
        finally:
            if queue:
                self._loop.call_later(max(0.0, pause), self._look, seconds)
            else:
                del self._queues[seconds]
