"""The event log beside what the disk itself can do."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from threading import Thread

from benchmarks.corpus import batches, store_file
from benchmarks.process import fresh_folder
from benchmarks.result import Result
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.events.body import split_ndjson
from tidegate.records import Records

THREADS = 64
_BULK_BLOCKS = 25
_BULK_LINES = 10_000


def measure(*, seconds: float, rounds: int) -> Iterator[Result]:
    """The results of this benchmark, as they come."""
    path = store_file(_BULK_BLOCKS * _BULK_LINES)
    one = split_ndjson(next(batches(path, lines=1)))
    with fresh_folder() as folder, SqliteLog.open(folder / "log.sqlite") as log:
        with (folder / "raw").open("wb") as raw:

            def append() -> None:
                log.append(one, source="http", ingest_time=0)

            def sync() -> None:
                raw.write(one.payload)
                raw.flush()
                os.fdatasync(raw.fileno())

            pairs = [(_times(append, seconds), _times(sync, seconds)) for _ in range(rounds)]
            yield from _latencies(pairs)
            shared = [(_together(append, seconds), _alone(sync, seconds)) for _ in range(rounds)]
        yield Result.beside(
            "eventlog.threads",
            f"Durable appends by {THREADS} threads at once",
            shared,
            unit="appends/s",
            peer="one thread writing and calling fdatasync",
            note="waiting threads share one commit",
        )
    yield _bulk(path, rounds)


def _times(call: Callable[[], None], seconds: float) -> list[float]:
    """Milliseconds of each call, one after the other for a while."""
    times, until = list[float](), time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until or len(times) < 2:
        call()
        times.append((time.perf_counter() - begun) * 1e3)
    return times


def _latencies(pairs: list[tuple[list[float], list[float]]]) -> Iterator[Result]:
    for place, title in ((49, "median"), (98, "99th percentile")):
        yield Result.beside(
            f"eventlog.append_p{place + 1}",
            f"One durable append, {title}",
            [(_cut(ours, place), _cut(bare, place)) for ours, bare in pairs],
            unit="ms",
            peer="write and fdatasync of a file",
        )


def _cut(times: list[float], place: int) -> float:
    return statistics.quantiles(times, n=100)[place]


def _alone(call: Callable[[], None], seconds: float) -> float:
    return len(_times(call, seconds)) / seconds


def _together(call: Callable[[], None], seconds: float) -> float:
    counts = [0] * THREADS

    def work(number: int) -> None:
        counts[number] = len(_times(call, seconds))

    threads = [Thread(target=work, args=(number,)) for number in range(THREADS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def _bulk(path: Path, rounds: int) -> Result:
    blocks = [split_ndjson(b) for b in islice(batches(path, lines=_BULK_LINES), _BULK_BLOCKS)]
    size = sum(len(b.payload) for b in blocks) / 1e6
    pairs = []
    for _ in range(rounds):
        with fresh_folder() as folder:
            pairs.append((size / _bulk_log(folder, blocks), size / _bulk_raw(folder, blocks)))
    return Result.beside(
        "eventlog.bulk",
        f"Blocks of {_BULK_LINES:,} records, one durable commit each",
        pairs,
        unit="MB/s",
        peer="write and fdatasync of the same blocks",
    )


def _bulk_log(folder: Path, blocks: list[Records]) -> float:
    with SqliteLog.open(folder / "log.sqlite") as log:
        begun = time.perf_counter()
        for block in blocks:
            log.append(block, source="file", ingest_time=0)
        return time.perf_counter() - begun


def _bulk_raw(folder: Path, blocks: list[Records]) -> float:
    with (folder / "raw").open("wb") as file:
        begun = time.perf_counter()
        for block in blocks:
            file.write(block.payload)
            file.flush()
            os.fdatasync(file.fileno())
        return time.perf_counter() - begun
