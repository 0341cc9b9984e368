"""Windows of each card by a library that is no part of this project, run by its own interpreter.

`PYTHON features_foreign.py WAY FILE` reads a CSV file of times (milliseconds), cards and amounts,
and prints seconds and the sum of each feature. It imports nothing of the project.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Row = tuple[int, bytes, float]
Found = Iterator[tuple[float, ...]]

_DAYS = (1, 7, 30)
_DAY_MS = 86_400_000
_COMMIT_EVENTS = 1_000
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - river's windows take times without a zone only
_NAMES = [f"card_{what}_{d}d" for d in _DAYS for what in ("payments", "amount_mean")]


def main(way: str, path: str) -> None:
    """One way, timed; the results go to standard output as JSON."""
    with Path(path).open(newline="") as file:
        rows = [(int(t), card.encode(), float(amount)) for t, card, amount in csv.reader(file)]
    features = WAYS[way](rows)
    begun = time.perf_counter()
    found = list(features)
    seconds = time.perf_counter() - begun
    sums = dict(zip(_NAMES, map(sum, zip(*found, strict=True)), strict=True))
    print(json.dumps({"seconds": seconds, "events": len(found), "sums": sums}))


def in_quixstreams(rows: list[Row]) -> Found:
    """Its sliding windows with their own store, without a broker: it is given each event by hand.

    Its windows are closed on both sides and count milliseconds.
    """
    windows = import_module("quixstreams.dataframe.windows.definitions")
    aggregations = import_module("quixstreams.dataframe.windows.aggregations")
    stores = import_module("quixstreams.state.rocksdb.windowed.store")
    with tempfile.TemporaryDirectory() as folder:
        sliding = []
        for days in _DAYS:
            window = windows.SlidingTimeWindowDefinition(
                duration_ms=days * _DAY_MS - 1,
                grace_ms=0,
                name=f"days_{days}",
                dataframe=SimpleNamespace(stream_id="events"),
            ).agg(count=aggregations.Count(), mean=aggregations.Mean("amount"))
            store = stores.WindowedRocksDBStore(window.name, "events", folder)
            store.assign_partition(0)
            sliding.append((window, store))
        yield from _slide(rows, sliding)


def _slide(rows: list[Row], sliding: list[tuple[Any, Any]]) -> Found:
    for first in range(0, len(rows), _COMMIT_EVENTS):
        opened = [(w, s.start_partition_transaction(0)) for w, s in sliding]
        for time_ms, card, amount in rows[first : first + _COMMIT_EVENTS]:
            features: tuple[float, ...] = ()
            for window, transaction in opened:
                updated, _ = window.process_window(
                    value={"amount": amount},
                    key=card,
                    timestamp_ms=time_ms,
                    headers=None,
                    transaction=transaction,
                )
                # Of all windows that changed, the one that ends with this event.
                *_, (_, result) = updated
                features += (result["count"], result["mean"])
            yield features
        for _, transaction in opened:
            transaction.flush()


def in_river(rows: list[Row]) -> Found:
    """Its rolling statistics, one for each card and window."""
    stats, utils = import_module("river.stats"), import_module("river.utils")
    periods = [dt.timedelta(days=days) for days in _DAYS]
    cards: dict[bytes, list[Any]] = {}
    for time_ms, card, amount in rows:
        at = _EPOCH + dt.timedelta(milliseconds=time_ms)
        means = cards.get(card)
        if means is None:
            means = cards[card] = [utils.TimeRolling(stats.Mean, period=p) for p in periods]
        features: tuple[float, ...] = ()
        for mean in means:
            mean.update(amount, t=at)
            features += (mean.n, mean.get())
        yield features


WAYS: dict[str, Callable[[list[Row]], Found]] = {
    "quixstreams": in_quixstreams,
    "river": in_river,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
