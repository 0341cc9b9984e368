"""The engine: log entries in, outcomes out; a pure function of the log up to its offset.

Entries are taken in order. The result never depends on how they were grouped into calls, nor on the
clock (`decided_at` apart, which says when the machine got to it and decides nothing). Not
thread-safe: one thread owns the engine.

Where a new version has features whose state the version before did not keep, that state is what it
would be had it always been there: it is computed from the history of accepted events, either
beforehand and elsewhere (`rebuild`, `prepare`) or when the version's record is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from tidegate.arrived import Arrived, dead_letters
from tidegate.batches import empty
from tidegate.clock import Clock
from tidegate.controls import (
    ControlRecord,
    ListRecord,
    TimeRecord,
    VersionRecord,
    control_record,
    control_rows,
)
from tidegate.decisions.decided import DecisionRows, Decisions
from tidegate.decisions.featured import Featured, FeatureRows
from tidegate.errors import DamageError, ProjectError
from tidegate.evaluator import BEGINNING, Buffer, Evaluator, Rebuild
from tidegate.eventlog.contract import Entry, EntryKind, Prepared
from tidegate.events.copied import Copied as CopiedIds
from tidegate.events.decode import Decoded
from tidegate.events.dedupe import Dedupe
from tidegate.labels.arrival import Arrivals, Logged
from tidegate.labels.history import Past
from tidegate.labels.waiting import Waiting
from tidegate.outcome import Outcome
from tidegate.program import Program
from tidegate.proposals import Proposal, waiting
from tidegate.sql.expression import Evaluated
from tidegate.stages import Stages
from tidegate.tables import DEAD_LETTERS, DECISIONS, DUPLICATES, LATE_ROWS, features_schema
from tidegate.windows.state import Closed, WindowState

if TYPE_CHECKING:
    from tidegate.features.state import FeatureState

_log = structlog.get_logger()

Integers = npt.NDArray[np.int64]

_NOTHING_DECIDED = DecisionRows(empty(DECISIONS))

# The accepted events and the labels with `first_offset <= log_offset < until_offset` in the order
# of the log, events in batches with the named columns and `log_offset`; called with the two offsets
# and the names.
History: TypeAlias = Callable[[int, int, Sequence[str]], Iterator[Past]]


class EngineState(msgspec.Struct, frozen=True):
    """All that the engine remembers, as it is stored; `offset` is the log offset it stands for.

    Ids are remembered for the dedupe horizon before `newest_ingest_time`, the highest of an event.
    `newest_of_events` is the newest event time of an event, whatever time has passed without one;
    None where the version has no features. Their state is kept beside this one. `labels` are those
    that wait for their events. `lists` is what people put on lists, by list, and `proposal` what
    was published and did not take over yet.
    """

    offset: int
    newest_event_time: int
    newest_ingest_time: int
    version: str
    files: dict[str, str]
    dedupe: bytes
    windows: dict[str, bytes]
    newest_of_events: int | None = None
    labels: bytes = b""
    lists: dict[str, bytes] = {}
    proposal: Proposal | None = None


class Copied:
    """What the engine remembered at an offset, of which the ids are still to be packed."""

    def __init__(self, state: EngineState, ids: CopiedIds) -> None:
        self._state, self._ids = state, ids

    @property
    def offset(self) -> int:
        """The log offset that it stands for."""
        return self._state.offset

    @property
    def runs(self) -> frozenset[str]:
        """The files of the index of ids that it refers to."""
        return self._ids.runs

    def state(self) -> EngineState:
        """All of it; callable by any thread. Raises: StorageFullError."""
        return msgspec.structs.replace(self._state, dedupe=self._ids.written())


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """An entry, and what it decodes to under `version` where somebody has decoded it already."""

    entry: Entry
    decoded: Decoded | None = None
    version: str = ""
    prepared: Prepared | None = None  # the entry as the log will take it, while it is not there


class Engine:
    """Walks the log and decides; see the module."""

    def __init__(
        self,
        program: Program,
        dedupe: Dedupe,
        *,
        clock: Clock,
        offset: int = 0,
        history: History | None = None,
        logged: Logged | None = None,
        key: bytes = bytes(16),
        threads: int = 1,
    ) -> None:
        """`key` seeds the hashing of the features' keys; `threads` bounds what features use.

        `history` gives what was accepted below the engine's offset, waiting for it if need be;
        without one, versions whose features need it are refused. `logged` reads records that the
        engine has passed; without it, labels whose event was not found before begin to wait.
        """
        self.offset = offset
        self.newest_event_time = BEGINNING
        self._newest_ingest_time = BEGINNING
        self.last_ingest_time = clock.now()
        self._dedupe = dedupe
        self._clock = clock
        self._history = history
        self._arrivals = Arrivals(dedupe, logged)
        self._evaluator = Evaluator(program, key=key, threads=threads)
        self._prepared: Rebuild | None = None
        self.proposal: Proposal | None = None  # published, and not yet taken over
        self._windows = {q.name: WindowState(q) for q in program.windows}

    def process(self, work: Sequence[Work]) -> Iterator[Outcome]:
        """What follows from the entries, which must go on from `offset`.

        One outcome for each stretch that one version decides, and for each control record; `offset`
        has passed them when their outcome is given.
        Raises: ValueError if entries do not begin at `offset`; DamageError for a control record
        that cannot be read or does not compile; StorageFullError, after which the same entries from
        `offset` on are to be given again.
        """
        for stretch in _stretches(work):
            first, last = stretch[0].entry, stretch[-1].entry
            if first.first_offset != self.offset:
                raise ValueError(f"the engine is at offset {self.offset}, saw {first.first_offset}")
            is_control = first.kind is EntryKind.CONTROL
            outcomes = self._control(first) if is_control else [self._events(stretch)]
            self.offset = last.next_offset
            self.last_ingest_time = last.ingest_time
            yield from outcomes

    @property
    def program(self) -> Program:
        """The version that decides."""
        return self._evaluator.program

    def rebuild(self, program: Program) -> Rebuild:
        """What a version to come needs of history; to be fed elsewhere and then given back."""
        return self._evaluator.rebuild(program)

    def prepare(self, rebuild: Rebuild) -> None:
        """Have a rebuild ready for when its version's record is reached; callable by any thread."""
        self._prepared = rebuild

    def copy(self) -> Copied:
        """The state at `offset`, the features' apart, for a snapshot that another thread writes."""
        state = EngineState(
            offset=self.offset,
            newest_event_time=self.newest_event_time,
            newest_ingest_time=self._newest_ingest_time,
            version=self.program.version,
            files=dict(self.program.files),
            dedupe=b"",
            windows={name: state.snapshot() for name, state in self._windows.items()},
            newest_of_events=self._evaluator.newest,
            labels=self._evaluator.labels.waiting.snapshot(),
            lists=self._evaluator.lists.snapshot(),
            proposal=self.proposal,
        )
        return Copied(state, self._dedupe.copy())

    def snapshot(self) -> EngineState:
        """The state at `offset`, the features' apart."""
        return self.copy().state()

    def restore(self, state: EngineState, sections: Iterable[Buffer] = ()) -> None:
        """Take over a state, the dedupe index apart, which its owner restores and passes in.

        The engine has been made with the state's program; `sections` are the features' state.
        Raises: DamageError if they are not those of the program's features.
        """
        self._evaluator.restore(sections, newest=state.newest_of_events)
        self._evaluator.labels.waiting.restore(state.labels)
        self._evaluator.lists.restore(state.lists)
        self.proposal = state.proposal
        self.offset = state.offset
        self.newest_event_time = state.newest_event_time
        self._newest_ingest_time = state.newest_ingest_time
        for query in self.program.windows:
            if query.name in state.windows:
                self._windows[query.name] = WindowState.restore(query, state.windows[query.name])

    def copy_features(self) -> Iterable[Buffer] | None:
        """The features' state at `offset`, for a snapshot; None where there are no features.

        It is to be read by another thread, while the engine goes on.
        """
        return self._evaluator.copy()

    def observe(self, stages: Stages) -> None:
        """Have the time that each stage takes counted there."""
        self._evaluator.stages = stages

    @property
    def features(self) -> FeatureState | None:
        """The state of the features, for metrics."""
        return self._evaluator.state

    @property
    def windows(self) -> Mapping[str, WindowState]:
        """The state of each window query, for metrics."""
        return self._windows

    @property
    def lists(self) -> Mapping[str, int]:
        """How many entries each list has, for metrics."""
        return self._evaluator.lists.entries

    @property
    def waiting(self) -> Waiting:
        """The labels that wait for their events, for metrics."""
        return self._evaluator.labels.waiting

    @property
    def dedupe(self) -> Dedupe:
        """The index of ids, for metrics."""
        return self._dedupe

    # -- control records -------------------------------------------------------------------------

    def _control(self, entry: Entry) -> list[Outcome]:
        """What follows from each stretch of records: a new version may have other tables."""
        outcomes = []
        offset = entry.first_offset
        for records in _steps(entry):
            closed: dict[str, Closed] = {}
            match records[0]:
                case VersionRecord(files=files):
                    self._switch(self._program_of(files, offset), offset=offset)
                case TimeRecord(event_time=time):
                    closed = self._pass_time(time, offset=offset)
                case _:
                    records = self._resolved(records, at=entry.ingest_time)
            self._note(records, offset)
            controls = control_rows(records, first_offset=offset, at=entry.ingest_time)
            if "labels" in controls:
                self._label(controls["labels"])
            until = offset + len(records)
            outcomes.append(self._outcome(offset, until, closed=closed, controls=controls))
            offset = until
        return outcomes

    def _note(self, records: Sequence[ControlRecord], first_offset: int) -> None:
        """Take over what changes lists, and what was published."""
        for offset, record in enumerate(records, start=first_offset):
            self.proposal = waiting(self.proposal, record, offset=offset)
            if isinstance(record, ListRecord):
                self._evaluator.change_lists([record])

    def _resolved(self, records: list[ControlRecord], *, at: int) -> list[ControlRecord]:
        return self._arrivals.resolve(records, lambda: self.program.intake, at=at)

    def _label(self, labels: pa.RecordBatch) -> None:
        before = self.waiting.let_go
        self._evaluator.label(labels)
        if gone := self.waiting.let_go - before:
            waiting = len(self.waiting)
            _log.warning("labels_let_go", labels=gone, waiting=waiting, total=before + gone)

    def _program_of(self, files: Mapping[str, str], offset: int) -> Program:
        """The program of a version, which need not be compiled where it was prepared."""
        prepared = self._prepared
        if prepared is not None and prepared.after.files == files:
            return prepared.after
        return logged_program(files, offset=offset)

    def _switch(self, program: Program, *, offset: int) -> None:
        """Go on with another program; what means the same keeps its state."""
        self._evaluator = self._evaluator.succeeded_by(program, self._rebuilt(program, offset))
        kept = {state.query.fingerprint: state for state in self._windows.values()}
        self._windows = {
            query.name: WindowState.restore(query, kept[query.fingerprint].snapshot())
            if query.fingerprint in kept
            else WindowState(query, watermark=self.newest_event_time - query.lateness)
            for query in program.windows
        }

    def _rebuilt(self, program: Program, offset: int) -> Rebuild:
        """What the program needs of the history below `offset` and the present one lacks."""
        prepared, self._prepared = self._prepared, None
        if prepared and (prepared.before, prepared.after.version) == (
            self.program,
            program.version,
        ):
            rebuild = prepared
        else:
            rebuild = self._evaluator.rebuild(program)
        if rebuild.is_needed and rebuild.offset < offset:
            if self._history is None:
                raise ValueError("an engine without history cannot go on with other features")
            for past in self._history(rebuild.offset, offset, rebuild.columns):
                rebuild.follow(past)
        return rebuild

    def _pass_time(self, time: int, *, offset: int) -> dict[str, Closed]:
        self.newest_event_time = max(self.newest_event_time, time)
        return {
            name: state.advance(self.newest_event_time - state.query.lateness, log_offset=offset)
            for name, state in self._windows.items()
        }

    # -- events ----------------------------------------------------------------------------------

    def _events(self, stretch: Sequence[Work]) -> Outcome:
        program = self.program
        decoded = [self._decode(work) for work in stretch]
        entries = [work.entry for work in stretch]
        arrived = Arrived.of(entries, decoded)
        ids = arrived.ids(program.schema)
        seen = self._dedupe.update(
            ids, offsets=arrived.offsets, ingest_times=arrived.ingest_times
        ).first
        again = (seen >= 0).nonzero()[0]
        self._newest_ingest_time = int(arrived.ingest_times.max(initial=self._newest_ingest_time))
        events = arrived.accepted(again)
        labelled = self._evaluator.labelled(events)
        verdict = self._evaluator.evaluate(
            labelled, decided_at=self._clock.now(), ids=None if len(again) else ids
        )
        closed = self._close(labelled, verdict.chosen)
        return self._outcome(
            stretch[0].entry.first_offset,
            stretch[-1].entry.next_offset,
            events=events,
            decided=verdict.decided,
            featured=verdict.featured,
            dead_letters=dead_letters(entries, decoded),
            duplicates=arrived.duplicates(ids, again, seen),
            closed=closed,
        )

    def _decode(self, work: Work) -> Decoded:
        if work.decoded is not None and work.version == self.program.version:
            return work.decoded
        entry = work.entry
        return self.program.intake.admit(entry.records, ingest_time=entry.ingest_time)

    def _close(self, events: pa.RecordBatch, chosen: Mapping[str, Evaluated]) -> dict[str, Closed]:
        if not self._windows:
            self.newest_event_time = max(self.newest_event_time, self._evaluator.newest)
            return {}
        times = events[self.program.schema.event_time].view(pa.int64()).to_numpy()
        newest = np.maximum.accumulate(np.concatenate([[self.newest_event_time], times]))[1:]
        if len(newest):
            self.newest_event_time = int(newest[-1])
        return {
            name: state.update(
                events,
                watermarks=newest - state.query.lateness,
                chosen=chosen.get(name),
            )
            for name, state in self._windows.items()
        }

    def _outcome(
        self,
        first_offset: int,
        next_offset: int,
        *,
        events: pa.RecordBatch | None = None,
        decided: Decisions = _NOTHING_DECIDED,
        featured: Featured | None = None,
        dead_letters: pa.RecordBatch | None = None,
        duplicates: pa.RecordBatch | None = None,
        closed: Mapping[str, Closed],
        controls: Mapping[str, pa.RecordBatch] | None = None,
    ) -> Outcome:
        for name, state in closed.items():
            for offset, reason in state.errors:
                _log.warning("window_error", window_query=name, log_offset=offset, reason=reason)
        feature_schema = self.program.feature_schema
        if featured is None and feature_schema is not None:
            featured = FeatureRows(empty(features_schema(feature_schema)))
        late = [c.late for c in closed.values() if c.late.num_rows]
        windows = {
            q.name: closed[q.name].rows if q.name in closed else empty(q.schema)
            for q in self.program.windows
        }
        return Outcome(
            first_offset,
            next_offset,
            events=events if events is not None else empty(self.program.events_schema),
            decided=decided,
            dead_letters=dead_letters if dead_letters is not None else empty(DEAD_LETTERS),
            duplicates=duplicates if duplicates is not None else empty(DUPLICATES),
            late_rows=_sorted_late(late),
            windows=windows,
            featured=featured,
            controls=controls or {},
        )


def _sorted_late(late: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Late rows of all queries in order of the log."""
    if not late:
        return empty(LATE_ROWS)
    return pa.Table.from_batches(late).sort_by("log_offset").combine_chunks().to_batches()[0]


def _stretches(work: Sequence[Work]) -> Iterator[list[Work]]:
    """Runs of event entries, and control entries alone: a control entry may change the program."""
    stretch: list[Work] = []
    for item in work:
        if item.entry.kind is EntryKind.CONTROL:
            if stretch:
                yield stretch
            yield [item]
            stretch = []
        else:
            stretch.append(item)
    if stretch:
        yield stretch


def _steps(entry: Entry) -> Iterator[list[ControlRecord]]:
    """The records of a control entry: versions and times alone, the others as many as follow."""
    step: list[ControlRecord] = []
    for offset, raw in enumerate(entry.records, start=entry.first_offset):
        record = control_record(raw, offset=offset)
        alone = isinstance(record, VersionRecord | TimeRecord)
        if step and (alone or isinstance(step[0], VersionRecord | TimeRecord)):
            yield step
            step = []
        step.append(record)
    if step:
        yield step


def logged_program(files: Mapping[str, str], *, offset: int) -> Program:
    """The program of a version that the log holds at `offset`.

    Raises: DamageError if it does not compile, as it did when it was put there.
    """
    try:
        return Program.of(files)
    except ProjectError as error:
        raise DamageError(
            f"the project that the log holds at offset {offset} does not compile: {error}",
            offset=offset,
        ) from error
