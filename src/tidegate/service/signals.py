"""What the process does when it is told to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

_log = structlog.get_logger()

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """The first SIGINT or SIGTERM asks to stop, the second ends the process at once.

    Until `stop` is set nothing has been taken, so the first one ends it as well, with exit code 0.
    Ending at once is safe: what was acknowledged is in the log, all else is derived from it.
    """

    def __init__(self, *, exit_now: Callable[[int], object] = os._exit) -> None:
        self.stop: Callable[[], None] | None = None
        self._is_told = False
        self._exit_now = exit_now

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen to the signals until the block ends; only the main thread can."""
        before = {number: signal.signal(number, self.receive) for number in _STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Take one signal."""
        name = signal.Signals(number).name
        if self._is_told:
            _log.warning("ended_at_once", signal=name)
            self._exit_now(128 + number)
        elif self.stop is None:
            _log.info("ended_before_start", signal=name)
            self._exit_now(0)
        else:
            self._is_told = True
            self.stop()
