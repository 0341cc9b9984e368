"""Refusals, told at a pace that leaves the time to those who are let in.

A refusal costs a quarter to a half of what a decision costs, and nothing keeps thousands of callers
from coming back for the next at once: three quarters of all decisions were lost to that, measured.
So a few are told at once and the others in turn, within their own time, and before the time after
which they were told to come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from time import perf_counter
from typing import Protocol

from tidegate.errors import TidegateError
from tidegate.service.errors import Refusal, refusal_of

PACE = 2_000.0  # refusals a second; about a twentieth of a processor
AT_ONCE = 200  # where few were told of late
HELD_SECONDS_MAX = 0.75
_LOOK_SECONDS = 0.01


class Refused(Protocol):
    """A request that is told so; only the first answer counts."""

    def refuse(self, error: TidegateError) -> None:
        """Answer with an error."""


class Refusals:
    """Those of one event loop; `clock` is that of `until`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._loop, self._clock = loop, clock
        self._held: list[tuple[float, int, Refused, Refusal]] = []  # a heap, by when to be told
        self._numbers = count()
        self._paid_until = 0.0
        self._is_closed = False

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    def put(self, reply: Refused, error: TidegateError, *, until: float) -> None:
        """Refuse a request, by a time at the latest."""
        now = self._clock()
        has_no_time = until <= now + _LOOK_SECONDS
        if self._is_closed or has_no_time or (not self._held and self._may(now)):
            reply.refuse(error)
            return
        if not self._held:
            self._loop.call_later(_LOOK_SECONDS, self._look)
        until = min(until, now + HELD_SECONDS_MAX)
        # Not the error itself: it would keep all that was on the way when it was raised.
        heappush(self._held, (until, next(self._numbers), reply, refusal_of(error)))

    def close(self) -> None:
        """Tell all who are held, and hold nobody any more."""
        self._is_closed = True
        self._tell()

    def _look(self) -> None:
        try:
            self._tell()
        finally:
            if self._held:
                self._loop.call_later(_LOOK_SECONDS, self._look)

    def _tell(self) -> None:
        now = self._clock()
        late = now + _LOOK_SECONDS  # the next look is too late for these
        while self._held and (self._is_closed or self._held[0][0] <= late or self._may(now)):
            _, _, reply, refusal = heappop(self._held)
            reply.refuse(refusal)

    def _may(self, now: float) -> bool:
        """Whether one more is within the pace; if so it counts."""
        if self._paid_until > now + AT_ONCE / PACE:
            return False
        self._paid_until = max(self._paid_until, now) + 1 / PACE
        return True
