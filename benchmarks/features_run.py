"""Features of a Parquet file by one way, in a process of its own.

`python -m benchmarks.features_run WAY FILE ROWS TEXT` prints seconds, peak memory and the sum of
each feature, by which the ways are held against each other. Seconds run from opening the file to
all features in memory as columns; libraries are loaded and kernels compiled before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.features_data import SCHEMA, Payments
from benchmarks.process import Use
from tidegate.features.compile import FeaturePlan, compile_features
from tidegate.features.state import FeatureState
from tidegate.sql.source import SourceText
from tidegate.testing.cards import DAY_US

CORES = os.cpu_count() or 1
_LATENESS_US = _LOOK_BACK_US = DAY_US
_WARM_UP_ROWS = 2_000

Sums = dict[str, float]
T = TypeVar("T")


def main(way: str, path: str, rows: str, text: str) -> None:
    """One way, timed; the results go to standard output as JSON."""
    _read_through(Path(path))
    payments = Payments.at(Path(path), rows=int(rows))
    seconds, table = WAYS[way](payments, Path(text).read_text())
    sums = {n: pc.sum(table[n]).as_py() for n in table.column_names}
    found = {"seconds": seconds, "events": len(table), "peak_mb": Use.now().peak_mb, "sums": sums}
    print(json.dumps(found))


def _read_through(path: Path) -> None:
    """Have the file in the system's memory, whoever comes first: disks are not what is compared."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


# -- Tidegate --------------------------------------------------------------------------------------


def plan_of(text: str) -> FeaturePlan:
    """The plan of a SELECT over the columns of `features_data`."""
    source = SourceText(text, "features.sql")
    return compile_features(source, SCHEMA, lateness=_LATENESS_US, look_back=_LOOK_BACK_US)


def tidegate(payments: Payments, text: str) -> tuple[float, pa.Table]:
    """Batch by batch, as a stream: what is known when an event comes, in the order of the log."""
    plan = plan_of(text)
    _warm_up(plan, payments)
    begun = time.perf_counter()
    # As `tidegate replay` makes it.
    state = FeatureState(plan, key=bytes(16), threads=CORES, lasting=False)
    batches = _with_newest(ahead(payments.batches(plan.columns)))
    table = pa.Table.from_batches([found.values for found in state.follow(batches)])
    return time.perf_counter() - begun, table


def _with_newest(
    batches: Iterable[pa.RecordBatch],
) -> Iterator[tuple[pa.RecordBatch, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    newest = -1
    for batch in batches:
        latest = running_newest(batch, newest)
        newest = int(latest[-1])
        yield batch, latest


def _warm_up(plan: FeaturePlan, payments: Payments) -> None:
    few = next(payments.batches()).slice(0, _WARM_UP_ROWS)
    state = FeatureState(plan, key=bytes(16), threads=CORES)
    state.update(few, newest=running_newest(few, -1))


def running_newest(
    batch: pa.RecordBatch, newest: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The newest event time up to and with each event, in microseconds."""
    times = batch["event_time"].cast(pa.int64()).to_numpy()
    return np.maximum(np.maximum.accumulate(times), newest)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, the next one made while this one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


# -- peers -----------------------------------------------------------------------------------------


def in_duckdb(payments: Payments, text: str) -> tuple[float, pa.Table]:
    """The same text over the same file on all cores, the whole result as an Arrow table."""
    connection = duckdb.connect(config={"threads": CORES})
    connection.execute(f"CREATE VIEW events AS {payments.view()}")
    connection.sql("SELECT count(*) FROM (FROM events LIMIT 1000)").fetchall()
    begun = time.perf_counter()
    table = connection.sql(text).to_arrow_table()
    return time.perf_counter() - begun, table


def in_polars(payments: Payments, _text: str) -> tuple[float, pa.Table]:
    """The published features as rolling expressions; delayed ones as one window less another."""
    begun = time.perf_counter()
    frame = pl.DataFrame(pa.Table.from_batches(payments.batches())).sort("event_time")
    table = frame.select(**_rolling()).to_arrow()
    return time.perf_counter() - begun, table


def _rolling() -> dict[str, pl.Expr]:
    def total(value: pl.Expr, key: str, days: int) -> pl.Expr:
        rolled = value.rolling_sum_by("event_time", window_size=f"{days}d", closed="right")
        return rolled.over(key)

    features, one = {}, pl.col("amount").is_not_null().cast(pl.Int64)
    for days in (1, 7, 30):
        count = total(one, "card", days)
        features[f"card_payments_{days}d"] = count
        features[f"card_amount_mean_{days}d"] = total(pl.col("amount"), "card", days) / count
    for days in (1, 7, 30):
        count, fraud = (
            total(value, "terminal", days + 7) - total(value, "terminal", 7)
            for value in (one, pl.col("is_fraud"))
        )
        features[f"terminal_payments_{days}d"] = count
        share = pl.when(count > 0).then(fraud / count).otherwise(0.0)
        features[f"terminal_risk_{days}d"] = share
    return features


def in_python(payments: Payments, _text: str) -> tuple[float, pa.Table]:
    """The published features by running sums over queues, in plain Python, event by event."""
    begun = time.perf_counter()
    table = pa.Table.from_batches(payments.batches())
    names = "event_time", "card", "terminal", "amount", "is_fraud"
    columns = [table[n].cast(pa.int64()) if n == "event_time" else table[n] for n in names]
    rows = zip(*(c.to_pylist() for c in columns), strict=True)
    windows = _Windows()
    found = [windows.update(*row) for row in rows]
    features = dict(zip(_rolling(), zip(*found, strict=True), strict=True))
    return time.perf_counter() - begun, pa.table({n: pa.array(v) for n, v in features.items()})


class _Windows:
    """The twelve windows of every card and terminal."""

    def __init__(self) -> None:
        self._cards: dict[int, list[_Window]] = {}
        self._terminals: dict[int, list[_Window]] = {}

    def update(
        self, time_us: int, card: int, terminal: int, amount: float, is_fraud: int
    ) -> tuple[float, ...]:
        own = self._cards.get(card)
        if own is None:
            own = self._cards[card] = [_Window(days, delay=0) for days in (1, 7, 30)]
        there = self._terminals.get(terminal)
        if there is None:
            there = self._terminals[terminal] = [_Window(days, delay=7) for days in (1, 7, 30)]
        features: tuple[float, ...] = ()
        for window in own:
            features += window.update(time_us, amount)
        for window in there:
            features += window.update(time_us, is_fraud)
        return features


class _Window:
    """Count and mean of the values in (t - delay - days, t - delay]."""

    def __init__(self, days: int, *, delay: int) -> None:
        self._reach, self._delay = days * DAY_US, delay * DAY_US
        self._waiting: deque[tuple[int, float]] = deque()
        self._inside: deque[tuple[int, float]] = deque()
        self._sum = 0.0

    def update(self, time_us: int, value: float) -> tuple[int, float]:
        self._waiting.append((time_us, value))
        until = time_us - self._delay
        while self._waiting and self._waiting[0][0] <= until:
            entered = self._waiting.popleft()
            self._inside.append(entered)
            self._sum += entered[1]
        while self._inside and self._inside[0][0] <= until - self._reach:
            self._sum -= self._inside.popleft()[1]
        count = len(self._inside)
        return count, self._sum / count if count else 0.0


WAYS: dict[str, Callable[[Payments, str], tuple[float, pa.Table]]] = {
    "tidegate": tidegate,
    "duckdb": in_duckdb,
    "polars": in_polars,
    "python": in_python,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
