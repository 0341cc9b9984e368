"""The evaluator: features, rules and decision of events, live and over history alike.

There is one, so that what is computed over history is what was decided live, bit for bit. It is a
pure function of the events in the order in which they come (`decided_at` apart) and never depends
on how they were cut into batches. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.controls import ListRecord
from tidegate.decisions.decide import decide
from tidegate.decisions.decided import Decisions
from tidegate.decisions.featured import Featured, featured
from tidegate.decisions.whose import Whose
from tidegate.errors import DamageError
from tidegate.features.compile import FeaturePlan
from tidegate.labels.correction import Labelling
from tidegate.labels.history import LabelRows, Past
from tidegate.lists.membership import Lists
from tidegate.program import Program
from tidegate.pseudonyms import pseudonym_key
from tidegate.rules.ruleset import failed_features
from tidegate.sql.columns import Columns
from tidegate.sql.expression import Evaluated
from tidegate.stages import Stages
from tidegate.tables import features_schema

if TYPE_CHECKING:
    from tidegate.features.state import Begun, Done, Features, FeatureState

Integers = npt.NDArray[np.int64]
Buffer: TypeAlias = bytes | bytearray | memoryview

# Before the first event no time has passed; the lowest time that Arrow and Delta can both hold.
BEGINNING = -(2**62)


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What follows from a batch of events, row by row.

    `featured` is None where the program has no features. `chosen` has for each window query with a
    WHERE its value for each event.
    """

    decided: Decisions
    featured: Featured | None
    chosen: Mapping[str, Evaluated]


@dataclass(frozen=True, slots=True, eq=False)
class Underway:
    """Events whose features are on their way, and the changes of lists that come before them.

    `before` was the newest event time before these events. `begun` is None where the program has no
    features; so many `seconds` went into them so far.
    """

    events: pa.RecordBatch
    before: int
    changes: tuple[ListRecord, ...]
    begun: Begun | Done | None
    seconds: float


class Evaluator:
    """A program at work on a stream, with the state of its features and of the lists.

    `newest` is the newest event time of the events so far. The passing of time without events does
    not count in it, so that it follows from the events alone. `lasting` is as in `FeatureState`.
    """

    def __init__(
        self,
        program: Program,
        *,
        key: bytes = bytes(16),
        threads: int = 1,
        lasting: bool = True,
    ) -> None:
        self.program = program
        self.stages = Stages()
        self.newest = BEGINNING
        self.lists = Lists(program.lists)
        self.labels = Labelling(program.project)
        self.state = _state(program.features, key=key, threads=threads, lasting=lasting)
        self._table = None if program.features is None else features_schema(program.features.schema)
        self._names = [] if program.features is None else program.features.schema.names
        self._key, self._threads, self._lasting = key, threads, lasting
        self._pseudonym_key = pseudonym_key(key)

    def evaluate(
        self, events: pa.RecordBatch, *, decided_at: int, ids: pa.Array[Any] | None = None
    ) -> Verdict:
        """The verdict on events with the columns of `events_schema`; they count from now on.

        `decided_at` is UTC microseconds. `ids` are the events' as text, where somebody has them.
        """
        return self.decide(self.begin(events), decided_at=decided_at, ids=ids)

    def begin(self, events: pa.RecordBatch, changes: Iterable[ListRecord] = ()) -> Underway:
        """Events, and changes of lists before them, to be decided on later.

        The next ones may be begun before that: windows go on to them, which is what takes longest.
        They are to be decided in this order, and all of them before anything else is asked.
        """
        before, began = self.newest, perf_counter()
        newest = newest_times(events, self.program, before)
        self.newest = int(newest[-1]) if len(newest) else before
        begun = None if self.state is None else self.state.begin(events, newest=newest)
        return Underway(events, before, tuple(changes), begun, perf_counter() - began)

    def decide(
        self, underway: Underway, *, decided_at: int, ids: pa.Array[Any] | None = None
    ) -> Verdict:
        """The verdict on events that were begun; as for `evaluate`."""
        program, events, began = self.program, underway.events, perf_counter()
        for change in underway.changes:
            self.lists.apply(change, newest=underway.before)
        computed = None if underway.begun is None else underway.begun.result()
        now = perf_counter()
        self.stages.features.add(underway.seconds + now - began)
        began = now
        seen, found, failed = Columns(events), None, []
        whose = Whose.of(events, program.schema, ids)
        if computed is not None and self._table is not None:
            seen.put_all(self._names, computed.columns)
            found = featured(whose, self._names, computed.columns, self._table)
            failed = failed_features(computed.errors)
        self._list(seen, underway.before)
        answers = program.ask(seen, key=self._pseudonym_key)
        hits = [*failed, *answers.hits]
        decided = decide(whose, hits, version=program.version, decided_at=decided_at)
        self.stages.rules.since(began)
        return Verdict(decided, found, answers.chosen)

    def _list(self, seen: Columns, before: int) -> None:
        """Add the answers of lists; `before` was the newest event time before these events."""
        asked = self.program.list_answers
        if asked.questions:
            newest = newest_times(seen.batch, self.program, before)
            time = self.program.schema.event_time
            asked.put(seen, self.lists, event_time=time, newest=newest)

    def labelled(self, events: pa.RecordBatch) -> pa.RecordBatch:
        """The events with the labels that have waited for them: what is to be evaluated.

        To be asked once for each event, in the order of the log.
        """
        return self.labels.fill(events)

    def label(self, labels: pa.RecordBatch) -> None:
        """Take in labels, rows of their table: from here on features see them."""
        self.labels.take(labels, self.state)

    def change_lists(self, changes: Iterable[ListRecord]) -> None:
        """Let changes of lists count from now on."""
        for change in changes:
            self.lists.apply(change, newest=self.newest)

    def compute(self, events: pa.RecordBatch) -> Features | None:
        """The features of events with (at least) the declared columns, which count from now on.

        None where the program has no features.
        """
        begun = self.begin(events).begun
        return None if begun is None else begun.result()

    def copy(self) -> Iterable[Buffer] | None:
        """The state of the features as it is now, to be read by another thread; None without any.

        The evaluator may go on meanwhile.
        """
        return None if self.state is None else self.state.snapshot()

    def restore(self, sections: Iterable[Buffer], *, newest: int | None) -> None:
        """Take over what `copy` gave, and the newest event time then.

        Raises: DamageError if it is not the state of the program's features.
        """
        if self.state is not None:
            if newest is None:
                raise DamageError("there is no state of the features")
            self.state.restore(sections)
        self.newest = BEGINNING if newest is None else newest

    def succeeded_by(self, program: Program, rebuild: Rebuild) -> Evaluator:
        """One for another program, from this point of the stream on; this one is used up.

        Entities that mean the same keep their state; `rebuild` has come to this point with the
        others.
        """
        then = Evaluator(program, key=self._key, threads=self._threads, lasting=self._lasting)
        then.stages = self.stages
        then.newest = max(self.newest, rebuild.newest)
        then.lists = self.lists
        then.lists.use(program.lists)
        then.labels = self.labels
        then.labels.use(program.project)
        if then.state is not None:
            for other in (self.state, rebuild.state):
                if other is not None:
                    then.state.adopt(other)
        return then

    def rebuild(self, program: Program) -> Rebuild:
        """What another program needs to know of the stream so far and this one does not keep."""
        return Rebuild(self.program, program, key=self._key, threads=self._threads)


class Rebuild:
    """The state of the entities that a program adds to another, on its way through history.

    `offset` is the log offset below which the history has been taken in.
    """

    def __init__(self, before: Program, after: Program, *, key: bytes, threads: int) -> None:
        self.before, self.after = before, after
        self.offset = 0
        self.newest = BEGINNING
        kept = [] if before.features is None else before.features.entities
        self._plan = after.features and after.features.without([e.fingerprint for e in kept])
        self.state = _state(self._plan, key=key, threads=threads)
        self._labels = Labelling(after.project)

    @property
    def is_needed(self) -> bool:
        """Whether there is anything that must be computed from history."""
        return self._plan is not None and bool(self._plan.entities)

    @property
    def columns(self) -> tuple[str, ...]:
        """The declared columns that are read."""
        wanted = frozenset() if self._plan is None else self._plan.columns
        if self._takes_labels:
            wanted |= {self.after.schema.id}
        return tuple(name for name in self.after.schema.names if name in wanted)

    @property
    def _takes_labels(self) -> bool:
        return self._plan is not None and self._plan.takes_labels

    def follow(self, past: Past) -> None:
        """Take in the events or labels that follow those so far, where it is needed.

        Events have the `columns` and `log_offset`.
        """
        if isinstance(past, LabelRows):
            if self._takes_labels:
                self._labels.take(past.rows, self.state)
            self.offset = int(past.rows["log_offset"][-1].as_py() or 0) + 1
            return
        events = self._labels.fill(past) if self._takes_labels else past
        newest = newest_times(events, self.after, self.newest)
        if self.state is not None and len(newest):
            self.state.update(events, newest=newest)
            self.newest = int(newest[-1])
            self.offset = int(events["log_offset"][-1].as_py()) + 1


def newest_times(events: pa.RecordBatch, program: Program, before: int) -> Integers:
    """For each event the newest event time up to and with it, where it was `before` at first."""
    times = events[program.schema.event_time].to_numpy().view(np.int64)
    newest: Integers = np.maximum.accumulate(times)
    return np.maximum(newest, before, out=newest)


def _state(
    plan: FeaturePlan | None, *, key: bytes, threads: int, lasting: bool = True
) -> FeatureState | None:
    if plan is None:
        return None
    from tidegate.features.state import FeatureState  # it loads the kernels: only where needed

    return FeatureState(plan, key=key, threads=threads, lasting=lasting)
