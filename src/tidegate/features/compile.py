"""From the text of a `features.sql` to the plan that computes it.

The plan runs in layers. Each evaluates the columns that its windows need, then runs the windows of
every entity; windows over the values of other windows stand in a later layer. What remains, the
scalar expressions around the windows, is evaluated once at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from tidegate.features.binding import Binder, Hidden, Selected, WindowCall
from tidegate.features.calls import BIGINT
from tidegate.features.labelled import check_labels, labelled_columns
from tidegate.features.plan import LOG_OFFSET, Call, EntityPlan
from tidegate.features.problems import Problems
from tidegate.features.statement import read
from tidegate.schema import ColumnType, Schema
from tidegate.sql.expression import Expression
from tidegate.sql.source import SourceText

# Part of every fingerprint: raised when what is kept of events changes its meaning.
_LAYOUT = 1


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature: its name, the type of its values, and how it was written.

    `entities` are the keys of all windows it depends on. Its value is that of `column`, if there
    is one, else that of `expression`.
    """

    name: str
    type: ColumnType
    sql: str
    entities: tuple[tuple[str, ...], ...]
    column: str | None
    expression: Expression | None

    @property
    def columns(self) -> frozenset[str]:
        """The columns that the value is made of: declared ones, and values of windows."""
        if self.expression is not None:
            return self.expression.columns
        return frozenset() if self.column is None else frozenset({self.column})


@dataclass(frozen=True, slots=True)
class Entity:
    """The windows of one PARTITION BY in one layer.

    `outputs` names the column of each call's values; the names say what the calls mean. Entities
    with equal fingerprints keep the same and may take over each other's state.
    """

    layer: int
    plan: EntityPlan
    outputs: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Layer:
    """Columns to evaluate, and then the windows that read them and those of earlier layers."""

    hidden: tuple[Hidden, ...]
    entities: tuple[Entity, ...]


@dataclass(frozen=True, eq=False)
class FeaturePlan:
    """All that a `features.sql` computes; equal fingerprints mean the same values.

    `declared` are the columns of the stream. `reads` tells, for each hidden column and each call,
    the columns that it is computed from. `labelled` are the column that takes labels, if there is
    one, and the hidden columns computed from it; entities that keep any keep log offsets as well.
    """

    features: tuple[Feature, ...]
    layers: tuple[Layer, ...]
    event_time: str
    declared: Mapping[str, ColumnType]
    reads: Mapping[str, frozenset[str]]
    fingerprint: str
    labelled: frozenset[str] = frozenset()

    @property
    def takes_labels(self) -> bool:
        """Whether any entity keeps what a label changes."""
        return any(LOG_OFFSET in entity.plan.values for entity in self.entities)

    @property
    def entities(self) -> tuple[Entity, ...]:
        """The entities of all layers, in the order in which they run."""
        return tuple(entity for layer in self.layers for entity in layer.entities)

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns of the stream that it reads, the event time among them."""
        names = {self.event_time}.union(*self.reads.values())
        names.update(*(e.plan.keys for e in self.entities), *(f.columns for f in self.features))
        return frozenset(names & self.declared.keys())

    def behind(self, names: Iterable[str]) -> set[str]:
        """The columns, and all that they are computed from."""
        return _behind(self.reads, names)

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the features."""
        return pa.schema([pa.field(f.name, f.type.arrow) for f in self.features])

    def without(self, known: Collection[str]) -> FeaturePlan:
        """What has to be computed to have the entities whose fingerprints are not `known`.

        It has no features. Entities in later layers bring along those that they are computed from.
        """
        wanted = [e for e in self.entities if e.fingerprint not in known]
        behind = self.behind(c for e in wanted for c in e.outputs)
        layers = tuple(
            Layer(
                tuple(h for h in layer.hidden if h.name in behind),
                tuple(e for e in layer.entities if behind.intersection(e.outputs)),
            )
            for layer in self.layers
        )
        return replace(
            self, features=(), layers=layers, fingerprint=_hash(self.fingerprint, sorted(known))
        )


def compile_features(
    source: SourceText, schema: Schema, *, lateness: int, look_back: int, label: str | None = None
) -> FeaturePlan:
    """The plan of a `features.sql`.

    `lateness` and `look_back` are in microseconds; `EntityPlan` says what they bound. `label` is
    the column that takes labels.

    Raises: ProjectError with every mistake, each with its place and a hint.

    >>> cards = Schema.of([("id", "text"), ("ts", "timestamp"), ("card", "text")],
    ...     id="id", event_time="ts")
    >>> text = '''SELECT count(*) OVER (PARTITION BY card ORDER BY ts
    ...     RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW) AS n FROM events'''
    >>> plan = compile_features(SourceText(text), cards, lateness=0, look_back=0)
    >>> plan.entities[0].outputs
    ('count(*) over (card range 1 h to 0)',)
    """
    problems = Problems(source)
    select = read(problems)
    binder = Binder(problems, select, schema)
    binder.bind()
    if label is not None:
        check_labels(binder, select, problems, label)
    problems.stop()
    reads = {h.name: h.columns for h in binder.hidden.values()}
    reads |= {c.name: c.columns for c in binder.calls.values()}
    types = {c.name: f"{c.type} labelled" if c.name == label else str(c.type) for c in schema}
    labelled = labelled_columns(binder.hidden, label) if label is not None else frozenset()
    prints = _Fingerprints(reads, types)
    layers = _layers(binder, prints, lateness, look_back, labelled=labelled)
    features = tuple(_feature(s, reads, binder.calls) for s in binder.features)
    fingerprint = _hash(
        sorted(e.fingerprint for layer in layers for e in layer.entities),
        *([s.name, s.type, s.column or _sql(s.expression)] for s in binder.features),
        sorted(_declared(reads, types, [c for f in features for c in f.columns])),
    )
    declared = {c.name: c.type for c in schema}
    return FeaturePlan(features, layers, schema.event_time, declared, reads, fingerprint, labelled)


def _feature(
    selected: Selected, reads: Mapping[str, frozenset[str]], calls: Mapping[str, WindowCall]
) -> Feature:
    made = Feature(
        selected.name, selected.type, selected.sql, (), selected.column, selected.expression
    )
    keys = {calls[c].keys: None for c in sorted(_behind(reads, made.columns)) if c in calls}
    return Feature(made.name, made.type, made.sql, tuple(keys), made.column, made.expression)


def _layers(
    binder: Binder,
    prints: _Fingerprints,
    lateness: int,
    look_back: int,
    *,
    labelled: frozenset[str],
) -> tuple[Layer, ...]:
    layers = []
    for number in range(max((c.layer + 1 for c in binder.calls.values()), default=0)):
        entities = []
        for keys, calls in _grouped(c for c in binder.calls.values() if c.layer == number).items():
            plan = _entity_plan(keys, calls, binder.columns, lateness, look_back)
            if not labelled.isdisjoint((*plan.values, *plan.filters)):
                plan = _with_offsets(plan)
            names = tuple(c.name for c in calls)
            entities.append(Entity(number, plan, names, prints.of(plan, calls)))
        hidden = tuple(h for h in binder.hidden.values() if h.layer == number)
        layers.append(Layer(hidden, tuple(entities)))
    return tuple(layers)


def _grouped(calls: Iterable[WindowCall]) -> dict[tuple[str, ...], list[WindowCall]]:
    """The calls by keys, sorted: what an entity keeps does not depend on the features' order."""
    groups: dict[tuple[str, ...], list[WindowCall]] = {}
    for call in calls:
        groups.setdefault(call.keys, []).append(call)
    return {keys: sorted(group, key=lambda c: c.name) for keys, group in groups.items()}


def _entity_plan(
    keys: tuple[str, ...],
    calls: Sequence[WindowCall],
    types: Mapping[str, ColumnType],
    lateness: int,
    look_back: int,
) -> EntityPlan:
    values = tuple(dict.fromkeys(c.argument for c in calls if c.argument is not None))
    filters = tuple(dict.fromkeys(c.filter for c in calls if c.filter is not None))
    frames = tuple(dict.fromkeys(c.frame for c in calls if c.frame is not None))
    return EntityPlan(
        keys=keys,
        key_types=tuple(types[k] for k in keys),
        values=values,
        value_types=tuple(types[v] for v in values),
        filters=filters,
        frames=frames,
        calls=tuple(
            Call(
                aggregate=c.aggregate,
                argument=None if c.argument is None else values.index(c.argument),
                type=c.type,
                frame=None if c.frame is None else frames.index(c.frame),
                filter=None if c.filter is None else filters.index(c.filter),
                offset=c.offset,
            )
            for c in calls
        ),
        lateness=lateness,
        look_back=look_back,
    )


def _with_offsets(plan: EntityPlan) -> EntityPlan:
    """The plan with the log offset of each row, by which a label finds it."""
    return replace(plan, values=(*plan.values, LOG_OFFSET), value_types=(*plan.value_types, BIGINT))


@dataclass(frozen=True, slots=True)
class _Fingerprints:
    """The meaning of entities: their plan, and the types of all declared columns behind it."""

    reads: Mapping[str, frozenset[str]]
    types: Mapping[str, str]

    def of(self, plan: EntityPlan, calls: Sequence[WindowCall]) -> str:
        read = [c for call in calls for c in call.columns]
        return _hash(plan, sorted(_declared(self.reads, self.types, read)))


def _declared(
    reads: Mapping[str, frozenset[str]], types: Mapping[str, str], names: Sequence[str]
) -> set[str]:
    """The declared columns behind columns, with their types."""
    return {f"{c}: {types[c]}" for c in _behind(reads, names) if c in types}


def _behind(reads: Mapping[str, frozenset[str]], names: Iterable[str]) -> set[str]:
    """The columns and all that they are computed from."""
    found = set(names)
    waiting = list(found)
    while waiting:
        new = reads.get(waiting.pop(), frozenset()) - found
        found |= new
        waiting += new
    return found


def _sql(expression: Expression | None) -> str:
    return "" if expression is None else expression.sql


def _hash(*parts: object) -> str:
    text = "\n".join([f"layout {_LAYOUT}", *map(repr, parts)])
    return hashlib.sha256(text.encode()).hexdigest()
