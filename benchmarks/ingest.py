"""The main job: from a file or over HTTP to durable log, decisions and tables."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.corpus import store_file
from benchmarks.process import ROOT, fresh_project, run
from benchmarks.result import Result, Target
from benchmarks.serving import Served, serving

BATCH_LINES = 500
BATCH_CONNECTIONS = 64  # as many as for single events
CLIENTS = 64
_WARM_UP_EVENTS = 1_000
_WRK_THREADS = 2
_SINGLE_LINES_MAX = 100_000  # for each of wrk's threads, in one run


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    events: int = 1_000_000
    rounds: int = 5
    single_seconds: float = 5.0
    tenfold: bool = True


def measure(size: Size) -> Iterator[Result]:
    """The results of this benchmark, as they come."""
    path = store_file(size.events)
    with fresh_project() as project:  # compiled parts are made before anything is measured
        run("ingestion", store_file(_WARM_UP_EVENTS), project)
    rounds = [_round(path, i + 1, size.rounds) for i in range(size.rounds)]
    yield from _file_results(rounds)
    yield from _batch_results(rounds)
    if size.tenfold:
        yield _tenfold(size, [r.file["tables_mb"] for r in rounds])
    yield from _singles(path, size)
    yield from _stages(path, min(size.events, 300_000))


# -- the file, and NDJSON batches over HTTP --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found: the file, both ways of the yardstick, and the same over HTTP."""

    file: dict[str, float]
    lines: dict[str, float]
    records: dict[str, float]
    batches: dict[str, float]


def _round(path: Path, number: int, count: int) -> Round:
    with fresh_project() as project:
        file = run("ingestion", path, project)
    lines, records = run("decoding", path, "lines"), run("decoding", path, "records")
    batches = _send_batches(path)
    print(
        f"round {number} of {count}: file {_rate(file):,.0f}, msgspec {_rate(lines):,.0f} and "
        f"{_rate(records):,.0f}, HTTP {batches['rate']:,.0f} events/s; "
        f"peak {file['tables_mb']:.0f} MB",
        flush=True,
    )
    return Round(file, lines, records, batches)


def _rate(found: dict[str, float]) -> float:
    return found["events"] / found["seconds"]


def _commit_often(project: Path) -> None:
    """So that the last rows do not wait a second for company, which a file's do not either."""
    with (project / "tidegate.toml").open("a") as file:
        file.write('\n[warehouse]\ncommit_every = "100 ms"\n')


def _send_batches(path: Path) -> dict[str, float]:
    with fresh_project() as project:
        _commit_often(project)
        with serving(project) as served:
            sent = run("load", "batches", served.port, path, BATCH_CONNECTIONS, BATCH_LINES)
            ended, used = served.wait_until_written(sent["next_offset"]), served.use()
    events = sent["next_offset"] - 1  # the record of the project's version is the first
    return {
        "rate": events / (ended - sent["started"]),
        "acknowledged_rate": events / (sent["acknowledged"] - sent["started"]),
        "held_back": sent["held_back"],
        "load_cpu": sent["cpu_seconds"] / (sent["acknowledged"] - sent["started"]),
        "peak_mb": used.peak_mb,
    }


def _file_results(rounds: list[Round]) -> Iterator[Result]:
    yield Result.beside(
        "ingest.file",
        f"NDJSON file of {rounds[0].file['events']:,} events to decisions and tables",
        [(_rate(r.file), _rate(r.records)) for r in rounds],
        unit="events/s",
        peer="msgspec, line by line, one thread",
        target=Target("ratio", "≥", 0.35),
        note="`Decoder(Event).decode(line)`, each struct dropped before the next: the faster of "
        "the two yardsticks, so the one that is judged by",
    )
    yield Result.beside(
        "ingest.file_lines",
        "The same beside msgspec's other way",
        [(_rate(r.file), _rate(r.lines)) for r in rounds],
        unit="events/s",
        peer="msgspec, `decode_lines` of 4 MB blocks, one thread",
        note="holds a block's structs until the block is done, which costs it time",
    )
    yield Result.of(
        "ingest.file_cpu",
        "Processor time of all threads",
        [r.file["cpu_seconds"] / r.file["events"] * 1e6 for r in rounds],
        unit="µs/event",
    )
    yield Result.of(
        "ingest.file_whole",
        "The same with opening and closing the project",
        [
            r.file["events"]
            / (r.file["open_seconds"] + r.file["seconds"] + r.file["close_seconds"])
            for r in rounds
        ],
        unit="events/s",
        note="closing lets the sinks deliver for some seconds; the rest comes with the next start",
    )
    yield Result.of(
        "ingest.memory",
        "Peak memory until all is in the tables",
        [r.file["tables_mb"] for r in rounds],
        unit="MB",
        target=Target("value", "≤", 600),
        note=f"resident, shared libraries included; "
        f"{max(r.file['import_mb'] for r in rounds):.0f} MB after the imports, "
        f"{max(r.file['open_mb'] for r in rounds):.0f} MB once the project is open",
    )
    yield Result.of(
        "ingest.memory_sinks",
        "The same with the sinks delivering afterwards",
        [r.file["peak_mb"] for r in rounds],
        unit="MB",
    )


def _batch_results(rounds: list[Round]) -> Iterator[Result]:
    yield Result.beside(
        "ingest.http_batches",
        f"HTTP, NDJSON in batches of {BATCH_LINES}, until all is in the tables",
        [(r.batches["rate"], _rate(r.file)) for r in rounds],
        unit="events/s",
        peer="the file",
        target=Target("ratio", "≥", 0.7),
        note=f"{BATCH_CONNECTIONS} connections from another process, which used "
        f"{max(r.batches['load_cpu'] for r in rounds):.2f} of a core at most; "
        f"{sum(r.batches['held_back'] for r in rounds):.0f} requests were told to come later; "
        "committed to the tables every 100 ms",
    )
    yield Result.of(
        "ingest.http_batches_durable",
        "The same until the last answer (durable in the log)",
        [r.batches["acknowledged_rate"] for r in rounds],
        unit="events/s",
    )
    yield Result.of(
        "ingest.http_memory",
        "Peak memory of the server under that load",
        [r.batches["peak_mb"] for r in rounds],
        unit="MB",
    )


def _tenfold(size: Size, peaks: list[float]) -> Result:
    path = store_file(10 * size.events)
    with fresh_project() as project:
        found = run("ingestion", path, project)
    print(
        f"ten times as large: {_rate(found):,.0f} events/s, {found['tables_mb']:.0f} MB", flush=True
    )
    return Result.beside(
        "ingest.memory_tenfold",
        "Peak memory for a file ten times as large",
        [(found["tables_mb"], peak) for peak in peaks],
        unit="MB",
        peer="the file",
        target=Target("ratio", "≤", 1.1),
        note=f"one run, {_rate(found):,.0f} events/s",
    )


# -- single events ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Some:
    """Lines of a file: each of wrk's threads takes `lines` of its own, from `first` on."""

    path: Path
    first: int
    lines: int


def _singles(path: Path, size: Size) -> Iterator[Result]:
    with path.open("rb") as file:
        last = list(islice(file, 64))
    pairs = []
    lines = min(_SINGLE_LINES_MAX, size.events // (2 * _WRK_THREADS))
    with fresh_project() as project, serving(project) as served:
        for number in range(size.rounds):
            first = number * lines * _WRK_THREADS % (size.events - lines * _WRK_THREADS)
            some = Some(path, first, lines)
            bare = post(served, "/bare", some, size.single_seconds)
            events = post(served, "/v1/events", some, size.single_seconds)
            served.settle(last[number % len(last)])
            pairs.append((events, bare))
            print(
                f"round {number + 1} of {size.rounds}: single events {events['rate']:,.0f}, bare "
                f"endpoint {bare['rate']:,.0f} requests/s; load {bare['load_cpu']:.2f} cores",
                flush=True,
            )
    yield from _single_results(pairs)


def _single_results(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> Iterator[Result]:
    used = max(bare["load_cpu"] for _, bare in pairs)
    server = min(bare["server_cpu"] for _, bare in pairs)
    yield Result.beside(
        "ingest.http_singles",
        f"HTTP, one event a request, {CLIENTS} clients",
        [(e["rate"], b["rate"]) for e, b in pairs],
        unit="requests/s",
        peer="the same server reading and discarding the body",
        target=Target("ratio", "≥", 0.5),
        note=f"load by {_generator()}, which used {used:.2f} cores at most; at the bare endpoint "
        f"the server used {server:.2f} cores at least, so that it is what limits",
    )
    for key, title in (("p50_us", "median"), ("p99_us", "99th percentile")):
        yield Result.beside(
            f"ingest.http_singles_{key[:3]}",
            f"Latency of such a request, {title}",
            [(e[key] / 1000, b[key] / 1000) for e, b in pairs],
            unit="ms",
            peer="bare",
        )


def _generator() -> str:
    return "wrk" if shutil.which("wrk") else "epoll in Python"


def post(
    served: Served, route: str, some: Some, seconds: float, *, clients: int = CLIENTS
) -> dict[str, float]:
    """What a closed loop of so many clients finds who post single lines to a route.

    Of requests that are refused (429), as when the disk stands still for long, the rate has none.
    Raises: SystemExit for other errors.
    """
    before, failures = served.use(), served.failures()
    found = _by_wrk(served, route, some, seconds, clients) or run(
        "load", "singles", served.port, route, some.path, some.first, clients, seconds
    )
    refused = found.get("refused", 0)
    if refused:
        print(f"{refused:,} of {found['requests']:,} requests to {route} were refused", flush=True)
    if failed := found["errors"] + served.failures() - failures:
        raise SystemExit(f"{failed} of the requests to {route} failed")
    spent = served.use().seconds - before.seconds
    return {
        **found,
        "rate": (found["requests"] - refused) / found["seconds"],
        "load_cpu": found["cpu_seconds"] / found["seconds"],
        "server_cpu": spent / found["seconds"],
    }


def _by_wrk(
    served: Served, route: str, some: Some, seconds: float, clients: int
) -> dict[str, Any] | None:
    """What wrk finds; None where it is not installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return None
    threads = min(_WRK_THREADS, clients)
    options = [
        "-t",
        str(threads),
        "-c",
        str(clients),
        "--timeout",
        "10s",
        "-d",
        f"{max(1, round(seconds))}s",
    ]
    script = ["-s", str(ROOT / "benchmarks" / "post.lua")]
    words = ["--", str(some.path), str(some.first), str(some.lines)]
    url = f"http://127.0.0.1:{served.port}{route}"
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([wrk, *options, *script, url, *words], check=True, stdout=subprocess.PIPE)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # Reading the file and making the requests comes before the clock: it is no load.
    making = max(0.0, ended - begun - found["seconds"])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**found, "cpu_seconds": max(0.0, cpu - making)}


# -- stage by stage --------------------------------------------------------------------------------


def _stages(path: Path, events: int) -> Iterator[Result]:
    found = run("stages", path, events)
    for name, what in (
        ("read", "Stage alone: reading the file, finding its lines"),
        ("decode", "Stage alone: decoding, one thread"),
        ("log", "Stage alone: the durable log"),
        ("engine", "Stage alone: duplicates, rules, window queries, decisions"),
        ("tables", "Stage alone: the tables"),
    ):
        yield Result.of(
            f"ingest.stage_{name}",
            what,
            [found[name]["seconds"] / events * 1e6],
            unit="µs/event",
            note=f"{found[name]['cpu_seconds'] / events * 1e6:.2f} µs/event of processor time, "
            "all threads",
        )
