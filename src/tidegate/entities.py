"""What the features of one entity are now, computed anew from the table of events.

Exact, and beside a running server: the events of the entity are read in the order of the log, each
with the newest event time of the whole stream, as the engine saw them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.access.pii import hidden
from tidegate.errors import InputError, RequestError
from tidegate.evaluator import BEGINNING, newest_times
from tidegate.features.compile import FeaturePlan
from tidegate.hiding import Hiding
from tidegate.labels.correction import Labelling
from tidegate.labels.history import LabelRows, Past
from tidegate.past import end_of, written_past
from tidegate.program import Program
from tidegate.project.values import suggestion
from tidegate.schema import Schema

Entity = Mapping[str, object]


def entity_of(written: str, schema: Schema) -> dict[str, object]:
    """The entity in `card=4711` or `store=7,terminal=12`; a name alone stands for null.

    Raises: RequestError for a column that there is not, or a value of another type.
    """
    entity: dict[str, object] = {}
    for part in written.split(","):
        name, equals, text = part.partition("=")
        name = name.strip()
        column = schema.by_name.get(name)
        if column is None:
            hint = suggestion(name, schema.names)
            raise RequestError(f"there is no column `{name}`; {hint}", code="unknown_column")
        try:
            value = pa.array([text if equals else None], pa.string()).cast(column.type.arrow)
        except pa.ArrowException as error:
            message = f"`{name}` is {column}, and `{text}` is not"
            raise RequestError(message, code="wrong_value") from error
        entity[name] = value[0].as_py()
    return entity


def current(
    program: Program, tables: Path, entities: Sequence[Entity], *, hiding: Hiding | None = None
) -> pa.Table:
    """The features of entities as an event of now would see them before it counts, a row for each.

    Now is the newest event time of the stream, in the column `as_of`; `entity` names the row. The
    features are those that depend on columns of the entity alone; where the entities given are of
    several kinds, those of the other kinds are null. With `hiding`, pseudonyms stand in features
    that carry what is marked.
    Raises: InputError without features or without events; RequestError where no window is kept by
    such an entity.
    """
    plan = _plan(program)
    from tidegate.features.state import FeatureState  # it loads the kernels

    threads = os.cpu_count() or 1
    state = FeatureState(plan, key=os.urandom(16), threads=threads, lasting=False)
    keys = None if any(_needs_all(plan, e) for e in entities) else entities
    newest = BEGINNING
    labels = Labelling(program.project)
    for stretch in _history(program, tables):
        if isinstance(stretch, LabelRows):
            labels.take(stretch.rows, state)
            continue
        events, times = labels.fill(stretch), newest_times(stretch, program, newest)
        newest = int(times[-1])
        chosen = None if keys is None else _mask(plan, events, keys)
        if chosen is None:
            state.update(events, newest=times)
        elif chosen.any():
            state.update(events.filter(pa.array(chosen)), newest=times[chosen])
    if newest == BEGINNING:
        raise InputError("there are no events yet")
    rows = []
    for entity in entities:
        values = state.peek(entity, time=newest, newest=newest).values
        named: list[pa.Array[Any]] = [
            pa.array([_shown(entity)]),
            pa.array([newest], pa.timestamp("us")),
        ]
        names = ["entity", "as_of", *values.schema.names]
        rows.append(pa.Table.from_arrays([*named, *values.columns], names=names))
    found = pa.concat_tables(rows, promote_options="default")
    return found if hiding is None else hidden(found, hiding.columns("features"), hiding.key)


def explained(program: Program) -> tuple[pa.Table, pa.Table]:
    """What the features keep: a table of the entities, and one of what is computed for them.

    The first has a row for each PARTITION BY and layer, with the bytes that an event and a key
    take; the second one for each window function, with the features that share it.
    Raises: InputError if the program has no features.
    """
    plan = _plan(program)
    from tidegate.features.state import FeatureState  # it loads the kernels

    entities, calls = [], []
    for usage in FeatureState(plan, key=bytes(16)).usage():
        kept = usage.entity
        name = ", ".join(kept.plan.keys) or "(the whole stream)"
        entities.append(
            {
                "entity": name,
                "layer": kept.layer,
                "windows": len(kept.plan.frames),
                "functions": len(kept.outputs),
                "values kept": len(kept.plan.values) + len(kept.plan.filters),
                "bytes an event": usage.bytes_per_row,
                "bytes a key": usage.bytes_per_key,
                "reach in days": round(kept.plan.reach / 86_400e6, 6),
            }
        )
        for output in kept.outputs:
            users = [f.name for f in plan.features if output in plan.behind(f.columns)]
            calls.append({"window function": output, "features": ", ".join(users)})
    return pa.Table.from_pylist(entities), pa.Table.from_pylist(calls)


def _plan(program: Program) -> FeaturePlan:
    if program.features is None:
        raise InputError("the project has no `[features]` in tidegate.toml")
    return program.features


def _needs_all(plan: FeaturePlan, entity: Entity) -> bool:
    """Whether what is shown of an entity depends on events of others.

    So it is where a window is over the values of another entity's windows, over the whole stream,
    or by what an expression makes of a column.
    """
    known = {*entity, plan.event_time}
    for kept in plan.entities:
        if plan.behind(kept.plan.keys) & set(plan.declared) <= known:
            known.update(kept.outputs)
    shown = [f for f in plan.features if f.entities and f.columns <= known]
    needed = {keys for f in shown for keys in f.entities}
    return any(not keys or not set(keys) <= set(entity) for keys in needed)


def _mask(plan: FeaturePlan, events: pa.RecordBatch, entities: Sequence[Entity]) -> Any:
    """The events that belong to any of the entities, by any of the keys that they have."""
    sets = {frozenset(kept.plan.keys) for kept in plan.entities}
    masks = [
        reduce(pc.and_, [_equal(events[name], entity[name]) for name in sorted(keys)])
        for entity in entities
        for keys in sets
        if keys and keys <= set(entity)
    ]
    if not masks:
        return np.zeros(events.num_rows, dtype=np.bool_)
    return reduce(pc.or_, masks).to_numpy(zero_copy_only=False)


def _equal(column: pa.Array[Any], value: object) -> pa.Array[Any]:
    if value is None:
        return pc.is_null(column)
    return pc.equal(column, pa.scalar(value, column.type)).fill_null(False)  # noqa: FBT003 - a value


def _history(program: Program, tables: Path) -> Iterator[Past]:
    """The events with the columns that features read, and the labels if they read any."""
    plan = _plan(program)
    with_labels = plan.takes_labels
    end = end_of(tables, with_labels=with_labels)
    columns = plan.columns | {program.schema.id} if with_labels else plan.columns
    return written_past(tables, 0, end, columns=columns, with_labels=with_labels)


def _shown(entity: Entity) -> str:
    return ",".join(name if v is None else f"{name}={v}" for name, v in entity.items())
