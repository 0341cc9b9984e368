"""Rows and the windows in which each of them counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.windows.grid import Grid
from tidegate.windows.intake import HELD_TIME

Times = npt.NDArray[np.int64]
# Later than any window.
NEVER = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Row i counts in the windows `first[i] <= number <= last[i]`; in none if `last < first`.

    Windows are numbered as in `Grid`; the arrays are int64 of shape (rows,).
    """

    rows: pa.RecordBatch
    first: Times
    last: Times

    @classmethod
    def of(cls, rows: pa.RecordBatch, grid: Grid, watermarks: Times | int) -> Self:
        """The windows that were still open for each row at the watermark it met."""
        times = rows.column(HELD_TIME).to_numpy()
        first = np.maximum(grid.first(times), grid.open(np.asarray(watermarks, dtype=np.int64)))
        return cls(rows, first, grid.last(times))

    @property
    def begin(self) -> int:
        """The first window that holds a row."""
        return int(self.first.min()) if len(self.first) else NEVER

    def open_ones(self) -> Self:
        """Only the rows that count in a window."""
        return self._kept(self.last >= self.first)

    def after(self, begin: int) -> Self:
        """Only the rows that count in windows from `begin` on, and only those windows."""
        kept = self._kept(self.last >= begin)
        return type(self)(kept.rows, np.maximum(kept.first, begin), kept.last)

    def pairs(self, begin: int, end: int) -> tuple[Times, Times]:
        """Rows and windows `begin <= number < end` that belong together, by window, then row."""
        within = type(self)(
            self.rows, np.maximum(self.first, begin), np.minimum(self.last, end - 1)
        )
        rows, numbers = within.each_pair()
        order = np.argsort(numbers, kind="stable")
        return rows[order], numbers[order]

    def each_pair(self) -> tuple[Times, Times]:
        """All rows and windows that belong together, by row, then window."""
        counts = np.maximum(self.last - self.first + 1, 0)
        rows = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        ahead = np.cumsum(counts) - counts
        steps = np.arange(len(rows), dtype=np.int64) - ahead[rows]
        return rows, self.first[rows] + steps

    def _kept(self, mask: npt.NDArray[np.bool_]) -> Self:
        if mask.all():
            return self
        return type(self)(self.rows.filter(pa.array(mask)), self.first[mask], self.last[mask])
