"""Many records at once: through a pipeline of this process, or beside that of another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from tidegate.clock import Clock, SystemClock
from tidegate.datafolder import DataFolder
from tidegate.engine import Work
from tidegate.errors import LockedError
from tidegate.eventlog.contract import Append
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.pipeline import Pipeline
from tidegate.project.project import Project
from tidegate.records import Records
from tidegate.warehouse import checkpoint

DECODERS = 2  # decoding holds no lock; more threads than this do not pay beside the other stages
BACKLOG_RECORDS_MAX = 131_072  # read ahead of the engine by no more than that


class Taker(Protocol):
    """What takes blocks of records into the log."""

    def take(self, blocks: Iterable[tuple[Records, str]]) -> Iterator[int]:
        """Append each block under its source; yields how many records it had, once durable."""

    def finish(self, *, timeout_seconds: float) -> bool:
        """Wait until what was taken is in the tables; False when the time runs out."""


class Inside:
    """Takes records through a pipeline that this process runs: decoded ahead, logged in order."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def take(self, blocks: Iterable[tuple[Records, str]]) -> Iterator[int]:
        """Append each block under its source; yields how many records it had, once durable."""
        door = self._pipeline.door
        ahead: deque[Future[Work]] = deque()
        with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
            for records, source in blocks:
                ahead.append(pool.submit(door.decode, records, source=source))
                if len(ahead) > DECODERS:
                    yield self._commit(ahead.popleft().result())
            while ahead:
                yield self._commit(ahead.popleft().result())

    def _commit(self, work: Work) -> int:
        self._pipeline.wait_for_room(BACKLOG_RECORDS_MAX)
        self._pipeline.door.commit([work])
        return len(work.entry.records)

    def finish(self, *, timeout_seconds: float) -> bool:
        """Wait until all that was taken is in the tables."""
        return self._pipeline.drain(timeout_seconds=timeout_seconds)


class Beside:
    """Takes records into the log of a project that another process runs; that one decides."""

    def __init__(self, project: Project, log: SqliteLog, *, clock: Clock) -> None:
        self._project = project
        self._log = log
        self._clock = clock

    def take(self, blocks: Iterable[tuple[Records, str]]) -> Iterator[int]:
        """Append each block under its source; yields how many records it had, once durable."""
        for records, source in blocks:
            self._log.append_many([Append(records, source, self._clock.now())])
            yield len(records)

    def finish(self, *, timeout_seconds: float) -> bool:
        """Wait until the other process has what was taken in its tables."""
        target, deadline = self._log.next_offset, time.monotonic() + timeout_seconds
        tables = self._project.data / "tables"
        while (noted := checkpoint.read(tables)) is None or noted.position < target:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


@contextmanager
def taking(project: Project, *, clock: Clock | None = None) -> Iterator[Taker]:
    """What takes records for a project: this process, or beside the one that runs it already.

    Raises: what `Pipeline.open` raises, LockedError apart.
    """
    clock = clock or SystemClock()
    pipeline = Pipeline(project, clock=clock)
    try:
        pipeline.open(purpose="tidegate ingest")
    except LockedError:
        log = SqliteLog.open(DataFolder(project.data).log)
        try:
            yield Beside(project, log, clock=clock)
        finally:
            log.close()
        return
    try:
        yield Inside(pipeline)
    finally:
        pipeline.close()
