"""What a window query keeps of each event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.batches import empty
from tidegate.schema import Schema
from tidegate.sql.expression import Evaluated, Expression, ExpressionSet
from tidegate.sql.tree import COLUMN

# The first held column: the event time as int64. No name of a user's column begins with a blank.
HELD_TIME = " event_time"
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The rows of a batch that a query takes up.

    `rows` holds their event time and the held columns; `positions` are their places in the batch;
    `errors` are the places of rows that were left out, each with the reason.
    """

    rows: pa.RecordBatch
    positions: Indices
    errors: tuple[tuple[int, str], ...]


class Intake:
    """Filters events by WHERE and computes the columns that are held until windows close."""

    def __init__(
        self, schema: Schema, where: Expression | None, held: Mapping[str, Expression]
    ) -> None:
        self._event_time = schema.event_time
        self.where = where
        self._where = None if where is None else ExpressionSet([where])
        self._plain = {n: str(e.tree.value) for n, e in held.items() if e.tree.op is COLUMN}
        self._computed = {n: e for n, e in held.items() if n not in self._plain}
        self._expressions = ExpressionSet(list(self._computed.values()))
        fields = [pa.field(n, e.type.arrow) for n, e in held.items()]
        self.schema = pa.schema([pa.field(HELD_TIME, pa.int64(), nullable=False), *fields])
        self._nothing = empty(self.schema)
        read = {schema.event_time}.union(*(e.columns for e in held.values()))
        self._read = [n for n in schema.names if n in read]

    def take(self, events: pa.RecordBatch, *, chosen: Evaluated | None = None) -> Taken:
        """The events for which WHERE is true, with what the query keeps of them.

        `chosen` is the value of WHERE for each event, where somebody has it already.
        """
        positions, errors = self._matching(events, chosen)
        events = events.select(self._read)
        if len(positions) < events.num_rows:
            events = events.take(positions)
        rows, failed = self._held(events)
        if failed:
            errors |= {int(positions[i]): message for i, message in failed.items()}
            kept = np.setdiff1d(np.arange(len(positions)), list(failed))
            rows, positions = rows.take(kept), positions[kept]
        return Taken(rows, positions, tuple(sorted(errors.items())))

    def _matching(
        self, events: pa.RecordBatch, chosen: Evaluated | None
    ) -> tuple[Indices, dict[int, str]]:
        if self._where is None or not events.num_rows:
            return np.arange(events.num_rows, dtype=np.int64), {}
        result = chosen or self._where.evaluate(events)[0]
        return true_rows(result.values), dict(result.errors)

    def _held(self, events: pa.RecordBatch) -> tuple[pa.RecordBatch, Mapping[int, str]]:
        if not events.num_rows:
            return self._nothing, {}
        results = dict(zip(self._computed, self._expressions.evaluate(events), strict=True))
        columns: list[pa.Array[Any]] = [events.column(self._event_time).view(pa.int64())]
        for name in self.schema.names[1:]:
            plain = self._plain.get(name)
            columns.append(results[name].values if plain is None else events.column(plain))
        rows = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        return rows, failures(results)


def failures(results: Mapping[str, Evaluated]) -> dict[int, str]:
    """Rows in which anything failed, each with its first reason."""
    failed: dict[int, str] = {}
    for result in results.values():
        for row, message in result.errors.items():
            failed.setdefault(row, message)
    return failed


def true_rows(column: pa.Array[Any]) -> Indices:
    """The places where a boolean column is true, not false or null."""
    mask = column.fill_null(False).to_numpy(zero_copy_only=False)  # noqa: FBT003 - Arrow's own signature
    return np.flatnonzero(mask).astype(np.int64)
