"""Labels whose event has not come yet: kept by event id, in bounded number and for bounded time.

What waits follows from the labels and events in the order of the log, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.controls import Truth
from tidegate.events.digits import as_text
from tidegate.labels.truth import values_of
from tidegate.schema import Schema


class _Held(msgspec.Struct, frozen=True, array_like=True):
    label: Truth
    at: int


class _State(msgspec.Struct, frozen=True, array_like=True):
    held: dict[str, _Held]
    let_go: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many labels may wait, and for how long, in microseconds by time of arrival.

    Time passes as labels arrive: one is let go by the first that comes so much later.
    """

    labels: int = 100_000
    age: int = 30 * 86_400_000_000


class Waiting:
    """The labels that wait, in the order in which they came; `let_go` counts those given up."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.let_go = 0
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, event_id: str, label: Truth, *, at: int) -> None:
        """Let a label wait, in the place of an earlier one of its event; the oldest may go."""
        self._held.pop(event_id, None)
        self._held[event_id] = _Held(label, at)
        while self._held:
            oldest = next(iter(self._held))
            is_young = self._held[oldest].at >= at - self.bounds.age
            if is_young and len(self._held) <= self.bounds.labels:
                return
            del self._held[oldest]
            self.let_go += 1

    def fill(self, events: pa.RecordBatch, schema: Schema, column: str | None) -> pa.RecordBatch:
        """The events with the labels that waited for them in a column; these wait no longer.

        Without a column the events stay as they are.
        """
        if not self._held or not events.num_rows:
            return events
        labels = self._take(as_text(events.column(schema.id)))
        if not labels or column is None:
            return events
        values = values_of([*labels.values()], schema.by_name[column].type)
        return _with(events, column, [*labels], values)

    def _take(self, ids: pa.Array[Any]) -> dict[int, Truth]:
        """The labels that wait for events with these ids, by row; they wait no longer.

        An id may be accepted twice in a batch, where the horizon ended in between: the first has
        the label, as if the batch had been cut there.
        """
        labels: dict[int, Truth] = {}
        for row, event_id in self._due(ids):
            held = self._held.pop(event_id, None)
            if held is not None:
                labels[row] = held.label
        return labels

    def _due(self, ids: pa.Array[Any]) -> Iterator[tuple[int, str]]:
        """Rows that labels may wait for, with their ids: all of them where those are the fewer."""
        rows: Iterable[int] = range(len(ids))
        if len(ids) > len(self._held):
            known = pa.array(list(self._held), pa.string())
            due = pc.is_in(ids, value_set=known).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(due).tolist()
            ids = ids.filter(pa.array(due))
        texts: list[Any] = ids.to_pylist()
        return zip(rows, texts, strict=True)

    def snapshot(self) -> bytes:
        """All that waits, for `restore`; empty where nothing waits and nothing was let go."""
        if not self._held and not self.let_go:
            return b""
        return msgspec.msgpack.encode(_State(self._held, self.let_go))

    def restore(self, data: bytes) -> None:
        """Take over what `snapshot` gave."""
        if data:
            state = msgspec.msgpack.decode(data, type=_State)
            self._held, self.let_go = dict(state.held), state.let_go


def _with(
    events: pa.RecordBatch, column: str, rows: Sequence[int], values: pa.Array[Any]
) -> pa.RecordBatch:
    """The events with other values in some rows of a column."""
    place = events.schema.get_field_index(column)
    mask = np.zeros(events.num_rows, dtype=np.bool_)
    mask[rows] = True
    filled = pc.replace_with_mask(events.column(place), pa.array(mask), values)
    return events.set_column(place, events.schema.field(place), filled)
