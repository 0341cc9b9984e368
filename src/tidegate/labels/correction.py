"""Labels on their way to what features have kept of their events."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.labels.event import from_json
from tidegate.labels.truth import values_of
from tidegate.labels.waiting import Waiting
from tidegate.schema import Schema

_events = msgspec.json.Decoder(dict[str, Any])


def receive(labels: pa.RecordBatch, waiting: Waiting) -> pa.RecordBatch:
    """The labels, as rows of their table, whose events are there; the others begin to wait."""
    offsets = labels["event_offset"]
    if offsets.null_count:
        early = labels.filter(pc.is_null(offsets))
        told = early.select(["event_id", "label"]).to_pylist()
        times = early["at"].cast(pa.int64()).to_numpy()
        for row, at in zip(told, times.tolist(), strict=True):
            waiting.put(row["event_id"], row["label"], at=at)
    return labels.filter(pc.is_valid(labels["event"]))


def labelled_events(labels: pa.RecordBatch, schema: Schema, column: str) -> pa.RecordBatch:
    """The events of labels, with their declared columns, the label in one of them, and offsets."""
    told: list[Any] = labels.select(["event", "label"]).to_pylist()
    rows = [_events.decode(row["event"]) for row in told]
    events = from_json(rows, schema)
    values = values_of([row["label"] for row in told], schema.by_name[column].type)
    place = events.schema.get_field_index(column)
    filled = events.set_column(place, events.schema.field(place), values)
    return filled.append_column("log_offset", labels["event_offset"])
