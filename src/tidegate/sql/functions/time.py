"""Times: parts, truncation, epochs, and arithmetic with intervals.

A timestamp is a whole number of microseconds since 1970 in UTC, a date one of days; both may lie
anywhere in DuckDB's range, years 290309 BC to 294246. What needs a calendar is computed by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from tidegate.sql.functions.arithmetic import divided
from tidegate.sql.functions.signature import Function, Resolve, Signature, first_of, takes
from tidegate.sql.tree import Node, Operation
from tidegate.sql.types import (
    BIGINT,
    DATE,
    DOUBLE,
    INTERVAL,
    NULL,
    TEXT,
    TIMESTAMP,
    WHOLE,
    Type,
)

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# The first and the last timestamp that DuckDB knows.
EARLIEST, LATEST = -9_223_372_022_400_000_000, 9_223_372_036_854_775_806

Whole = npt.NDArray[np.int64]


def by_calendar(function: Callable[[Whole], Whole], value: pl.Expr) -> pl.Expr:
    """A NumPy function of whole numbers, null where the value is null."""

    def compute(series: pl.Series) -> pl.Series:
        found = pl.Series(function(series.fill_null(0).to_numpy()), dtype=pl.Int64)
        return found if series.null_count() == 0 else found.set(series.is_null(), None)

    return value.map_batches(compute, return_dtype=pl.Int64(), is_elementwise=True)


def floor_days(micros: pl.Expr) -> pl.Expr:
    """The day of a timestamp, rounded toward the past."""
    return micros.floordiv(DAY)


def _within_day(micros: pl.Expr) -> pl.Expr:
    return micros - floor_days(micros) * DAY


def _units(days: Whole, unit: str) -> Whole:
    """Whole calendar units (`M`, `Y`) since 1970."""
    return days.astype("M8[D]").astype(f"M8[{unit}]").astype(np.int64)


def _starts(units: Whole, unit: str) -> Whole:
    """The day on which a calendar unit since 1970 begins."""
    return units.astype(f"M8[{unit}]").astype("M8[D]").astype(np.int64)


def _year(days: Whole) -> Whole:
    return _units(days, "Y") + 1970


def _month(days: Whole) -> Whole:
    return _units(days, "M") % 12 + 1


def _day(days: Whole) -> Whole:
    return days - _starts(_units(days, "M"), "M") + 1


def _day_of_year(days: Whole) -> Whole:
    return days - _starts(_units(days, "Y"), "Y") + 1


def _weekday(days: Whole) -> Whole:
    """Monday 1 to Sunday 7; 1970 began on a Thursday."""
    return (days + 3) % 7 + 1


def _week(days: Whole) -> Whole:
    """The ISO week: that of the week's Thursday."""
    return (_day_of_year(days - _weekday(days) + 4) + 6) // 7


def _iso_year(days: Whole) -> Whole:
    return _year(days - _weekday(days) + 4)


def _century(days: Whole) -> Whole:
    year = _year(days)
    return np.where(year > 0, (year + 99) // 100, -((100 - year) // 100))


CALENDAR: dict[str, Callable[[Whole], Whole]] = {
    "year": _year,
    "month": _month,
    "day": _day,
    "quarter": lambda days: (_month(days) + 2) // 3,
    "doy": _day_of_year,
    "dow": lambda days: _weekday(days) % 7,
    "isodow": _weekday,
    "week": _week,
    "isoyear": _iso_year,
    "decade": lambda days: np.trunc(_year(days) / 10).astype(np.int64),
    "century": _century,
}

_CLOCK: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "hour": lambda t: _within_day(t).floordiv(HOUR),
    "minute": lambda t: _within_day(t).floordiv(MINUTE) % 60,
    "second": lambda t: _within_day(t).floordiv(SECOND) % 60,
    "millisecond": lambda t: (_within_day(t) % MINUTE).floordiv(1000),
    "microsecond": lambda t: _within_day(t) % MINUTE,
}

# Other names of the parts, as DuckDB takes them.
_SYNONYMS = {
    **{f"{part}s": part for part in ("year", "month", "day", "quarter", "week", "decade")},
    **{f"{part}s": part for part in _CLOCK},
    "yr": "year",
    "mon": "month",
    "d": "day",
    "dayofmonth": "day",
    "weekofyear": "week",
    "dayofyear": "doy",
    "dayofweek": "dow",
    "weekday": "dow",
    "h": "hour",
    "hr": "hour",
    "min": "minute",
    "m": "minute",
    "sec": "second",
    "s": "second",
    "us": "microsecond",
    "ms": "millisecond",
    "msec": "millisecond",
    "usec": "microsecond",
    "centuries": "century",
}


def part_named(name: str) -> str | None:
    """The part of a time of that name, in one of its spellings; none if there is no such part."""
    part = _SYNONYMS.get(name.lower(), name.lower())
    return part if part in CALENDAR or part in _CLOCK or part == "epoch" else None


def _part(name: str, value: pl.Expr) -> pl.Expr:
    if name in _CLOCK:
        return _CLOCK[name](value)
    return by_calendar(CALENDAR[name], floor_days(value))


def _part_operation(name: str) -> Operation:
    return Operation(f"part.{name}", lambda _, args: _part(name, args[0]))


PARTS = {name: _part_operation(name) for name in (*CALENDAR, *_CLOCK)}


def _seconds(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    return divided(args[0].cast(pl.Float64), pl.lit(float(SECOND)))


def _millis(micros: pl.Expr) -> pl.Expr:
    """Milliseconds, rounded to nearest, halves away from zero."""
    moved = micros.cast(pl.Int128) + pl.when(micros < 0).then(-500).otherwise(500)
    return moved.truncdiv(1000).cast(pl.Int64)


EPOCH = Operation("epoch", _seconds)
EPOCH_MS = Operation("epoch_ms", lambda _, a: _millis(a[0]))
EPOCH_US = Operation("epoch_us", lambda _, a: a[0], once=True)


def _date_part(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    return _part(part_named(str(node.args[0].value)) or "", args[1])


DATE_PART = Operation("date_part", _date_part)

_TRUNC_FIXED = {
    "microsecond": 1,
    "millisecond": 1000,
    "second": SECOND,
    "minute": MINUTE,
    "hour": HOUR,
    "day": DAY,
}
_TRUNC_CALENDAR: dict[str, Callable[[Whole], Whole]] = {
    "week": lambda days: days - _weekday(days) + 1,
    "month": lambda days: _starts(_units(days, "M"), "M"),
    "quarter": lambda days: _starts(_units(days, "M") // 3 * 3, "M"),
    "year": lambda days: _starts(_units(days, "Y"), "Y"),
}
TRUNCATIONS = (*_TRUNC_FIXED, *_TRUNC_CALENDAR)


def _date_trunc(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    part, value = part_named(str(node.args[0].value)) or "", args[1]
    if part in _TRUNC_FIXED:
        size = _TRUNC_FIXED[part]
        return _timestamp((value.cast(pl.Int128)).floordiv(size) * size)
    days = by_calendar(_TRUNC_CALENDAR[part], floor_days(value))
    return _timestamp(days.cast(pl.Int128) * DAY)


def _timestamp(wide: pl.Expr) -> pl.Expr:
    """The Int128 microseconds as a timestamp, null outside DuckDB's range."""
    inside = wide.is_between(pl.lit(EARLIEST, dtype=pl.Int128), pl.lit(LATEST, dtype=pl.Int128))
    return pl.when(inside).then(wide).cast(pl.Int64, strict=False)


def _check_part(args: Sequence[Node]) -> str | None:
    name = str(args[0].value)
    if part_named(name) is None:
        return f"there is no part `{name}` of a time"
    return None


def _check_truncation(args: Sequence[Node]) -> str | None:
    part = part_named(str(args[0].value))
    if part not in TRUNCATIONS:
        return f"a time is not truncated to `{args[0].value}`"
    return None


def add_months(days: Whole, months: int) -> Whole:
    """The day some months later; the last of the month where that month is shorter."""
    target = _units(days, "M") + months
    last = _starts(target + 1, "M") - _starts(target, "M")
    moved: Whole = _starts(target, "M") + np.minimum(_day(days), last) - 1
    return moved


def _shift(sign: int) -> Operation:
    """A timestamp plus or minus an interval: months first, then the rest, as in DuckDB."""

    def build(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
        value, span = args[0], node.args[1].span
        if span.months == 0:
            return _timestamp(value.cast(pl.Int128) + sign * args[1].cast(pl.Int128))
        days = by_calendar(lambda d: add_months(d, sign * span.months), floor_days(value))
        moved = days.cast(pl.Int128) * DAY + _within_day(value)
        return _timestamp(moved + pl.lit(sign * span.micros, dtype=pl.Int128))

    return Operation(f"shift{sign:+}", build, fault="timestamp out of range")


def _held(wide: pl.Expr) -> pl.Expr:
    return wide.cast(pl.Int64, strict=False)


LATER, EARLIER = _shift(+1), _shift(-1)
BETWEEN = Operation(
    "time.between",
    lambda _, a: _held(a[0].cast(pl.Int128) - a[1].cast(pl.Int128)),
    fault="interval out of range",
)
_DAYS_MAX = 2_147_483_646


def _days(sign: int) -> Operation:
    def build(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
        moved = args[0] + sign * args[1].clip(-(2**40), 2**40)
        return pl.when(moved.is_between(-_DAYS_MAX, _DAYS_MAX)).then(moved)

    return Operation(f"days{sign:+}", build, fault="date out of range")


DAYS_LATER, DAYS_EARLIER = _days(+1), _days(-1)
DAYS_BETWEEN = Operation("days.between", lambda _, a: a[0] - a[1], once=True)


def exactly(left: Type, right: Type, gives: Type, by: Operation) -> Resolve:
    """A resolver for two arguments of just these types, one of which may be NULL."""

    def resolve(types: Sequence[Type]) -> Signature | None:
        if len(types) != 2 or NULL in types[:1] or types[0] != left:
            return None
        same = types[1] == right or (right == BIGINT and types[1].name in WHOLE)
        return Signature((left, right), gives, by) if same else None

    return resolve


def _as_timestamp(resolve: Resolve) -> Resolve:
    """The resolver with a date on the left taken as a timestamp."""
    return lambda types: resolve([TIMESTAMP if t == DATE else t for t in types])


_INTERVAL_SUM = Operation(
    "interval+",
    lambda _, a: _held(a[0].cast(pl.Int128) + a[1].cast(pl.Int128)),
    fault="interval out of range",
)

PLUS = first_of(
    exactly(DATE, BIGINT, DATE, DAYS_LATER),
    _as_timestamp(exactly(TIMESTAMP, INTERVAL, TIMESTAMP, LATER)),
    exactly(INTERVAL, INTERVAL, INTERVAL, _INTERVAL_SUM),
)
MINUS = first_of(
    exactly(DATE, BIGINT, DATE, DAYS_EARLIER),
    exactly(DATE, DATE, BIGINT, DAYS_BETWEEN),
    _as_timestamp(exactly(TIMESTAMP, INTERVAL, TIMESTAMP, EARLIER)),
    _as_timestamp(exactly(TIMESTAMP, TIMESTAMP, INTERVAL, BETWEEN)),
)

# The units of an interval: months, microseconds.
UNITS = {
    "microsecond": (0, 1),
    "millisecond": (0, 1000),
    "second": (0, SECOND),
    "minute": (0, MINUTE),
    "hour": (0, HOUR),
    "day": (0, DAY),
    "week": (0, 7 * DAY),
    "month": (1, 0),
    "quarter": (3, 0),
    "year": (12, 0),
    "decade": (120, 0),
}


def unit_named(name: str) -> tuple[int, int] | None:
    """The months and microseconds of an interval's unit; none if there is no such unit."""
    return UNITS.get(_SYNONYMS.get(name.lower(), name.lower()))


def counted(micros: int) -> Operation:
    """So many units of that many microseconds, as an interval."""
    return Operation(
        f"counted.{micros}",
        lambda _, a: _held(a[0].cast(pl.Int128) * micros),
        fault="interval out of range",
    )


COUNTED = {micros: counted(micros) for months, micros in UNITS.values() if months == 0}

_ANY_PART = first_of(
    takes(TEXT, TIMESTAMP, gives=BIGINT, by=DATE_PART),
)


def _part_function(name: str) -> Function:
    by = PARTS[part_named(name) or ""]
    return Function(name, f"{name}(timestamp)", takes(TIMESTAMP, gives=BIGINT, by=by))


def _constructor(unit: str) -> Function:
    by = COUNTED[UNITS[unit][1]]
    shown = f"to_{unit}s(bigint)"
    return Function(f"to_{unit}s", shown, takes(BIGINT, gives=INTERVAL, by=by))


_MILLIS_TO_TIME = Operation(
    "from_ms", lambda _, a: _timestamp(a[0].cast(pl.Int128) * 1000), fault="timestamp out of range"
)

FUNCTIONS = (
    Function(
        "date_part",
        "date_part('part', timestamp)",
        _ANY_PART,
        literals=frozenset({0}),
        prepare=_check_part,
    ),
    Function(
        "date_trunc",
        "date_trunc('part', timestamp)",
        takes(
            TEXT,
            TIMESTAMP,
            gives=TIMESTAMP,
            by=Operation("date_trunc", _date_trunc, fault="timestamp out of range"),
        ),
        literals=frozenset({0}),
        prepare=_check_truncation,
    ),
    Function(
        "epoch",
        "epoch(timestamp or interval)",
        first_of(takes(TIMESTAMP, gives=DOUBLE, by=EPOCH), takes(INTERVAL, gives=DOUBLE, by=EPOCH)),
    ),
    Function(
        "epoch_ms",
        "epoch_ms(timestamp)",
        first_of(
            takes(TIMESTAMP, gives=BIGINT, by=EPOCH_MS),
            takes(BIGINT, gives=TIMESTAMP, by=_MILLIS_TO_TIME),
        ),
    ),
    Function("epoch_us", "epoch_us(timestamp)", takes(TIMESTAMP, gives=BIGINT, by=EPOCH_US)),
    *(_part_function(name) for name in (*CALENDAR, *_CLOCK) if name not in ("dow", "doy")),
    *(
        _part_function(name)
        for name in ("dayofmonth", "dayofweek", "weekday", "dayofyear", "weekofyear")
    ),
    *(
        _constructor(unit)
        for unit in ("microsecond", "millisecond", "second", "minute", "hour", "day", "week")
    ),
)
