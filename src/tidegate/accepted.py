"""Accepted events by their ids: among what is decided and not written yet, then in the tables.

The newest event of an id counts. To look for ids takes a reading of the whole column where they are
old or unknown, so that those who ask at the same time are answered by one reading.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidegate.labels.event import to_json
from tidegate.schema import Kind, Schema
from tidegate.warehouse.faults import storage
from tidegate.warehouse.feed import Written
from tidegate.warehouse.layout import fitted

_ATTEMPTS = 3

# By id the log offset of an event and its declared columns, as JSON has them.
Found: TypeAlias = Mapping[str, tuple[int, dict[str, Any]]]


@dataclass(eq=False)
class _Round:
    """The ids that one reading looks for, and what it finds."""

    ids: set[str] = field(default_factory=set)
    done: threading.Event = field(default_factory=threading.Event)
    found: Found = field(default_factory=dict)
    error: Exception | None = None


class Accepted:
    """The accepted events of a project; threads may share it.

    `pending` gives events that are decided and may not be in the tables yet, in order of the log.
    """

    def __init__(
        self,
        tables: Path,
        schema: Schema,
        *,
        pending: Callable[[], Sequence[pa.RecordBatch]] = lambda: (),
    ) -> None:
        self._tables = tables
        self._schema = schema
        self._pending = pending
        self._changing, self._reading = threading.Lock(), threading.Lock()
        self._next: _Round | None = None

    def find(self, ids: Collection[str]) -> Found:
        """The events of those ids that there are. Raises: what the storage raises."""
        with self._changing:
            leads = self._next is None
            mine = self._next = self._next or _Round()
            mine.ids.update(ids)
        if leads:
            with self._reading:  # who comes while another reading runs is in the next one
                self._read(mine)
        mine.done.wait()
        if mine.error is not None:
            raise mine.error
        return mine.found

    def _read(self, mine: _Round) -> None:
        with self._changing:
            self._next = None
        try:
            mine.found = self._find(mine.ids)
        except Exception as error:  # noqa: BLE001 - all who wait are told
            mine.error = error
        finally:
            mine.done.set()

    def _find(self, ids: set[str]) -> Found:
        found: dict[str, tuple[int, dict[str, Any]]] = {}
        # What is pending first: it may be written meanwhile, and is then found in the tables.
        for events in reversed(self._pending()):
            self._gather(events, ids, found)
        if len(found) < len(ids) and (self._tables / "events" / "_delta_log").is_dir():
            self._search(ids, found)
        return found

    def _search(self, ids: set[str], found: dict[str, tuple[int, dict[str, Any]]]) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                for events in self._rows(ids, found):
                    self._gather(events, ids, found)
            except FileNotFoundError:  # compacted and swept meanwhile: list the files again
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def _rows(self, ids: set[str], found: Mapping[str, object]) -> Iterator[pa.RecordBatch]:
        """The rows that have any of the ids, newest files first, until all are found."""
        with storage("reading table `events`"):
            table = Written(self._tables / "events")
            wanted = self._values(ids)
            for file in sorted(table.files(), key=lambda f: f.offset_max, reverse=True):
                if len(found) == len(ids):
                    return
                with pq.ParquetFile(file.path) as parquet:
                    place = parquet.schema_arrow.names.index(self._schema.id)
                    for group in reversed(range(parquet.num_row_groups)):
                        column = parquet.metadata.row_group(group).column(place)
                        if _may_hold(column.statistics, wanted):
                            yield from self._chosen(parquet, group, wanted)

    def _chosen(
        self, parquet: pq.ParquetFile, group: int, wanted: pa.Array[Any]
    ) -> Iterator[pa.RecordBatch]:
        name = self._schema.id
        ids = parquet.read_row_group(group, columns=[name]).column(0)
        mask = pc.is_in(ids.cast(wanted.type), value_set=wanted)
        if not pc.any(mask).as_py():
            return
        have = [n for n in (*self._schema.names, "log_offset") if n in parquet.schema_arrow.names]
        rows = parquet.read_row_group(group, columns=have).filter(mask)
        fields: list[pa.Field[Any]] = [*self._schema.arrow, pa.field("log_offset", pa.int64())]
        yield from fitted(rows, _nullable(fields)).combine_chunks().to_batches()

    def _values(self, ids: set[str]) -> pa.Array[Any]:
        kind = self._schema.by_name[self._schema.id].type
        if kind.kind is not Kind.BIGINT:
            return pa.array(sorted(ids), kind.arrow)
        numbers = [int(i) for i in ids if i.lstrip("-").isdecimal() and len(i) <= 20]
        return pa.array([n for n in sorted(numbers) if -(2**63) <= n < 2**63], kind.arrow)

    def _gather(
        self,
        events: pa.RecordBatch,
        ids: set[str],
        found: dict[str, tuple[int, dict[str, Any]]],
    ) -> None:
        """Take in the events of those ids that are newer than what is found."""
        column = events.column(self._schema.id).cast(pa.string())
        rows = pc.indices_nonzero(pc.is_in(column, value_set=pa.array(sorted(ids), pa.string())))
        if not len(rows):
            return
        chosen = events.take(rows)
        texts: list[Any] = column.take(rows).to_pylist()
        offsets: list[Any] = chosen.column("log_offset").to_pylist()
        for event_id, offset, event in zip(
            texts, offsets, to_json(chosen, self._schema), strict=True
        ):
            if event_id not in found or found[event_id][0] < offset:
                found[event_id] = (offset, event)


def _may_hold(statistics: Any, wanted: pa.Array[Any]) -> bool:
    """Whether a column between these bounds may hold any of the values, which ascend.

    Ids that grow with time, as many do, are in few places.
    """
    if statistics is None or not statistics.has_min_max or not len(wanted):
        return bool(len(wanted))
    values: list[Any] = wanted.to_pylist()
    first = bisect_left(values, statistics.min)
    return first < len(values) and bool(values[first] <= statistics.max)


def _nullable(fields: Sequence[pa.Field[Any]]) -> pa.Schema:
    return pa.schema([f.with_nullable(nullable=True) for f in fields])
