"""A batch of few events on its way through a whole plan, laid out once for all such batches.

What Python does for a hundred events takes half as long as all that is compiled. So columns have
numbers here, and one table says where each lies: kernels look there, and no name is looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tidegate.events.fingerprints import Integers
from tidegate.features.compile import FeaturePlan
from tidegate.features.entity import EntityState, join, take_found
from tidegate.features.memory import Words
from tidegate.features.table import Table
from tidegate.sql.columns import Column, Columns, Piece, place_of
from tidegate.sql.direct import GiveUp
from tidegate.sql.expression import ExpressionSet
from tidegate.sql.places import PLACE, find_places

_SCHEMAS_MAX = 8  # for which a way is kept


class Section(NamedTuple):
    """A layer: columns that are evaluated, those taken as numbers, then the states of entities.

    `numbers` are pairs of a name and the column that it is of; `outputs` name what the calls give,
    of which `texts` are texts.
    """

    names: Sequence[str]
    expressions: ExpressionSet
    numbers: Sequence[tuple[str, str]]
    states: Sequence[EntityState]
    outputs: Sequence[str]
    texts: frozenset[str]


class Goal(NamedTuple):
    """What comes out: for each feature the column that it is, or None for the next expression."""

    expressions: ExpressionSet
    columns: Sequence[str | None]


class Stopped(NamedTuple):
    """A batch some row of which has an error: what is known of it after so many layers."""

    table: Table
    layers: int


class Course:
    """The way through the sections of a plan to its goal; one thread at a time may use it.

    It serves as long as the sections keep their states, and these the words for their nulls.
    """

    def __init__(self, plan: FeaturePlan, sections: Sequence[Section], goal: Goal) -> None:
        self._plan, self._sections, self._goal = plan, sections, goal
        self._ways: list[_Way] = []

    def run(
        self, events: pa.RecordBatch, *, times: Integers, newest: Integers
    ) -> list[Column] | Stopped:
        """The column of each feature, for one event or more.

        All that was begun before must have ended. Where it stops, nothing has come to the layers
        after those that are done.
        """
        return self._way(events.schema).run(_Batch(events, times, newest))

    def _way(self, schema: pa.Schema) -> _Way:
        for way in self._ways:
            if way.schema.equals(schema):
                return way
        del self._ways[_SCHEMAS_MAX - 1 :]
        self._ways.insert(0, _Way(schema, self._plan, self._sections, self._goal))
        return self._ways[0]


class _Batch:
    """Events, and the columns made of them so far."""

    __slots__ = ("events", "made", "newest", "rows", "times")

    def __init__(self, events: pa.RecordBatch, times: Integers, newest: Integers) -> None:
        self.events, self.times, self.newest = events, times, newest
        self.rows = events.num_rows
        self.made: list[Column] = []


class _Map:
    """The numbers of columns: of those made on the way, then of those of a batch.

    `places` has `PLACE` words for each, `table` is the same as rows.
    """

    def __init__(self, plan: FeaturePlan, made: Sequence[str], schema: pa.Schema) -> None:
        self.plan, self.names = plan, [*made, *schema.names]
        self.places: Words = np.zeros(PLACE * len(self.names), dtype=np.int64)
        self.table = self.places.reshape(-1, PLACE)
        self.given = self.places[PLACE * len(made) :]

    def numbers(self, names: Sequence[str]) -> Words:
        """The numbers of columns."""
        return np.array([self.names.index(name) for name in names], dtype=np.int64)

    def put(self, number: int, column: Column) -> None:
        """Have a number stand for a column."""
        self.table[number] = column.place if isinstance(column, Piece) else place_of(column)

    def columns(self, batch: _Batch) -> Columns:
        """What is known of a batch, by names."""
        return Columns(batch.events, dict(zip(self.names, batch.made, strict=False)))

    def known(self, batch: _Batch) -> Table:
        """The same, to go on with where rows have errors."""
        table = Table(batch.events, self.plan.reads)
        table.columns.put_all(self.names[: len(batch.made)], batch.made)
        return table


class _Evaluating:
    """Expressions, whose values have numbers from `first` on if windows may read them."""

    def __init__(
        self, expressions: ExpressionSet, at: _Map, *, layers: int, first: int | None
    ) -> None:
        self._expressions, self._map = expressions, at
        self._layers, self._first = layers, first
        self._machine = expressions.machine
        self._count = len(expressions.expressions)
        self._numbers = at.numbers(self._machine.names if self._machine else ())

    def run(self, batch: _Batch) -> Stopped | None:
        """Add the values."""
        if (machine := self._machine) is not None:
            try:
                slab = machine.run_by(batch.rows, self._map.table, self._numbers)
            except GiveUp:
                return self._run_otherwise(batch)
            if self._first is not None:
                machine.put(slab, self._map.places, self._first)
            batch.made += [Piece(slab, i) for i in range(self._count)]
            return None
        return self._run_otherwise(batch)

    def _run_otherwise(self, batch: _Batch) -> Stopped | None:
        found = self._expressions.columns(self._map.columns(batch))
        if any(errors for _, errors in found):
            return Stopped(self._map.known(batch), self._layers)
        columns = [column for column, _ in found]
        if self._first is not None:
            for number, column in enumerate(columns, start=self._first):
                self._map.put(number, column)
        batch.made += columns
        return None


class _Counting:
    """Columns taken as numbers."""

    def __init__(self, numbers: Sequence[tuple[str, str]], at: _Map) -> None:
        self._numbers, self._map = numbers, at

    def run(self, batch: _Batch) -> None:
        """Add them."""
        for _, source in self._numbers:
            column = self._map.columns(batch).array(source).cast(pa.int64())
            self._map.put(len(batch.made), column)
            batch.made.append(column)


class _Taking:
    """The windows of a section, whose values have numbers from `first` on."""

    def __init__(self, section: Section, at: _Map, *, layers: int, first: int) -> None:
        self._states, self._names, self._map = section.states, section.outputs, at
        self._joint = join(section.states, at.names, at.places)
        self._layers, self._first = layers, first
        self._texts = [i for i, name in enumerate(section.outputs) if name in section.texts]

    def run(self, batch: _Batch) -> Stopped | None:
        """Take the events in, and add what the calls give."""
        times, newest = batch.times, batch.newest
        passed = take_found(self._states, self._joint, batch.rows, times=times, newest=newest)
        if any(passed.wrong):
            table = self._map.known(batch)
            found = chain.from_iterable(r.found() for r in self._joint.results(passed))
            table.take(self._names, list(found))
            return Stopped(table, self._layers)
        self._joint.put(passed.slab, self._first)
        for i in self._texts:
            self._map.put(self._first + i, passed.columns[i])
        batch.made += passed.columns
        return None


class _Way:
    """A course for batches of one schema."""

    def __init__(
        self, schema: pa.Schema, plan: FeaturePlan, sections: Sequence[Section], goal: Goal
    ) -> None:
        self.schema = schema
        made = [n for s in sections for n in (*s.names, *(m for m, _ in s.numbers), *s.outputs)]
        self._map = _Map(plan, made, schema)
        self._stages: list[_Evaluating | _Counting | _Taking] = []
        first = 0
        for layer, section in enumerate(sections):
            first = self._lay(layer, section, first)
        if goal.expressions.expressions:
            last = _Evaluating(goal.expressions, self._map, layers=len(sections), first=None)
            self._stages.append(last)
        self._as_given = [c for c in goal.columns if c is not None and c not in made]
        evaluated = [object() for _ in goal.expressions.expressions]
        order, following = [*made, *evaluated, *self._as_given], iter(evaluated)
        self._chosen = [order.index(next(following) if c is None else c) for c in goal.columns]

    def _lay(self, layer: int, section: Section, first: int) -> int:
        """Add the stages of a section, which has numbers from `first` on; gives where they end."""
        at, add = self._map, self._stages.append
        if section.names:
            add(_Evaluating(section.expressions, at, layers=layer, first=first))
        if section.numbers:
            add(_Counting(section.numbers, at))
        first += len(section.names) + len(section.numbers)
        if section.states:
            add(_Taking(section, at, layers=layer + 1, first=first))
        return first + len(section.outputs)

    def run(self, batch: _Batch) -> list[Column] | Stopped:
        """The column of each feature."""
        find_places(batch.events, self._map.given)
        for stage in self._stages:
            if (stopped := stage.run(batch)) is not None:
                return stopped
        made = batch.made
        made += [batch.events.column(name) for name in self._as_given]
        return [made[number] for number in self._chosen]
