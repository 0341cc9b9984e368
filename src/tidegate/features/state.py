"""The features of a stream as it runs: the state of all entities, updated batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, zip_longest
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.errors import RequestError
from tidegate.features.batch import ALONE, Found, Results
from tidegate.features.compile import Entity, Feature, FeaturePlan, Layer
from tidegate.features.entity import EntityState, join, take_together
from tidegate.features.fills import filled, fills_of
from tidegate.features.plan import LOG_OFFSET, EntityPlan
from tidegate.features.sections import Buffer, Sections, framed
from tidegate.features.table import NO_ERRORS, Errors, Table, with_errors
from tidegate.features.threads import Threads
from tidegate.schema import ColumnType
from tidegate.sql.columns import Column, array_of, arrays_of
from tidegate.sql.expression import Expression, ExpressionSet

Integers: TypeAlias = "npt.NDArray[np.int64]"


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
            _Layer(layer, key=key, threads=threads, lasting=lasting) for layer in plan.layers
        ]
        self._fills = fills_of(plan)
        self._fill()
        self._outputs = _Outputs(plan.features, self._fills, threads=threads)
        self._adopted: set[str] = set()
        self._key, self._threads, self._lasting = key, threads, lasting

    def update(self, events: pa.RecordBatch, *, newest: Integers) -> Features:
        """The features of each event, each event counted in on the way.

        `events` are accepted events in the order of the log: the declared columns among others.
        `newest` is, for each, the newest event time of the stream up to and with it, in
        microseconds. The result does not depend on how the stream was cut into batches.
        """
        return self.begin(events, newest=newest).result()

    def begin(self, events: pa.RecordBatch, *, newest: Integers) -> Begun:
        """As `update`, but the next events may be begun before the result is asked for.

        Each entity goes on to what was begun next while others are still at the events before; the
        results are to be asked for in that order, and all of them before anything else is.
        """
        table = Table(events, self.plan.reads)
        times = _micros(events.column(self.plan.event_time))
        return Begun(self._layers, self._outputs, table, times, newest)

    def follow(self, batches: Iterable[tuple[pa.RecordBatch, Integers]]) -> Iterator[Features]:
        """As `update` with one (events, newest) after the other, the next always begun before."""
        last: Begun | None = None
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
        """Let all entities know what stands for nulls."""
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


class _Set:
    """Expressions that are evaluated together, each into a column of its name."""

    def __init__(self, named: Sequence[tuple[str, Expression]], *, threads: int = 1) -> None:
        self._named, self._threads = named, threads
        self.names = [name for name, _ in named]
        self._set = ExpressionSet([e for _, e in named])
        # Not behind the windows of what was begun next.
        self._spread = Threads(threads, "expressions").run if threads > 1 else None

    def evaluate(self, table: Table) -> Sequence[Found]:
        """Values and errors in the order of `names`; all columns that they read are known."""
        return self._set.columns(table.columns, self._spread) if self._named else ()

    def within(self, known: frozenset[str]) -> _Set:
        """Those that can be evaluated from the columns."""
        return _Set([(n, e) for n, e in self._named if e.columns <= known], threads=self._threads)


_TOGETHER = 4096  # events that are worth waking other threads for
_SIDE_BY_SIDE = 8  # entities, of a batch or of the one begun after it


class _Layer:
    """A layer as it runs; `states` has the state of each entity."""

    def __init__(self, layer: Layer, *, key: bytes, threads: int, lasting: bool) -> None:
        self._threads = threads
        hidden = [(h.name, h.expression) for h in layer.hidden if h.expression]
        self._set = _Set(hidden, threads=threads)
        self._outputs = tuple(name for e in layer.entities for name in e.outputs)
        self._numbers = [h for h in layer.hidden if h.expression is None]
        make = partial(EntityState, key=key, threads=threads, lasting=lasting)
        self.use([(e, make(e.plan)) for e in layer.entities])
        self._declared: _Set | None = None  # what is evaluated where a label comes
        self._running: list[Future[Results]] = []  # the entities on what was begun last

    def use(self, states: Sequence[tuple[Entity, EntityState]]) -> None:
        """Go on with these states of the entities."""
        self.states, self._alone = states, [s for _, s in states]
        self._joint = join(self._alone)

    def begin(
        self, table: Table, *, times: Integers, newest: Integers
    ) -> Callable[[], list[Results]]:
        """Begin with the columns and windows of this layer; gives what waits for the windows."""
        self._prepare(table, self._set)
        columns = table.columns
        if self._threads > 1 and len(times) >= _TOGETHER:
            self._describe(table)
            take = [partial(s.take, columns, times=times, newest=newest) for _, s in self.states]
            tasks = zip_longest(self._running, take)  # one each, or none has run before
            self._running = running = [_others().submit(_after, b, task) for b, task in tasks]
            return lambda: self._ended(running)
        if self._running:
            wait(self._running)
        if len(times) <= ALONE:
            results = take_together(self._alone, self._joint, columns, times=times, newest=newest)
        else:
            results = [s.take(columns, times=times, newest=newest) for _, s in self.states]
        return lambda: results

    def end(self, table: Table, results: list[Results]) -> None:
        """Take what the windows gave into the table."""
        if not table.errors and not any(taken.errors for taken in results):
            made = chain.from_iterable(taken.columns for taken in results)
            table.columns.put_all(self._outputs, made)
            return
        for (entity, _), taken in zip(self.states, results, strict=True):
            table.take(entity.outputs, list(taken.found()))

    def _ended(self, running: list[Future[Results]]) -> list[Results]:
        wait(running)
        if running is self._running:
            self._running = []  # results are not held any longer than they are wanted
        return [each.result() for each in running]

    def peek(self, table: Table, *, time: int, newest: int) -> None:
        """What of the layer can be known from the columns of the table."""
        self._prepare(table, self._set.within(table.known))
        for entity, state in self.states:
            if frozenset(entity.plan.keys) <= table.known:
                keys = table.batch(entity.plan.keys)
                found = state.peek(keys, time=time, newest=newest)
                table.take(entity.outputs, [(e.values, e.errors) for e in found])

    def amend(self, table: Table, *, times: Integers, changed: frozenset[str]) -> int:
        """Correct rows of this layer's entities, as far as declared columns say what they are."""
        states = [(e.plan, s) for e, s in self.states if LOG_OFFSET in e.plan.values]
        if not states:
            return 0
        if self._declared is None:
            self._declared = self._set.within(table.known)
        self._prepare(table, self._declared)
        return sum(s.amend(_whole(table, p), times=times, changed=changed) for p, s in states)

    def _describe(self, table: Table) -> None:
        """Look at all columns, which several threads then read."""
        for entity, _ in self.states:
            for name in _needs(entity.plan):
                table.columns.place(name)

    def _prepare(self, table: Table, expressions: _Set) -> None:
        table.take(expressions.names, expressions.evaluate(table))
        for hidden in self._numbers:
            if hidden.columns <= table.known:
                [column] = hidden.columns
                table.put(hidden.name, table.column(column).cast(pa.int64()), NO_ERRORS)


@lru_cache
def _others() -> ThreadPoolExecutor:
    """Threads in which entities run beside each other; all states share them."""
    return ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="entities")


def _after(before: Future[Results] | None, task: Callable[[], Results]) -> Results:
    """Do a task when the one before it has ended, which was handed in before and so has begun."""
    if before is not None:
        wait([before])
    return task()


def _whole(table: Table, plan: EntityPlan) -> pa.RecordBatch:
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


class Begun:
    """Features that are on their way."""

    __slots__ = ("_first", "_layers", "_newest", "_outputs", "_table", "_times")

    def __init__(
        self,
        layers: Sequence[_Layer],
        outputs: _Outputs,
        table: Table,
        times: Integers,
        newest: Integers,
    ) -> None:
        self._layers, self._outputs, self._table = layers, outputs, table
        self._times, self._newest = times, newest
        self._first = layers[0].begin(table, times=times, newest=newest) if layers else None

    def result(self) -> Features:
        """The features, once they are there; to be asked for once."""
        table, waiting = self._table, self._first
        for layer in self._layers:
            if waiting is None:
                waiting = layer.begin(table, times=self._times, newest=self._newest)
            layer.end(table, waiting())
            waiting = None
        return self._outputs.features(table)


class _Outputs:
    """Makes the features of the columns."""

    def __init__(
        self, features: Sequence[Feature], fills: Mapping[str, int], *, threads: int = 1
    ) -> None:
        self._features = features
        self._schema = pa.schema([pa.field(f.name, f.type.arrow) for f in features])
        self._columns = columns = {f.name: _column(f, fills) for f in features}
        made = [(f.name, f.expression) for f in features if f.expression and not columns[f.name]]
        self._set = _Set(made, threads=threads)
        self._taken = [c for c in columns.values() if c is not None]
        places = {name: k for k, (name, _) in enumerate(made)}
        self._made = [(i, places[f.name]) for i, f in enumerate(features) if f.name in places]

    def features(self, table: Table) -> Features:
        """The features' values and errors."""
        found = self._set.evaluate(table)
        if table.errors or any(errors for _, errors in found):
            return self._with_errors(table, dict(zip(self._set.names, found, strict=True)))
        columns = table.columns.columns(self._taken)
        for place, k in self._made:
            columns.insert(place, found[k][0])
        return Features(columns, self._schema, {})

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
        return Features(values, self._schema, errors)


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
