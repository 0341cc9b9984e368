"""Lists as they were along the log: the changes of the table `list_changes`, met event by event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.controls import ListRecord
from tidegate.lists.answers import ListAnswers
from tidegate.lists.membership import Lists
from tidegate.schema import ColumnType

Integers = npt.NDArray[np.int64]


class Changes:
    """Changes of lists in order of the log, handed out as events pass by. Used once.

    `rows` are those of the table `list_changes` in order of `log_offset`; none for None.
    """

    def __init__(self, rows: pa.Table | None = None) -> None:
        self._records = [] if rows is None else _records(rows)
        self._next = 0

    @classmethod
    def as_now(cls, rows: pa.Table) -> Changes:
        """The changes as if all had come before any event, for events that came from elsewhere."""
        made = cls(rows)
        made._records = [(-1, record) for _, record in made._records]
        return made

    def before(self, offset: int) -> Iterator[ListRecord]:
        """The changes below a log offset that were not handed out yet."""
        while self._next < len(self._records) and self._records[self._next][0] < offset:
            self._next += 1
            yield self._records[self._next - 1][1]

    def cut(self, events: pa.RecordBatch) -> Iterator[tuple[Sequence[ListRecord], pa.RecordBatch]]:
        """Events in stretches within which no list changes, each with the changes before it.

        `events` have `log_offset` and follow those of the last call.
        """
        if not events.num_rows:
            return
        offsets = events["log_offset"].to_numpy()
        ends = self._ends(offsets)
        for first, end in zip([0, *ends], [*ends, len(offsets)], strict=True):
            changes = list(self.before(int(offsets[first])))
            yield changes, events.slice(first, end - first)

    def _ends(self, offsets: Integers) -> list[int]:
        """The rows, beyond the first, before which a list changes."""
        first, last = int(offsets[0]), int(offsets[-1])
        at, rows = self._next, set[int]()
        while at < len(self._records) and (offset := self._records[at][0]) < last:
            if offset > first:
                rows.add(int(np.searchsorted(offsets, offset)))
            at += 1
        return sorted(rows)


class ListColumns:
    """The answers of lists for events of the past, who see each list as it was at their offset.

    For a backtest: `answers` say what a candidate's rules ask, `declared` the lists of the
    candidate. Batches are to be given in order of the log, and only once.
    """

    def __init__(
        self, answers: ListAnswers, declared: Mapping[str, ColumnType], changes: Changes
    ) -> None:
        self._answers = answers
        self._lists = Lists(declared)
        self._changes = changes

    def beside(
        self, events: pa.RecordBatch, *, event_time: str, newest: Integers
    ) -> pa.RecordBatch:
        """The batch with a boolean column for each question; see `ListAnswers.beside`.

        `events` have `log_offset`.
        """
        if not self._answers.questions:
            return events
        parts, row = [], 0
        for changes, part in self._changes.cut(events):
            here = newest[row : row + part.num_rows]
            for change in changes:
                self._lists.apply(change, newest=int(here[0]))
            parts.append(
                self._answers.beside(part, self._lists, event_time=event_time, newest=here)
            )
            row += part.num_rows
        if not parts:
            return self._answers.beside(events, self._lists, event_time=event_time, newest=newest)
        whole = pa.Table.from_batches(parts).combine_chunks().to_batches()
        return whole[0]


def _records(rows: pa.Table) -> list[tuple[int, ListRecord]]:
    """Offset and record of each change; rows that one record made are one again."""
    records: list[tuple[int, ListRecord]] = []
    columns = [rows.column(name).to_pylist() for name in ("log_offset", "list", "change", "value")]
    columns.append(rows.column("until").cast(pa.int64()).to_pylist())
    before: tuple[Any, ...] | None = None
    values: list[str] = []
    for offset, name, change, value, until in [*zip(*columns, strict=True), (None,) * 5]:
        if before is not None and before[0] != offset:
            _, name_, change_, until_ = before
            records.append((before[0], ListRecord(name_, change_, tuple(values), until_)))
            values = []
        before = (offset, name, change, until)
        values.append(value)
    return records
