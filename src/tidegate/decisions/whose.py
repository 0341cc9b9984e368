"""Which events the rows of a table are about, and what is held of them until it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tidegate.events.digits import as_text
from tidegate.schema import Schema

# Events of which things are held one by one until they are written: messages of two porters.
FEW = 512


@dataclass(frozen=True, slots=True, eq=False)
class Whose:
    """The events that rows are about, in the order of the log: ids as text, times and offsets."""

    ids: pa.Array[Any]
    times: pa.Array[Any]
    offsets: pa.Array[Any]

    @classmethod
    def of(cls, events: pa.RecordBatch, schema: Schema, ids: pa.Array[Any] | None = None) -> Whose:
        """Accepted events; `ids` are theirs as text, where somebody has them already."""
        if ids is None:
            ids = as_text(events[schema.id])
        return cls(ids, events[schema.event_time], events["log_offset"])

    @classmethod
    def in_rows(cls, rows: pa.RecordBatch) -> Whose:
        """The events of rows that have them."""
        return cls(rows["event_id"], rows["event_time"], rows["log_offset"])

    @classmethod
    def joined(cls, parts: Sequence[Whose]) -> Whose:
        """The events of several, one after the other."""
        return cls(
            pa.concat_arrays([p.ids for p in parts]),
            pa.concat_arrays([p.times for p in parts]),
            pa.concat_arrays([p.offsets for p in parts]),
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def place(self, event_id: str) -> int:
        """The first row about the event; -1 if there is none."""
        return int(pc.index(self.ids, pa.scalar(event_id)).as_py() or 0)


class Held(ABC):
    """What is held of the events `whose`, row by row."""

    whose: Whose

    def __len__(self) -> int:
        return len(self.whose)

    @property
    @abstractmethod
    def rows(self) -> pa.RecordBatch:
        """As rows of its table."""
