"""The types of SQL expressions and how DuckDB combines them.

They are the column types of `tidegate.schema` and what arises on the way: NULL, 32-bit INTEGER
(whole-number literals), DATE, INTERVAL, and decimals of up to 38 digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from tidegate.schema import ColumnType, Kind


class Name(StrEnum):
    """What a value is; spelled as messages show it."""

    NULL = "null"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    BIGINT = "bigint"
    DECIMAL = "decimal"
    DOUBLE = "double"
    TEXT = "text"
    JSON = "json"
    DATE = "date"
    TIMESTAMP = "timestamp"
    INTERVAL = "interval"


@dataclass(frozen=True, slots=True)
class Type:
    """The type of an expression; `precision` and `scale` only count for decimals."""

    name: Name
    precision: int = 0
    scale: int = 0

    @classmethod
    def of(cls, column: ColumnType) -> Type:
        """The type of a column's values."""
        return cls(Name(column.kind.value), column.precision, column.scale)

    @property
    def physical(self) -> pl.DataType:
        """The Polars type in which values are computed.

        Decimals are whole numbers, scaled; dates are days and timestamps microseconds since 1970;
        intervals are microseconds. Polars' own times stop short of DuckDB's range.
        """
        return _PHYSICAL[self.name]

    def __str__(self) -> str:
        if self.name is Name.DECIMAL:
            return f"decimal({self.precision},{self.scale})"
        return self.name.value


NULL = Type(Name.NULL)
BOOLEAN = Type(Name.BOOLEAN)
INTEGER = Type(Name.INTEGER)
BIGINT = Type(Name.BIGINT)
DOUBLE = Type(Name.DOUBLE)
TEXT = Type(Name.TEXT)
JSON = Type(Name.JSON)
DATE = Type(Name.DATE)
TIMESTAMP = Type(Name.TIMESTAMP)
INTERVAL = Type(Name.INTERVAL)

# The most digits a decimal has while computing, and those that one 64-bit number holds.
DIGITS_MAX = 38
DIGITS_INT64 = 18

_PHYSICAL: dict[Name, pl.DataType] = {
    Name.NULL: pl.Boolean(),
    Name.BOOLEAN: pl.Boolean(),
    Name.INTEGER: pl.Int64(),
    Name.BIGINT: pl.Int64(),
    Name.DECIMAL: pl.Int128(),
    Name.DOUBLE: pl.Float64(),
    Name.TEXT: pl.String(),
    Name.JSON: pl.String(),
    Name.DATE: pl.Int64(),
    Name.TIMESTAMP: pl.Int64(),
    Name.INTERVAL: pl.Int64(),
}

WHOLE = frozenset({Name.INTEGER, Name.BIGINT})
NUMERIC = frozenset({Name.INTEGER, Name.BIGINT, Name.DECIMAL, Name.DOUBLE})
TEXTUAL = frozenset({Name.TEXT, Name.JSON})
TEMPORAL = frozenset({Name.DATE, Name.TIMESTAMP})

_RANK = (Name.BOOLEAN, Name.INTEGER, Name.BIGINT, Name.DECIMAL, Name.DOUBLE)


def decimal(precision: int, scale: int) -> Type:
    """A decimal type of at most 38 digits."""
    return Type(Name.DECIMAL, min(precision, DIGITS_MAX), scale)


def as_decimal(type_: Type) -> Type:
    """The decimal that holds every value of a whole-number or decimal type."""
    if type_.name is Name.DECIMAL:
        return type_
    return decimal(10 if type_.name is Name.INTEGER else 19, 0)


def common(left: Type, right: Type) -> Type | None:
    """The type in which two values are compared or mixed; none if they do not go together."""
    if left == right or right.name is Name.NULL:
        return left
    if left.name is Name.NULL:
        return right
    names = {left.name, right.name}
    if names <= set(_RANK):
        return _common_number(left, right)
    if names <= TEXTUAL:
        return TEXT
    if names <= TEMPORAL:
        return TIMESTAMP
    return None


def _common_number(left: Type, right: Type) -> Type:
    low, high = sorted((left, right), key=lambda t: _RANK.index(t.name))
    if high.name is not Name.DECIMAL:
        return high
    # DuckDB widens a boolean to one digit; ten as for an integer holds the same values.
    a, b = as_decimal(low if low.name is not Name.BOOLEAN else INTEGER), high
    scale = max(a.scale, b.scale)
    return decimal(max(a.precision - a.scale, b.precision - b.scale) + scale, scale)


def common_of(types: Iterable[Type]) -> Type | None:
    """The type in which all the values are mixed, as by CASE; none if they do not go together."""
    shared: Type | None = NULL
    for type_ in types:
        shared = None if shared is None else common(shared, type_)
    return shared


def as_column(type_: Type) -> ColumnType | None:
    """The column type that carries such values out of an expression; none for intervals.

    NULL goes out as bigint, dates as timestamps, and decimals keep their scale in at most 18
    digits (a value that needs more is an error of its row); a scale above 18 does not go out.
    """
    match type_.name:
        case Name.NULL | Name.INTEGER:
            return ColumnType(Kind.BIGINT)
        case Name.DATE:
            return ColumnType(Kind.TIMESTAMP)
        case Name.INTERVAL:
            return None
        case Name.DECIMAL if type_.scale > DIGITS_INT64:
            return None
        case Name.DECIMAL:
            return ColumnType(Kind.DECIMAL, min(type_.precision, DIGITS_INT64), type_.scale)
        case _:
            return ColumnType(Kind(type_.name.value))
