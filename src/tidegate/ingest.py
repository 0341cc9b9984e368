"""Many records at once: through a pipeline of this process, or beside that of another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Protocol

from tidegate.clock import Clock, SystemClock
from tidegate.controls import ControlRecord, control
from tidegate.datafolder import DataFolder
from tidegate.engine import Work
from tidegate.errors import LockedError
from tidegate.eventlog.contract import Append, EntryKind, EventLog
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.pipeline import Pipeline
from tidegate.project.project import Project
from tidegate.records import Records
from tidegate.warehouse import checkpoint

DECODERS = 2  # decoding holds no lock; more threads than this do not pay beside the other stages
BACKLOG_RECORDS_MAX = 65_536  # read ahead of the engine by no more than that
PURPOSE = "tidegate ingest"

_POLL_SECONDS = 0.05
_STANDSTILL_SECONDS = 3.0


class Taker(Protocol):
    """What takes blocks of records into the log."""

    @property
    def beside(self) -> str | None:
        """Who decides, where that is another process."""

    def take(self, blocks: Iterable[tuple[Records, str]]) -> Iterator[range]:
        """Append each block under its source; yields its offsets once it is durable."""

    def append(self, records: Sequence[ControlRecord], *, source: str) -> int:
        """Append control records in one entry; the offset of the first, once they are durable."""

    def reached(self) -> int:
        """The offset below which all is decided, as far as this process can tell.

        Raises: what has stopped the engine, if it is this process's and it has.
        """

    def finish(self, *, timeout_seconds: float) -> bool:
        """Wait until all that the log holds is in the tables; False when the time runs out."""


class Inside:
    """Takes records through a pipeline that this process runs: decoded ahead, logged in order."""

    beside: str | None = None

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def take(self, blocks: Iterable[tuple[Records, str]]) -> Iterator[range]:
        """Append each block under its source; yields its offsets once it is durable."""
        door = self._pipeline.door
        ahead: deque[Future[Work]] = deque()
        with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
            for records, source in blocks:
                ahead.append(pool.submit(door.decode, records, source=source))
                if len(ahead) > DECODERS:
                    yield self._commit(ahead.popleft().result())
            while ahead:
                yield self._commit(ahead.popleft().result())

    def append(self, records: Sequence[ControlRecord], *, source: str) -> int:
        """Append control records in one entry; the offset of the first, once they are durable."""
        return self._pipeline.append(records, source=source)

    def reached(self) -> int:
        """The offset below which all is decided. Raises: what has stopped the engine."""
        if self._pipeline.failure is not None:
            raise self._pipeline.failure
        return self._pipeline.decided

    def _commit(self, work: Work) -> range:
        self._pipeline.wait_for_room(BACKLOG_RECORDS_MAX)
        (first,) = self._pipeline.door.commit([work])
        return range(first, first + len(work.entry.records))

    def finish(self, *, timeout_seconds: float) -> bool:
        """Wait until all that the log holds is in the tables; False when the time runs out.

        Raises: what has stopped the engine, if it has.
        """
        target, deadline = self._pipeline.log.next_offset, time.monotonic() + timeout_seconds
        reached = False
        while not reached and (left := deadline - time.monotonic()) > 0:
            # What is decided may be on its way to the writer, so the tables themselves are asked.
            reached = (
                self._pipeline.drain(timeout_seconds=left)
                and self._pipeline.warehouse.position >= target
            )
            if self._pipeline.failure is not None:
                raise self._pipeline.failure
        return reached


class Beside:
    """Takes records into the log of a project that another process runs; that one decides.

    Should it end before it has decided on all of them, this process does the rest.
    """

    def __init__(self, project: Project, log: SqliteLog, *, beside: str, clock: Clock) -> None:
        self.beside: str | None = beside
        self._project = project
        self._log = log
        self._clock = clock

    def take(self, blocks: Iterable[tuple[Records, str]]) -> Iterator[range]:
        """Append each block under its source; yields its offsets once it is durable."""
        for records, source in blocks:
            (first,) = self._log.append_many([Append(records, source, self._clock.now())])
            yield range(first, first + len(records))

    def append(self, records: Sequence[ControlRecord], *, source: str) -> int:
        """Append control records in one entry; the offset of the first, once they are durable."""
        now = self._clock.now()
        return self._log.append(
            control(*records), source=source, ingest_time=now, kind=EntryKind.CONTROL
        )

    def finish(self, *, timeout_seconds: float) -> bool:
        """Wait until all that the log holds is in the tables; False when the time runs out."""
        target, deadline = self._log.next_offset, time.monotonic() + timeout_seconds
        reached, moved_at = self.reached(), time.monotonic()
        while reached < target and (now := time.monotonic()) < deadline:
            if now - moved_at > _STANDSTILL_SECONDS and self._do_the_rest(deadline - now):
                return True
            time.sleep(_POLL_SECONDS)
            before, reached = reached, self.reached()
            moved_at = time.monotonic() if reached > before else moved_at
        return reached >= target

    def reached(self) -> int:
        """The offset below which the tables hold everything."""
        noted = checkpoint.read(self._project.data / "tables")
        return noted.position if noted else 0

    def _do_the_rest(self, timeout_seconds: float) -> bool:
        """Decide here, if the other process is gone."""
        try:
            with _opened(self._project, clock=self._clock) as pipeline:
                return pipeline.drain(timeout_seconds=timeout_seconds)
        except LockedError:
            return False


@contextmanager
def steering(project: Project, *, pipeline: Pipeline | None, clock: Clock) -> Iterator[Taker]:
    """What takes control records: the pipeline of this process, if it has one, or as `taking`.

    The version of the log goes on deciding. Raises: as `taking`.
    """
    if pipeline is not None:
        yield Inside(pipeline)
        return
    with taking(project, clock=clock, as_logged=True) as taker:
        yield taker


@contextmanager
def log_of(project: Project, *, pipeline: Pipeline | None) -> Iterator[EventLog]:
    """The log of a project, for reading: that of the pipeline, if this process has one."""
    if pipeline is not None:
        yield pipeline.log
        return
    with closing(SqliteLog.open(DataFolder(project.data).log)) as log:
        yield log


@contextmanager
def taking(
    project: Project, *, clock: Clock | None = None, as_logged: bool = False
) -> Iterator[Taker]:
    """What takes records for a project: this process, or beside the one that runs it already.

    With `as_logged` the log's version goes on, whatever the folder says.

    Raises: what `Pipeline.open` raises, LockedError apart.
    """
    clock = clock or SystemClock()
    pipeline = Pipeline(project, clock=clock)
    try:
        _open(pipeline, as_logged=as_logged)
    except LockedError as error:
        beside = str(error).rpartition(" in use by ")[2]
        log = SqliteLog.open(DataFolder(project.data).log)
        try:
            yield Beside(project, log, beside=beside, clock=clock)
        finally:
            log.close()
        return
    try:
        yield Inside(pipeline)
    finally:
        pipeline.close()


@contextmanager
def _opened(project: Project, *, clock: Clock) -> Iterator[Pipeline]:
    pipeline = Pipeline(project, clock=clock)
    _open(pipeline)
    try:
        yield pipeline
    finally:
        pipeline.close()


def _open(pipeline: Pipeline, *, as_logged: bool = False) -> None:
    """Open the pipeline; where that fails, another call may try again in this process."""
    try:
        pipeline.open(purpose=PURPOSE, as_logged=as_logged)
    except BaseException:
        pipeline.folder.unlock()
        raise
