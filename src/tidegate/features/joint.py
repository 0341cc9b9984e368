"""A batch of few events on its way through several entities at once.

Whatever is done once for each entity costs as much as some rows: so all columns that are read are
described in one place, and all results are written to one slab.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tidegate.features.batch import PLACE, Batch, Reader, Results, Writer
from tidegate.features.emission import ERRORS, NULLS, PLAN
from tidegate.features.inputs import PLACES, PLANNED, SLAB, SLOTS
from tidegate.features.memory import Words
from tidegate.sql.columns import Column, Columns, Piece, Shape, Slab
from tidegate.sql.places import putter


class Member(NamedTuple):
    """What reads the columns of an entity and writes its results, and where its shards lie."""

    reader: Reader
    writer: Writer
    directory: Words


class Passed(NamedTuple):
    """What calls gave for a batch: a column for each, and how many errors it has."""

    slab: Slab
    columns: list[Column]
    wrong: list[int]


class Joint:
    """Entities that take the same rows in, in this order; one thread at a time may use it.

    `names` are the columns of whose `places` others see to: `PLACE` words for each.
    """

    def __init__(
        self,
        members: Sequence[Member],
        names: Sequence[str] | None = None,
        places: Words | None = None,
    ) -> None:
        self._members = members
        self._shape = Shape([t for m in members for t in m.writer.types])
        read = tuple(dict.fromkeys(n for m in members for n in m.reader.columns))
        self._names = read if names is None else names
        self._places = np.zeros(PLACE * len(read), np.int64) if places is None else places
        self._slots = [m.reader.slots_among(self._names) for m in members]
        ends: list[int] = np.cumsum([m.writer.calls for m in members]).tolist()
        self._spans = list(zip([0, *ends], ends, strict=False))
        self._mark = object()  # what is charted for another one is to be charted anew
        self._batches: list[Batch] = []
        self._charts: Words = np.zeros(0, dtype=np.int64)
        self._tops: list[int] = []
        self._planned: Words = np.zeros(0, dtype=np.int64)

    def find(self, columns: Columns) -> None:
        """Have the places say where the columns lie."""
        self._places[:] = columns.places(self._names)

    def begin(self, rows: int) -> tuple[Words, Slab]:
        """The charts by which kernels find so many rows, and the memory for the results.

        What was begun before is not to be used any more.
        """
        batches = [m.reader.batch(rows) for m in self._members]
        if any(batch.owner is not self._mark for batch in batches):
            self._chart(batches)
        slab = Slab(self._shape, rows)
        for batch, top in zip(batches, self._tops, strict=True):
            batch.chart[SLAB] = slab.address + top
        return self._charts, slab

    def _chart(self, batches: list[Batch]) -> None:
        """Have the charts of new batches tell of what all have in common."""
        n = batches[0].n
        self._batches, spans = batches, self._shape.spans(n).spans
        self._planned = np.concatenate([m.writer.plan(n) for m in self._members])
        self._tops, planned = [], int(self._planned.ctypes.data)
        for batch, slots, (first, last) in zip(batches, self._slots, self._spans, strict=True):
            batch.chart[PLACES], batch.chart[SLOTS] = self._places.ctypes.data, slots.ctypes.data
            batch.chart[PLANNED] = planned + 8 * PLAN * first
            batch.owner = self._mark
            self._tops.append(spans[first][0] if first < last else 0)
        self._charts = np.array([batch.charted for batch in batches], dtype=np.int64)

    def end(self, slab: Slab) -> Passed:
        """What kernels wrote."""
        planned = self._planned
        slab.nulls, wrong = planned[NULLS::PLAN].tolist(), planned[ERRORS::PLAN].tolist()
        columns: list[Column] = [Piece(slab, number) for number in range(len(wrong))]
        for member, batch, (first, _) in self._each():
            member.writer.add_texts(columns, slab, first, batch, member.directory)
        return Passed(slab, columns, wrong)

    def results(self, passed: Passed) -> list[Results]:
        """The same for each entity, until something else is begun."""
        _, columns, wrong = passed
        return [
            member.writer.results(columns[first:last], wrong[first:last], batch)
            for member, batch, (first, last) in self._each()
        ]

    def put(self, slab: Slab, first: int) -> None:
        """Have the places say where the results lie, from number `first` on, texts apart."""
        spans = self._shape.spans(slab.rows).words
        putter.get()(self._places, first, spans, self._planned[NULLS::PLAN], slab.address)

    def _each(self) -> Iterable[tuple[Member, Batch, tuple[int, int]]]:
        return zip(self._members, self._batches, self._spans, strict=True)
