"""The journey of an event, wired: one log, one engine, and what follows it.

    door ──▶ log ──▶ engine ──▶ writer ──▶ warehouse ──▶ sinks
                       │                       │
                       └──── snapshots ◀───────┘   kept once the tables have passed them

Threads: the *door* commits, the *engine* decides, the *warehouse* writes, the *keeper* does what
may wait (snapshots, compaction, trimming, time passing on an idle stream), each sink has one of its
own. An event is acknowledged once it is in the log; nothing else is waited for.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from traceback import format_exception
from types import TracebackType
from typing import Any, Self

import structlog

from tidegate import memory
from tidegate.clock import Clock, SystemClock
from tidegate.controls import ControlRecord, ProposalRecord, VersionRecord, control
from tidegate.counters import Counters
from tidegate.datafolder import DataFolder
from tidegate.decided import FirstDecisions
from tidegate.deliveries import make_runners, open_sinks
from tidegate.door import Door, Tail
from tidegate.engine import Work, logged_program
from tidegate.errors import StorageFullError
from tidegate.eventlog.contract import EntryKind
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.keeper import Keeper
from tidegate.labels.correction import COLUMNS
from tidegate.labels.history import Past
from tidegate.logged import Logged, versions_at_work
from tidegate.outcome import Outcome
from tidegate.past import past
from tidegate.program import Program
from tidegate.project.project import Project
from tidegate.proposals import REPLACED, turned_down
from tidegate.recovery import recover, refuse_other_dedupe
from tidegate.sinks.ledger import Ledger
from tidegate.snapshots import Snapshots
from tidegate.stages import Stages
from tidegate.succession import Abandoned, Succession
from tidegate.together import Together
from tidegate.verdicts import Decided, Verdicts
from tidegate.warehouse.query import query
from tidegate.warehouse.warehouse import Warehouse
from tidegate.writer import Writer

_log = structlog.get_logger()

TAIL_BYTES_MAX = 32 << 20
CHUNK_RECORDS = 16_384  # decided in one go, when that many wait; more with the last entry
GATHERED_RECORDS = 1_024
GATHER_SECONDS_MAX = 0.05
BUSY_RECORDS = 4_096  # waiting to be decided: sinks hold back beyond that,
BUSY_SECONDS = 1.0  # and as long after it
SINK_STOP_SECONDS = 5.0  # a sink that hangs is left behind; the rest comes after the next start
FULL_DISK_PAUSE_SECONDS = 0.5
PENDING_ROWS_MAX = 81_920  # decided and not yet in the tables; the engine waits beyond that


class Pipeline:
    """A project running. Open it, `door.submit` or `door.offer` records, close it.

    >>> with Pipeline(project) as pipeline:          # doctest: +SKIP
    ...     pipeline.door.submit(Records.of([b'{"id": "e1"}']), source="notebook")
    """

    def __init__(
        self,
        project: Project,
        *,
        clock: Clock | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.project = project
        self._environment = environment
        self.program = Program.compile(project)
        self.clock = clock or SystemClock()
        self.folder = DataFolder(project.data)
        self.counters = Counters()
        self.stages = Stages(since=self.clock.now())
        self.failure: BaseException | None = None
        self.follows = "folder"  # what the version at the start follows: it, or a change in the log
        self.verdicts = Verdicts()
        self.together = Together()
        self._stopping = threading.Event()
        self._turn = memory.Turn()
        self._busy_at = -math.inf

    # -- opening and closing ---------------------------------------------------------------------

    def open(
        self,
        *,
        purpose: str = "tidegate",
        rebuild_beside: bool = False,
        as_logged: bool = False,
    ) -> Self:
        """Take the data folder, replay what the tables lack, switch to the project's version.

        The log's version goes on instead where the folder is what it was when that was decided on,
        so that a rollback stays; or in any case, with `as_logged`.

        Where the new version's features must be rebuilt from history, that is done before this
        returns; or, with `rebuild_beside`, by a thread, while the version before goes on deciding.
        Raises: LockedError if another process runs the project; DamageError if the log is damaged
        where it must be read; ProjectError or InputError if the tables do not fit the project.
        """
        self.folder.lock(purpose=purpose)
        with ExitStack() as undo:
            undo.callback(self.folder.unlock)
            self._open(undo, rebuild_beside=rebuild_beside, as_logged=as_logged)
            undo.pop_all()
        return self

    def _open(self, undo: ExitStack, *, rebuild_beside: bool, as_logged: bool) -> None:
        self.log = undo.enter_context(closing(SqliteLog.open(self.folder.log)))
        self._as_logged = as_logged
        logged = versions_at_work(self.folder.tables, self.log)
        self.warehouse = undo.enter_context(closing(self._warehouse(logged)))
        self._decided = FirstDecisions(self.warehouse, lambda: self.writer.waiting())
        self.snapshots = Snapshots(self.folder.snapshots)
        self.engine = recover(
            self.program,
            folder=self.folder,
            log=self.log,
            snapshots=self.snapshots,
            position=self.warehouse.position,
            clock=self.clock,
            history=partial(self._history, self._stopping),
        )
        self.engine.observe(self.stages)
        self.decided = self.engine.offset  # what lies below was decided and given to the writer
        self.tail = Tail(bytes_max=TAIL_BYTES_MAX)
        self.door = self._make_door()
        self.ledger = undo.enter_context(closing(Ledger(self.folder.ledger)))
        self.writer = self._make_writer()
        undo.callback(self.writer.stop)
        self.sinks = make_runners(
            open_sinks(self.program, folder=self.folder.root, environment=self._environment),
            # A sink is to take as much of the processors as it thinks it does, so its own thread's.
            tables=partial(self.warehouse.feed, threads=False),
            log=self.log,
            ledger=self.ledger,
            clock=self.clock,
            busy=self._is_busy,
            turn=self._turn,
        )
        self.keeper = Keeper(
            self.project,
            log=self.log,
            engine=self.engine,
            warehouse=self.warehouse,
            snapshots=self.snapshots,
            clock=self.clock,
            turn=self._turn,
            together=self.together,
        )
        self.succession = Succession(self, self._history, failed=self._fail)
        self._thread = threading.Thread(target=self._decide, name="engine", daemon=True)
        self._thread.start()
        undo.callback(self._stop_deciding)
        undo.callback(self.succession.stop)
        self._begin(logged, rebuild_beside=rebuild_beside)

    def _make_door(self) -> Door:
        service = self.project.service
        return Door(
            self.log,
            self.tail,
            self.program,
            clock=self.clock,
            queue_bytes_max=service.queue_bytes_max,
            queue_records_max=service.queue_records_max,
            together=self.together,
            stages=self.stages,
        )

    def _make_writer(self) -> Writer:
        warehouse = self.project.warehouse
        return Writer(
            self.warehouse,
            rows=warehouse.commit_rows,
            rows_max=PENDING_ROWS_MAX,
            every_seconds=warehouse.commit_every_us / 1e6,
            written=self._written,
            failed=self._fail,
            stages=self.stages,
        )

    def _begin(self, logged: Sequence[Logged], *, rebuild_beside: bool) -> None:
        """Once all that the log holds is decided, decide as the project now says."""
        if self.log.next_offset == 0:
            self._publish()
        self._follow_all()
        refuse_other_dedupe(self.engine.program, self.program)
        waiting = self.engine.proposal
        told = waiting.record if waiting else logged[-1].record if logged else None
        self.follows = told.change if told is not None and self._follows(told) else "folder"
        if not self._follows(told):
            if waiting is not None:
                reason = "the project's folder was changed since"
                self.append([turned_down(waiting, REPLACED, reason)], source="project")
            self._take_over(rebuild_beside=rebuild_beside)
        self.engine.program.load()
        memory.leave_out("libllvmlite")  # all kernels are loaded
        memory.loaded()
        self.keeper.start()
        for sink in self.sinks:
            sink.start()
        self.door.use(self.engine.program)
        self.succession.start()
        self.succession.offer(self.engine.proposal)
        self.door.open()

    def _follows(self, told: VersionRecord | ProposalRecord | None) -> bool:
        """Whether the log's version goes on, of which `told` is the newest that is known."""
        if told is None:
            return self.engine.program.version == self.program.version
        return self._as_logged or (told.folder_version or told.version) == self.program.version

    def _take_over(self, *, rebuild_beside: bool) -> None:
        """Switch to what the folder says: now, or once its features are rebuilt beside."""
        if rebuild_beside and self.engine.rebuild(self.program).is_needed:
            self.succession.take_over(self.program, self._record())
        else:
            self._publish()
        self._follow_all()

    def _follow_all(self) -> None:
        self.catch_up()
        if self.failure is not None:
            raise self.failure

    def _publish(self) -> None:
        self.append([self._record()], source="project")

    def _record(self) -> VersionRecord:
        """The record by which the folder's version decides."""
        version, files = self.program.version, dict(self.program.files)
        return VersionRecord(version, files, folder_version=version)

    def append(self, records: Sequence[ControlRecord], *, source: str) -> int:
        """Put control records into the log; the offset of the first, once they are durable.

        Raises: as `EventLog.append`.
        """
        now = self.clock.now()
        return self.log.append(
            control(*records), source=source, ingest_time=now, kind=EntryKind.CONTROL
        )

    def close(self, *, drain_seconds: float = 30.0) -> bool:
        """Take nothing more, finish what was taken, and let go of the folder.

        True if all that was acknowledged is in the tables; else it will be after the next start.
        """
        with ExitStack() as last:  # what comes first is done last, whatever goes wrong before
            last.callback(self.folder.unlock)
            last.callback(self.log.close)
            last.callback(self._close_warehouse)
            last.callback(self.ledger.close)
            self.succession.stop()
            self.door.close()
            drained = self.drain(timeout_seconds=drain_seconds)
            self._stop_deciding()
            self._stop_sinks(flush=drained)
            self.keeper.stop(final=drained)
        return drained

    def _stop_sinks(self, *, flush: bool) -> None:
        """End all sinks together, so that several that hang cost no more time than one."""
        for sink in self.sinks:
            sink.begin_stop(flush=flush)
        deadline = time.monotonic() + SINK_STOP_SECONDS
        for sink in self.sinks:
            left = max(0.0, deadline - time.monotonic())
            sink.stop(timeout_seconds=left, flush=flush)

    def _stop_deciding(self) -> None:
        """End the engine's thread and the writer's, which the engine may be waiting for."""
        self._stopping.set()
        self.writer.stop()
        self._thread.join()

    def _close_warehouse(self) -> None:
        try:
            self.warehouse.close()
        except StorageFullError as error:  # what is not durable now is replayed at the next start
            _log.warning("warehouse_not_synced", reason=str(error))

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- history ---------------------------------------------------------------------------------

    def _history(
        self, stopped: threading.Event, first: int, until: int, columns: Sequence[str]
    ) -> Iterator[Past]:
        """Accepted events and labels of a stretch of the log, once the tables have come so far."""
        while self.warehouse.position < until:
            self.writer.flush(timeout_seconds=1.0)
            if stopped.wait(0.001):
                raise Abandoned
        events = self.warehouse.feed("events", columns=columns)
        labels = self.warehouse.feed("labels", columns=COLUMNS)
        for stretch in past(events, labels, first, until):
            if stopped.is_set():
                raise Abandoned
            yield stretch

    # -- waiting ---------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Records in the log that are not yet decided, as far as this process knows."""
        return max(0, self.door.next_offset - self.decided)

    def catch_up(self, *, timeout_seconds: float | None = None) -> bool:
        """Wait until all that the log holds now is decided; False when the time runs out.

        False as well if the engine has stopped; `failure` says why.
        """
        target = self.log.next_offset
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.decided < target:
            if self.failure is not None or (deadline and time.monotonic() > deadline):
                return False
            time.sleep(0.002)
        return True

    def wait_for_room(self, records_max: int) -> None:
        """Wait while more than `records_max` records are not yet decided, unless it has stopped.

        While the keeper merges files, half as many make room for what that takes.
        """
        while self.failure is None:
            if self.backlog <= records_max // (2 if self.keeper.is_merging else 1):
                return
            time.sleep(0.001)

    def drain(self, *, timeout_seconds: float) -> bool:
        """Wait until all that the log holds now is decided and in the tables."""
        begun = time.monotonic()
        if not self.catch_up(timeout_seconds=timeout_seconds):
            return False
        left = timeout_seconds - (time.monotonic() - begun)
        return self.writer.flush(timeout_seconds=max(0.0, left))

    def decision(self, event_id: str) -> dict[str, Any] | None:
        """The decision on an event, or None if there is none (yet)."""
        return self.writer.find(event_id) or self._written_decision(event_id)

    def first_decisions(self, offsets: Iterable[int]) -> Mapping[int, Decided]:
        """What was decided on the events at offsets, as far as there are decisions (yet)."""
        return self._decided.at(offsets)

    def _written_decision(self, event_id: str) -> dict[str, Any] | None:
        sql = "SELECT * EXCLUDE (event_date) FROM decisions WHERE event_id = $id"
        rows = query(self.folder.tables, sql, parameters={"id": event_id}).arrow().to_pylist()
        return dict(rows[0]) if rows else None

    # -- the engine's thread ---------------------------------------------------------------------

    def _decide(self) -> None:
        self.together.join()
        try:
            while not self._stopping.is_set():
                begun = time.monotonic()
                self._process(self._next_work())
                self.keeper.offer_snapshot()
                self._gather(spent_seconds=time.monotonic() - begun)
        except Abandoned:
            pass  # the version's record is reached again after the next start
        except BaseException as error:  # noqa: BLE001 - the edge of the thread: nothing may pass it
            self._fail(error)

    def _process(self, work: list[Work]) -> None:
        """Decide on entries; where a full disk stands in the way, wait and go on from there."""
        while work and not self._stopping.is_set():
            try:
                began = time.perf_counter()
                for outcome in self.engine.process(work):
                    self.stages.engine.since(began)
                    self.counters.add([outcome])
                    self.writer.put([self._fitting(outcome)])
                    self.decided = outcome.next_offset
                    self.verdicts.settle(outcome)
                    self.stages.decided(work[0].entry.ingest_time, now=self.clock.now())
                    began = time.perf_counter()
                self.succession.offer(self.engine.proposal)
            except StorageFullError as error:
                _log.warning("engine_waits", reason=str(error))
                self._stopping.wait(FULL_DISK_PAUSE_SECONDS)
            work = [w for w in work if w.entry.first_offset >= self.engine.offset]

    def _gather(self, *, spent_seconds: float) -> None:
        """Let a little work become more, where it comes faster than it is done.

        A pass over one record costs nearly what one over a thousand does. So where records came in
        during a pass, but few, the engine rests until there are more or somebody waits for one.
        """
        if 0 < self.backlog < GATHERED_RECORDS:
            self.verdicts.rest(min(20 * spent_seconds, GATHER_SECONDS_MAX))

    def _fitting(self, outcome: Outcome) -> Outcome:
        """The outcome for the tables there are: a window query that was removed has none."""
        windows = {n: rows for n, rows in outcome.windows.items() if n in self.warehouse.tables}
        featured = outcome.featured if "features" in self.warehouse.tables else None
        if len(windows) == len(outcome.windows) and featured is outcome.featured:
            return outcome
        return replace(outcome, windows=windows, featured=featured)

    def _next_work(self) -> list[Work]:
        """Entries at the engine's offset, from the tail or else the log; none after a while."""
        offset = self.engine.offset
        work = self.tail.take(offset, records_max=CHUNK_RECORDS)
        if work or not self.log.follow(offset, timeout_seconds=0.1):
            return work
        self.door.wait_until_placed()
        return self.tail.take(offset, records_max=CHUNK_RECORDS) or [
            Work(entry) for entry in self.log.read(offset, bytes_max=8 << 20)
        ]

    def _fail(self, error: BaseException) -> None:
        """Stop deciding: to go on would be to guess. The service says so and ends."""
        # As text: a renderer that shows local variables would put events into the logs.
        _log.critical("stopped", reason=str(error), trace="".join(format_exception(error)))
        self.failure = error
        self._stopping.set()

    def _is_busy(self) -> bool:
        """Whether there was much to decide within the last second: a load has its gaps."""
        now = time.monotonic()
        if self.door.is_active or self.backlog > BUSY_RECORDS:
            self._busy_at = now
        return now - self._busy_at < BUSY_SECONDS

    def _written(self) -> None:
        for sink in self.sinks:
            sink.wake(self.warehouse.position)

    # -- the tables -------------------------------------------------------------------------------

    def _warehouse(self, logged: Sequence[Logged]) -> Warehouse:
        """The tables of all versions that decide from where they end until there is another."""
        settings, own = self.project.warehouse, self.program
        programs = [
            own if v.record.files == own.files else logged_program(v.record.files, offset=v.offset)
            for v in logged
        ]
        follows = bool(logged) and self._follows(logged[-1].record)
        deciding = programs[-1] if follows else own
        known = [own, *programs, deciding]
        warehouse = Warehouse.open(
            self.folder.tables,
            schema=deciding.schema,
            windows={n: s for p in known for n, s in p.window_schemas().items()},
            features=deciding.feature_schema,
            compact_after=settings.compact_after,
            vacuum_after=settings.vacuum_after_us,
            clock=self.clock,
        )
        for repair in warehouse.repairs:
            _log.warning("tables_repaired", what=repair)
        return warehouse
