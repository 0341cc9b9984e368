"""The keeper: what may wait. Snapshots, compaction, trimming, time passing on an idle stream."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain

import structlog

from tidegate import memory
from tidegate.clock import Clock
from tidegate.controls import TimeRecord, control
from tidegate.engine import Copied, Engine, EngineState
from tidegate.errors import TransientError
from tidegate.evaluator import Buffer
from tidegate.eventlog.contract import EntryKind, EventLog
from tidegate.events.held import run_names
from tidegate.project.project import Project
from tidegate.snapshots import Snapshots
from tidegate.together import Together
from tidegate.warehouse.warehouse import Warehouse

_log = structlog.get_logger()

_PAUSE_SECONDS = 0.25
_MAINTAIN_EVERY_SECONDS = 1.0
_TRIM_EVERY_SECONDS = 30.0
_TURN_SECONDS = 1.0  # a merge waits for sinks that take memory, whose outside may hang
_MERGING_SECONDS = 5.0
_SNAPSHOTS_KEPT = 2
# States in memory that the tables have not reached; when they fall far behind, only the first ones,
# which may be saved first, and the newest stay.
_WAITING_MAX = 3


@dataclass(slots=True, eq=False)
class _Taken:
    """A state that the tables have not reached yet; `state` is None until it is packed.

    The features' state, which may be large, does not wait in memory: it is written to a draft at
    once, beside the engine, and `features` is None from then on.
    """

    copied: Copied
    features: Iterator[Buffer] | None
    state: EngineState | None = None
    has_draft: bool = False

    @property
    def offset(self) -> int:
        """The log offset that it stands for."""
        return self.copied.offset


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is to be known of a snapshot on disk, whose state is too large to be held for that."""

    offset: int
    newest_ingest_time: int
    runs: frozenset[str]  # files of the index of ids that it refers to

    @classmethod
    def of(cls, state: EngineState) -> _Kept:
        return cls(state.offset, state.newest_ingest_time, run_names(state.dedupe))


class Keeper:
    """A thread that looks after a running project; no decision waits for it."""

    def __init__(
        self,
        project: Project,
        *,
        log: EventLog,
        engine: Engine,
        warehouse: Warehouse,
        snapshots: Snapshots,
        clock: Clock,
        turn: memory.Turn,
        together: Together,
    ) -> None:
        self._project = project
        self._log = log
        self._engine = engine
        self._warehouse = warehouse
        self._snapshots = snapshots
        self._clock = clock
        self._every_seconds = project.warehouse.snapshot_every_us / 1e6
        self._states: list[_Taken] = []  # taken, and not yet passed by the tables
        self._kept: list[_Kept] | None = None  # on disk since the last pruning
        self._known: dict[int, _Kept] = {}  # on disk, by offset
        self._oldest: _Kept | None = None  # of the snapshots that a start may begin from
        self._taken_offset = -1
        self._begun_at = clock.now()
        self._lock = threading.Lock()  # the two above are the engine's thread's and the keeper's
        self._taken_at = self._maintained_at = self._trimmed_at = time.monotonic()
        self._thrift = memory.Thrift(lambda: engine.offset, are_few=lambda: together.is_gathered)
        self._turn = turn
        self._merged_at = -math.inf
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._begun_at = self._clock.now()
        self._thread.start()
        self._thrift.start()

    def offer_snapshot(self) -> None:
        """Take the engine's state if it is time to; called by the engine's own thread.

        Files of the index of ids that no snapshot names are removed here as well, since only this
        thread knows which the index is using.
        """
        if time.monotonic() - self._taken_at < self._every_seconds or self._copies():
            return  # of the features there is one copy at a time, in memory and on the disk
        if self._engine.dedupe.is_writing:
            return  # for a moment; decisions would wait for it
        self._taken_at = time.monotonic()
        if self._engine.offset == self._taken_offset:
            return
        try:
            taken = self._take()
        except TransientError as error:
            _log.warning("snapshot_failed", reason=str(error))
            return
        self._taken_offset = taken.offset
        with self._lock:
            self._states[_WAITING_MAX - 1 :] = [taken]
            kept, self._kept = self._kept, None
            waiting = [t.copied.runs for t in self._states]
        if kept is not None:
            needed = [*(k.runs for k in kept), *waiting]
            self._engine.dedupe.prune(chain.from_iterable(needed))

    def _copies(self) -> list[_Taken]:
        """What was taken with the features' state, and has not become a snapshot."""
        with self._lock:
            return [t for t in self._states if t.features is not None or t.has_draft]

    def _take(self) -> _Taken:
        copied = self._engine.copy()
        features = self._engine.copy_features()
        return _Taken(copied, None if features is None else iter(features))

    def stop(self, *, final: bool) -> None:
        """Stop; with `final`, leave a last snapshot, so that nothing is to be replayed."""
        self._stopping.set()
        self._thrift.stop()
        if self._thread.is_alive():
            self._thread.join()
        if final:
            self._try(self._leave)

    def _run(self) -> None:
        while not self._stopping.wait(_PAUSE_SECONDS):
            for job in self._jobs:
                self._try(job)

    @property
    def _jobs(self) -> tuple[Callable[[], None], ...]:
        return (
            self._draft,
            self._maintain,
            self._save,
            self._trim,
            self._pass_time,
        )

    def _try(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - the edge of the loop: the other jobs go on
            _log.warning(
                "upkeep_failed", job=job.__name__, reason=f"{type(error).__name__}: {error}"
            )

    def _leave(self) -> None:
        for taken in self._copies():
            self._drop(taken)
        self._states.append(self._take())
        self._draft()
        self._warehouse.stamp()
        self._save()

    def _maintain(self) -> None:
        pause = min(_MAINTAIN_EVERY_SECONDS, self._every_seconds)
        if time.monotonic() - self._maintained_at >= pause:
            self._warehouse.maintain(merging=self._merging)
            self._maintained_at = time.monotonic()

    @property
    def is_merging(self) -> bool:
        """Whether files are being merged, or were a moment ago: mostly there are more."""
        return time.monotonic() - self._merged_at < _MERGING_SECONDS

    @contextmanager
    def _merging(self) -> Iterator[None]:
        """Around each merge: in turn with sinks, and what it takes is to be given back."""
        self._merged_at = time.monotonic()
        with self._turn.taken(seconds=_TURN_SECONDS):
            yield
        self._merged_at = time.monotonic()
        self._thrift.expect()

    def _draft(self) -> None:
        """Pack what was taken, and write it down with the features' state; the engine goes on."""
        with self._lock:
            fresh = [t for t in self._states if t.state is None]
        for taken in fresh:
            try:
                state = taken.copied.state()
                if taken.features is not None:
                    self._snapshots.draft(state, taken.features)
            except BaseException:
                self._drop(taken)  # the copy is half read; the next one is as good
                self._taken_offset = -1
                raise
            taken.state, taken.has_draft = state, taken.features is not None
            taken.features = None

    def _drop(self, taken: _Taken) -> None:
        # Read to its end, so that the features know that nobody needs the copy any more.
        deque(taken.features or (), maxlen=0)
        with self._lock, suppress(ValueError):  # the engine's thread may have let go of it
            self._states.remove(taken)
        self._snapshots.discard(taken.offset)

    def _save(self) -> None:
        """Save the newest state that the tables have reached; later ones wait."""
        durable = self._warehouse.durable_position
        with self._lock:
            reached = [t for t in self._states if t.offset <= durable]
            ready = [(t.state, t.has_draft) for t in reached if t.state is not None]
        if not ready:
            return
        newest, has_draft = ready[-1]
        if has_draft:
            self._snapshots.publish(newest.offset)
        else:
            self._snapshots.save(newest)
        self._known[newest.offset] = _Kept.of(newest)
        kept = self._snapshots.prune(
            keep=_SNAPSHOTS_KEPT, offset_max=durable, note=_Kept.of, known=self._known
        )
        self._known = {k.offset: k for k in kept}
        with self._lock:
            self._states = [t for t in self._states if t.offset > newest.offset]
            self._kept = kept
        self._oldest = kept[-1]
        self._log.set_position("engine", self._oldest.offset)

    def _trim(self) -> None:
        """Let go of what is past its keeping time and needed by nobody."""
        keep_us, oldest = self._project.log.keep_us, self._oldest
        if not keep_us or time.monotonic() - self._trimmed_at < _TRIM_EVERY_SECONDS:
            return
        self._trimmed_at = time.monotonic()
        # Where snapshots were lost, the log alone can stand in for them until there are new ones.
        if oldest is None or oldest.offset < self._log.positions()["engine"]:
            return
        # A repeated id is told by reading the first record again, so whatever lies within the
        # horizon must still be there, even for a start from the oldest snapshot.
        needed = oldest.newest_ingest_time - self._project.stream.dedupe_horizon_us
        self._log.trim(before_time=min(self._clock.now() - keep_us, needed))

    def _pass_time(self) -> None:
        """On an idle stream event time goes on as on the clock, so that windows close."""
        engine, now = self._engine, self._clock.now()
        # While nobody listened, nothing could be heard: only silence since the start counts.
        idle_after = self._project.stream.idle_after_us
        idle = now - max(engine.last_ingest_time, self._begun_at)
        waiting = any(state.rows_held for state in engine.windows.values())
        caught_up = engine.offset == self._log.next_offset
        if not idle_after or idle < idle_after or not waiting or not caught_up:
            return
        passed = control(TimeRecord(event_time=engine.newest_event_time + idle))
        self._log.append(passed, source="idle", ingest_time=now, kind=EntryKind.CONTROL)
