"""Decisions found again by the offsets of their events.

Who asks twice asks soon, and in crowds where a network has failed: so all that one message asks for
is looked up together, first among the outcomes that wait to be written. In the tables a stretch of
rows is read around what is asked for, and a few of them are kept.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from tidegate.batches import joined as one_batch
from tidegate.decisions.decided import DecisionRows
from tidegate.outcome import Outcome
from tidegate.verdicts import Decided
from tidegate.warehouse.feed import TableFeed

_ROWS = 4_096  # of the log, read at once
_KEPT = 8  # stretches
_WHOSE = frozenset({"event_id", "event_time", "log_offset"})


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


class _Held(NamedTuple):
    """Decisions, and features of events some of which are the same; rows ascend by offset."""

    decisions: pa.RecordBatch
    features: pa.RecordBatch | None


class FirstDecisions:
    """Decisions by the offsets of their events; callable from any thread.

    `waiting` gives the outcomes that are not in the tables yet, in order of the log.
    """

    def __init__(self, tables: Tables, waiting: Callable[[], Sequence[Outcome]]) -> None:
        self._tables, self._waiting = tables, waiting
        self._kept: OrderedDict[tuple[str, int], tuple[int, pa.RecordBatch]] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, offsets: Iterable[int]) -> dict[int, Decided]:
        """What was decided on the events at offsets, as far as there are decisions (yet)."""
        waiting = self._waiting()  # taken first: what is gone from there is in the tables
        starts, position = [outcome.first_offset for outcome in waiting], self._tables.position

        def place(offset: int) -> tuple[bool, int]:
            number = bisect_right(starts, offset) - 1
            if number >= 0 and offset < waiting[number].next_offset:
                return True, number
            return False, offset // _ROWS

        found: dict[int, Decided] = {}
        for (is_waiting, number), same in groupby(sorted(set(offsets)), key=place):
            wanted = list(same)
            if is_waiting:
                held = _Held(waiting[number].decisions, waiting[number].features)
            elif wanted[0] < position:
                held = self._written(number, min(wanted[-1] + 1, position))
            else:
                continue
            found.update((d.log_offset, d) for d in _decided(held, wanted))
        return found

    def _written(self, number: int, end: int) -> _Held:
        """A stretch of the tables, up to the offset before `end` at least."""
        with self._lock:  # those who wait for it then find what was read
            decisions = self._stretch("decisions", number, end)
            has_features = "features" in self._tables.tables
            features = self._stretch("features", number, end) if has_features else None
        return _Held(decisions, features)

    def _stretch(self, table: str, number: int, end: int) -> pa.RecordBatch:
        place = table, number
        until, rows = self._kept.pop(place, (0, None))
        if rows is None or until < end:
            first = number * _ROWS
            until = min(first + _ROWS, self._tables.position)
            deliveries = self._tables.feed(table).deliveries(first, until=until, rows_max=_ROWS)
            read = pa.concat_tables([d.rows for d in deliveries])
            rows = one_batch(read.to_batches(), read.schema)
        self._kept[place] = until, rows
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return rows


def _decided(held: _Held, wanted: Sequence[int]) -> Iterator[Decided]:
    """The decisions on the events at offsets, with their features: none under a version without."""
    rows = _at(held.decisions, wanted)
    features = {} if held.features is None else _by_offset(_at(held.features, wanted))
    told = DecisionRows(rows).told(0, rows.num_rows)
    for event_id, action, score, rules, version, offset in zip(*told, strict=True):
        named = features.get(offset, {})
        yield Decided(event_id, action, score, rules, named, version, offset)


def _at(rows: pa.RecordBatch, wanted: Sequence[int]) -> pa.RecordBatch:
    there = np.isin(rows.column("log_offset").to_numpy(), wanted, assume_unique=True)
    return rows.take(pa.array(np.flatnonzero(there), pa.int64()))


def _by_offset(rows: pa.RecordBatch) -> dict[int, dict[str, Any]]:
    """The features of each row, by name."""
    names = [name for name in rows.schema.names if name not in _WHOSE]
    columns = [rows.column(name).to_pylist() for name in names]
    offsets: list[int] = rows.column("log_offset").to_numpy().tolist()
    each = (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
    return dict(zip(offsets, each, strict=bool(names)))
