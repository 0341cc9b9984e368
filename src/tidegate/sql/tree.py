"""Checked expressions: a tree in which every operation and type is settled.

The checker builds the tree from parsed SQL; the plan turns it into columns. Equal trees mean equal
values, so that what several expressions share is computed once.

An operation that cannot compute a row gives null there. Its *fault* is then: the result is null
though no argument is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from tidegate.sql.types import INTERVAL, Type


@dataclass(frozen=True, slots=True)
class Span:
    """An interval literal: calendar months, and microseconds (a day has 24 hours in UTC)."""

    months: int = 0
    micros: int = 0

    @property
    def total(self) -> int:
        """The microseconds by which intervals compare: a month counts 30 days."""
        return self.micros + self.months * 30 * 86_400_000_000


Constant = bool | int | float | str | Span | None


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """The rows (`condition`, never null) of which `sentence` tells what went wrong.

    `origin` are the rows in which the operation itself fails, whether or not that decides anything:
    one cheap look at it tells most often that there is nothing to tell.
    """

    condition: pl.Expr
    sentence: str
    origin: pl.Expr


@dataclass(frozen=True, slots=True)
class Lowered:
    """A value as a Polars expression over the columns of the stages before `level`.

    It is null wherever one of its faults holds. `cheap` values (columns, literals) may be repeated.
    A `loose` value may come out of Polars as one for all rows, where WHEN takes the same literal in
    each; it has to become a column before it meets a literal again.
    """

    value: pl.Expr
    level: int = 0
    faults: tuple[Fault, ...] = ()
    cheap: bool = False
    loose: bool = False


Build = Callable[["Node", Sequence[pl.Expr]], pl.Expr]
Control = Callable[["Node", Sequence[Lowered]], Lowered]


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """How a value is computed: by `build` from its arguments' values, or by `control`.

    `fault` is the sentence for rows with a null result from arguments that are not null; without
    it the operation cannot fail. `once` promises that `build` uses each argument only once.
    `nulls` says that the value may be known although an argument is null, as of IS NULL.
    `control` sees its arguments with their faults and decides which of them count.
    """

    name: str
    build: Build | None = None
    fault: str | None = None
    once: bool = False
    nulls: bool = False
    control: Control | None = None


LITERAL = Operation("literal")
COLUMN = Operation("column")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operation of the given type on `args`; `value` is a literal's value or a column's name.

    Literals hold what is computed with: decimals scaled, dates as days and timestamps as
    microseconds since 1970. `text` is how the user wrote it, for messages.
    """

    op: Operation
    type: Type
    args: tuple[Node, ...] = ()
    value: Constant = None
    text: str = ""
    _key: tuple[object, ...] = field(init=False, repr=False)
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The kind of the value counts (1 and 1.0, 0.0 and -0.0 are different literals).
        key = (self.op, self.type, self.args, type(self.value), repr(self.value))
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Node) and self._hash == other._hash and self._key == other._key

    @property
    def is_literal(self) -> bool:
        """Whether this is a literal, NULL included."""
        return self.op is LITERAL

    @property
    def span(self) -> Span:
        """The months and microseconds of an interval; only its literals have months."""
        if self.type == INTERVAL and isinstance(self.value, Span):
            return self.value
        return Span()

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for arg in self.args:
            yield from arg.walk()


def literal(value: Constant, type_: Type, *, text: str = "") -> Node:
    """A literal of the type; `None` is NULL."""
    return Node(LITERAL, type_, (), value, text)
