"""The shape of each table on disk: its columns, its date partition, how its columns are packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from tidegate.errors import InputError
from tidegate.schema import Schema
from tidegate.tables import (
    CONTROL_TABLES,
    DEAD_LETTERS,
    DECISIONS,
    DUPLICATES,
    LATE_ROWS,
    WINDOW_COLUMNS,
    events_schema,
    features_schema,
)

_TIME = pa.timestamp("us")
_STORED_TIME = pa.timestamp("us", "UTC")
ROW_GROUP_ROWS = 16_384  # whoever reads or merges files holds a group of them


@dataclass(frozen=True)
class Layout:
    """One table: rows as they travel between stages (`rows`) and the date they are filed under."""

    name: str
    rows: pa.Schema
    time: str  # the timestamp column whose date is the partition
    date: str  # the name of the partition column

    @cached_property
    def stored(self) -> pa.Schema:
        """The table's schema on disk: times in UTC, the date column last."""
        fields = [stored_field(f) for f in self.rows]
        return pa.schema([*fields, pa.field(self.date, pa.date32())])

    def pack(self, batches: Sequence[pa.RecordBatch], stored: pa.Schema) -> pa.Table:
        """Rows as the table `stored` on disk takes them; columns the rows lack are null."""
        rows = pa.Table.from_batches(batches)
        dates = rows.column(self.time).cast(pa.date32(), safe=False)
        columns = [dates if field.name == self.date else _column(rows, field) for field in stored]
        return pa.Table.from_arrays(columns, schema=stored)


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema in its types; those that the rows lack are null."""
    return pa.Table.from_arrays([_column(rows, field) for field in schema], schema=schema)


def _column(rows: pa.Table, field: pa.Field[Any]) -> pa.ChunkedArray[Any]:
    if field.name not in rows.schema.names:
        return pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
    column: pa.ChunkedArray[Any] = rows.column(field.name)
    return column if column.type.equals(field.type) else column.cast(field.type)


def stored_field(field: pa.Field[Any]) -> pa.Field[Any]:
    """The field as stored: a timestamp is marked as UTC, everything else stays as it is."""
    return field.with_type(stored_type(field.type))


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type as stored; times inside lists and structs are marked as UTC too."""
    if pa.types.is_timestamp(kind):
        return _STORED_TIME
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(stored_field(kind.value_field))
    if pa.types.is_struct(kind):
        return pa.struct([stored_field(f) for f in kind])
    return kind


def shown_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a stored type is read: times are UTC without a zone."""
    if pa.types.is_timestamp(kind):
        return _TIME
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(shown_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(shown_type(f.type)) for f in kind])
    return kind


def layouts(
    schema: Schema, windows: Mapping[str, pa.Schema], features: pa.Schema | None = None
) -> dict[str, Layout]:
    """The layout of every table of a project, by name.

    `features` gives the features' own columns where there is a table for them. `windows` gives the
    columns of each window query; those that every window row carries (`window_start`, `window_end`,
    `log_offset`) may be among them and are added where missing.
    Raises: InputError if a name is taken.
    """
    fixed = [
        Layout("events", events_schema(schema), schema.event_time, "event_date"),
        Layout("decisions", DECISIONS, "event_time", "event_date"),
        Layout("dead_letters", DEAD_LETTERS, "ingest_time", "ingest_date"),
        Layout("duplicates", DUPLICATES, "ingest_time", "ingest_date"),
        Layout("late_rows", LATE_ROWS, "window_end", "window_date"),
        *(Layout(name, rows, "at", "at_date") for name, rows in CONTROL_TABLES.items()),
    ]
    if features is not None:
        fixed.append(Layout("features", features_schema(features), "event_time", "event_date"))
    found = {layout.name: layout for layout in fixed}
    for name, columns in windows.items():
        if name in found:
            raise InputError(
                f"a window query cannot be named `{name}`: that table is Tidegate's own"
            )
        found[name] = _window_layout(name, columns)
    for layout in found.values():
        _refuse_twins(layout)
    return found


def _window_layout(name: str, columns: pa.Schema) -> Layout:
    missing = [f for f in WINDOW_COLUMNS if f.name not in columns.names]
    return Layout(name, pa.schema([*columns, *missing]), "window_end", "window_date")


def _refuse_twins(layout: Layout) -> None:
    # Delta compares column names without regard to case.
    seen: dict[str, str] = {}
    for name in layout.stored.names:
        twin = seen.setdefault(name.lower(), name)
        if twin is not name:
            raise InputError(
                f"table `{layout.name}` cannot have both `{twin}` and `{name}`: "
                "column names must differ by more than case; rename one of them"
            )
