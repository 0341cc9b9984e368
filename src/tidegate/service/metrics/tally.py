"""Requests counted by route and status, and how long they took.

Those refused for want of room (429) count as requests alone: how long they took says how they were
told, and would hide how long the others waited just when there are many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from tidegate.service.journal import Journal
from tidegate.stages import Histogram


class Tally:
    """Counts of one event loop's requests; may be read from any thread.

    Status 0 stands for senders that went away before they were answered.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}
        self.latencies: dict[str, Histogram] = {}
        self._journal = journal or Journal()

    def count(self, method: str, route: str, status: int, seconds: float, request_id: str) -> None:
        """Count one request; those that failed or took long are written down as well."""
        key = (method, route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        if status != HTTPStatus.TOO_MANY_REQUESTS:
            self._latency(route).add(seconds)
        self._journal.note(method, route, status, seconds, request_id)

    def merge(
        self, route: str, statuses: Mapping[int, int], counts: Sequence[int], seconds: float
    ) -> None:
        """Count what was answered elsewhere: POSTs by status, and how long they took by bucket."""
        for status, count in statuses.items():
            key = ("POST", route, status)
            self.requests[key] = self.requests.get(key, 0) + count
        self._latency(route).merge(counts, seconds)

    def _latency(self, route: str) -> Histogram:
        latency = self.latencies.get(route)
        if latency is None:
            latency = self.latencies[route] = Histogram()
        return latency
