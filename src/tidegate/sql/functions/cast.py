"""CAST among all types, written or implied; TRY_CAST gives null where CAST fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, localcontext

import numpy as np
import polars as pl

from tidegate.sql.functions.arithmetic import divided, held, within
from tidegate.sql.functions.time import DAY, HOUR, MINUTE, SECOND, floor_days
from tidegate.sql.functions.time import PARTS as TIME_PARTS
from tidegate.sql.tree import Node, Operation, literal
from tidegate.sql.types import BIGINT, NULL, Name, Type, as_decimal

Convert = Callable[[pl.Expr, Type, Type], pl.Expr]


def cast(node: Node, target: Type, *, text: str = "", fails: bool = True) -> Node | None:
    """The node converted to the target type; none where there is no such conversion.

    `fails` false is TRY_CAST: what cannot be converted is null, and no error.
    """
    if node.type == target:
        return node
    if node.is_literal and node.value is None:
        return literal(None, target, text=node.text)
    found = _PHYSICAL if node.type == NULL else CONVERSIONS.get((node.type.name, target.name))
    if found is None:
        return None
    operation = found[0] if fails and not _widens(node.type, target) else found[1]
    return Node(operation, target, (node,), None, text or node.text)


def _widens(from_: Type, to: Type) -> bool:
    """Whether every value fits the decimal type, so that nothing can fail."""
    if to.name is not Name.DECIMAL or from_.name not in (*_WHOLES, Name.DECIMAL):
        return False
    given = as_decimal(from_)
    return to.scale >= given.scale and to.precision - to.scale >= given.precision - given.scale


def _op(name: str, convert: Convert, *, fails: bool = False) -> tuple[Operation, Operation]:
    """The operations of CAST and TRY_CAST."""

    def build(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
        return convert(args[0], node.args[0].type, node.type)

    trying = Operation(f"try {name}", build)
    return (
        Operation(name, build, fault="the value cannot be converted") if fails else trying
    ), trying


def _physical(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    return value.cast(to.physical)


def _whole_to_integer(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    return held(value, to)


def _whole_to_decimal(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    wide, factor = value.cast(pl.Int128), 10**to.scale
    fits = within(wide, (10**to.precision - 1) // factor)
    return pl.when(fits).then(wide * pl.lit(factor, dtype=pl.Int128))


def _decimal_to_double(value: pl.Expr, from_: Type, _: Type) -> pl.Expr:
    power = pl.lit(10**from_.scale, dtype=pl.Int128)
    factor = pl.lit(float(10**from_.scale))
    direct = divided(value.cast(pl.Float64), factor)
    if from_.scale == 0 or from_.precision <= 15:
        return direct
    # Beyond 53 bits DuckDB converts the whole part and the fraction apart.
    whole = value.truncdiv(power)
    apart = whole.cast(pl.Float64) + divided((value - whole * power).cast(pl.Float64), factor)
    return pl.when(within(value, 2**53)).then(direct).otherwise(apart)


def halved(value: pl.Expr, divisor: int) -> pl.Expr:
    """The Int128 divided, rounded to nearest, halves away from zero."""
    half = pl.lit(divisor // 2, dtype=pl.Int128)
    moved = pl.when(value < 0).then(value - half).otherwise(value + half)
    return moved.truncdiv(pl.lit(divisor, dtype=pl.Int128))


def rescaled(value: pl.Expr, from_: Type, to: Type) -> pl.Expr:
    """A decimal's whole number at another scale; null where it does not fit."""
    if to.scale < from_.scale:
        return held(halved(value, 10 ** (from_.scale - to.scale)), to)
    factor = 10 ** (to.scale - from_.scale)
    fits = within(value, (10**to.precision - 1) // factor)
    return pl.when(fits).then(value * pl.lit(factor, dtype=pl.Int128))


def _decimal_to_whole(value: pl.Expr, from_: Type, to: Type) -> pl.Expr:
    whole = halved(value, 10**from_.scale) if from_.scale else value
    narrow = whole.cast(pl.Int64, strict=False)
    return narrow if to == BIGINT else held(narrow, to)


def _double_to_whole(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    # Halves to even, as DuckDB's nearbyint.
    nearest = value.round(0, mode="half_to_even")
    limit = 2.0**63 if to == BIGINT else 2.0**31
    inside = (nearest >= -limit) & (nearest < limit)
    return pl.when(inside).then(nearest).cast(pl.Int64, strict=False)


def _double_to_decimal(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    scaled = value * float(10**to.scale)
    # DuckDB nudges by a billionth, so that 2.675 (in truth a little less) becomes 2.68.
    nudged = scaled + pl.when(value > 0).then(1e-9).when(value < 0).then(-1e-9).otherwise(0.0)
    limit = float(10**to.precision)
    fits = (nudged > -limit) & (nudged < limit)
    nearest = nudged.round(0, mode="half_to_even")
    return pl.when(fits).then(nearest).cast(pl.Int128, strict=False)


def _date_to_timestamp(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    return (value.cast(pl.Int128) * DAY).cast(pl.Int64, strict=False)


# To text


def _double_to_text(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    # Python writes doubles as DuckDB does: the shortest digits, an exponent from 1e16 and to 1e-5.
    return _per_value(value, repr, pl.String())


def _per_value(value: pl.Expr, convert: Callable[[object], object], dtype: pl.DataType) -> pl.Expr:
    def compute(series: pl.Series) -> pl.Series:
        return pl.Series([None if v is None else convert(v) for v in series.to_list()], dtype=dtype)

    return value.map_batches(compute, return_dtype=dtype, is_elementwise=True)


def _decimal_to_text(value: pl.Expr, from_: Type, _: Type) -> pl.Expr:
    # A type without digits before the point is shown without a zero there, as in DuckDB.
    size = from_.scale + (from_.precision > from_.scale)
    digits = value.abs().cast(pl.String).str.zfill(size)
    sign = pl.when(value < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    if from_.scale == 0:
        return pl.concat_str([sign, digits])
    whole = digits.str.head(-from_.scale)
    return pl.concat_str([sign, whole, pl.lit("."), digits.str.tail(from_.scale)])


def _boolean_to_text(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    return pl.when(value).then(pl.lit("true")).when(~value).then(pl.lit("false"))


def _two(value: pl.Expr) -> pl.Expr:
    return value.cast(pl.String).str.zfill(2)


def _part(name: str, value: pl.Expr) -> pl.Expr:
    build = TIME_PARTS[name].build
    assert build is not None  # noqa: S101 - every part is built
    return build(_NO_NODE, [value])


_NO_NODE = literal(None, NULL)


def _date_text(micros: pl.Expr) -> pl.Expr:
    year = _part("year", micros)
    era = pl.when(year <= 0).then(pl.lit(" (BC)")).otherwise(pl.lit(""))
    shown = pl.when(year <= 0).then(1 - year).otherwise(year).cast(pl.String).str.zfill(4)
    month, day = _two(_part("month", micros)), _two(_part("day", micros))
    date = pl.concat_str([shown, month, day], separator="-")
    return pl.concat_str([date, era])


def _date_to_text(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    return _date_text(value * DAY)


def _timestamp_to_text(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    parts = [_two(_part(name, value)) for name in ("hour", "minute", "second")]
    micros = _part("microsecond", value) % SECOND
    digits = pl.concat_str([pl.lit("."), micros.cast(pl.String).str.zfill(6)])
    fraction = pl.when(micros == 0).then(pl.lit("")).otherwise(digits.str.strip_chars_end("0"))
    clock = pl.concat_str(parts, separator=":")
    return pl.concat_str([_date_text(value), pl.lit(" "), clock, fraction])


# From text

_NUMBER = re.compile(
    r"[ \t\n\v\f\r]*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*", re.A
)
_NAMED = re.compile(r"[ \t\n\v\f\r]*([+-]?(?:inf(?:inity)?|nan))\s*", re.A | re.I)


def _read_double(text: object) -> float | None:
    match = _NUMBER.fullmatch(str(text)) or _NAMED.fullmatch(str(text))
    return None if match is None else float(match[1])


def _read_scaled(text: object, scale: int, limit: int) -> int | None:
    """The number scaled to a whole one, halves away from zero; none if not within the limit."""
    match = _NUMBER.fullmatch(str(text))
    if match is None:
        return None
    with localcontext(prec=200, Emax=10**6, Emin=-(10**6)):
        number = Decimal(match[1])
        if number.adjusted() > 60:
            return None
        whole = int(number.scaleb(scale).to_integral_value(ROUND_HALF_UP))
    return whole if -limit - 1 <= whole <= limit else None


def _text_to_whole(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    limit = 2**63 - 1 if to == BIGINT else 2**31 - 1

    def compute(series: pl.Series) -> pl.Series:
        # Plain digits, the usual case, are read by Polars.
        if series.str.contains("^-?[0-9]{1,9}$").fill_null(value=True).all():
            return series.cast(pl.Int64)
        read = [None if v is None else _read_scaled(v, 0, limit) for v in series.to_list()]
        return pl.Series(read, dtype=pl.Int64)

    return value.map_batches(compute, return_dtype=pl.Int64(), is_elementwise=True)


def _text_to_decimal(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    limit = 10**to.precision - 1

    def read(text: object) -> int | None:
        found = _read_scaled(text, to.scale, limit)
        return None if found is None or abs(found) > limit else found

    return _per_value(value, read, pl.Int128())


def _text_to_double(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    return _per_value(value, _read_double, pl.Float64())


_TRUE, _FALSE = ["true", "t", "yes", "y", "1"], ["false", "f", "no", "n", "0"]


def _text_to_boolean(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    small = value.str.to_lowercase()
    return (
        pl.when(small.is_in(_TRUE))
        .then(pl.lit(value=True))
        .when(small.is_in(_FALSE))
        .then(pl.lit(value=False))
    )


_TIME = re.compile(
    r"\s*(\d{4,6})-(\d{1,2})-(\d{1,2})"
    r"(?:[ T](\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(?:Z|\s*\+00(?::00)?)?)?\s*",
    re.ASCII,
)


def read_timestamp(text: object) -> int | None:
    """Microseconds since 1970 of a time as DuckDB writes it; none if it is not one.

    >>> read_timestamp("1970-01-01 00:00:01.5")
    1500000
    """
    match = _TIME.fullmatch(str(text))
    if match is None:
        return None
    year, month, day = (int(match[i]) for i in (1, 2, 3))
    hour, minute, second = (int(match[i] or 0) for i in (4, 5, 6))
    if not (1 <= month <= 12 and hour < 24 and minute < 60 and second < 60):
        return None
    days = _day_number(year, month, day)
    if days is None:
        return None
    micros = int((match[7] or "0").ljust(6, "0")[:6])
    return days * DAY + hour * HOUR + minute * MINUTE + second * SECOND + micros


def _day_number(year: int, month: int, day: int) -> int | None:
    first = np.datetime64(f"{year:04d}-{month:02d}", "M") if year <= 9999 else None
    if first is None:
        return None
    start, end = first.astype("M8[D]").astype(int), (first + 1).astype("M8[D]").astype(int)
    return int(start + day - 1) if 1 <= day <= end - start else None


def _text_to_timestamp(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    return _per_value(value, read_timestamp, pl.Int64())


def _text_to_date(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    return _per_value(value, read_timestamp, pl.Int64()).floordiv(DAY)


def _same(value: pl.Expr, _: Type, __: Type) -> pl.Expr:
    return value


_WHOLES = (Name.INTEGER, Name.BIGINT)
_NUMBERS = (*_WHOLES, Name.DECIMAL, Name.DOUBLE)

_SAME = _op("same", _same)
_PHYSICAL = _op("widened", _physical)
_NOT_ZERO = _op("number to boolean", lambda v, _, __: v != 0)
_TO_DECIMAL = _op("whole to decimal", _whole_to_decimal, fails=True)
_WHOLE_TO_TEXT = _op("whole to text", _physical)
CONVERSIONS: Mapping[tuple[Name, Name], tuple[Operation, Operation]] = {
    **{(Name.BOOLEAN, n): _PHYSICAL for n in (*_WHOLES, Name.DOUBLE)},
    (Name.BOOLEAN, Name.DECIMAL): _TO_DECIMAL,
    (Name.BOOLEAN, Name.TEXT): _op("boolean to text", _boolean_to_text),
    **{(n, Name.BOOLEAN): _NOT_ZERO for n in _NUMBERS},
    (Name.INTEGER, Name.BIGINT): _SAME,
    (Name.BIGINT, Name.INTEGER): _op("bigint to integer", _whole_to_integer, fails=True),
    **{(n, Name.DOUBLE): _PHYSICAL for n in _WHOLES},
    **{(n, Name.DECIMAL): _TO_DECIMAL for n in _WHOLES},
    **{(n, Name.TEXT): _WHOLE_TO_TEXT for n in _WHOLES},
    **{(Name.DECIMAL, n): _op("decimal to whole", _decimal_to_whole, fails=True) for n in _WHOLES},
    (Name.DECIMAL, Name.DECIMAL): _op("decimal to decimal", rescaled, fails=True),
    (Name.DECIMAL, Name.DOUBLE): _op("decimal to double", _decimal_to_double),
    (Name.DECIMAL, Name.TEXT): _op("decimal to text", _decimal_to_text),
    **{(Name.DOUBLE, n): _op("double to whole", _double_to_whole, fails=True) for n in _WHOLES},
    (Name.DOUBLE, Name.DECIMAL): _op("double to decimal", _double_to_decimal, fails=True),
    (Name.DOUBLE, Name.TEXT): _op("double to text", _double_to_text),
    **{(Name.TEXT, n): _op("text to whole", _text_to_whole, fails=True) for n in _WHOLES},
    (Name.TEXT, Name.DECIMAL): _op("text to decimal", _text_to_decimal, fails=True),
    (Name.TEXT, Name.DOUBLE): _op("text to double", _text_to_double, fails=True),
    (Name.TEXT, Name.BOOLEAN): _op("text to boolean", _text_to_boolean, fails=True),
    (Name.TEXT, Name.TIMESTAMP): _op("text to timestamp", _text_to_timestamp, fails=True),
    (Name.TEXT, Name.DATE): _op("text to date", _text_to_date, fails=True),
    (Name.JSON, Name.TEXT): _SAME,
    (Name.DATE, Name.TIMESTAMP): _op("date to timestamp", _date_to_timestamp, fails=True),
    (Name.DATE, Name.TEXT): _op("date to text", _date_to_text),
    (Name.TIMESTAMP, Name.DATE): _op("timestamp to date", lambda v, _, __: floor_days(v)),
    (Name.TIMESTAMP, Name.TEXT): _op("timestamp to text", _timestamp_to_text),
}
