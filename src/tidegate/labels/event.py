"""The declared columns of an event as a JSON object, which a label carries, and back.

Every value comes back as it was: times are UTC microseconds, decimals and what JSON has no number
for are text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from tidegate.schema import Kind, Schema


def to_json(events: pa.RecordBatch, schema: Schema) -> list[dict[str, Any]]:
    """The declared columns of each event as JSON has them; nulls are left out."""
    names = [c.name for c in schema if c.name in events.schema.names]
    columns = [_written(events.column(name), schema.by_name[name].type.kind) for name in names]
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*columns, strict=True)
    ]


def from_json(rows: Sequence[Mapping[str, Any]], schema: Schema) -> pa.RecordBatch:
    """Events with the declared columns; what a row lacks, or has of another type, is null."""
    columns: list[pa.Array[Any]] = []
    for column in schema:
        read, kind = _READERS.get(column.type.kind, _as_is), column.type.arrow
        columns.append(_read([row.get(column.name) for row in rows], read, kind))
    return pa.RecordBatch.from_arrays(columns, schema=_nullable(schema))


def _nullable(schema: Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(nullable=True) for field in schema.arrow])


def _written(column: pa.Array[Any], kind: Kind) -> list[Any]:
    if kind is Kind.TIMESTAMP:
        return column.cast(pa.int64()).to_pylist()
    values = column.to_pylist()
    if kind is Kind.DECIMAL:
        return [None if v is None else str(v) for v in values]
    if kind is Kind.DOUBLE:
        return [v if v is None or math.isfinite(v) else str(v) for v in values]
    return values


def _read(values: Sequence[Any], read: Callable[[Any], Any], kind: pa.DataType) -> pa.Array[Any]:
    try:
        return pa.array([None if v is None else read(v) for v in values], kind)
    except _UNFIT:
        return pa.concat_arrays([_one(v, read, kind) for v in values])


def _one(value: Any, read: Callable[[Any], Any], kind: pa.DataType) -> pa.Array[Any]:
    """A column of one value; the version before may have declared it otherwise."""
    try:
        return pa.array([None if value is None else read(value)], kind)
    except _UNFIT:
        return pa.array([None], kind)


def _as_is(value: Any) -> Any:
    return value


_UNFIT = (pa.ArrowException, TypeError, ValueError, ArithmeticError)
_READERS: Mapping[Kind, Callable[[Any], Any]] = {Kind.DOUBLE: float, Kind.DECIMAL: Decimal}
