"""The stages of the journey one by one, each alone with what the one before it made.

python -m benchmarks.stages FILE EVENTS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from benchmarks.process import Use, fresh_project
from tidegate.clock import SystemClock
from tidegate.engine import Engine, Work
from tidegate.eventlog.contract import Append, Entry, EntryKind
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.events.dedupe import Dedupe
from tidegate.outcome import Outcome
from tidegate.program import Program
from tidegate.project.project import load
from tidegate.records import Records
from tidegate.sources.files import read_file
from tidegate.warehouse.warehouse import Warehouse

_COMMIT_ROWS = 100_000

_T = TypeVar("_T")
Times = dict[str, dict[str, float]]


def main(file: str, events: str) -> None:
    with fresh_project() as folder:
        print(json.dumps(stages(Path(file), int(events), folder)))


def stages(file: Path, events: int, folder: Path) -> Times:
    """Wall and processor seconds of each stage for the first `events` of a file."""
    times: Times = {}
    program = Program.compile(load(folder))
    blocks = _timed(times, "read", lambda: list(_blocks(file, events, program)))
    list(_decoded(program, blocks[:1]))  # compiled parts are loaded now
    work = _timed(times, "decode", lambda: list(_decoded(program, blocks)))
    with SqliteLog.open(folder / "log.sqlite") as log:
        _timed(times, "log", lambda: _log(log, blocks))
    engine = _engine(program, folder)
    outcomes = _timed(times, "engine", lambda: [o for w in work for o in engine.process([w])])
    warehouse = Warehouse.open(
        folder / "tables",
        schema=program.schema,
        windows=program.window_schemas(),
        clock=SystemClock(),
    )
    _timed(times, "tables", lambda: _write(warehouse, outcomes))
    warehouse.close()
    return times


def _timed(times: Times, name: str, stage: Callable[[], _T]) -> _T:
    before, started = Use.now(), time.perf_counter()
    made = stage()
    seconds, after = time.perf_counter() - started, Use.now()
    times[name] = {"seconds": seconds, "cpu_seconds": after.seconds - before.seconds}
    return made


def _blocks(file: Path, events: int, program: Program) -> Iterator[Records]:
    left = events
    for block in read_file(file, schema=program.schema):
        records = block.records
        yield Records(records.payload, records.starts[:left], records.ends[:left])
        left -= len(records)
        if left <= 0:
            return


def _decoded(program: Program, blocks: list[Records]) -> Iterator[Work]:
    offset = 0
    for records in blocks:
        now = SystemClock().now()
        decoded = program.intake.admit(records, ingest_time=now)
        entry = Entry(offset, EntryKind.EVENTS, "file", now, records)
        yield Work(entry, decoded, program.version)
        offset += len(records)


def _log(log: SqliteLog, blocks: list[Records]) -> None:
    for records in blocks:
        log.append_many([Append(records, "file", 0)])


def _engine(program: Program, folder: Path) -> Engine:
    def lookup(_offsets: object) -> object:
        raise AssertionError("no id of the generator comes twice")

    dedupe = Dedupe.open(
        folder / "dedupe",
        horizon=program.project.stream.dedupe_horizon_us,
        key=bytes(16),
        lookup=lookup,  # type: ignore[arg-type]
    )
    return Engine(program, dedupe, clock=SystemClock())


def _write(warehouse: Warehouse, outcomes: list[Outcome]) -> None:
    waiting = iter(outcomes)
    per_commit = max(1, _COMMIT_ROWS // max(1, outcomes[0].events.num_rows))
    while some := list(islice(waiting, per_commit)):
        warehouse.write(some)


if __name__ == "__main__":
    main(*sys.argv[1:])
