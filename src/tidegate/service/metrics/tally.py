"""Requests counted by route and status, and how long they took."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

# Upper ends of the buckets, in seconds: a commit takes about a millisecond.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(slots=True)
class Latency:
    """How many requests took how long; `counts` has one more than `BUCKETS`, for the slowest."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def cumulated(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus wants them: each holds all that is faster."""
        total = 0
        rows = []
        for end, count in zip((*map(str, BUCKETS), "+Inf"), list(self.counts), strict=True):
            total += count
            rows.append((end, float(total)))
        return rows


class Tally:
    """Counts of one event loop's requests; may be read from any thread.

    Status 0 stands for senders that went away before they were answered.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}
        self.latencies: dict[str, Latency] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = (method, route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        latency = self.latencies.get(route)
        if latency is None:
            latency = self.latencies[route] = Latency()
        latency.counts[bisect_left(BUCKETS, seconds)] += 1
        latency.seconds += seconds
