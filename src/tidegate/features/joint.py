"""A batch of few events on its way through several entities at once.

Whatever is done once for each entity costs as much as some rows: so all columns that are read are
described in one place, and all results are written to one slab.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tidegate.features.batch import PLACE, Batch, Reader, Results, Writer
from tidegate.features.emission import ERRORS, NULLS, PLAN
from tidegate.features.inputs import PLACES, PLANNED, SLAB, SLOTS
from tidegate.features.memory import Words
from tidegate.sql.columns import Column, Columns, Piece, Shape, Slab


class Member(NamedTuple):
    """What reads the columns of an entity and writes its results, and where its shards lie."""

    reader: Reader
    writer: Writer
    directory: Words


class Joint:
    """Entities that take the same rows in, in this order; one thread at a time may use it."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._shape = Shape([t for m in members for t in m.writer.types])
        self._names = tuple(dict.fromkeys(n for m in members for n in m.reader.columns))
        self._places: Words = np.zeros(PLACE * len(self._names), dtype=np.int64)
        self._slots = [m.reader.slots_among(self._names) for m in members]
        ends = np.cumsum([m.writer.calls for m in members]).tolist()
        self._spans = list(zip([0, *ends], ends, strict=False))
        self._mark = object()  # what is charted for another one is to be charted anew
        self._batches: list[Batch] = []
        self._charts: Words = np.zeros(0, dtype=np.int64)
        self._tops: list[int] = []
        self._planned: Words = np.zeros(0, dtype=np.int64)

    def begin(self, columns: Columns) -> tuple[Words, Slab]:
        """The charts by which kernels find the columns' rows, and the memory for the results.

        What was begun before is not to be used any more.
        """
        batches = [m.reader.batch(columns.rows) for m in self._members]
        if any(batch.owner is not self._mark for batch in batches):
            self._chart(batches)
        self._places[:] = columns.places(self._names)
        slab = Slab(self._shape, columns.rows)
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

    def end(self, slab: Slab) -> list[Results]:
        """What kernels wrote, for each entity."""
        planned = self._planned.reshape(-1, PLAN)
        slab.nulls, wrong = planned[:, NULLS].tolist(), planned[:, ERRORS].tolist()
        columns: list[Column] = [Piece(slab, number) for number in range(len(wrong))]
        found = []
        for member, batch, (first, last) in zip(
            self._members, self._batches, self._spans, strict=True
        ):
            own = columns[first:last]
            member.writer.add_texts(own, slab, first, batch, member.directory)
            found.append(member.writer.results(own, wrong[first:last], batch))
        return found
