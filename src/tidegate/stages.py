"""How long each stage takes for a batch, measured where it is done and read by whoever watches.

A batch costs two readings of a clock and one addition for each stage, whatever it holds. The clock
is the machine's own and decides nothing.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

# Upper ends of the buckets, in seconds: from the rules on one event to a table's slowest commit.
BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class Histogram:
    """How many things took how long; any thread may add, any may read.

    >>> taken = Histogram()
    >>> taken.add(0.002)
    >>> taken.cumulated()[4], taken.seconds
    (('0.0025', 1.0), 0.002)
    """

    __slots__ = ("_lock", "counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)  # one more than `BUCKETS`, for the slowest
        self.seconds = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        with self._lock:
            self.counts[bisect_left(BUCKETS, seconds)] += 1
            self.seconds += seconds

    def merge(self, counts: Sequence[int], seconds: float) -> None:
        """Add what was counted elsewhere, bucket by bucket."""
        with self._lock:
            self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
            self.seconds += seconds

    def since(self, began: float) -> float:
        """Count one that began then, by `perf_counter`; gives the time now."""
        now = perf_counter()
        self.add(now - began)
        return now

    def cumulated(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus wants them: each holds all that is faster."""
        total = 0
        rows = []
        for end, count in zip((*map(str, BUCKETS), "+Inf"), list(self.counts), strict=True):
            total += count
            rows.append((end, float(total)))
        return rows


class Stages:
    """A histogram for each stage, by name."""

    __slots__ = ("_since", "commit", "decode", "delay", "engine", "features", "rules", "write")

    def __init__(self, *, since: int = 0) -> None:
        """`since` is when the process began to listen (UTC microseconds)."""
        self._since = since
        self.decode = Histogram()  # records to columns, at the door
        self.commit = Histogram()  # records into the log, durably
        self.engine = Histogram()  # a pass of the engine as a whole, waiting for the writer apart
        self.features = Histogram()  # windows and expressions of features
        self.rules = Histogram()  # conditions, reasons and the decision
        self.write = Histogram()  # rows into the tables
        self.delay = Histogram()  # from arrival to decision, of the oldest record of a pass

    def decided(self, ingest_time: int, *, now: int) -> None:
        """Count the delay of a decision; what arrived before the process began is none of its."""
        if ingest_time >= self._since:
            self.delay.add(max(0, now - ingest_time) / 1e6)

    def by_name(self) -> dict[str, Histogram]:
        """The stages in the order of the journey, the delay apart."""
        names = ("decode", "commit", "engine", "features", "rules", "write")
        return {name: getattr(self, name) for name in names}


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """A block whose time is counted, unless it fails."""
    began = perf_counter()
    yield
    histogram.add(perf_counter() - began)
