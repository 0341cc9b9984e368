"""Decisions that are in the tables, found again by the offsets of their events.

Who asks twice asks soon, and in crowds where a network has failed: so a stretch of rows is read
around what is asked for, and a few of them are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Protocol

import pyarrow as pa

from tidegate.warehouse.feed import TableFeed

_ROWS = 4_096  # of the log, read at once
_KEPT = 8  # stretches


class Tables(Protocol):
    """Tables that can be read by offset."""

    @property
    def position(self) -> int:
        """The offset below which they hold everything."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Their names."""

    def feed(self, table: str) -> TableFeed:
        """The rows of one by offset."""


class WrittenRows:
    """Rows of tables by offset; callable from any thread."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._kept: OrderedDict[tuple[str, int], tuple[int, pa.Table]] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, table: str, offset: int) -> dict[str, Any] | None:
        """The row of a table whose event lies at an offset; None if there is none (yet)."""
        if table not in self._tables.tables or offset >= self._tables.position:
            return None
        with self._lock:  # those who wait for it then find what was read
            rows = self._stretch(table, offset)
        found = rows.column("log_offset").to_numpy().searchsorted(offset)
        row = rows.slice(int(found), 1).to_pylist()
        return dict(row[0]) if row and row[0]["log_offset"] == offset else None

    def _stretch(self, table: str, offset: int) -> pa.Table:
        place = table, offset // _ROWS
        until, rows = self._kept.pop(place, (0, None))
        if rows is None or until <= offset:
            first = place[1] * _ROWS
            until = min(first + _ROWS, self._tables.position)
            deliveries = self._tables.feed(table).deliveries(first, until=until, rows_max=_ROWS)
            rows = pa.concat_tables([d.rows for d in deliveries])
        self._kept[place] = until, rows
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return rows
