"""What came in with a stretch of the log: its events, duplicates among them, and dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.batches import empty, joined
from tidegate.eventlog.contract import Entry
from tidegate.events.decode import Decoded
from tidegate.outcome import DEAD_LETTERS, DUPLICATES
from tidegate.schema import Schema

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

    def ids(self, schema: Schema) -> pa.StringArray:
        """The ids as text, whatever their type."""
        ids = self.events[schema.id]
        text = ids if pa.types.is_string(ids.type) else ids.cast(pa.string())
        return cast("pa.StringArray", text)

    def accepted(self, new: npt.NDArray[np.bool_], schema: pa.Schema) -> pa.RecordBatch:
        """The events that are `new`, with the columns that Tidegate adds: `events_schema`."""
        added: list[pa.Array[Any]] = [
            self._ingested,
            self.sources,
            pa.array(self.offsets, pa.int64()),
        ]
        batch = pa.RecordBatch.from_arrays([*self.events.columns, *added], schema=schema)
        return batch if new.all() else batch.filter(pa.array(new))

    def duplicates(self, ids: pa.StringArray, seen: Integers) -> pa.RecordBatch:
        """The rows of those whose id was `seen` before, at the offset that is not below 0."""
        again = np.flatnonzero(seen >= 0)
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
        return pa.array(self.ingest_times, pa.int64()).view(pa.timestamp("us"))


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
        return pa.repeat(pa.scalar(values[0]), sum(counts))
    rows = pa.array(np.repeat(np.arange(len(values)), counts), pa.int64())
    return pa.array(values, pa.string()).take(rows)
