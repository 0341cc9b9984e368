"""JSON values to column values, by declared type: the full rules, one value at a time.

A value arrives as the exact bytes of valid JSON in valid UTF-8 and leaves as what the column's
buffer holds: int (bigint, boolean, timestamp in UTC microseconds, decimal times 10**scale), float,
or UTF-8 bytes (text, json).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import NoReturn

import msgspec

from tidegate.events.reasons import DeadReason, Fault
from tidegate.events.times import TIME_MAX, TIME_MIN
from tidegate.schema import Column, Kind

Value = int | float | bytes
Reader = Callable[[bytes], Value]

# Microseconds in one unit of a time that is written as a number.
EPOCH_UNITS = {
    "s": Fraction(1_000_000),
    "ms": Fraction(1_000),
    "us": Fraction(1),
    "ns": Fraction(1, 1_000),
}
SHOWN_MAX = 60

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - times inside are UTC without a zone
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)
_QUOTE = 0x22

_string = msgspec.json.Decoder(str)
_PLAIN_DECIMAL = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_TIME = re.compile(
    rb"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    rb"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    rb"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)


def reader(column: Column, *, epoch_unit: str | None) -> Reader:
    """A function from a JSON value's bytes to the value of `column`; it raises `Fault`."""
    match column.type.kind:
        case Kind.TEXT:
            return lambda raw: _text(column, raw)
        case Kind.BIGINT:
            return lambda raw: _bigint(column, raw)
        case Kind.DOUBLE:
            return lambda raw: _double(column, raw)
        case Kind.DECIMAL:
            return lambda raw: _decimal(column, raw)
        case Kind.BOOLEAN:
            return lambda raw: _boolean(column, raw)
        case Kind.TIMESTAMP:
            per_unit = None if epoch_unit is None else EPOCH_UNITS[epoch_unit]
            return lambda raw: _timestamp(column, raw, per_unit)
        case Kind.JSON:
            return lambda raw: raw


def _text(column: Column, raw: bytes) -> bytes:
    if raw[0] != _QUOTE:
        _wrong_type(column, raw)
    return _unquoted(raw)


def _unquoted(raw: bytes) -> bytes:
    return _string.decode(raw).encode() if b"\\" in raw else raw[1:-1]


def _bigint(column: Column, raw: bytes) -> int:
    if not _is_number(raw) or any(c in raw for c in b".eE"):
        _wrong_type(column, raw)
    # Twenty characters hold every int64; longer ones are never converted, which costs time.
    if len(raw) > 20 or (value := int(raw)) not in _INT64:
        raise _fault(DeadReason.OUT_OF_RANGE, column, "beyond the 64 bits of bigint", raw)
    return value


def _double(column: Column, raw: bytes) -> float:
    if not _is_number(raw):
        _wrong_type(column, raw)
    value = float(raw)
    if math.isinf(value):
        raise _fault(DeadReason.OUT_OF_RANGE, column, "beyond the range of double", raw)
    return value


def _decimal(column: Column, raw: bytes) -> int:
    text = raw
    if raw[0] == _QUOTE:
        text = _unquoted(raw)
        if not _PLAIN_DECIMAL.fullmatch(text):
            _wrong_type(column, raw)
    elif not _is_number(raw):
        _wrong_type(column, raw)
    return _scaled(column, raw, text)


def _scaled(column: Column, raw: bytes, text: bytes) -> int:
    """The exact value times 10**scale; powers of ten are only raised once they are known small."""
    try:
        sign, digits, exponent = Decimal(text.decode()).as_tuple()
    except InvalidOperation:  # an exponent beyond what the library holds
        mantissa = re.split(rb"[eE]", text)[0]
        if not mantissa.strip(b"-0."):
            return 0
        raise _fault(
            DeadReason.OUT_OF_RANGE, column, f"beyond the digits of {column.type}", raw
        ) from None
    assert isinstance(exponent, int)  # noqa: S101 - JSON has no NaN and no infinity
    shown = "".join(map(str, digits)).strip("0")
    if not shown:
        return 0
    power = exponent + _zeros_at_end(digits) + column.type.scale
    if power < 0:
        what = f"more fractional digits than {column.type} holds"
        raise _fault(DeadReason.OUT_OF_RANGE, column, what, raw)
    if len(shown) + power > column.type.precision:
        raise _fault(DeadReason.OUT_OF_RANGE, column, f"beyond the digits of {column.type}", raw)
    value = int(shown) * int(10**power)
    return -value if sign else value


def _zeros_at_end(digits: tuple[int, ...]) -> int:
    count = 0
    while digits[-1 - count] == 0:
        count += 1
    return count


def _boolean(column: Column, raw: bytes) -> int:
    if raw not in (b"true", b"false"):
        _wrong_type(column, raw)
    return int(raw == b"true")


def _timestamp(column: Column, raw: bytes, per_unit: Fraction | None) -> int:
    if raw[0] == _QUOTE:
        return _written_time(column, raw, _unquoted(raw))
    if per_unit is None or not _is_number(raw):
        _wrong_type(column, raw)
    return _epoch_time(column, raw, per_unit)


def _written_time(column: Column, raw: bytes, text: bytes) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise _fault(DeadReason.BAD_TIME, column, "not an ISO 8601 time", raw)
    year, month, day, hour, minute, second = (int(g or 0) for g in match.groups()[:6])
    # Digits beyond the microsecond are cut off, as DuckDB does: the time never moves forward.
    microsecond = int((match[7] or b"").ljust(6, b"0")[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, microsecond)  # noqa: DTZ001
    except ValueError as error:
        raise _fault(
            DeadReason.BAD_TIME, column, "no calendar or clock shows this time", raw
        ) from error
    offset = _offset(column, raw, match[8] or b"Z")
    return _in_calendar(column, raw, (moment - _EPOCH) // _MICROSECOND - offset)


def _offset(column: Column, raw: bytes, zone: bytes) -> int:
    """A zone's distance from UTC, in microseconds."""
    if zone == b"Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise _fault(DeadReason.BAD_TIME, column, "no such zone", raw)
    return (-1 if zone[:1] == b"-" else 1) * (hours * 60 + minutes) * 60_000_000


def _epoch_time(column: Column, raw: bytes, per_unit: Fraction) -> int:
    # The limits keep exact arithmetic small; no time needs that many digits.
    exponent = re.split(rb"[eE]", raw)[1:]
    if len(raw) > 40 or (exponent and abs(int(exponent[0])) > 40):
        raise _fault(DeadReason.BAD_TIME, column, "too many digits for a time", raw)
    return _in_calendar(column, raw, math.floor(Fraction(raw.decode()) * per_unit))


def _in_calendar(column: Column, raw: bytes, time: int) -> int:
    if not TIME_MIN <= time <= TIME_MAX:
        raise _fault(DeadReason.BAD_TIME, column, "outside the years 1 to 9999", raw)
    return time


def _is_number(raw: bytes) -> bool:
    return raw[0] in b"-0123456789"


def _wrong_type(column: Column, raw: bytes) -> NoReturn:
    message = f"column `{column.name}`: expected {column.type}, saw {shown(raw)}"
    raise Fault(DeadReason.WRONG_TYPE, message, column=column.name)


def _fault(reason: DeadReason, column: Column, what: str, raw: bytes) -> Fault:
    message = f"column `{column.name}`: {what}, saw {shown(raw)}"
    return Fault(reason, message, column=column.name)


def shown(raw: bytes) -> str:
    r"""A JSON value as a message shows it: its kind, and its text shortened and made printable.

    >>> shown(b'"abc"')
    'text "abc"'
    >>> shown(b"[1,\n2]")
    'array [1,\\n2]'
    """
    kinds = {"{": "object", "[": "array", '"': "text", "t": "boolean", "f": "boolean", "n": ""}
    text = raw[: SHOWN_MAX * 4].decode(errors="replace")
    clipped = text[:SHOWN_MAX] + ("…" if len(text) > SHOWN_MAX else "")
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in clipped)
    return f"{kinds.get(text[:1], 'number')} {printable}".strip()
