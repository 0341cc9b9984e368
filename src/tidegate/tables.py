"""The Arrow schema of each table: its rows as they travel between stages."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tidegate.schema import Schema

_TIME = pa.timestamp("us")

# Before the name of a feature in rows that have another column of its name.
FEATURE_PREFIX = "feature_"


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


# What is known of an event besides what it says: when it arrived, from where, and its place.
ARRIVED: tuple[pa.Field[Any], ...] = (
    pa.field("ingest_time", _TIME, nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
)


def events_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema of accepted events: the declared columns and those that Tidegate adds."""
    return pa.schema([*schema.arrow, pa.field("extra", pa.string()), *ARRIVED])
