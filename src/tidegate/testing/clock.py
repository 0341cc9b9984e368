"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import threading


class ManualClock:
    """A clock for tests: it tells the time it was last given, UTC microseconds.

    May be read and moved from several threads. Time never goes back.

    >>> clock = ManualClock(1_000)
    >>> clock.advance(500)
    1500
    >>> clock.now()
    1500
    """

    def __init__(self, now: int = 0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def now(self) -> int:
        """The present, in UTC microseconds."""
        return self._now

    def advance(self, duration_us: int) -> int:
        """Let `duration_us` pass and return the new time. Raises: ValueError if negative."""
        if duration_us < 0:
            raise ValueError(f"time cannot go back by {-duration_us} µs")
        with self._lock:
            self._now += duration_us
            return self._now

    def set(self, now: int) -> None:
        """Make it `now`, in UTC microseconds. Raises: ValueError if that lies in the past."""
        with self._lock:
            if now < self._now:
                raise ValueError(f"time cannot go back from {self._now} to {now}")
            self._now = now
