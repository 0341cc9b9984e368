"""The clock, passed in wherever time matters, so that tests and replay can hold it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in UTC microseconds since 1970-01-01."""

    def now(self) -> int:
        """The present, in UTC microseconds."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        """The present, in UTC microseconds."""
        return time.time_ns() // 1_000
