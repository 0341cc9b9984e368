"""A window query, compiled: the windows, what it keeps of each event, what it makes of a group."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from tidegate.schema import Schema
from tidegate.sql.expression import Expression
from tidegate.sql.source import SourceText
from tidegate.windows import azure, standard
from tidegate.windows.binding import Binder, Bound
from tidegate.windows.emission import Emission
from tidegate.windows.folding import Folding, folding
from tidegate.windows.grid import Grid
from tidegate.windows.intake import Intake
from tidegate.windows.problems import Problems
from tidegate.windows.spelling import refuse_foreign
from tidegate.windows.statement import StreamAnalytics, read

# Part of every fingerprint: raised when held rows change their layout or meaning.
_LAYOUT = 1


@dataclass(frozen=True, eq=False)
class WindowQuery:
    """A compiled window query.

    `schema` has the selected columns and then `window_start`, `window_end`, `log_offset`;
    `selected` are the names that the query itself selects, in order. `outputs` are the names given
    by `INTO`. `columns` are the stream's columns that the query reads, its id and time among them.
    `fingerprint` is equal for queries that mean the same: only then may one take over the other's
    state. `lateness` is in microseconds; the watermarks given to the state contain it already.
    """

    name: str
    grid: Grid
    lateness: int
    outputs: tuple[str, ...]
    selected: tuple[str, ...]
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    fingerprint: str
    event_id: str
    event_time: str
    intake: Intake
    folding: Folding | None
    emission: Emission

    @property
    def size(self) -> int:
        """How long a window lasts, in microseconds."""
        return self.grid.size

    @property
    def hop(self) -> int:
        """How far apart windows begin, in microseconds; equal to the size when they tumble."""
        return self.grid.hop

    @property
    def held_schema(self) -> pa.Schema:
        """The Arrow schema of the rows that are held until their windows close."""
        return self.intake.schema if self.folding is None else self.folding.schema

    @property
    def where(self) -> Expression | None:
        """The condition that an event must meet to count."""
        return self.intake.where

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows that the query emits."""
        return self.emission.schema


def compile_query(name: str, source: SourceText, schema: Schema, *, lateness: int) -> WindowQuery:
    """The compiled window query of a SQL text, in either spelling.

    `lateness` is the stream's allowed lateness in microseconds.

    Raises: ProjectError with every mistake, each with its place and a hint.

    >>> shop = Schema.of([("id", "text"), ("ts", "timestamp")], id="id", event_time="ts")
    >>> text = "SELECT count(*) AS n FROM events GROUP BY TUMBLE(ts, INTERVAL 1 HOUR)"
    >>> compile_query("hourly", SourceText(text), shop, lateness=0).schema.names
    ['n', 'window_start', 'window_end', 'log_offset']
    """
    problems = Problems(source)
    statement = read(problems)
    refuse_foreign(problems, statement.select)
    spelling = azure if statement.dialect is StreamAnalytics else standard
    plain = spelling.plain(problems, statement, schema)
    bound = Binder(problems, plain, schema).bind()
    problems.stop()
    intake = Intake(schema, bound.where, bound.held)
    folds = folding(intake.schema, bound.keys, bound.aggregates)
    return WindowQuery(
        name=name,
        grid=plain.grid,
        lateness=lateness,
        outputs=statement.outputs,
        selected=tuple(bound.selected),
        columns=_columns(bound, schema),
        keys=tuple(bound.keys),
        fingerprint=_fingerprint(bound, plain.grid, schema),
        event_id=schema.id,
        event_time=schema.event_time,
        intake=intake,
        folding=folds,
        emission=Emission(
            keys=bound.keys,
            aggregates=bound.aggregates,
            outputs=bound.outputs,
            having=bound.having,
            folding=folds,
        ),
    )


def _columns(bound: Bound, schema: Schema) -> tuple[str, ...]:
    expressions = [*bound.held.values(), *([bound.where] if bound.where else [])]
    read = {schema.id, schema.event_time}.union(*(e.columns for e in expressions))
    return tuple(n for n in schema.names if n in read)


def _fingerprint(bound: Bound, grid: Grid, schema: Schema) -> str:
    types = [f"{n}: {schema.by_name[n]}" for n in _columns(bound, schema)]
    made = [
        f"{o.name} = {o.expression.sql if o.expression else o.list_name}" for o in bound.outputs
    ]
    parts = [
        f"layout {_LAYOUT}",
        f"{grid} over {schema.event_time}",
        *types,
        f"where {bound.where.sql if bound.where else None}",
        *(f"held {name} = {e.sql}" for name, e in bound.held.items()),
        f"by {bound.keys}",
        *made,
        f"having {bound.having.sql if bound.having else None}",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
