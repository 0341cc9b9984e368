"""What came in with a stretch of the log: its events, duplicates among them, and dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.batches import empty, joined
from tidegate.eventlog.contract import Entry
from tidegate.events.decode import Decoded
from tidegate.events.digits import as_text
from tidegate.schema import Schema
from tidegate.tables import ARRIVED, DEAD_LETTERS, DUPLICATES

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """The decoded events of entries, duplicates still among them."""

    events: pa.RecordBatch
    offsets: Integers
    ingest_times: Integers
    sources: pa.StringArray

    @classmethod
    def of(cls, entries: Sequence[Entry], decoded: Sequence[Decoded]) -> Arrived:
        """What the entries hold, each with what it was decoded to."""
        if len(entries) == 1:
            return cls._of_one(entries[0], decoded[0])
        counts = [len(a.rows) for a in decoded]
        batches = [a.events for a in decoded]
        return cls(
            events=joined(batches, batches[0].schema),
            offsets=np.concatenate(
                [a.rows + e.first_offset for a, e in zip(decoded, entries, strict=True)]
            ),
            ingest_times=np.repeat([e.ingest_time for e in entries], counts),
            sources=_repeated([e.source for e in entries], counts),
        )

    @classmethod
    def _of_one(cls, entry: Entry, decoded: Decoded) -> Arrived:
        count = len(decoded.rows)
        return cls(
            events=decoded.events,
            offsets=decoded.rows + entry.first_offset,
            ingest_times=np.full(count, entry.ingest_time),
            sources=_all(entry.source, count),
        )

    def ids(self, schema: Schema) -> pa.StringArray:
        """The ids as text, whatever their type."""
        return as_text(self.events[schema.id])

    def accepted(self, again: Integers) -> pa.RecordBatch:
        """The events but those whose rows come `again`: rows of `events_schema`."""
        batch = self.events
        offsets = pa.array(self.offsets, pa.int64())
        added: list[pa.Array[Any]] = [self._ingested, self.sources, offsets]
        for field, column in zip(ARRIVED, added, strict=True):
            batch = batch.append_column(field, column)
        if not len(again):
            return batch
        new = np.ones(len(self.offsets), dtype=np.bool_)
        new[again] = False
        return batch.filter(pa.array(new))

    def duplicates(self, ids: pa.StringArray, again: Integers, seen: Integers) -> pa.RecordBatch:
        """The rows of those that come `again`, whose ids were `seen` before, at these offsets."""
        if not len(again):
            return empty(DUPLICATES)
        rows = pa.array(again, pa.int64())
        columns: list[pa.Array[Any]] = [
            pa.array(self.offsets, pa.int64()).take(rows),
            ids.take(rows),
            pa.array(seen, pa.int64()).take(rows),
            self.sources.take(rows),
            self._ingested.take(rows),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=DUPLICATES)

    @property
    def _ingested(self) -> pa.Array[Any]:
        times: Any = self.ingest_times
        return pa.Array.from_buffers(_TIME, len(times), [None, pa.py_buffer(times)], 0)


_TIME = pa.timestamp("us")


def dead_letters(entries: Sequence[Entry], decoded: Sequence[Decoded]) -> pa.RecordBatch:
    """The rows of the records that are no events."""
    rows = [
        {
            "log_offset": entry.first_offset + dead.row,
            "reason": dead.reason.value,
            "column": dead.column,
            "message": dead.message,
            "source": entry.source,
            "ingest_time": entry.ingest_time,
            "record": entry.records[dead.row],
        }
        for entry, result in zip(entries, decoded, strict=True)
        for dead in result.dead
    ]
    return pa.RecordBatch.from_pylist(rows, schema=DEAD_LETTERS) if rows else empty(DEAD_LETTERS)


def _repeated(values: Sequence[str], counts: Sequence[int]) -> pa.StringArray:
    """Each value as often as its count says."""
    if len(set(values)) == 1:
        return _all(values[0], sum(counts))
    rows = pa.array(np.repeat(np.arange(len(values)), counts), pa.int64())
    return pa.array(values, pa.string()).take(rows)


_MANY = 256


def _all(value: str, count: int) -> pa.StringArray:
    """The value so many times."""
    if count > _MANY:
        return pa.repeat(pa.scalar(value), count)
    return _many(value).slice(0, count)


@lru_cache(maxsize=64)
def _many(value: str) -> pa.StringArray:
    """The value as often as few events have it: to cut it is quicker than to make it anew."""
    return pa.repeat(pa.scalar(value), _MANY)
