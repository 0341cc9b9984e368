"""Windowed features: replay beside other engines, and how the state behaves as it grows."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import corpus
from benchmarks.features_data import (
    CARDS_SQL,
    PUBLISHED_SQL,
    WIDE_SQL,
    Payments,
    card_payments,
    wide,
    wide_batch,
)
from benchmarks.process import fresh_folder, run
from benchmarks.result import Result, Target

_FOREIGN = Path(__file__).with_name("features_foreign.py")
_LIBRARIES = {"quixstreams": "quixstreams>=3.20", "river": "river>=0.22"}
_INSTALL_SECONDS_MAX = 600
_FOREIGN_SECONDS_MAX = 900
_FEWER = 100  # times as few keys have a state that stays near the processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured; `payments` None means all published ones."""

    rounds: int = 5
    growth_rounds: int = 1  # 60 M events each
    payments: int | None = None
    wide: int = 10_000_000
    subset: int = 200_000
    foreign: int = 20_000
    foreign_rounds: int = 2
    growth_events: tuple[int, ...] = (100_000, 1_000_000, 10_000_000, 50_000_000)
    growth_keys: tuple[int, ...] = (1_000, 100_000, 5_000_000)
    keys_events: int = 10_000_000
    live_behind: int = 2_000_000
    live_events: int = 5_000
    memory_events: int = 5_000_000
    memory_keys: int = 2_000_000
    snapshot_events: int = 21_000_000

    @classmethod
    def quick(cls) -> Size:
        """Just large enough to see that it works."""
        return cls(
            rounds=1,
            payments=20_000,
            wide=50_000,
            subset=5_000,
            foreign=1_000,
            foreign_rounds=1,
            growth_events=(20_000, 100_000),
            growth_keys=(100, 1_000),
            keys_events=50_000,
            live_behind=20_000,
            live_events=200,
            memory_events=50_000,
            memory_keys=20_000,
            snapshot_events=100_000,
        )


def measure(size: Size) -> Iterator[Result]:
    """The results of this benchmark, as they come."""
    yield from _replays(size)
    yield from _subset(size)
    yield from _foreign(size)
    yield from _growth(size)
    yield from _live(size)
    yield from _memory(size)
    yield from _snapshots(size)
    yield from _start_up(size)


# -- replay beside DuckDB --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Job:
    """A SELECT over a file."""

    payments: Payments
    text: Path

    def by(self, way: str) -> dict[str, Any]:
        """What `features_run` finds."""
        return run("features_run", way, self.payments.path, self.payments.rows, self.text)

    def beside(self, peer: str, rounds: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Both ways, one after the other, round by round; their results agree.

        Each runs once before, uncounted: whoever is first reads the file from the disk, and has a
        virtual machine ask its host for memory that all who come later find there.
        """
        self.by("tidegate")
        self.by(peer)
        pairs = []
        for number in range(rounds):
            ours, theirs = self.by("tidegate"), self.by(peer)
            agree(ours["sums"], theirs["sums"], peer=peer)
            pairs.append((ours, theirs))
            print(
                f"{self.text.stem}, round {number + 1} of {rounds}: {_rate(ours):,.0f}, {peer} "
                f"{_rate(theirs):,.0f} events/s",
                flush=True,
            )
        return pairs


def agree(ours: dict[str, float], theirs: dict[str, float], *, peer: str) -> None:
    """Raises: SystemExit where the sum of a feature differs by more than a few equal times do.

    Of events of one entity with equal times, the first sees only itself in Tidegate, and both in
    engines that see all of the data at once.
    """
    for name, value in ours.items():
        if not math.isclose(value, theirs[name], rel_tol=1e-4, abs_tol=1e-6):
            raise SystemExit(f"the sum of {name} is {value}, and {theirs[name]} in {peer}")


def _rate(found: dict[str, Any]) -> float:
    return float(found["events"] / found["seconds"])


def _replays(size: Size) -> Iterator[Result]:
    payments = card_payments(size.payments)
    whose = "published" if payments.is_published else "generated"
    named = (
        ("published", f"the 12 published windows, {payments.rows:,} {whose} card payments",
         _Job(payments, PUBLISHED_SQL)),
        ("wide", f"24 features over 3 entities, {size.wide:,} events",
         _Job(wide(size.wide), WIDE_SQL)),
    )  # fmt: skip
    for name, what, job in named:
        pairs = job.beside("duckdb", size.rounds)
        yield Result.beside(
            f"features.replay_{name}",
            what,
            [(_rate(ours), _rate(theirs)) for ours, theirs in pairs],
            unit="events/s",
            peer="DuckDB, the same SELECT over the same Parquet file",
            target=Target("ratio", "≥", 4.0),
        )
        yield Result.beside(
            f"features.replay_{name}_memory",
            f"peak memory meanwhile, {name}",
            [(ours["peak_mb"], theirs["peak_mb"]) for ours, theirs in pairs],
            unit="MB",
            peer="DuckDB",
            note="with the whole result in memory on both sides",
        )


# -- beside others, on fewer events ----------------------------------------------------------------


def _subset(size: Size) -> Iterator[Result]:
    job = _Job(card_payments(size.subset), PUBLISHED_SQL)
    peers = {
        "polars": "Polars, rolling expressions over all rows at once",
        "python": "plain Python, running sums over queues",
    }
    for peer, words in peers.items():
        pairs = job.beside(peer, size.rounds)
        yield Result.beside(
            f"features.replay_subset_{peer}",
            f"the 12 published windows, {job.payments.rows:,} events, beside {peer.title()}",
            [(_rate(ours), _rate(theirs)) for ours, theirs in pairs],
            unit="events/s",
            peer=words,
        )


def _foreign(size: Size) -> Iterator[Result]:
    """Libraries that are no dependency of this project, each in an environment of its own."""
    job = _Job(card_payments(size.foreign), CARDS_SQL)
    file = _as_csv(job.payments)
    words = {
        "quixstreams": "quixstreams' sliding windows with their store, without a broker",
        "river": "river, a rolling mean for each card and window",
    }
    for library in words:
        try:
            python = _environment(library)
            pairs = [_pair(job, library, python, file) for _ in range(size.foreign_rounds)]
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{library} is skipped: {_why(error)}", flush=True)
            continue
        yield Result.beside(
            f"features.replay_subset_{library}",
            f"6 windows of each card, {job.payments.rows:,} events, beside {library}",
            [(_rate(ours), _rate(theirs)) for ours, theirs in pairs],
            unit="events/s",
            peer=words[library],
        )


def _pair(
    job: _Job, library: str, python: Path, file: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    ours = job.by("tidegate")
    command = [str(python), str(_FOREIGN), library, str(file)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=_FOREIGN_SECONDS_MAX
    )
    theirs: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    agree(ours["sums"], theirs["sums"], peer=library)
    return ours, theirs


def _environment(library: str) -> Path:
    """The interpreter of an environment that has the library; it is made once."""
    folder = corpus.DATA / f"environment-{library}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        print(f"installing {library} into {folder.name}", flush=True)
        steps = (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", _LIBRARIES[library]],
        )
        for step in steps:
            subprocess.run(
                step, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS_MAX
            )
        ready.touch()
    return python


# -- the state -------------------------------------------------------------------------------------


def _part(part: str, *numbers: int) -> dict[str, float]:
    found: dict[str, float] = run("features_state", part, *numbers)
    return found


def _growth(size: Size) -> Iterator[Result]:
    few, some, many = size.growth_events[0], size.growth_events[1], size.growth_events[-1]
    keys = few // 10  # so that each has some events even at first
    rounds = [
        [_part("growth", events, keys) for events in size.growth_events]
        for _ in range(size.growth_rounds)
    ]
    for place, events in enumerate(size.growth_events):
        yield _growth_result(
            f"features.growth_events_{events:011}",
            f"8 features, after {events:,} events of {keys:,} keys",
            [(found[place], found[0]) for found in rounds],
            peer=f"after {few:,}",
            limit=None,
        )
    yield _growth_result(
        "features.growth_events_most",
        f"8 features, {many:,} events beside {some:,}, both too many for the processor's caches",
        [(found[-1], found[1]) for found in rounds],
        peer=f"after {some:,}",
        limit=1.25,
    )
    yield from _growth_in_kernels(many, keys)
    yield from _growth_by_keys(size)


def _growth_in_kernels(events: int, keys: int) -> Iterator[Result]:
    """What of an event's time is waiting for memory: as much work, with fewer keys, beside it."""
    far = _part("kernels", events, keys)
    near = _part("kernels", events // _FEWER, keys // _FEWER)
    yield Result.beside(
        "features.growth_kernels",
        f"8 features, the kernels alone, after {events:,} events of {keys:,} keys",
        [(far["ns"], near["ns"])],
        unit="ns",
        peer=f"after {events // _FEWER:,} of {keys // _FEWER:,} keys, {near['mb']:,.0f} MB",
        note="as many events behind each key; those of a batch share what is done for a key",
    )
    yield Result.beside(
        "features.growth_waits",
        "what an event takes more of these where more is kept",
        [(far["ns"] - near["ns"], far["wait_ns"])],
        unit="ns",
        peer=f"a read at a random place in {far['mb']:,.0f} MB that waits for the one before",
        note="the ratio says how many such waits an event comes to at most",
    )


def _growth_by_keys(size: Size) -> Iterator[Result]:
    rounds = [
        [_part("growth", size.keys_events, keys) for keys in size.growth_keys]
        for _ in range(size.rounds)
    ]
    most = size.growth_keys[-1]
    limits = {0: 5.0, 1: 2.5}
    for base, few in enumerate(size.growth_keys[:-1]):
        yield _growth_result(
            f"features.growth_keys_{most:09}_{few:09}",
            f"8 features, {most:,} keys beside {few:,}",
            [(found[-1], found[base]) for found in rounds],
            peer=f"{few:,} keys",
            limit=limits[base],
        )
    for place, keys in enumerate(size.growth_keys):
        found = [r[place] for r in rounds]
        yield Result.beside(
            f"features.growth_keys_{keys:09}",
            f"8 features of {keys:,} keys, {found[0]['mb']:,.0f} MB",
            [(f["ns"], f["read_ns"]) for f in found],
            unit="ns",
            peer="one read at a random place in as much memory",
            note="the ratio says how many such reads an event costs",
        )


def _growth_result(
    name: str,
    what: str,
    pairs: list[tuple[dict[str, float], dict[str, float]]],
    *,
    peer: str,
    limit: float | None,
) -> Result:
    return Result.beside(
        name,
        what,
        [(ours["ns"], base["ns"]) for ours, base in pairs],
        unit="ns",
        peer=peer,
        target=None if limit is None else Target("ratio", "≤", limit),
        note="time an event takes on one thread",
    )


def _live(size: Size) -> Iterator[Result]:
    found = [_part("live", size.live_behind, size.live_events) for _ in range(size.rounds)]
    limits = {
        "kernels_p50": 30,
        "kernels_p99": 150,
        "windows_p50": None,
        "windows_p99": None,
        "stage_p50": 800,
        "stage_p99": None,
    }
    words = {
        "kernels": "the window kernels alone",
        "windows": "with columns in and out",
        "stage": "with their expressions too",
    }
    for key, limit in limits.items():
        part, _, percentile = key.partition("_")
        yield Result.of(
            f"features.live_{key}",
            f"24 features of one event at a time, {words[part]}, {percentile}",
            [f[key] for f in found],
            unit="µs",
            target=None if limit is None else Target("value", "≤", limit),
        )
    pairs = [_part("batches", size.live_behind, size.live_behind // 4) for _ in range(size.rounds)]
    yield Result.beside(
        "features.live_batches",
        "24 features in batches of 100, on one thread",
        [(f["hundreds"], f["bulk"]) for f in pairs],
        unit="events/s",
        peer="in batches of 100,000 on one thread",
        target=Target("ratio", "≥", 0.5),
    )


def _memory(size: Size) -> Iterator[Result]:
    found = [_part("memory", size.memory_events, size.memory_keys) for _ in range(size.rounds)]
    named = (
        ("per_event", "each stored event with two values", 32 + 2 * 8),
        ("per_key", "each key with 8 features and a single event", 400),
    )
    for key, what, limit in named:
        yield Result.beside(
            f"features.memory_{key}",
            f"memory for {what}",
            [(f[key], f[f"{key}_told"]) for f in found],
            unit="bytes",
            peer="as the state itself tells",
            target=Target("value", "≤", limit),
            note="what the process holds more, shared out",
        )


def _snapshots(size: Size) -> Iterator[Result]:
    keys = min(1_000_000, size.snapshot_events)
    found = [_part("snapshot", size.snapshot_events, keys) for _ in range(size.rounds)]
    large = f"{found[0]['mb']:,.0f} MB of state"
    for key, what in (("save", "a snapshot written"), ("load", "a snapshot read back")):
        yield Result.of(
            f"features.snapshot_{key}",
            f"{what}, {large}",
            [f[key] for f in found],
            unit="MB/s",
            target=Target("value", "≥", 500.0),
            note="to and from the file system's cache, as one entity of 8 features",
        )
    yield Result.beside(
        "features.snapshot_stall",
        f"longest update of 100 events during a snapshot, {large}",
        [(f["stall_ms"], f["alone_ms"]) for f in found],
        unit="ms",
        peer="without a snapshot",
        target=Target("value", "≤", 200.0),
    )


def _start_up(size: Size) -> Iterator[Result]:
    seconds = []
    with fresh_folder() as folder:
        events = folder / "events.arrow"
        batch = wide_batch(np.random.default_rng(7), 0, 100, step_us=1e6, cards=10, others=5)
        with pa.OSFile(str(events), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        for _ in range(size.rounds + 1):  # the first, so that compiled kernels are on the disk
            begun = time.perf_counter()
            run("features_start", WIDE_SQL, events)
            seconds.append(time.perf_counter() - begun)
    seconds = seconds[1:]
    yield Result.of(
        "features.start_up",
        "from starting the process to the first 24 features, kernels compiled before",
        seconds,
        unit="s",
        target=Target("value", "≤", 1.5),
    )


def _as_csv(payments: Payments) -> Path:
    path = corpus.DATA / f"cards-{payments.rows}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        for batch in payments.batches():
            times = batch["event_time"].cast(pa.int64()).to_numpy() // 1_000
            columns = times.tolist(), batch["card"].to_pylist(), batch["amount"].to_pylist()
            rows.writerows(zip(*columns, strict=True))
    return path


def _why(error: Exception) -> str:
    said = (getattr(error, "stderr", None) or str(error)).strip()
    return said.splitlines()[-1] if said else type(error).__name__
