"""A line in the log for each request that failed or took long, and no more lines than help."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from time import monotonic

import structlog

_log = structlog.get_logger()

_LINES_A_SECOND = 10


class Journal:
    """Writes down failures of the server's own and slow requests; for one event loop.

    Beyond ten lines a second the rest is counted, and the next line says how many were left out:
    whatever fails may fail for everybody at once, and logs must not fill the disk then.
    """

    def __init__(
        self, *, slow_seconds: float = 1.0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._slow_seconds = slow_seconds
        self._clock = clock
        self._second = -1
        self._lines = self._left_out = 0

    def note(self, method: str, route: str, status: int, seconds: float, request_id: str) -> None:
        """Write a line for a request, if it deserves one."""
        has_failed = status >= 500
        is_refused = status == HTTPStatus.TOO_MANY_REQUESTS  # which may be told late on purpose
        if not has_failed and (is_refused or seconds < self._slow_seconds):
            return
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= _LINES_A_SECOND:
            self._left_out += 1
            return
        self._lines += 1
        more = {"left_out": self._left_out} if self._left_out else {}
        self._left_out = 0
        _log.warning(
            "request_failed" if has_failed else "request_slow",
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            seconds=round(seconds, 4),
            **more,
        )
