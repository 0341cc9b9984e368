"""The features of a stream as it runs: the state of all entities, updated batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.errors import RequestError
from tidegate.features.compile import Entity, Feature, FeaturePlan, Layer
from tidegate.features.entity import EntityState
from tidegate.features.plan import LOG_OFFSET, EntityPlan
from tidegate.features.sections import Buffer, Sections, framed
from tidegate.schema import ColumnType
from tidegate.sql.expression import Evaluated, Expression, ExpressionSet

Integers: TypeAlias = "npt.NDArray[np.int64]"
Errors: TypeAlias = "Mapping[int, str]"

_NONE: Errors = {}


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The features of a batch, row by row.

    `values` has the plan's schema. `errors` maps a feature to the rows that could not be computed,
    each with why; the values there are null.
    """

    values: pa.RecordBatch
    errors: Mapping[str, Errors]


@dataclass(frozen=True, slots=True)
class Usage:
    """What an entity holds: keys, rows of events, and the bytes of both.

    `bytes_per_key` is what a key takes besides its rows, `bytes_per_row` what a row takes.
    """

    entity: Entity
    keys: int
    rows: int
    bytes: int
    bytes_per_key: int
    bytes_per_row: int


class FeatureState:
    """What is kept of the events so far, for every entity of a plan.

    `key` seeds the hashing of the keys, `threads` bounds what large batches use.
    """

    def __init__(self, plan: FeaturePlan, *, key: bytes, threads: int = 1) -> None:
        self.plan = plan
        self._layers = [_Layer(layer, key=key, threads=threads) for layer in plan.layers]
        self._outputs = _Outputs(plan.features)
        self._adopted: set[str] = set()
        self._key, self._threads = key, threads

    def update(self, events: pa.RecordBatch, *, newest: Integers) -> Features:
        """The features of each event, each event counted in on the way.

        `events` are accepted events in the order of the log: the declared columns among others.
        `newest` is, for each, the newest event time of the stream up to and with it, in
        microseconds. The result does not depend on how the stream was cut into batches.
        """
        table = _Table(events, self.plan.reads)
        times = _micros(events.column(self.plan.event_time))
        newest = _writable(newest)
        for layer in self._layers:
            layer.update(table, times=times, newest=newest)
        return self._outputs.features(table)

    def amend(self, events: pa.RecordBatch) -> int:
        """Let earlier events count with the label that `events` has; gives how many entries do.

        `events` are the declared columns of those events, the label column as it is from here on,
        and `log_offset`; each is corrected in turn, in its entities that take in the label. Those
        that are freed are passed over.
        """
        if not self.plan.takes_labels or not events.num_rows:
            return 0
        table = _Table(events, self.plan.reads)
        times = _micros(events.column(self.plan.event_time))
        return sum(x.amend(table, times=times, changed=self.plan.labelled) for x in self._layers)

    def peek(self, entity: Mapping[str, object], *, time: int, newest: int) -> Features:
        """What an event at `time` would see of an entity, one row, nothing counted in.

        `entity` has a value for each column of the entity's PARTITION BY, as in `{"card": "4711"}`,
        and for other columns if wanted. The features are those that depend on such an entity and
        on no column besides.

        Raises: RequestError for unknown columns, wrong values, or where no entity has such keys.
        """
        table = _Table(self._row(entity, time), self.plan.reads)
        for layer in self._layers:
            layer.peek(table, time=time, newest=newest)
        chosen = [f for f in self.plan.features if f.entities and f.columns <= table.known]
        if not chosen:
            known = ", ".join(" and ".join(f"`{k}`" for k in e.plan.keys) for e in self.entities)
            message = f"no windows are kept by {', '.join(f'`{c}`' for c in entity)}"
            raise RequestError(f"{message}; they are by {known}", code="unknown_entity")
        return _Outputs(chosen).features(table)

    def adopt(self, other: FeatureState) -> tuple[Entity, ...]:
        """Take over the states of entities that mean the same; the entities still without one.

        Neither may be shared: `other` is not to be used any more.
        """
        theirs = {e.fingerprint: s for layer in other._layers for e, s in layer.states}
        for layer in self._layers:
            for place, (entity, _) in enumerate(layer.states):
                print_ = entity.fingerprint
                if print_ in theirs and print_ not in self._adopted:
                    layer.states[place] = (entity, theirs[print_])
                    self._adopted.add(print_)
        return tuple(e for e in self.entities if e.fingerprint not in self._adopted)

    @property
    def entities(self) -> tuple[Entity, ...]:
        """The entities, in the order in which they run."""
        return self.plan.entities

    def snapshot(self) -> Iterator[Buffer]:
        """The state as it is now, as bytes to be written in this order.

        Another thread may read them while updates go on; one snapshot at a time.
        """
        jobs = [(e.fingerprint, s.begin_snapshot()) for la in self._layers for e, s in la.states]
        return chain.from_iterable(framed(mark, job.buffers()) for mark, job in jobs)

    def restore(self, sections: Iterable[Buffer]) -> None:
        """Take over what `snapshot` gave, of the same plan and key, however the bytes are cut.

        Raises: DamageError if it is something else or incomplete; nothing is changed then.
        """
        source = Sections(sections)
        restored = [
            [(e, self._restored(e, source.entity(e.fingerprint))) for e, _ in layer.states]
            for layer in self._layers
        ]
        source.end()
        for layer, states in zip(self._layers, restored, strict=True):
            layer.states = states

    def _restored(self, entity: Entity, buffers: Iterable[Buffer]) -> EntityState:
        return EntityState.restore(entity.plan, buffers, key=self._key, threads=self._threads)

    def expire(self, newest: int) -> None:
        """Free what no window can reach once the newest event is at `newest`, in microseconds.

        Updates do so as well; this is for a stream that stands still.
        """
        for layer in self._layers:
            for _, state in layer.states:
                state.expire(newest)

    def usage(self) -> tuple[Usage, ...]:
        """What each entity holds, in the order in which they run."""
        return tuple(
            Usage(e, s.keys, s.rows, s.bytes, s.bytes_per_key, s.bytes_per_row)
            for layer in self._layers
            for e, s in layer.states
        )

    def _row(self, entity: Mapping[str, object], time: int) -> pa.RecordBatch:
        """The one row that is known of an entity: its keys, and the time."""
        values: dict[str, pa.Array[Any]] = {}
        for name, value in entity.items():
            if name not in self.plan.declared:
                raise RequestError(f"there is no column `{name}`", code="unknown_column")
            values[name] = _one(name, value, self.plan.declared[name])
        values[self.plan.event_time] = pa.array([time], pa.timestamp("us"))
        return pa.RecordBatch.from_pydict(values)


@dataclass(slots=True)
class _Table:
    """The columns of a batch that are known so far, and the rows of each that have errors."""

    events: pa.RecordBatch
    reads: Mapping[str, frozenset[str]]
    columns: dict[str, pa.Array[Any]] = field(default_factory=dict)
    errors: dict[str, Errors] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        return frozenset(self.events.schema.names) | self.columns.keys()

    def column(self, name: str) -> pa.Array[Any]:
        found = self.columns.get(name)
        return self.events.column(name) if found is None else found

    def batch(self, names: Sequence[str]) -> pa.RecordBatch:
        """The columns of those names, among others."""
        if not any(name in self.columns for name in names):
            return self.events
        return pa.RecordBatch.from_arrays([self.column(n) for n in names], names=list(names))

    def put(self, name: str, found: Evaluated) -> None:
        """Take in a column; where what it is computed from has an error, so has it."""
        inherited = self.inherited(self.reads[name])
        if not inherited and not found.errors:
            self.columns[name] = found.values
            return
        values, self.errors[name] = _with_errors(found, inherited)
        self.columns[name] = values

    def inherited(self, columns: frozenset[str]) -> dict[int, str]:
        """The errors in any of the columns."""
        if not self.errors:
            return {}
        told = [self.errors[c] for c in sorted(columns) if c in self.errors]
        return {row: why for errors in reversed(told) for row, why in errors.items()}


class _Set:
    """Expressions that are evaluated together, each into a column of its name."""

    def __init__(self, named: Sequence[tuple[str, Expression]]) -> None:
        self._named = named
        self._set = ExpressionSet([e for _, e in named])
        read = frozenset().union(*(e.columns for _, e in named))
        self._columns = sorted(read)

    def evaluate(self, table: _Table) -> list[tuple[str, Evaluated]]:
        """The values by name; all columns that the expressions read are known."""
        if not self._named:
            return []
        # Without a column a batch has no rows, even where only literals are evaluated.
        names = self._columns or table.events.schema.names[:1]
        found = self._set.evaluate(table.batch(names))
        return [(name, e) for (name, _), e in zip(self._named, found, strict=True)]

    def within(self, known: frozenset[str]) -> _Set:
        """Those that can be evaluated from the columns."""
        return _Set([(n, e) for n, e in self._named if e.columns <= known])


_TOGETHER = 4096  # events that are worth waking other threads for
_SIDE_BY_SIDE = 4
_Found = list[Evaluated]


class _Layer:
    """A layer as it runs; `states` has the state of each entity."""

    def __init__(self, layer: Layer, *, key: bytes, threads: int) -> None:
        self._threads = threads
        self._set = _Set([(h.name, h.expression) for h in layer.hidden if h.expression])
        self._numbers = [h for h in layer.hidden if h.expression is None]
        self.states = [(e, EntityState(e.plan, key=key, threads=threads)) for e in layer.entities]
        self._needs = [_needs(e.plan) for e in layer.entities]
        self._declared: _Set | None = None  # what is evaluated where a label comes

    def update(self, table: _Table, *, times: Integers, newest: Integers) -> None:
        """The columns and windows of this layer, into the table."""
        self._prepare(table, self._set)
        updates = [
            partial(state.update, table.batch(needs), times=times, newest=newest)
            for (_, state), needs in zip(self.states, self._needs, strict=True)
        ]
        together = self._threads > 1 and len(times) >= _TOGETHER
        results = _side_by_side(updates) if together else [update() for update in updates]
        for (entity, _), found in zip(self.states, results, strict=True):
            self._take(table, entity, found)

    def peek(self, table: _Table, *, time: int, newest: int) -> None:
        """What of the layer can be known from the columns of the table."""
        self._prepare(table, self._set.within(table.known))
        for entity, state in self.states:
            if frozenset(entity.plan.keys) <= table.known:
                keys = table.batch(entity.plan.keys)
                self._take(table, entity, state.peek(keys, time=time, newest=newest))

    def amend(self, table: _Table, *, times: Integers, changed: frozenset[str]) -> int:
        """Correct rows of this layer's entities, as far as declared columns say what they are."""
        states = [(e.plan, s) for e, s in self.states if LOG_OFFSET in e.plan.values]
        if not states:
            return 0
        if self._declared is None:
            self._declared = self._set.within(table.known)
        self._prepare(table, self._declared)
        return sum(s.amend(_whole(table, p), times=times, changed=changed) for p, s in states)

    def _prepare(self, table: _Table, expressions: _Set) -> None:
        for name, found in expressions.evaluate(table):
            table.put(name, found)
        for hidden in self._numbers:
            if hidden.columns <= table.known:
                [column] = hidden.columns
                table.put(hidden.name, Evaluated(pc.cast(table.column(column), pa.int64()), _NONE))

    @staticmethod
    def _take(table: _Table, entity: Entity, found: Sequence[Evaluated]) -> None:
        for name, evaluated in zip(entity.outputs, found, strict=True):
            table.put(name, evaluated)


@lru_cache
def _others() -> ThreadPoolExecutor:
    """Threads in which entities run beside each other; all states share them."""
    return ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="entities")


def _side_by_side(updates: Sequence[Callable[[], _Found]]) -> list[_Found]:
    """What the updates give, one of them made by the caller's own thread."""
    waiting = [_others().submit(update) for update in updates[1:]]
    try:
        return [updates[0](), *(each.result() for each in waiting)]
    finally:
        wait(waiting)


def _whole(table: _Table, plan: EntityPlan) -> pa.RecordBatch:
    """All columns that an entity takes; those that are not known, and do not change, are null."""
    types = dict(zip(plan.values, plan.value_types, strict=True))
    columns = {
        name: table.column(name)
        if name in table.known
        else pa.array(
            [None] * len(table.events), types[name].arrow if name in types else pa.bool_()
        )
        for name in _needs(plan)
    }
    return pa.RecordBatch.from_pydict(columns)


def _needs(plan: EntityPlan) -> tuple[str, ...]:
    """The columns that an entity takes, each once."""
    return tuple(dict.fromkeys((*plan.keys, *plan.values, *plan.filters)))


class _Outputs:
    """Makes the features of the columns."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features
        self._schema = pa.schema([pa.field(f.name, f.type.arrow) for f in features])
        self._set = _Set([(f.name, f.expression) for f in features if f.expression])

    def features(self, table: _Table) -> Features:
        """The features' values and errors."""
        evaluated = dict(self._set.evaluate(table))
        values: list[pa.Array[Any]] = []
        errors: dict[str, Errors] = {}
        for feature in self._features:
            array, failed = self._feature(feature, table, evaluated)
            values.append(array)
            if failed:
                errors[feature.name] = failed
        return Features(pa.RecordBatch.from_arrays(values, schema=self._schema), errors)

    def _feature(
        self, feature: Feature, table: _Table, evaluated: Mapping[str, Evaluated]
    ) -> tuple[pa.Array[Any], Errors]:
        if feature.column is not None:
            return table.column(feature.column), table.errors.get(feature.column, _NONE)
        found = evaluated[feature.name]
        inherited = table.inherited(feature.columns)
        return _with_errors(found, inherited) if inherited else (found.values, found.errors)


def _with_errors(found: Evaluated, inherited: Errors) -> tuple[pa.Array[Any], Errors]:
    """The values, null in rows of which what they are computed from has an error."""
    errors = {**found.errors, **inherited}
    rows = np.fromiter(errors, dtype=np.int64, count=len(errors))
    mask = np.zeros(len(found.values), dtype=np.bool_)
    mask[rows] = True
    places = pa.array(np.arange(len(mask)), pa.int64(), mask=mask)
    return found.values.take(places), dict(sorted(errors.items()))


def _micros(times: pa.Array[Any]) -> Integers:
    return _writable(times.view(pa.int64()).to_numpy())


def _writable(numbers: Integers) -> Integers:
    """The numbers as the kernels take them: what lies in a column of Arrow is read-only."""
    return np.require(numbers, np.int64, ["C", "W"])


def _one(name: str, value: object, type_: ColumnType) -> pa.Array[Any]:
    """The value as a column of one row; text is read as the type."""
    try:
        if isinstance(value, str):
            return pa.array([value]).cast(type_.arrow)
        return pa.array([value], type_.arrow)
    except (pa.ArrowException, TypeError, ValueError) as error:
        message = f"`{name}` is {type_}, and {value!r} is not"
        raise RequestError(message, code="wrong_value") from error
