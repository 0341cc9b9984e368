"""Run benchmarks and write docs/benchmarks.md: `python -m benchmarks [names…] [--quick]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from benchmarks import backtest, eventlog, features, ingest, score, sql, windows
from benchmarks.corpus import DATA
from benchmarks.process import ROOT
from benchmarks.result import Report, Result, markdown

PAGE = ROOT / "docs" / "benchmarks.md"
TITLES = (
    (
        "ingest",
        "From the wire to the tables",
        (
            "The store example as it is shipped, with its rules, window queries and sinks; one "
            "event in ten has no store. The clock runs from the first byte read until all is in "
            "the tables. Single events are answered from the connection itself; the bare endpoint "
            "beside them goes through the application, as every other route does."
        ),
    ),
    ("eventlog", "Event log", "Each append is durable when it returns."),
    (
        "sql",
        "Rules in SQL",
        (
            "50 conditions of three terms on store events, beside the same conditions written by "
            "hand in Polars and given to DuckDB as one SELECT."
        ),
    ),
    (
        "features",
        "Windowed features",
        (
            "A SELECT with window functions, computed event by event in the order of the log; "
            "peers see all events at once where nothing else is said. Replays begin at a Parquet "
            "file and end with all features in memory, on all cores on both sides."
        ),
    ),
    (
        "score",
        "Decisions while somebody waits",
        (
            "`POST /v1/score`, one event a request, with 24 features over three entities and 50 "
            "rules; server and load on one machine. While many wait, connections are kept "
            "by a porter, a process of its own; the yardstick is answered by the server itself, "
            "through the application, as every other route is. Where a host gives "
            "a guest's processors to others, all that runs there waits: how much stands beside."
        ),
    ),
    (
        "backtest",
        "Backtest",
        (
            "The cards example with 50 rules of three terms on its columns and stored features, "
            "beside 50 with other thresholds, as `tidegate backtest` compares them."
        ),
    ),
    (
        "windows",
        "Window queries",
        (
            "The Stream Analytics query of examples/store, beside a GROUP BY in DuckDB over the "
            "same rows in memory."
        ),
    ),
)


def benchmarks(
    *, quick: bool, rounds: int, tenfold: bool
) -> dict[str, Callable[[], Iterator[Result]]]:
    """Each benchmark by name, at full size or just large enough to see that it works."""
    size = ingest.Size(rounds=rounds, tenfold=tenfold)
    if quick:
        size = ingest.Size(events=20_000, rounds=1, single_seconds=1.0, tenfold=False)
    return {
        "ingest": lambda: ingest.measure(size),
        "eventlog": lambda: eventlog.measure(seconds=0.3 if quick else 3.0, rounds=size.rounds),
        "sql": lambda: sql.measure(events=2_000 if quick else 100_000, rounds=size.rounds),
        "features": lambda: features.measure(
            features.Size.quick() if quick else features.Size(rounds=size.rounds)
        ),
        "backtest": lambda: backtest.measure(
            backtest.Size.quick() if quick else backtest.Size(rounds=size.rounds)
        ),
        "score": lambda: score.measure(
            score.Size.quick() if quick else score.Size(rounds=size.rounds)
        ),
        "windows": lambda: windows.measure(
            events=20_000 if quick else 1_000_000, rounds=size.rounds
        ),
    }


def main(arguments: Sequence[str]) -> int:
    asked = _asked(arguments)
    known = benchmarks(quick=asked.quick, rounds=asked.rounds, tenfold=asked.tenfold)
    path = DATA / ("quick.json" if asked.quick else "results.json")
    report = Report.load(path, cores=os.cpu_count() or 1)
    for name in asked.names or known:
        print(f"== {name}", flush=True)
        found = []
        for result in known[name]():
            found.append(result)
            print(f"{result.name}: {_line(result)}", flush=True)
        report = report.with_results(found, replaced=name)
        report.save(path)
    if not asked.quick:
        write_page(report, PAGE, measured=asked.names or known)
    return 0


def write_page(report: Report, path: Path, *, measured: Collection[str]) -> None:
    """Write the page of a report; the same report gives the same page.

    Sections of what was not `measured` stay: another machine may have results that this one lacks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    path.write_text(markdown(report, titles=TITLES, measured=measured, before=before))


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    names = [name for name, _, _ in TITLES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small, one round, no page")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument(
        "--no-tenfold",
        dest="tenfold",
        action="store_false",
        help="leave out the file ten times as large",
    )
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    return asked


def _line(result: Result) -> str:
    ratio = "" if result.ratio is None else f", {result.ratio:.3g} of {result.peer}"
    held = {None: "", True: " (holds)", False: " (MISSED)"}[result.holds]
    return f"{result.value:,.4g} {result.unit}{ratio}{held}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
