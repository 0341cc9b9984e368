"""Succession: a version to come is made ready beside the one that decides, then takes over.

What it needs of history is rebuilt from the table of events by a thread of its own, up to where the
engine is about; then its record goes into the log, and the engine switches when it reaches that.
One is made ready at a time; a newer one takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from traceback import format_exception
from typing import Any, Protocol, TypeAlias

import pyarrow as pa
import structlog

from tidegate.controls import ControlRecord, VersionRecord
from tidegate.door import Door
from tidegate.engine import Engine
from tidegate.errors import InputError, StorageFullError
from tidegate.evaluator import Evaluator, Rebuild
from tidegate.labels.history import Past
from tidegate.program import Program
from tidegate.proposals import REFUSED, Proposal, turned_down, version_of
from tidegate.recovery import refuse_other_dedupe
from tidegate.tables import events_schema
from tidegate.warehouse.warehouse import Warehouse

_log = structlog.get_logger()

NEAR_RECORDS = 16_384  # a rebuild that is no further behind may be taken over
_PAUSE_SECONDS = 0.5  # before trying again where the disk is full
_STEP_SECONDS = 0.002

# Accepted events and labels of a stretch of the log, until told to stop; raises Abandoned then.
Read: TypeAlias = Callable[[threading.Event, int, int, Sequence[str]], Iterator[Past]]


class Abandoned(Exception):  # noqa: N818 - not an error: somebody does not want it any more
    """Raised where history is read while the pipeline closes, or something newer is wanted."""


class Running(Protocol):
    """What a succession needs of the pipeline that it works beside."""

    engine: Engine
    warehouse: Warehouse
    door: Door
    failure: BaseException | None
    decided: int

    def append(self, records: Sequence[ControlRecord], *, source: str) -> int:
        """Put control records into the log; the offset of the first."""


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """A version to come, and the proposal that asks for it, where there is one."""

    record: VersionRecord
    proposal: Proposal | None = None
    program: Program | None = None  # where it is compiled already


def _rehearse(program: Program) -> None:
    """Decide on an event of no meaning, so that all is compiled before the stream switches."""
    schema = events_schema(program.schema)
    zeros = pa.array([0], pa.int64())
    columns = [
        zeros.cast(f.type) if f.type == pa.timestamp("us") else _nothing(f.type) for f in schema
    ]
    Evaluator(program).evaluate(pa.RecordBatch.from_arrays(columns, schema=schema), decided_at=0)


def _nothing(type_: pa.DataType) -> pa.Array[Any]:
    """One empty value: a text without letters, or zero."""
    return pa.array(["" if pa.types.is_string(type_) else "0"]).cast(type_)


class Succession:
    """A thread that makes versions ready; `failed` is told what it cannot go on from."""

    def __init__(
        self, running: Running, read: Read, *, failed: Callable[[BaseException], None]
    ) -> None:
        self._running = running
        self._read = read
        self._failed = failed
        self._changed = threading.Condition()
        self._wanted: _Wanted | None = None
        self._seen = -1
        self._unwanted = threading.Event()  # for the one that is being made ready
        self._is_started = self._closing = False
        self.version: str | None = None  # being made ready now
        self._thread = threading.Thread(target=self._run, name="succession", daemon=True)

    def start(self) -> None:
        """Begin to make ready what is wanted; what was offered before does not count."""
        self._is_started = True
        self._thread.start()

    def stop(self) -> None:
        """Give up what is under way; the next start begins it anew."""
        with self._changed:
            self._closing = True
            self._unwanted.set()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def take_over(self, program: Program, record: VersionRecord) -> None:
        """Have a compiled version take over."""
        self._want(_Wanted(record, None, program))

    def offer(self, proposal: Proposal | None) -> None:
        """Have a proposal take over, if it was not offered before; callable as often as one likes.

        It takes the place of what is being made ready.
        """
        if self._is_started and proposal is not None and proposal.offset > self._seen:
            self._seen = proposal.offset
            self._want(_Wanted(version_of(proposal.record), proposal))

    def _want(self, wanted: _Wanted) -> None:
        with self._changed:
            self._wanted = wanted
            self._unwanted.set()
            self._changed.notify()

    def _next(self) -> _Wanted | None:
        """What to make ready next; None when closing."""
        with self._changed:
            self.version = None
            while self._wanted is None and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            wanted, self._wanted = self._wanted, None
            self._unwanted = threading.Event()
            self.version = wanted.record.version if wanted else None
            return wanted

    def _run(self) -> None:
        try:
            while (wanted := self._next()) is not None:
                try:
                    self._attempt(wanted)
                except Abandoned:
                    _log.info("version_abandoned", version=wanted.record.version)
        except BaseException as error:  # noqa: BLE001 - the edge of the thread: nothing may pass it
            self._failed(error)

    def _attempt(self, wanted: _Wanted) -> None:
        try:
            self._succeed(wanted)
        except Abandoned:
            raise
        except Exception as error:
            if wanted.proposal is None:
                raise
            self._refuse(wanted.proposal, error)

    def _succeed(self, wanted: _Wanted) -> None:
        begun, engine = time.monotonic(), self._running.engine
        version = wanted.record.version
        _log.info("version_begun", version=version, change=wanted.record.change)
        program = wanted.program or Program.of(wanted.record.files)
        self._check(program)
        _rehearse(program)
        rebuild = engine.rebuild(program)
        if rebuild.is_needed:
            self._follow(rebuild)
        engine.prepare(rebuild)
        offset = self._append(wanted.record, source="project" if wanted.program else "publish")
        if not self._wait(offset):
            _log.info("version_in_log", version=version, offset=offset)  # for the next start
            return
        self._running.door.use(program)
        seconds = round(time.monotonic() - begun, 3)
        _log.info("version_took_over", version=version, offset=offset, seconds=seconds)

    def _check(self, program: Program) -> None:
        """Let the tables take the program's rows. Raises: InputError where they cannot."""
        refuse_other_dedupe(self._running.engine.program, program)
        windows = program.window_schemas()
        self._persist(
            lambda: self._running.warehouse.extend(program.schema, windows, program.feature_schema)
        )

    def _follow(self, rebuild: Rebuild) -> None:
        """Take history in, up to where the engine is about."""
        engine, warehouse = self._running.engine, self._running.warehouse
        left = engine.offset
        while left > NEAR_RECORDS:
            end = warehouse.position
            for past in self._read(self._unwanted, rebuild.offset, end, rebuild.columns):
                rebuild.follow(past)
            rebuild.offset, before = end, left
            left = engine.offset - end
            if left > before // 2:
                break  # it will not come nearer: the engine does the rest

    def _append(self, record: ControlRecord, *, source: str) -> int:
        return self._persist(lambda: self._running.append([record], source=source))

    def _persist(self, job: Callable[[], int | None]) -> int:
        """Do what needs the disk; where it is full, again and again."""
        while True:
            if self._unwanted.is_set():
                raise Abandoned
            try:
                return job() or 0
            except StorageFullError as error:
                _log.warning("version_waits", reason=str(error))
                self._unwanted.wait(_PAUSE_SECONDS)

    def _wait(self, offset: int) -> bool:
        """Wait until the engine has passed an offset; False if nobody waits for it any more."""
        running = self._running
        while running.decided <= offset and running.failure is None and not self._closing:
            time.sleep(_STEP_SECONDS)
        return running.decided > offset

    def _refuse(self, proposal: Proposal, error: Exception) -> None:
        """Say in the log why a proposal does not become the version; nothing else stops."""
        if not isinstance(error, InputError):
            _log.error("version_failed", trace="".join(format_exception(error)))
        _log.warning("version_refused", version=proposal.record.version, reason=str(error))
        self._append(turned_down(proposal, REFUSED, str(error)), source="publish")
