"""Small projects in real folders, and pipelines that run them, for the tests of the wiring."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidegate.pipeline import Pipeline
from tidegate.project.project import Project, load
from tidegate.records import Records
from tidegate.testing.clock import ManualClock
from tidegate.warehouse.query import query
from waiting import PATIENCE_SECONDS, until

SECOND = 1_000_000
MINUTE = 60 * SECOND
NOON = 1_686_139_200_000_000  # 2023-06-07 12:00
STREAM = """
[stream]
id = "id"
event_time = "at"
allowed_lateness = "30 seconds"
dedupe_horizon = "10 minutes"
"""
COLUMNS = """
[stream.columns]
id = "text"
at = "timestamp"
n = "bigint?"
"""
HASTE = """
[warehouse]
commit_every = "20 ms"
snapshot_every = "100 ms"
"""
BY_MINUTE = "SELECT collect(id) AS ids FROM events GROUP BY TumblingWindow(minute, 1)"
BY_NUMBER = "SELECT n, count(*) AS hits FROM events GROUP BY n, TUMBLE(at, INTERVAL '1 minute')"


def write(
    folder: Path,
    *,
    stream: str = STREAM,
    columns: str = COLUMNS,
    more: str = "",
    rules: str = "",
    warehouse: str = HASTE,
    windows: Mapping[str, str] | None = None,
) -> Project:
    """A project written to a folder, over the one that may be there."""
    folder.mkdir(exist_ok=True)
    windows = {"by_minute": BY_MINUTE} if windows is None else windows
    named = "".join(f'[[windows]]\nname = "{n}"\nsql = "{n}.sql"\n' for n in windows)
    (folder / "tidegate.toml").write_text(stream + columns + named + warehouse + more)
    (folder / "rules.toml").write_text(rules)
    for name, sql in windows.items():
        (folder / f"{name}.sql").write_text(sql)
    return load(folder)


def rule(when: str = "n > 5", action: str = "review") -> str:
    return f'[[rule]]\nname = "r"\nwhen = "{when}"\naction = "{action}"\nreason = "n is {{n}}"\n'


def event(name: str, seconds: float = 0.0, n: int = 1) -> bytes:
    """An event so many seconds after noon."""
    at = (
        f"2023-06-07T{12 + int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{seconds % 60:06.3f}"
    )
    return f'{{"id":"{name}","at":"{at}","n":{n}}}'.encode()


def send(pipeline: Pipeline, *records: bytes) -> int:
    """Submit records and wait until they are in the tables; the offset of the first."""
    receipt = pipeline.door.submit(Records.of(records), source="test")
    assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS), pipeline.failure
    return receipt.first_offset


def snapshot(pipeline: Pipeline) -> None:
    """Wait until a snapshot stands for all that was decided."""

    def is_saved() -> bool:
        pipeline.warehouse.stamp()
        return pipeline.snapshots.offsets()[-1:] == [pipeline.engine.offset]

    until(is_saved)


def rows(project: Project, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query over the tables, as tuples."""
    found = query(project.data / "tables", sql).arrow().to_pylist()
    return [tuple(row.values()) for row in found]


def ids(project: Project, table: str = "events", column: str = "id") -> list[Any]:
    return [row[0] for row in rows(project, f'SELECT {column} FROM "{table}" ORDER BY log_offset')]


@contextmanager
def running(project: Project, clock: ManualClock | None = None) -> Iterator[Pipeline]:
    """A pipeline at work, closed in the end."""
    pipeline = Pipeline(project, clock=clock or ManualClock(NOON)).open()
    try:
        yield pipeline
    finally:
        pipeline.close()


def copy_while_running(pipeline: Pipeline, target: Path) -> Project:
    """The project as a crash at this moment would leave it: what is on the disk, copied.

    The lock comes along as a file, which holds nothing.
    """
    source = pipeline.project.root
    shutil.copytree(source, target, copy_function=_copied, dirs_exist_ok=True)
    return load(target)


def _copied(source: str, target: str) -> object:
    try:
        return shutil.copy2(source, target)
    except FileNotFoundError:  # a draft that was renamed meanwhile
        return target


_HOLDER = """
import sys, time
from pathlib import Path
from tidegate.pipeline import Pipeline
from tidegate.project.project import load
from tidegate.records import Records
from tidegate.testing.clock import ManualClock

pipeline = Pipeline(load(Path(sys.argv[1])), clock=ManualClock(int(sys.argv[2])))
pipeline.open(purpose="the first")
print("ready", flush=True)
for line in sys.stdin.buffer:
    pipeline.door.submit(Records.of([line.strip()]), source="test")
    print("taken", flush=True)
"""


class Process:
    """Another process that runs a project and takes records; it can only be killed."""

    def __init__(self, folder: Path, *, now: int = NOON) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(folder), str(now)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._expect("ready")

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, *records: bytes) -> None:
        """Hand records over, each acknowledged."""
        assert self._process.stdin is not None
        for record in records:
            self._process.stdin.write(record + b"\n")
            self._process.stdin.flush()
            self._expect("taken")

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().decode().strip() == word

    def kill(self) -> None:
        """End it with SIGKILL; a second time does nothing."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
