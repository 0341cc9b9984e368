"""What rules ask of lists, answered for events of the past: each sees a list as it was then."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidegate.backtest.history import OFFSET, Piece, Stored
from tidegate.lists.answers import ListAnswers
from tidegate.lists.history import Changes, ListColumns
from tidegate.program import Program
from tidegate.sql.expression import Expression
from tidegate.tables import LIST_CHANGES

TABLE = "list_changes"


@dataclass(slots=True)
class _Way:
    """One thread's way along the log: as many changes were handed out."""

    columns: ListColumns
    changes: int


class ListTerms:
    """Puts the answers of lists beside events. Thread-safe.

    An entry that has ended counts for an event from before its end however late that came, where
    the engine forgets it after 30 days.
    """

    def __init__(self, tables: Path, program: Program, expressions: Sequence[Expression]) -> None:
        self._expressions = [e for e in expressions if e.questions]
        self._declared = program.lists
        self._time = program.schema.event_time
        self._local = threading.local()
        # What has to be in a batch so that lists can be asked.
        self.columns = frozenset([OFFSET, self._time] if self._expressions else [])
        self._changes = _stored(tables) if self._expressions else LIST_CHANGES.empty_table()
        self._offsets = self._changes.column(OFFSET).to_numpy()

    def beside(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch, in any order, with a boolean column for each question that is asked."""
        if not self._expressions or not batch.num_rows:
            return batch
        offsets = batch[OFFSET].to_numpy()
        if np.all(offsets[1:] >= offsets[:-1]):
            return self._answered(batch)
        order = np.argsort(offsets, kind="stable")
        places = np.argsort(order, kind="stable")
        return self._answered(batch.take(pa.array(order, pa.int64()))).take(
            pa.array(places, pa.int64())
        )

    def _answered(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        first, last = (int(batch[OFFSET][row].as_py()) for row in (0, batch.num_rows - 1))
        way = self._way(int(np.searchsorted(self._offsets, first)))
        way.changes = max(way.changes, int(np.searchsorted(self._offsets, last)))
        times = batch[self._time].cast(pa.int64()).to_numpy()
        return way.columns.beside(batch, event_time=self._time, newest=times)

    def _way(self, changes: int) -> _Way:
        """The way of this thread, begun anew where it is further than so many changes."""
        way: _Way | None = getattr(self._local, "way", None)
        if way is None or way.changes > changes:
            answers = ListAnswers(self._expressions)
            columns = ListColumns(answers, self._declared, Changes(self._changes))
            way = self._local.way = _Way(columns, 0)
        return way


def _stored(tables: Path) -> pa.Table:
    """The changes of lists in order of the log; none where there is no such table."""
    if not (tables / TABLE / "_delta_log").is_dir():
        return LIST_CHANGES.empty_table()
    stored = Stored(tables / TABLE)
    whole = Piece(tuple(stored.days(None, None)), 0, 2**63 - 1, 0)
    rows, _ = stored.read(whole, LIST_CHANGES.names)
    order = np.argsort(rows.column(OFFSET).to_numpy(), kind="stable")
    return rows.take(pa.array(order, pa.int64()))
