"""Decisions while somebody waits: throughput beside a bare endpoint, latency, and overload."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus import DATA
from benchmarks.ingest import Some, post
from benchmarks.process import ROOT, Processors, fresh_folder, run
from benchmarks.result import Result, Target
from benchmarks.serving import Served, serving
from tidegate.service.processes import open_more_files

CLIENTS = (1, 4, 16, 64, 256)
RULES = 50
_RATE_OF_A_CLIENT = 800.0  # requests a second that no client of a closed loop comes to
_RATE_MAX = 36_000.0  # nor all of them
_LINES_OF_A_STRETCH = 100_000
_PROBES_A_SECOND = 200.0  # beside a flood
_BEFORE_PROBE_SECONDS = 7  # of a flood, in which the probe is made ready
_START_SECONDS = 0.5  # of an open loop
_STORM = 20  # times as many callers as make the most
_MORE_FEATURES = """
  max(amount)         OVER card_30d          AS card_amount_max_30d,
  min(amount)         OVER card_7d           AS card_amount_min_7d,
  stddev_samp(amount) OVER card_30d          AS card_amount_spread_30d,
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 5.0
    overload_seconds: float = 60.0
    clients: tuple[int, ...] = CLIENTS
    days: int = 110
    customers: int = 10_000

    @classmethod
    def quick(cls) -> Size:
        """Just large enough to see that it works."""
        return cls(
            rounds=1, seconds=1.0, overload_seconds=2.0, clients=(1, 4), days=10, customers=1_000
        )


def measure(size: Size) -> Iterator[Result]:
    """The results of this benchmark, as they come."""
    path, lines = _payments(size)
    open_more_files()  # for those who flood
    with _project() as project, serving(project) as served:
        some = _Lines(path, lines)
        post(served, "/v1/score", some.next(64, 2.0), 2.0, clients=64)  # everything is loaded
        table = _throughput(served, some, size)
        if some.taken > _from_end(lines, 3 + size.rounds) > 0:
            raise SystemExit(f"{path} has too few payments: {some.taken} of them were sent before")
        yield from _throughput_results(table)
        rates = {clients: [rate for rate, _, _ in rounds] for clients, rounds in table.items()}
        busiest = max(rates, key=lambda clients: statistics.median(rates[clients]))
        most = statistics.median(rates[busiest])
        yield from _open_loop(served, path, lines, most=most, clients=busiest, size=size)
    yield from _disk(size)


# -- the project, and what is sent -----------------------------------------------------------------


@contextmanager
def _project() -> Iterator[Path]:
    """The cards example with 24 features and 50 rules."""
    with fresh_folder() as folder:
        project = Path(shutil.copytree(ROOT / "examples" / "cards", folder / "cards"))
        features = (project / "features.sql").read_text()
        head, select, rest = features.partition("SELECT\n")
        (project / "features.sql").write_text(head + select + _MORE_FEATURES + rest)
        with (project / "rules.toml").open("a") as file:
            file.write("".join(_rule(number) for number in range(4, RULES)))
        yield project


def _rule(number: int) -> str:
    amount, count, risk = 40 + 7 * number, 1 + number % 9, (number % 10) / 10
    return f"""
[[rule]]
name = "rule_{number}"
when = "amount > {amount} AND card_payments_7d > {count} AND terminal_risk_30d > {risk}"
action = "review"
reason = "Amount of {{amount}} after {{card_payments_7d}} payments within the week"
"""


def _payments(size: Size) -> tuple[Path, int]:
    """A file of card payments and the number of its lines."""
    path = DATA / f"cards-{size.days}-{size.customers}.ndjson"
    if not path.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        options = ["--days", str(size.days), "--customers", str(size.customers)]
        command = [
            sys.executable,
            "-m",
            "tidegate",
            "generate",
            "cards",
            *options,
            "--to",
            str(draft),
        ]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        draft.rename(path)
    with path.open("rb") as file:
        return path, sum(1 for _ in file)


class _Lines:
    """Stretches of a file, each handed out once, so that no id comes twice."""

    def __init__(self, path: Path, lines: int) -> None:
        self._path, self._lines, self._at = path, lines, 0
        self.taken = 0

    def next(self, clients: int, seconds: float) -> Some:
        """Lines for two threads of the generator, more than so many clients can send in the time.

        An id that comes again is looked up, which is other work than a decision.
        """
        each = int(min(clients * seconds * _RATE_OF_A_CLIENT, seconds * _RATE_MAX)) // 2
        each = min(max(each, 1), self._lines // 4)
        if self._at + 2 * each > self._lines:
            self._at = 0
        some = Some(self._path, self._at, each)
        self._at += 2 * each
        self.taken += 2 * each
        return some


# -- closed loop -----------------------------------------------------------------------------------

Rates = dict[int, list[tuple[float, float, dict[str, float]]]]


def _throughput(served: Served, some: _Lines, size: Size) -> Rates:
    found: Rates = {clients: [] for clients in size.clients}
    for number in range(size.rounds):
        for clients in size.clients:
            lines = some.next(clients, size.seconds)
            bare = post(served, "/bare/json", lines, size.seconds, clients=clients)
            scored = post(served, "/v1/score", lines, size.seconds, clients=clients)
            found[clients].append((scored["rate"], bare["rate"], scored))
            print(
                f"round {number + 1} of {size.rounds}, {clients} clients: {scored['rate']:,.0f} "
                f"decisions/s, bare endpoint {bare['rate']:,.0f} requests/s",
                flush=True,
            )
    return found


def _throughput_results(table: Rates) -> Iterator[Result]:
    for clients, rounds in table.items():
        yield Result.beside(
            f"score.rate_{clients:03}",
            f"One event a request, {clients} clients",
            [(rate, bare) for rate, bare, _ in rounds],
            unit="decisions/s",
            peer="the same server parsing the same JSON and answering a constant",
            target=Target("ratio", "≥", 0.5) if clients == max(table) else None,
        )
        for key, title in (("p50_us", "median"), ("p99_us", "99th percentile")):
            yield Result.of(
                f"score.rate_{clients:03}_{key[:3]}",
                f"Latency with {clients} clients, {title}",
                [found[key] / 1000 for _, _, found in rounds],
                unit="ms",
            )


# -- open loop, and overload -----------------------------------------------------------------------


def _open_loop(
    served: Served, path: Path, lines: int, *, most: float, clients: int, size: Size
) -> Iterator[Result]:
    """Requests sent at times of their own, however long the answers take; then an overload.

    `most` is the highest of the rates, which so many `clients` came to.
    """

    def half(number: int) -> dict[str, Any]:
        seconds, first = size.seconds + _START_SECONDS, _from_end(lines, number)
        before = Processors.now()
        found = _paced(served, path, first, rate=most / 2, seconds=seconds, start=_START_SECONDS)
        found["withheld"] = Processors.now().withheld_since(before)
        return found

    served.rest()  # half of the most is to be met, not what the most has left to merge
    halves = [half(4 + number) for number in range(size.rounds)]
    for key, limit in (("p50_ms", 5.0), ("p99_ms", 20.0)):
        yield Result.of(
            f"score.half_{key[:3]}",
            f"At half of the most, open loop, {key[:3]}",
            [half[key] for half in halves],
            unit="ms",
            target=Target("value", "≤", limit),
            note=f"{most / 2:,.0f} requests/s, counted from when each was due, the first "
            f"{_START_SECONDS:g} seconds apart, once the tables' files were merged",
        )
    yield Result.of(
        "score.half_start",
        f"The first {_START_SECONDS:g} seconds of that, in which 512 connections come, p99",
        [half["start_p99_ms"] for half in halves],
        unit="ms",
    )
    yield Result.of(
        "score.half_withheld",
        "Time of processors that was wanted meanwhile and that the host gave to other guests",
        [100 * half["withheld"] for half in halves],
        unit="%",
    )
    at_most = [
        _flooded(
            served,
            path,
            _from_end(lines, 1) + number * int(_PROBES_A_SECOND * size.seconds),
            clients=clients,
            seconds=size.seconds,
        )
        for number in range(size.rounds)
    ]
    before = served.use()
    over = _flooded(
        served, path, _from_end(lines, 2), clients=5 * clients, seconds=size.overload_seconds
    )
    after, porters_mb = served.use(), served.children_mb()
    storm = _flooded(
        served,
        path,
        (_from_end(lines, 1) + _LINES_OF_A_STRETCH // 2) % lines,
        clients=_STORM * clients,
        seconds=2 * size.seconds,
    )
    time.sleep(2.0)
    calm = half(3)
    at_rate = statistics.median(each["decided_rate"] for each in at_most)
    yield Result.beside(
        "score.overload_p99",
        f"Overload, {5 * clients} clients who come back at once, p99 of what was accepted",
        [(over["p99_ms"], each["p99_ms"]) for each in at_most],
        unit="ms",
        peer=f"{clients} clients",
        target=Target("ratio", "≤", 3.0),
        note=f"{over['asked_rate']:,.0f} requests/s, {over['decided_rate']:,.0f} of them decided, "
        f"the rest refused with 429, {over['failed']:,.0f} failed otherwise; with {clients} "
        f"clients {at_rate:,.0f} decided; peak memory {before.peak_mb:,.0f} MB "
        f"before and {after.peak_mb:,.0f} MB after {size.overload_seconds:g} seconds, and "
        f"{porters_mb:,.0f} MB for the porters",
    )
    yield Result.beside(
        "score.storm_p99",
        f"{_STORM * clients} clients who come back at once, p99 of what was accepted",
        [(storm["p99_ms"], each["p99_ms"]) for each in at_most],
        unit="ms",
        peer=f"{clients} clients",
        note=f"{storm['asked_rate']:,.0f} requests/s, {storm['decided_rate']:,.0f} of them "
        f"decided, the rest refused with 429, {storm['failed']:,.0f} failed otherwise",
    )
    yield Result.beside(
        "score.overload_after",
        "Half of the most, two seconds after that, p99",
        [(calm["p99_ms"], statistics.median(half["p99_ms"] for half in halves))],
        unit="ms",
        peer="before",
        note=f"{100 * calm['withheld']:.2g} % of the processors' time went to other guests then",
    )


def _disk(size: Size) -> Iterator[Result]:
    """What nothing durable is faster than on this machine while its processors are busy."""
    with fresh_folder() as folder:
        found = [run("disk", folder, 2 * size.seconds) for _ in range(size.rounds)]
    for key, words in (("p50", "median"), ("p99", "99th percentile"), ("max", "the longest")):
        yield Result.of(
            f"score.disk_{key}",
            f"Floor: a write and fdatasync, the processors busy with nothing, {words}",
            [each[f"{key}_ms"] for each in found],
            unit="ms",
        )


def _from_end(lines: int, number: int) -> int:
    """Where stretches of a file begin that the closed loops have not come to."""
    return max(0, lines - number * _LINES_OF_A_STRETCH) % lines


def _paced(
    served: Served, path: Path, first: int, *, rate: float, seconds: float, start: float
) -> dict[str, Any]:
    """What an open loop finds. Raises: SystemExit if an answer was an error other than 429."""
    found = run("paced", served.port, path, first, rate, seconds, start)
    if found["failed"]:
        raise SystemExit(f"{found['failed']} of the paced requests failed")
    return found


def _flooded(
    served: Served, path: Path, first: int, *, clients: int, seconds: float
) -> dict[str, Any]:
    """What a probe finds that asks at times of its own beside a flood of so many clients.

    Raises: SystemExit if an answer was an error other than 429.
    """
    script = ["-s", str(ROOT / "benchmarks" / "flood.lua")]
    options = [
        "-t",
        "2",
        "--timeout",
        "10s",
        "-c",
        str(clients),
        "-d",
        f"{round(seconds) + _BEFORE_PROBE_SECONDS}s",
    ]
    url = f"http://127.0.0.1:{served.port}/v1/score"
    command = ["wrk", *options, *script, url, "--", str(first)]
    flood = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        probe = run("paced", served.port, path, first, _PROBES_A_SECOND, seconds, 0.0)
        told = json.loads(flood.communicate()[0].splitlines()[-1])
    finally:
        flood.kill()
        flood.wait()
    found: dict[str, Any] = {**probe, "failed": probe["failed"] + told["failed"]}
    found["decided_rate"] = told["decided"] / told["seconds"]
    found["asked_rate"] = (told["decided"] + told["refused"]) / told["seconds"]
    print(f"{clients} clients flood: {told}, probe {probe}", flush=True)
    if found["failed"]:
        raise SystemExit(f"{found['failed']} requests of a flood failed")
    return found
