"""The journey of an event, wired: one log, one engine, and what follows it.

    door ──▶ log ──▶ engine ──▶ writer ──▶ warehouse ──▶ sinks
                       │                       │
                       └──── snapshots ◀───────┘   kept once the tables have passed them

Threads: the *door* commits, the *engine* decides, the *warehouse* writes, the *keeper* does what
may wait (snapshots, compaction, trimming, time passing on an idle stream), each sink has one of its
own. An event is acknowledged once it is in the log; nothing else is waited for.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Mapping
from traceback import format_exception
from types import TracebackType
from typing import Any, Self

import structlog

from tidegate.clock import Clock, SystemClock
from tidegate.counters import Counters
from tidegate.datafolder import DataFolder
from tidegate.deliveries import Delivering, check_outputs, feed_of, open_sinks
from tidegate.door import Door, Tail
from tidegate.engine import Engine, VersionRecord, Work, control
from tidegate.errors import DamageError, StorageFullError, TidegateError
from tidegate.eventlog.contract import EntryKind
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.events.dedupe import Dedupe
from tidegate.keeper import Keeper
from tidegate.lookup import LoggedIds
from tidegate.program import Program
from tidegate.project.project import Project
from tidegate.sinks.ledger import Ledger
from tidegate.sinks.objects import pace_of
from tidegate.sinks.runner import SinkRunner
from tidegate.snapshots import Snapshots
from tidegate.warehouse.query import query
from tidegate.warehouse.warehouse import Warehouse
from tidegate.writer import Writer

_log = structlog.get_logger()

TAIL_BYTES_MAX = 32 << 20
CHUNK_RECORDS = 32_768  # decided in one go, when that many wait; more with the last entry
SINK_STOP_SECONDS = (
    5.0  # a sink that hangs is left behind; what it lacks comes after the next start
)
FULL_DISK_PAUSE_SECONDS = 0.5
PENDING_ROWS_MAX = 131_072  # decided and not yet in the tables; the engine waits beyond that


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
        check_outputs(self.program)
        self.clock = clock or SystemClock()
        self.folder = DataFolder(project.data)
        self.counters = Counters()
        self.failure: BaseException | None = None
        self._stopping = threading.Event()

    # -- opening and closing ---------------------------------------------------------------------

    def open(self, *, purpose: str = "tidegate") -> Self:
        """Take the data folder, replay what the tables lack, switch to the project's version.

        Raises: LockedError if another process runs the project; DamageError if the log is damaged
        where it must be read; ProjectError or InputError if the tables do not fit the project.
        """
        self.folder.lock(purpose=purpose)
        self.log = SqliteLog.open(self.folder.log)
        self.warehouse = self._warehouse()
        self.snapshots = Snapshots(self.folder.snapshots)
        self.engine = self._restore()
        self.tail = Tail(bytes_max=TAIL_BYTES_MAX)
        service, warehouse = self.project.service, self.project.warehouse
        self.door = Door(
            self.log,
            self.tail,
            self.program,
            clock=self.clock,
            queue_bytes_max=service.queue_bytes_max,
            queue_records_max=service.queue_records_max,
        )
        self.writer = Writer(
            self.warehouse,
            rows=warehouse.commit_rows,
            rows_max=PENDING_ROWS_MAX,
            every_seconds=warehouse.commit_every_us / 1e6,
            written=self._written,
            failed=self._fail,
        )
        self.sinks = self._sinks()
        self.keeper = Keeper(
            self.project,
            log=self.log,
            engine=self.engine,
            warehouse=self.warehouse,
            snapshots=self.snapshots,
            clock=self.clock,
        )
        self._thread = threading.Thread(target=self._decide, name="engine", daemon=True)
        self._thread.start()
        self._begin()
        return self

    def _begin(self) -> None:
        """Once all that the log holds is decided, decide as the project now says."""
        if self.log.next_offset == 0:
            self._publish()
        self.catch_up()
        if self.engine.program.version != self.program.version:
            self._publish()
            self.catch_up()
        if self.failure is not None:
            raise self.failure
        self.keeper.start()
        for sink in self.sinks:
            sink.start()
        self.door.open()

    def _publish(self) -> None:
        record = VersionRecord(version=self.program.version, files=dict(self.program.files))
        self.log.append(
            control(record), source="project", ingest_time=self.clock.now(), kind=EntryKind.CONTROL
        )

    def close(self, *, drain_seconds: float = 30.0) -> bool:
        """Take nothing more, finish what was taken, and let go of the folder.

        True if all that was acknowledged is in the tables; else it will be after the next start.
        """
        self.door.close()
        drained = self.drain(timeout_seconds=drain_seconds)
        self._stopping.set()
        self._thread.join()
        self.writer.stop()
        for sink in self.sinks:
            sink.stop(timeout_seconds=SINK_STOP_SECONDS, flush=drained)
        self.keeper.stop(final=drained)
        self.ledger.close()
        self.warehouse.close()
        self.log.close()
        self.folder.unlock()
        return drained

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- waiting ---------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Records in the log that are not yet decided."""
        return self.log.next_offset - self.engine.offset

    def catch_up(self, *, timeout_seconds: float | None = None) -> bool:
        """Wait until all that the log holds now is decided; False when the time runs out.

        False as well if the engine has stopped; `failure` says why.
        """
        target = self.log.next_offset
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.engine.offset < target:
            if self.failure is not None or (deadline and time.monotonic() > deadline):
                return False
            time.sleep(0.002)
        return True

    def wait_for_room(self, records_max: int) -> None:
        """Wait while more than `records_max` records are not yet decided, unless it has stopped."""
        while self.backlog > records_max and self.failure is None:
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

    def _written_decision(self, event_id: str) -> dict[str, Any] | None:
        sql = "SELECT * EXCLUDE (event_date) FROM decisions WHERE event_id = $id"
        rows = query(self.folder.tables, sql, parameters={"id": event_id}).arrow().to_pylist()
        return dict(rows[0]) if rows else None

    # -- the engine's thread ---------------------------------------------------------------------

    def _decide(self) -> None:
        try:
            while not self._stopping.is_set():
                self._process(self._next_work())
                self.keeper.offer_snapshot()
        except BaseException as error:  # noqa: BLE001 - the edge of the thread: nothing may pass it
            self._fail(error)

    def _process(self, work: list[Work]) -> None:
        """Decide on entries; where a full disk stands in the way, wait and go on from there."""
        while work and not self._stopping.is_set():
            try:
                for outcome in self.engine.process(work):
                    self.counters.add([outcome])
                    self.writer.put([outcome])
            except StorageFullError as error:
                _log.warning("engine_waits", reason=str(error))
                self._stopping.wait(FULL_DISK_PAUSE_SECONDS)
            work = [w for w in work if w.entry.first_offset >= self.engine.offset]

    def _next_work(self) -> list[Work]:
        """Entries at the engine's offset, from the tail or else the log; none after a while."""
        offset = self.engine.offset
        work = self.tail.take(offset, records_max=CHUNK_RECORDS)
        if work or not self.log.follow(offset, timeout_seconds=0.1):
            return work
        return self.tail.take(offset, records_max=CHUNK_RECORDS) or [
            Work(entry) for entry in self.log.read(offset, bytes_max=8 << 20)
        ]

    def _fail(self, error: BaseException) -> None:
        """Stop deciding: to go on would be to guess. The service says so and ends."""
        # As text: a renderer that shows local variables would put events into the logs.
        _log.critical("stopped", reason=str(error), trace="".join(format_exception(error)))
        self.failure = error

    def _written(self) -> None:
        for sink in self.sinks:
            sink.wake(self.warehouse.position)

    # -- restoring -------------------------------------------------------------------------------

    def _warehouse(self) -> Warehouse:
        settings = self.project.warehouse
        warehouse = Warehouse.open(
            self.folder.tables,
            schema=self.program.schema,
            windows=self.program.window_schemas(),
            compact_after=settings.compact_after,
            vacuum_after=settings.vacuum_after_us,
            clock=self.clock,
        )
        for repair in warehouse.repairs:
            _log.warning("tables_repaired", what=repair)
        return warehouse

    def _restore(self) -> Engine:
        """The engine at its newest snapshot that the tables have reached."""
        for state in self.snapshots.load(offset_max=self.warehouse.position):
            try:
                program = Program.of(state.files)
                engine = Engine(program, self._dedupe(program, state.dedupe), clock=self.clock)
                engine.restore(state)
            except TidegateError as error:
                _log.error("snapshot_unusable", offset=state.offset, reason=str(error))
                continue
            return engine
        if self.log.first_offset > 0:
            raise DamageError(
                f"nothing to begin from: the tables hold what lies below "
                f"{self.warehouse.position}, no snapshot before that can be used, and the log "
                f"begins at {self.log.first_offset}",
                offset=self.warehouse.position,
            )
        return Engine(self.program, self._dedupe(self.program, None), clock=self.clock)

    def _sinks(self) -> list[SinkRunner]:
        self.ledger = Ledger(self.folder.ledger)
        opened = open_sinks(self.program, folder=self.folder.root, environment=self._environment)
        for consumer in self.log.positions():
            if consumer.startswith("sink ") and consumer.removeprefix("sink ") not in opened:
                self.log.forget(consumer)  # a sink that was taken away holds nothing back
        return [self._runner(name, delivering) for name, delivering in opened.items()]

    def _runner(self, name: str, delivering: Delivering) -> SinkRunner:
        consumer = f"sink {name}"
        if delivering.reads_log:
            self.log.set_position(consumer, 0)
        return SinkRunner(
            name,
            sink=delivering.sink,
            feed=feed_of(delivering, self.warehouse.feed, self.log),
            ledger=self.ledger,
            pace=pace_of(delivering.settings),
            clock=self.clock,
            random=random.random,
            start=self.log.first_offset if delivering.reads_log else 0,
            delivered=(lambda offset: self.log.set_position(consumer, offset))
            if delivering.reads_log
            else (lambda _offset: None),
        )

    def _dedupe(self, program: Program, snapshot: bytes | None) -> Dedupe:
        horizon = program.project.stream.dedupe_horizon_us
        folder, key, ids = (
            self.folder.dedupe,
            self.folder.key(),
            LoggedIds(self.log, self.program.schema),
        )
        if snapshot is None:
            return Dedupe.open(folder, horizon=horizon, key=key, lookup=ids)
        return Dedupe.restore(snapshot, folder, horizon=horizon, key=key, lookup=ids)
