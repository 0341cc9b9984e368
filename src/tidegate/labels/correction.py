"""Labels on their way to their events: to those to come, and to what is kept of those long gone."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.labels.event import from_json
from tidegate.labels.truth import values_of
from tidegate.labels.waiting import Bounds, Waiting
from tidegate.project.project import Project
from tidegate.schema import Schema

# The columns of the table of labels that are read here, besides the offset of the label.
COLUMNS = ("event_id", "label", "at", "event_offset", "event")

_event = msgspec.json.Decoder(dict[str, Any])


class Amends(Protocol):
    """What keeps values of events, such as the state of features."""

    def amend(self, events: pa.RecordBatch) -> int:
        """Let earlier events count with the label that `events` has."""


class Labelling:
    """How a project's labels reach its events; both are given to it in the order of the log."""

    def __init__(self, project: Project) -> None:
        self.waiting = Waiting(_bounds(project))
        self._schema, self._column = project.stream.schema, project.labels.column

    def use(self, project: Project) -> None:
        """Go on by the settings of another version; what waits goes on waiting."""
        self.waiting.bounds = _bounds(project)
        self._schema, self._column = project.stream.schema, project.labels.column

    def fill(self, events: pa.RecordBatch) -> pa.RecordBatch:
        """The events with the labels that have waited for them; to be asked once for each."""
        return self.waiting.fill(events, self._schema, self._column)

    def take(self, labels: pa.RecordBatch, state: Amends | None) -> None:
        """Take in labels, rows of their table: those of events to come begin to wait.

        What the state keeps of the others is corrected; None keeps nothing.
        """
        known = _receive(labels, self.waiting)
        if state is not None and self._column is not None and known.num_rows:
            state.amend(_labelled(known, self._schema, self._column))


def _bounds(project: Project) -> Bounds:
    return Bounds(project.labels.waiting_max, project.labels.waiting_time_us)


def _receive(labels: pa.RecordBatch, waiting: Waiting) -> pa.RecordBatch:
    """The labels whose events are there; the others begin to wait."""
    offsets = labels["event_offset"]
    if offsets.null_count:
        early = labels.filter(pc.is_null(offsets))
        told = early.select(["event_id", "label"]).to_pylist()
        times = early["at"].cast(pa.int64()).to_numpy()
        for row, at in zip(told, times.tolist(), strict=True):
            waiting.put(row["event_id"], row["label"], at=at)
    return labels.filter(pc.is_valid(labels["event"]))


def _labelled(labels: pa.RecordBatch, schema: Schema, column: str) -> pa.RecordBatch:
    """The events of labels, with their declared columns, the label in one of them, and offsets."""
    told: list[Any] = labels.select(["event", "label"]).to_pylist()
    events = from_json([_event.decode(row["event"]) for row in told], schema)
    values = values_of([row["label"] for row in told], schema.by_name[column].type)
    place = events.schema.get_field_index(column)
    filled = events.set_column(place, events.schema.field(place), values)
    return filled.append_column("log_offset", labels["event_offset"])
