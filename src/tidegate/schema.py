"""The columns of a stream and their types: the one place that knows how a type is written.

A type is written as in `tidegate.toml`: `text`, `bigint`, `double`, `decimal(p,s)`, `boolean`,
`timestamp` or `json`, with `?` after it where the value may be missing, and ` pii` at the end where
not everybody may see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import pyarrow as pa


class Kind(StrEnum):
    """What a column holds; the names are those of `tidegate.toml`."""

    TEXT = "text"
    BIGINT = "bigint"
    DOUBLE = "double"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type; `precision` and `scale` only count for `decimal`.

    Between stages a value travels as the Arrow type of `arrow`. Timestamps are UTC microseconds
    without a zone; decimals have at most 18 digits, so that their scaled value fits an int64.
    """

    kind: Kind
    precision: int = 0
    scale: int = 0

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type in which values of this type travel between stages."""
        if self.kind is Kind.DECIMAL:
            return pa.decimal128(self.precision, self.scale)
        return _ARROW[self.kind]

    def __str__(self) -> str:
        if self.kind is Kind.DECIMAL:
            return f"decimal({self.precision},{self.scale})"
        return self.kind.value


_ARROW: dict[Kind, pa.DataType] = {
    Kind.TEXT: pa.string(),
    Kind.BIGINT: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.JSON: pa.string(),
}

_WRITTEN = re.compile(
    r"(?P<kind>[a-z]+)\s*(?:\(\s*(?P<p>\d+)\s*,\s*(?P<s>\d+)\s*\))?(?P<q>\?)?(?P<pii>\s+pii)?"
)

# Columns that Tidegate adds to the tables; a stream cannot declare them.
RESERVED = ("extra", "ingest_time", "source", "log_offset", "event_date")


@dataclass(frozen=True, slots=True)
class Column:
    """A declared column of the stream; `pii` says that not everybody may see its values.

    As text it is its type, without `pii`, which changes nothing that is kept.
    """

    name: str
    type: ColumnType
    nullable: bool
    pii: bool = False

    @classmethod
    def parse(cls, name: str, written: str) -> Column:
        """The column for a type as written in `tidegate.toml`.

        Raises: ValueError with a message fit for a user.

        >>> Column.parse("price", "decimal(10,2)?")
        Column(name='price', type=ColumnType(kind=<Kind.DECIMAL: 'decimal'>, precision=10, \
scale=2), nullable=True, pii=False)
        """
        match = _WRITTEN.fullmatch(written.strip())
        if match is None or match["kind"] not in set(Kind):
            raise ValueError(f"unknown type `{written}`")
        kind = Kind(match["kind"])
        if (kind is Kind.DECIMAL) != (match["p"] is not None):
            raise ValueError(f"`{written}`: only decimal has digits, as in `decimal(18,2)`")
        precision, scale = int(match["p"] or 0), int(match["s"] or 0)
        if kind is Kind.DECIMAL and not (1 <= precision <= 18 and scale <= precision):
            raise ValueError(f"`{written}`: a decimal has 1 to 18 digits, its scale among them")
        return cls(
            name,
            ColumnType(kind, precision, scale),
            nullable=bool(match["q"]),
            pii=bool(match["pii"]),
        )

    def __str__(self) -> str:
        return f"{self.type}{'?' if self.nullable else ''}"


@dataclass(frozen=True)
class Schema:
    """The declared columns of a stream, in order, and which of them are its id and its time."""

    columns: tuple[Column, ...]
    id: str
    event_time: str

    @classmethod
    def of(cls, columns: Iterable[tuple[str, str]], *, id: str, event_time: str) -> Schema:  # noqa: A002 - named as in tidegate.toml
        """A schema from pairs of name and written type."""
        return cls(tuple(Column.parse(n, t) for n, t in columns), id, event_time)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(c.name for c in self.columns)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """The columns by name."""
        return {c.name: c for c in self.columns}

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of a batch of declared columns."""
        return pa.schema([pa.field(c.name, c.type.arrow, c.nullable) for c in self.columns])

    @cached_property
    def pii(self) -> frozenset[str]:
        """The names of the columns that not everybody may see."""
        return frozenset(c.name for c in self.columns if c.pii)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)
