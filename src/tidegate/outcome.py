"""What the engine makes of a stretch of the log, and the Arrow schema of each of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tidegate.batches import joined as one_batch
from tidegate.schema import Schema

_TIME = pa.timestamp("us")


def _schema(*fields: pa.Field[Any]) -> pa.Schema:
    return pa.schema(list(fields))


RULE_HIT = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

DECISIONS = _schema(
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("event_time", _TIME, nullable=False),
    pa.field("action", pa.string(), nullable=False),
    pa.field("score", pa.float64()),
    pa.field("rules", pa.list_(RULE_HIT), nullable=False),
    pa.field("version", pa.string(), nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
    pa.field("decided_at", _TIME, nullable=False),
)

DEAD_LETTERS = _schema(
    pa.field("log_offset", pa.int64(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("column", pa.string()),
    pa.field("message", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("ingest_time", _TIME, nullable=False),
    pa.field("record", pa.binary(), nullable=False),
)

DUPLICATES = _schema(
    pa.field("log_offset", pa.int64(), nullable=False),
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("first_offset", pa.int64(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("ingest_time", _TIME, nullable=False),
)

LATE_ROWS = _schema(
    pa.field("window_query", pa.string(), nullable=False),
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("event_time", _TIME, nullable=False),
    pa.field("window_start", _TIME, nullable=False),
    pa.field("window_end", _TIME, nullable=False),
    pa.field("watermark", _TIME, nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
)

# What follows from control records; `at` is when the record reached us.
VERSIONS = _schema(
    pa.field("at", _TIME, nullable=False),
    pa.field("version", pa.string(), nullable=False),
    pa.field("change", pa.string(), nullable=False),
    pa.field("author", pa.string(), nullable=False),
    pa.field("message", pa.string(), nullable=False),
    pa.field("folder_version", pa.string(), nullable=False),
    pa.field("files", pa.string(), nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
)

LIST_CHANGES = _schema(
    pa.field("at", _TIME, nullable=False),
    pa.field("list", pa.string(), nullable=False),
    pa.field("change", pa.string(), nullable=False),
    pa.field("value", pa.string(), nullable=False),
    pa.field("until", _TIME),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("author", pa.string(), nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
)

LABELS = _schema(
    pa.field("at", _TIME, nullable=False),
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("label", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("known_at", _TIME, nullable=False),
    pa.field("author", pa.string(), nullable=False),
    pa.field("event_offset", pa.int64()),
    # The declared columns of the event as JSON, from which its features are corrected.
    pa.field("event", pa.string()),
    pa.field("log_offset", pa.int64(), nullable=False),
)

ANSWERS = _schema(
    pa.field("at", _TIME, nullable=False),
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("event_offset", pa.int64(), nullable=False),
    pa.field("action", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("answered_at", _TIME, nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
)

AUDIT = _schema(
    pa.field("at", _TIME, nullable=False),
    pa.field("action", pa.string(), nullable=False),
    pa.field("subject", pa.string(), nullable=False),
    pa.field("author", pa.string(), nullable=False),
    pa.field("detail", pa.string(), nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
)

# Tables whose rows follow from control records alone, filed under the date of `at`.
CONTROL_TABLES = {
    "versions": VERSIONS,
    "list_changes": LIST_CHANGES,
    "labels": LABELS,
    "answers": ANSWERS,
    "audit": AUDIT,
}

# Added to the rows of every window query, after the columns that the query selects.
WINDOW_COLUMNS = (
    pa.field("window_start", _TIME, nullable=False),
    pa.field("window_end", _TIME, nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
)


def features_schema(features: pa.Schema) -> pa.Schema:
    """The Arrow schema of the `features` table: whose they are, the features, their offset."""
    return _schema(
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_time", _TIME, nullable=False),
        *(f.with_nullable(nullable=True) for f in features),
        pa.field("log_offset", pa.int64(), nullable=False),
    )


def events_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema of accepted events: the declared columns and those that Tidegate adds."""
    added = [
        pa.field("extra", pa.string()),
        pa.field("ingest_time", _TIME, nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("log_offset", pa.int64(), nullable=False),
    ]
    return pa.schema([*schema.arrow, *added])


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All that follows from the records at offsets `first_offset <= o < next_offset`.

    Rows ascend by `log_offset`. A window row's `log_offset` is that of the record whose event time
    (or passing of time) closed the window; several rows may share one. `features` is None under a
    version that has none, else it has a row for each event. `controls` has the rows of
    `CONTROL_TABLES`, those tables alone that have any.
    """

    first_offset: int
    next_offset: int
    events: pa.RecordBatch
    decisions: pa.RecordBatch
    dead_letters: pa.RecordBatch
    duplicates: pa.RecordBatch
    late_rows: pa.RecordBatch
    windows: Mapping[str, pa.RecordBatch]
    features: pa.RecordBatch | None = None
    controls: Mapping[str, pa.RecordBatch] = field(default_factory=dict)

    def tables(self) -> dict[str, pa.RecordBatch]:
        """The rows by table name."""
        features = {} if self.features is None else {"features": self.features}
        return {
            **features,
            "events": self.events,
            "decisions": self.decisions,
            "dead_letters": self.dead_letters,
            "duplicates": self.duplicates,
            "late_rows": self.late_rows,
            **self.windows,
            **self.controls,
        }


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of several that follow each other, none of them of control records.

    Their tables have the same columns.
    """
    first, last = outcomes[0], outcomes[-1]
    features = [o.features for o in outcomes if o.features is not None]
    return Outcome(
        first.first_offset,
        last.next_offset,
        events=_concatenated([o.events for o in outcomes]),
        decisions=_concatenated([o.decisions for o in outcomes]),
        dead_letters=_concatenated([o.dead_letters for o in outcomes]),
        duplicates=_concatenated([o.duplicates for o in outcomes]),
        late_rows=_concatenated([o.late_rows for o in outcomes]),
        windows={
            name: _concatenated([o.windows[name] for o in outcomes]) for name in first.windows
        },
        features=_concatenated(features) if features else None,
    )


def _concatenated(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    some = [batch for batch in batches if batch.num_rows]
    return one_batch(some or batches[:1], batches[0].schema)
