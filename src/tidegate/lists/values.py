"""Values of a list: as text in a record of the log, as keys in memory, out of columns of a batch.

A key is a text for lists of text or json, else a whole number: a decimal's value scaled, a time's
microseconds, the bits of a double. Equal keys mean equal values.
"""

from __future__ import annotations

import math
import re
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tidegate.schema import ColumnType, Kind

Key: TypeAlias = str | int

TEXT_MAX = 4_096  # characters
TEXTUAL = frozenset({Kind.TEXT, Kind.JSON})

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - times are UTC without a zone
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_BOOLEANS = {"true": 1, "false": 0}


def key(text: str, type_: ColumnType) -> Key:
    """The key of a value written as text. Raises: ValueError that says what was expected.

    >>> from tidegate.schema import Column
    >>> key("4711", Column.parse("n", "bigint").type)
    4711
    >>> key("12.5", Column.parse("n", "decimal(9,2)").type)
    1250
    """
    if len(text) > TEXT_MAX:
        raise ValueError(f"a value has at most {TEXT_MAX} characters, not {len(text)}")
    return text if type_.kind in TEXTUAL else _KEYS[type_.kind](text.strip(), type_)


def canonical(text: str, type_: ColumnType) -> str:
    """The one text of a value, however it was written. Raises: ValueError as `key`.

    >>> from tidegate.schema import Column
    >>> canonical("12.5", Column.parse("n", "decimal(9,2)").type)
    '12.50'
    """
    found = key(text, type_)
    match type_.kind:
        case Kind.TEXT | Kind.JSON | Kind.BIGINT:
            return str(found)
        case Kind.DECIMAL:
            return str(Decimal(found).scaleb(-type_.scale))
        case Kind.BOOLEAN:
            return "true" if found else "false"
        case Kind.DOUBLE:
            return repr(struct.unpack("<d", struct.pack("<q", found))[0])
        case Kind.TIMESTAMP:
            return (_EPOCH + timedelta(microseconds=int(found))).isoformat() + "Z"


def _whole(text: str, _: ColumnType) -> int:
    if _WHOLE.fullmatch(text) and -(2**63) <= (value := int(text)) < 2**63:
        return value
    raise ValueError("a bigint is a whole number of up to 64 bits")


def _decimal(text: str, type_: ColumnType) -> int:
    expected = f"{type_} has {type_.precision} digits, {type_.scale} of them after the point"
    try:
        value = Decimal(text) if len(text) <= 60 else Decimal("nan")
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite() or abs(value.adjusted()) > 60:
        raise ValueError(expected)
    scaled = value.scaleb(type_.scale)
    if scaled != scaled.to_integral_value() or abs(scaled) >= 10**type_.precision:
        raise ValueError(expected)
    return int(scaled)


def _double(text: str, _: ColumnType) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("a double is a finite number")
    return int(struct.unpack("<q", struct.pack("<d", value + 0.0))[0])


def _boolean(text: str, _: ColumnType) -> int:
    if text.lower() not in _BOOLEANS:
        raise ValueError("a boolean is `true` or `false`")
    return _BOOLEANS[text.lower()]


def _timestamp(text: str, _: ColumnType) -> int:
    return micros_of(text)


def micros_of(text: str) -> int:
    """UTC microseconds of a date or time as text; without a zone it is UTC.

    Raises: ValueError that says what was expected.

    >>> micros_of("1970-01-02"), micros_of("1970-01-01T01:00:00+01:00")
    (86400000000, 0)
    """
    try:
        time = datetime.fromisoformat(text.strip())
        if time.tzinfo is not None:
            time = time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        message = "a time is written as in `2027-01-01` or `2027-01-01T12:00:00Z`"
        raise ValueError(message) from error
    return (time - _EPOCH) // timedelta(microseconds=1)


_KEYS = {
    Kind.BIGINT: _whole,
    Kind.DECIMAL: _decimal,
    Kind.DOUBLE: _double,
    Kind.BOOLEAN: _boolean,
    Kind.TIMESTAMP: _timestamp,
}


def keys(column: pa.Array[Any]) -> pa.Array[Any]:
    """The keys of a column's values, null for null; decimals keep the scale of the column."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_int64(kind):
        return column
    if pa.types.is_floating(kind):
        # The two zeros are one; no list holds NaN.
        numbers = column.fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
        return _with_nulls(np.ascontiguousarray(numbers).view(np.int64), column)
    if pa.types.is_decimal(kind):
        # Of at most 18 digits, so that the lower half of the number is all of it.
        held: Any = column.buffers()[1]
        whole = np.frombuffer(held, dtype=np.int64)[::2]
        return _with_nulls(whole[column.offset : column.offset + len(column)], column)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    return column.cast(pa.int64())


def _with_nulls(numbers: Any, column: pa.Array[Any]) -> pa.Array[Any]:
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    return pa.array(numbers, pa.int64(), mask=missing)
