"""Rows gathered into groups, each in the order of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Group g holds the rows `rows[bounds[g]:bounds[g + 1]]`, in order of arrival.

    Groups stand in the order in which their first row arrived. `bounds` has one more entry than
    there are groups; a group may be empty after `keep`.
    """

    rows: Indices
    bounds: Indices

    @classmethod
    def by(cls, keys: pa.Table) -> Groups:
        """Rows grouped by equal keys, as `GROUP BY` holds them equal.

        Nulls are equal to each other, so are NaNs, and -0.0 equals 0.0.

        >>> g = Groups.by(pa.table({"k": ["a", None, "a", None]}))
        >>> g.rows.tolist(), g.bounds.tolist()
        ([0, 2, 1, 3], [0, 2, 4])
        """
        frame = pl.DataFrame(pl.from_arrow(keys)).with_row_index(_ROW)
        gathered = frame.group_by(keys.column_names, maintain_order=True).agg(_ROW)
        listed: Any = gathered.get_column(_ROW).to_arrow()
        rows = listed.flatten().to_numpy().astype(np.int64)
        lengths = gathered.get_column(_ROW).list.len().to_numpy()
        return cls(rows, _bounds(lengths))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> Indices:
        """How many rows each group holds."""
        return np.diff(self.bounds)

    @property
    def numbers(self) -> Indices:
        """For each entry of `rows`, the number of its group."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def keep(self, mask: Mask) -> Groups:
        """The same groups with only those rows for which `mask[row]` is true."""
        kept = mask[self.rows]
        ahead = np.concatenate(([0], np.cumsum(kept)))
        return Groups(self.rows[kept], ahead[self.bounds])

    def distinct(self, values: pa.Array[Any]) -> Groups:
        """The same groups with only the first row for each value, nulls being one value."""
        taken = values.take(self.rows)
        frame = pl.DataFrame({_GROUP: self.numbers, _VALUE: pl.Series(pl.from_arrow(taken))})
        unique = frame.with_row_index(_ROW).unique([_GROUP, _VALUE], keep="first")
        mask = np.zeros(len(self.rows), dtype=np.bool_)
        mask[unique.get_column(_ROW).to_numpy()] = True
        ahead = np.concatenate(([0], np.cumsum(mask)))
        return Groups(self.rows[mask], ahead[self.bounds])

    def pick(self, *, last: bool = False) -> pa.Array[Any]:
        """The first (or last) row of each group, null for an empty group; int64."""
        at = self.bounds[1:] - 1 if last else self.bounds[:-1]
        empty = self.lengths == 0
        safe = np.where(empty, 0, at)
        rows = self.rows[safe] if len(self.rows) else np.zeros(len(self), dtype=np.int64)
        return pa.array(rows, mask=empty)


_ROW, _GROUP, _VALUE = " row", " group", " value"  # no column of a query begins with a blank


def _bounds(lengths: npt.NDArray[Any]) -> Indices:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
