"""The columns of a batch while its features are computed, and the rows of them that have errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tidegate.sql.columns import Column, Columns, array_of

Errors: TypeAlias = Mapping[int, str]

NO_ERRORS: Errors = {}


class Table:
    """The columns that are known so far, by name; `errors` has the rows of each that failed.

    `reads` tells for columns that are made on the way from which others they are computed.
    """

    __slots__ = ("_reads", "columns", "errors")

    def __init__(self, events: pa.RecordBatch, reads: Mapping[str, frozenset[str]]) -> None:
        self._reads = reads
        self.columns = Columns(events)
        self.errors: dict[str, Errors] = {}

    @property
    def events(self) -> pa.RecordBatch:
        """The batch that everything is computed from."""
        return self.columns.batch

    @property
    def known(self) -> frozenset[str]:
        """The names of the columns."""
        return self.columns.known

    def column(self, name: str) -> pa.Array[Any]:
        """The column of that name."""
        return self.columns.array(name)

    def batch(self, names: Sequence[str]) -> pa.RecordBatch:
        """The columns of those names, among others."""
        return self.columns.batch_of(names)

    def put(self, name: str, column: Column, errors: Errors) -> None:
        """Take in a column; where what it is computed from has an error, so has it."""
        if self.errors or errors:
            failed = {**errors, **self.inherited(self._reads[name])}
            if failed:
                column, self.errors[name] = with_errors(array_of(column), failed)
        self.columns.put(name, column)

    def take(self, names: Sequence[str], found: Sequence[tuple[Column, Errors]]) -> None:
        """Take in columns of those names, each with its errors."""
        if self.errors or any(errors for _, errors in found):
            for name, (column, errors) in zip(names, found, strict=True):
                self.put(name, column, errors)
        else:
            self.columns.put_all(names, [column for column, _ in found])

    def inherited(self, columns: frozenset[str]) -> dict[int, str]:
        """The errors in any of the columns."""
        if not self.errors:
            return {}
        told = [self.errors[c] for c in sorted(columns) if c in self.errors]
        return {row: why for errors in reversed(told) for row, why in errors.items()}


def with_errors(values: pa.Array[Any], errors: Errors) -> tuple[pa.Array[Any], Errors]:
    """The values, null in the rows that have errors, and the errors by row."""
    rows = np.fromiter(errors, dtype=np.int64, count=len(errors))
    mask = np.zeros(len(values), dtype=np.bool_)
    mask[rows] = True
    places = pa.array(np.arange(len(mask)), pa.int64(), mask=mask)
    return values.take(places), dict(sorted(errors.items()))
