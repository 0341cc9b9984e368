"""The features of a batch of events, row by row; few ones become rows of their table later.

As with decisions: those who wait are told at once, the table is written a second later, and columns
of Arrow for the features of forty events take longer than to compute them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from tidegate.batches import joined as one_batch
from tidegate.decisions.whose import FEW, Held, Whose
from tidegate.sql.columns import Column, arrays_of
from tidegate.sql.values import joined as joined_columns
from tidegate.sql.values import values


class Featured(Held):
    """The features of the events `whose`, with their names; `schema` is that of their table.

    A row has whose it is, the features, and the offset.
    """

    names: Sequence[str]
    schema: pa.Schema

    @abstractmethod
    def told(self, begin: int, end: int) -> list[list[Any]]:
        """The values of each feature in the rows `begin <= row < end`."""


_BEFORE, _AFTER = ("event_id", "event_time"), ("log_offset",)  # whose they are


class FeatureRows(Featured):
    """Features as rows of their table."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._rows, self.schema, self.whose = rows, rows.schema, Whose.in_rows(rows)
        self.names = rows.schema.names[len(_BEFORE) : -len(_AFTER)]

    @property
    def rows(self) -> pa.RecordBatch:
        """These."""
        return self._rows

    def told(self, begin: int, end: int) -> list[list[Any]]:
        """Some of them, read from the columns."""
        rows = self._rows.slice(begin, end - begin)
        return [column.to_pylist() for column in rows.columns[len(_BEFORE) : -len(_AFTER)]]


class FewFeatured(Featured):
    """Features of few events; rows of their table are made once they are asked for."""

    def __init__(
        self, whose: Whose, names: Sequence[str], columns: Sequence[Column], schema: pa.Schema
    ) -> None:
        self.whose, self.names, self.columns, self.schema = whose, names, columns, schema

    @cached_property
    def rows(self) -> pa.RecordBatch:
        """Made when first asked for."""
        return _rows(self.whose, arrays_of(self.columns), self.schema)

    def told(self, begin: int, end: int) -> list[list[Any]]:
        """Some of them, as they are held."""
        return values(self.columns, begin, end)


def featured(
    whose: Whose, names: Sequence[str], columns: Sequence[Column], schema: pa.Schema
) -> Featured:
    """The features of events; `schema` is that of their table."""
    if len(whose) <= FEW:
        return FewFeatured(whose, names, columns, schema)
    return FeatureRows(_rows(whose, arrays_of(columns), schema))


def joined(parts: Sequence[Featured]) -> Featured:
    """The features of several batches, which follow each other, as rows of their table."""
    few = [part for part in parts if isinstance(part, FewFeatured)]
    if len(parts) == 1:
        return parts[0]
    schema = parts[0].schema
    if len(few) < len(parts):
        return FeatureRows(one_batch([part.rows for part in parts], schema))
    whose = Whose.joined([part.whose for part in few])
    return FeatureRows(_rows(whose, joined_columns([part.columns for part in few]), schema))


def _rows(whose: Whose, columns: Sequence[pa.Array[Any]], schema: pa.Schema) -> pa.RecordBatch:
    every = [whose.ids, whose.times, *columns, whose.offsets]
    return pa.RecordBatch.from_arrays(every, schema=schema)
