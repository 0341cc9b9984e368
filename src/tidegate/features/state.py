"""The features of a stream as it runs: the state of all entities, updated batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
import pyarrow as pa

from tidegate.errors import RequestError
from tidegate.events.fingerprints import Integers
from tidegate.features.batch import ALONE, Found
from tidegate.features.compile import Entity, Feature, FeaturePlan
from tidegate.features.course import Course, Goal, Stopped
from tidegate.features.entity import EntityState
from tidegate.features.fills import filled, fills_of
from tidegate.features.layers import Evaluations, LayerState
from tidegate.features.sections import Buffer, Sections, framed
from tidegate.features.table import NO_ERRORS, Errors, Table, with_errors
from tidegate.schema import ColumnType
from tidegate.sql.columns import Column, array_of, arrays_of


class Features:
    """The features of a batch, row by row.

    `columns` are the values in the order of `schema`, which is the plan's. `errors` maps a feature
    to the rows that could not be computed, each with why; the values there are null.
    """

    __slots__ = ("_values", "columns", "errors", "schema")

    def __init__(
        self, columns: Sequence[Column], schema: pa.Schema, errors: Mapping[str, Errors]
    ) -> None:
        self.columns, self.schema, self.errors = columns, schema, errors
        self._values: pa.RecordBatch | None = None

    @property
    def values(self) -> pa.RecordBatch:
        """The values as a batch."""
        if self._values is None:
            arrays = arrays_of(self.columns)
            self._values = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return self._values


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

    `key` seeds the hashing of the keys, `threads` bounds what large batches use. A state that is
    not `lasting` goes through a stretch of history once: its memory is had sooner and found later.
    """

    def __init__(
        self, plan: FeaturePlan, *, key: bytes, threads: int = 1, lasting: bool = True
    ) -> None:
        self.plan = plan
        self._layers = [
            LayerState(layer, key=key, threads=threads, lasting=lasting) for layer in plan.layers
        ]
        self._fills = fills_of(plan)
        self._fill()
        self._outputs = _Outputs(plan.features, self._fills, threads=threads)
        self._adopted: set[str] = set()
        self._course: Course | None = None
        self._last: Begun | None = None
        self._key, self._threads, self._lasting = key, threads, lasting

    def update(self, events: pa.RecordBatch, *, newest: Integers) -> Features:
        """The features of each event, each event counted in on the way.

        `events` are accepted events in the order of the log: the declared columns among others.
        `newest` is, for each, the newest event time of the stream up to and with it, in
        microseconds. The result does not depend on how the stream was cut into batches.
        """
        return self.begin(events, newest=newest).result()

    def begin(self, events: pa.RecordBatch, *, newest: Integers) -> Begun | Done:
        """As `update`, but the next events may be begun before the result is asked for.

        Each entity goes on to what was begun next while others are still at the events before; the
        results are to be asked for in that order, and all of them before anything else is.
        """
        times = _micros(events.column(self.plan.event_time))
        if 0 < len(times) <= ALONE and (self._last is None or self._last.is_over):
            return self._run(events, times, newest)
        table = Table(events, self.plan.reads)
        self._last = Begun(self._layers, self._outputs, table, times, newest)
        return self._last

    def _run(self, events: pa.RecordBatch, times: Integers, newest: Integers) -> Begun | Done:
        """As `begin` for few events, while no others are on their way."""
        if self._course is None:
            sections = [layer.section() for layer in self._layers]
            self._course = Course(self.plan, sections, self._outputs.goal())
        found = self._course.run(events, times=times, newest=newest)
        if not isinstance(found, Stopped):
            return Done(Features(found, self._outputs.schema, {}))
        rest = self._layers[found.layers :]
        self._last = Begun(rest, self._outputs, found.table, times, newest)
        return self._last

    def follow(self, batches: Iterable[tuple[pa.RecordBatch, Integers]]) -> Iterator[Features]:
        """As `update` with one (events, newest) after the other, the next always begun before."""
        last: Begun | Done | None = None
        for events, newest in batches:
            begun = self.begin(events, newest=newest)
            if last is not None:
                yield last.result()
            last = begun
        if last is not None:
            yield last.result()

    def amend(self, events: pa.RecordBatch) -> int:
        """Let earlier events count with the label that `events` has; gives how many entries do.

        `events` are the declared columns of those events, the label column as it is from here on,
        and `log_offset`; each is corrected in turn, in its entities that take in the label. Those
        that are freed are passed over.
        """
        if not self.plan.takes_labels or not events.num_rows:
            return 0
        table = Table(events, self.plan.reads)
        times = _micros(events.column(self.plan.event_time)).copy()  # it is among what is written
        return sum(x.amend(table, times=times, changed=self.plan.labelled) for x in self._layers)

    def peek(self, entity: Mapping[str, object], *, time: int, newest: int) -> Features:
        """What an event at `time` would see of an entity, one row, nothing counted in.

        `entity` has a value for each column of the entity's PARTITION BY, as in `{"card": "4711"}`,
        and for other columns if wanted. The features are those that depend on such an entity and
        on no column besides.

        Raises: RequestError for unknown columns, wrong values, or where no entity has such keys.
        """
        table = Table(self._row(entity, time), self.plan.reads)
        for layer in self._layers:
            layer.peek(table, time=time, newest=newest)
        chosen = [f for f in self.plan.features if f.entities and f.columns <= table.known]
        if not chosen:
            known = ", ".join(" and ".join(f"`{k}`" for k in e.plan.keys) for e in self.entities)
            message = f"no windows are kept by {', '.join(f'`{c}`' for c in entity)}"
            raise RequestError(f"{message}; they are by {known}", code="unknown_entity")
        return _Outputs(chosen, self._fills).features(table)

    def adopt(self, other: FeatureState) -> tuple[Entity, ...]:
        """Take over the states of entities that mean the same; the entities still without one.

        Neither may be shared: `other` is not to be used any more.
        """
        theirs = {e.fingerprint: s for layer in other._layers for e, s in layer.states}
        for layer in self._layers:
            states = list(layer.states)
            for place, (entity, _) in enumerate(states):
                print_ = entity.fingerprint
                if print_ in theirs and print_ not in self._adopted:
                    states[place] = (entity, theirs[print_])
                    self._adopted.add(print_)
            layer.use(states)
        self._fill()
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
            layer.use(states)
        self._fill()

    def _fill(self) -> None:
        """Let all entities know what stands for nulls, which may be others than before."""
        self._course = None
        for entity, state in (pair for layer in self._layers for pair in layer.states):
            named = {n: c for c, n in enumerate(entity.outputs) if n in self._fills}
            state.fill({c: self._fills[n] for n, c in named.items()})

    def _restored(self, entity: Entity, buffers: Iterable[Buffer]) -> EntityState:
        return EntityState.restore(
            entity.plan, buffers, key=self._key, threads=self._threads, lasting=self._lasting
        )

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


class Done:
    """Features that are there."""

    __slots__ = ("_features",)

    def __init__(self, features: Features) -> None:
        self._features = features

    def result(self) -> Features:
        """The features."""
        return self._features


class Begun:
    """Features that are on their way; `is_over` once they were asked for."""

    __slots__ = ("_first", "_layers", "_newest", "_outputs", "_table", "_times", "is_over")

    def __init__(
        self,
        layers: Sequence[LayerState],
        outputs: _Outputs,
        table: Table,
        times: Integers,
        newest: Integers,
    ) -> None:
        self._layers, self._outputs, self._table = layers, outputs, table
        self._times, self._newest = times, newest
        self.is_over = False
        self._first = layers[0].begin(table, times=times, newest=newest) if layers else None

    def result(self) -> Features:
        """The features, once they are there; to be asked for once."""
        table, waiting = self._table, self._first
        for layer in self._layers:
            if waiting is None:
                waiting = layer.begin(table, times=self._times, newest=self._newest)
            layer.end(table, waiting())
            waiting = None
        del self._first, self._table, self._times, self._newest  # others may know of this
        self.is_over = True
        return self._outputs.features(table)


class _Outputs:
    """Makes the features of the columns."""

    def __init__(
        self, features: Sequence[Feature], fills: Mapping[str, int], *, threads: int = 1
    ) -> None:
        self._features = features
        self.schema = pa.schema([pa.field(f.name, f.type.arrow) for f in features])
        self._columns = columns = {f.name: _column(f, fills) for f in features}
        made = [(f.name, f.expression) for f in features if f.expression and not columns[f.name]]
        self._set = Evaluations(made, threads=threads)
        self._taken = [c for c in columns.values() if c is not None]
        places = {name: k for k, (name, _) in enumerate(made)}
        self._made = [(i, places[f.name]) for i, f in enumerate(features) if f.name in places]

    def goal(self) -> Goal:
        """What a course leads to."""
        return Goal(self._set.all, [self._columns[f.name] for f in self._features])

    def features(self, table: Table) -> Features:
        """The features' values and errors."""
        found = self._set.evaluate(table)
        if table.errors or any(errors for _, errors in found):
            return self._with_errors(table, dict(zip(self._set.names, found, strict=True)))
        columns = table.columns.columns(self._taken)
        for place, k in self._made:
            columns.insert(place, found[k][0])
        return Features(columns, self.schema, {})

    def _with_errors(self, table: Table, evaluated: Mapping[str, Found]) -> Features:
        values: list[Column] = []
        errors: dict[str, Errors] = {}
        for feature in self._features:
            if (name := self._columns[feature.name]) is not None:
                column = table.columns.column(name)
                failed = table.errors.get(name, NO_ERRORS)
            else:
                column, failed = evaluated[feature.name]
                if inherited := table.inherited(feature.columns):
                    column, failed = with_errors(array_of(column), {**failed, **inherited})
            values.append(column)
            if failed:
                errors[feature.name] = failed
        return Features(values, self.schema, errors)


def _column(feature: Feature, fills: Mapping[str, int]) -> str | None:
    """The column that a feature's values are."""
    found = filled(feature)
    return feature.column if found is None or found[0] not in fills else found[0]


def _micros(times: pa.Array[Any]) -> Integers:
    """The times as they lie there, where kernels can read them, which want whole words."""
    if not len(times):
        return np.empty(0, dtype=np.int64)
    values, first = cast(Any, times.buffers()[1]), 8 * times.offset
    micros: Integers = np.frombuffer(values, dtype=np.int64, count=len(times), offset=first)
    return micros if micros.flags.aligned else micros.copy()


def _one(name: str, value: object, type_: ColumnType) -> pa.Array[Any]:
    """The value as a column of one row; text is read as the type."""
    try:
        if isinstance(value, str):
            return pa.array([value]).cast(type_.arrow)
        return pa.array([value], type_.arrow)
    except (pa.ArrowException, TypeError, ValueError) as error:
        message = f"`{name}` is {type_}, and {value!r} is not"
        raise RequestError(message, code="wrong_value") from error
