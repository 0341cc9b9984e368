"""The answers to what expressions ask of lists, as columns beside those of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.lists.membership import Lists
from tidegate.sql.columns import Columns, array_of
from tidegate.sql.expression import Expression, ExpressionSet
from tidegate.sql.listed import Question

Integers = npt.NDArray[np.int64]


class ListAnswers:
    """Questions asked together; two that are the same are asked once."""

    def __init__(self, expressions: Iterable[Expression]) -> None:
        found = {q.column: q for e in expressions for q in e.questions}
        self.questions: tuple[Question, ...] = tuple(found.values())
        self._values = ExpressionSet(
            [Expression(q.type, q.reads, q.column, q.value) for q in self.questions]
        )

    def put(self, columns: Columns, lists: Lists, *, event_time: str, newest: Integers) -> None:
        """As `beside`, into columns that need not be a batch."""
        times = columns.array(event_time).view(pa.int64()).to_numpy()
        values = self._values.columns(columns)
        for asked, (value, _) in zip(self.questions, values, strict=True):
            found = lists.ask(asked.name, array_of(value), times=times, newest=newest)
            columns.put(asked.column, found)

    def beside(
        self, batch: pa.RecordBatch, lists: Lists, *, event_time: str, newest: Integers
    ) -> pa.RecordBatch:
        """The batch with a boolean column for each question, named as the question says.

        `event_time` names the column of the events' times, `newest` has for each event the newest
        event time up to and with it, in UTC microseconds.
        """
        if not self.questions:
            return batch
        times = batch[event_time].cast(pa.int64()).to_numpy()
        values = self._values.evaluate(batch)
        columns = [
            lists.ask(q.name, v.values, times=times, newest=newest)
            for q, v in zip(self.questions, values, strict=True)
        ]
        added: list[pa.Field[Any]] = [pa.field(q.column, pa.bool_()) for q in self.questions]
        schema = pa.schema([*batch.schema, *added])
        return pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=schema)
