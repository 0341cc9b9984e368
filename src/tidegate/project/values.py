"""Kinds of setting values: how each is written in TOML, checked, and what comes out of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from difflib import get_close_matches
from fractions import Fraction
from typing import Protocol, TypeVar

from tidegate.schema import RESERVED, Column, ColumnType, Kind
from tidegate.sql.source import SourceText

T_co = TypeVar("T_co", covariant=True)
Step = str | int

IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


class Refused(ValueError):  # noqa: N818 - it is caught and turned into a Problem, never shown as it is
    """A value that a kind does not take: what is wrong, a hint, and where inside the value.

    `path` leads from the value to the part that is wrong (of a table or list), `position` is the
    character inside a text. `parts` has every mistake of a value that holds several. A line that
    may hold a secret is not shown.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        path: tuple[Step, ...] = (),
        at_key: bool = False,
        position: int | None = None,
        is_secret: bool = False,
        parts: Sequence[Refused] = (),
    ) -> None:
        super().__init__(message)
        self.message, self.hint, self.path = message, hint, path
        self.at_key, self.position, self.is_secret = at_key, position, is_secret
        self.parts = tuple(parts) or (self,)


class Where(Protocol):
    """The place of the value that is being parsed."""

    def source(self) -> SourceText:
        """The text of the value, which is a string, with its place in the file."""

    def file(self, name: str) -> SourceText:
        """The text of another file of the project. Raises: Refused."""


class Written(Protocol[T_co]):
    """A kind of value: `name` and `bounds` are shown to users, `parse` gives the value itself."""

    @property
    def name(self) -> str:
        """What a user calls it: `whole number`, `duration`."""

    @property
    def bounds(self) -> str:
        """What values it takes, in words; empty if any."""

    def parse(self, value: object, where: Where) -> T_co:
        """The value for what tomllib read. Raises: Refused."""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name most like `name`, if any is like it."""
    close = get_close_matches(name.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    return next((k for k in known if k.lower() == close[0]), None) if close else None


def suggestion(name: str, known: Sequence[str]) -> str:
    """A hint that names the nearest known name, or all of them if none is near.

    >>> suggestion("windws", ["stream", "windows"])
    'did you mean `windows`?'
    >>> suggestion("zzz", ["stream", "windows"])
    'known here: `stream`, `windows`'
    """
    close = nearest(name, known)
    if close is not None:
        return f"did you mean `{close}`?"
    return "known here: " + (", ".join(f"`{k}`" for k in known) or "nothing")


_TYPE_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "boolean"),
    (str, "text"),
    (int, "whole number"),
    (float, "number"),
    (dict, "table"),
    (list, "list"),
    ((datetime, date, time), "date or time"),
)


def shown(value: object) -> str:
    """What was seen, in words: its type and, if it is short, itself."""
    name = next((n for kind, n in _TYPE_NAMES if isinstance(value, kind)), type(value).__name__)
    if isinstance(value, bool):
        return f"the {name} `{str(value).lower()}`"
    if isinstance(value, dict | list):
        return f"a {name}"
    text = f'"{value}"' if isinstance(value, str) else digits(value)
    text = "".join(c if c.isprintable() else "·" for c in text)
    return f"the {name} `{text if len(text) <= 40 else text[:37] + '…'}`"


def digits(value: object) -> str:
    """A number as text; of one too long for that only its length."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"{'-' if value < 0 else ''}2^{value.bit_length() - 1}…"
    return f"{value}"


def _text_of(value: object, expected: str, hint: str | None = None) -> str:
    if not isinstance(value, str):
        raise Refused(f"must be {expected}, not {shown(value)}", hint=hint)
    return value


def _within(value: float, low: float | None, high: float | None, bounds: str, seen: str) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        raise Refused(f"must be {bounds}, not {seen}")


def _span(low: str | None, high: str | None) -> str:
    match low, high:
        case None, None:
            return ""
        case _, None:
            return f"at least {low}"
        case None, _:
            return f"at most {high}"
        case _:
            return f"from {low} to {high}"


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number."""

    low: int | None = None
    high: int | None = None
    name: str = "whole number"

    @property
    def bounds(self) -> str:
        """The range in words."""
        texts = [None if n is None else f"{n}" for n in (self.low, self.high)]
        return _span(*texts)

    def parse(self, value: object, where: Where) -> int:  # noqa: ARG002 - one signature for all kinds
        """The number itself."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise Refused(f"must be a whole number, not {shown(value)}")
        _within(value, self.low, self.high, self.bounds, f"`{digits(value)}`")
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number, with or without a fraction."""

    low: float | None = None
    high: float | None = None
    name: str = "number"

    @property
    def bounds(self) -> str:
        """The range in words."""
        texts = [None if n is None else f"{n:g}" for n in (self.low, self.high)]
        return _span(*texts)

    def parse(self, value: object, where: Where) -> float:  # noqa: ARG002 - as above
        """The number as a float."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Refused(f"must be a number, not {shown(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise Refused(f"must be a finite number, not {shown(value)}")
        _within(number, self.low, self.high, self.bounds, f"`{digits(value)}`")
        return number


@dataclass(frozen=True, slots=True)
class Boolean:
    """`true` or `false`."""

    name: str = "boolean"
    bounds: str = ""

    def parse(self, value: object, where: Where) -> bool:  # noqa: ARG002 - as above
        """The boolean itself."""
        if not isinstance(value, bool):
            raise Refused(f"must be `true` or `false`, not {shown(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]
    name: str = "one of"

    @property
    def bounds(self) -> str:
        """The words."""
        return ", ".join(f"`{w}`" for w in self.words)

    def parse(self, value: object, where: Where) -> str:  # noqa: ARG002 - as above
        """The word itself."""
        word = _text_of(value, f"one of {self.bounds}")
        if word not in self.words:
            close = nearest(word, self.words)
            hint = f"did you mean `{close}`?" if close else None
            raise Refused(f"must be one of {self.bounds}, not {shown(word)}", hint=hint)
        return word


@dataclass(frozen=True, slots=True)
class Choices:
    """A list of words, each at most once, at least one."""

    words: tuple[str, ...]
    name: str = "list of"

    @property
    def bounds(self) -> str:
        """The words."""
        return ", ".join(f"`{w}`" for w in self.words)

    def parse(self, value: object, where: Where) -> tuple[str, ...]:
        """The words, in the order in which they are written."""
        if not isinstance(value, list):
            raise Refused(f"must be a list of {self.bounds}, not {shown(value)}")
        if not value:
            raise Refused(f"must name at least one of {self.bounds}")
        one = Choice(self.words)
        for i, word in enumerate(value):
            try:
                one.parse(word, where)
            except Refused as refused:
                raise Refused(refused.message, hint=refused.hint, path=(i,)) from refused
            if word in value[:i]:
                raise Refused(f"names `{word}` twice", path=(i,))
        return tuple(value)


@dataclass(frozen=True, slots=True)
class Text:
    """Text, not empty."""

    name: str = "text"
    bounds: str = ""

    def parse(self, value: object, where: Where) -> str:  # noqa: ARG002 - as above
        """The text itself."""
        text = _text_of(value, "text")
        if not text.strip():
            raise Refused("must not be empty")
        if re.search(r"[\x00-\x1f\x7f]", text):
            raise Refused("must be one line of text", hint="it holds a control character")
        return text


@dataclass(frozen=True, slots=True)
class Name:
    """A name that can be written in SQL without quotes."""

    name: str = "name"
    bounds: str = "`a` to `z`, `0` to `9` and `_`, beginning with a letter"

    def parse(self, value: object, where: Where) -> str:  # noqa: ARG002 - as above
        """The name itself."""
        text = _text_of(value, "a name")
        if IDENTIFIER.fullmatch(text) is None:
            raise Refused(f"must be a name, not {shown(text)}", hint=f"a name has {self.bounds}")
        return text


@dataclass(frozen=True, slots=True)
class Source:
    """Text in SQL or a template: kept with its place, so that later checks can point into it."""

    name: str
    bounds: str = ""

    def parse(self, value: object, where: Where) -> SourceText:
        """The text and where it stands."""
        if not _text_of(value, self.name).strip():
            raise Refused("must not be empty")
        return where.source()


@dataclass(frozen=True, slots=True)
class SqlFile:
    """The name of a SQL file inside the project's folder."""

    name: str = "file name"
    bounds: str = "inside the project's folder, ending in `.sql`"

    def parse(self, value: object, where: Where) -> SourceText:
        """The file's text."""
        text = _text_of(value, "a file name")
        if not is_inside(text):
            raise Refused(f"must stay inside the project's folder, not {shown(text)}")
        if not text.endswith(".sql"):
            raise Refused(f"must end in `.sql`, not {shown(text)}")
        return where.file(text)


def is_inside(path: str) -> bool:
    """Whether a relative path with `/` between its parts stays below where it begins."""
    parts = path.split("/")
    return not any(p in ("", ".", "..") for p in parts) and not re.search(r"[\\:\x00-\x1f]", path)


_UNITS_US: dict[str, int] = {
    unit: size
    for units, size in (
        ("us microsecond microseconds", 1),
        ("ms millisecond milliseconds", 1_000),
        ("s second seconds", 1_000_000),
        ("min minute minutes", 60_000_000),
        ("h hour hours", 3_600_000_000),
        ("d day days", 86_400_000_000),
        ("week weeks", 604_800_000_000),
    )
    for unit in units.split()
}
_UNITS_BYTES: dict[str, int] = {
    "B": 1,
    **{f"{p}iB": 1 << 10 * i for i, p in enumerate("KMGT", 1)},
    **{f"{p}B": 10 ** (3 * i) for i, p in enumerate("kMGT", 1)},
}
_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]+)", re.ASCII)


def _quantity(text: str, units: Mapping[str, int], expected: str, hint: str) -> int:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise Refused(f"must be {expected}, not {shown(text)}", hint=hint)
    if match[2] not in units:
        raise Refused(f"has the unknown unit `{match[2]}`", hint=suggestion(match[2], [*units]))
    amount = Fraction(match[1]) * units[match[2]]
    if amount.denominator != 1:
        raise Refused(f"is finer than its smallest unit: {shown(text)}", hint=hint)
    return int(amount)


def _limit(text: str | None, units: Mapping[str, int]) -> int | None:
    return None if text is None else _quantity(text, units, "", "")


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time with its unit, as in "4 minutes"; comes out in microseconds.

    `word` stands for 0 where a duration of none has a meaning of its own, such as "off".
    """

    low: str | None = None
    high: str | None = "36500 days"
    word: str | None = None
    name: str = "duration"

    @property
    def bounds(self) -> str:
        """The range in words."""
        span = _span(self.low, self.high)
        return f'{span}, or "{self.word}"' if self.word else span

    def parse(self, value: object, where: Where) -> int:  # noqa: ARG002 - as above
        """The length in microseconds."""
        hint = 'write it with its unit, as in "4 minutes" or "250 ms"'
        text = _text_of(value, "a duration", hint)
        if self.word is not None and text == self.word:
            return 0
        length = _quantity(text, _UNITS_US, "a duration", hint)
        low, high = (_limit(t, _UNITS_US) for t in (self.low, self.high))
        _within(length, low, high, self.bounds, f"`{text}`")
        return length


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes with its unit, as in "8 MiB"; comes out in bytes."""

    low: str | None = "1 B"
    high: str | None = "1 TiB"
    name: str = "size"

    @property
    def bounds(self) -> str:
        """The range in words."""
        return _span(self.low, self.high)

    def parse(self, value: object, where: Where) -> int:  # noqa: ARG002 - as above
        """The size in bytes."""
        hint = 'write it with its unit, as in "8 MiB", "64 KiB" or "10485763 B"'
        text = _text_of(value, "a size", hint)
        size = _quantity(text, _UNITS_BYTES, "a size", hint)
        low, high = (_limit(t, _UNITS_BYTES) for t in (self.low, self.high))
        _within(size, low, high, self.bounds, f"`{text}`")
        return size


_TYPE_WORDS = [k.value for k in Kind if k is not Kind.DECIMAL] + ["decimal(18,2)"]


@dataclass(frozen=True, slots=True)
class ValueType:
    """The type of values, written as that of a column."""

    name: str = "type"
    bounds: str = ", ".join(f"`{w}`" for w in _TYPE_WORDS)

    def parse(self, value: object, where: Where) -> ColumnType:  # noqa: ARG002 - as above
        """The type."""
        written = _text_of(value, f"one of {self.bounds}")
        try:
            column = Column.parse("value", written)
        except ValueError as error:
            hint = suggestion(written, _TYPE_WORDS)
            raise Refused(f"has an {error}", hint=hint) from error
        if str(column) != str(column.type) or column.pii:
            raise Refused(f"must be a type alone, not {shown(value)}", hint=f"`{column.type}`")
        return column.type


_NOT_IN_NAMES = re.compile(r"[ ,;{}()=\x00-\x1f\x7f]")  # what Delta tables refuse in column names


@dataclass(frozen=True, slots=True)
class Columns:
    """A table of column names and their types."""

    name: str = "table of column types"
    bounds: str = (
        ", ".join(f"`{w}`" for w in _TYPE_WORDS)
        + "; `?` after it: may be missing; ` pii` at the end: not for everybody's eyes"
    )

    def parse(self, value: object, where: Where) -> tuple[Column, ...]:  # noqa: ARG002 - as above
        """The columns, in the order in which they are written."""
        if not isinstance(value, dict):
            raise Refused(f"must be a table of columns and their types, not {shown(value)}")
        if not value:
            raise Refused("must name at least one column")
        refusals: list[Refused] = []
        columns: list[Column] = []
        for i, (name, written) in enumerate(value.items()):
            try:
                _check_column_name(name, [*value][:i])
                columns.append(_column(name, written))
            except Refused as refused:
                refusals.append(refused)
        if refusals:
            raise Refused("has mistakes", parts=refusals)
        return tuple(columns)


def _check_column_name(name: str, earlier: Sequence[str]) -> None:
    def refused(message: str, hint: str | None = None) -> Refused:
        return Refused(message, path=(name,), hint=hint, at_key=True)

    if not name or _NOT_IN_NAMES.search(name):
        raise refused(
            "is no name for a column", "a column's name has no spaces, line ends or `,;{}()=`"
        )
    if len(name) > 128:
        raise refused("is too long for the name of a column", "at most 128 characters")
    if name.lower() in RESERVED:
        raise refused("is the name of a column that Tidegate adds itself")
    if name.lower() in (e.lower() for e in earlier):
        raise refused("is named twice; case does not tell columns apart in SQL")


def _column(name: str, written: object) -> Column:
    if not isinstance(written, str):
        raise Refused(f"must be a type as text, not {shown(written)}", path=(name,))
    try:
        return Column.parse(name, written)
    except ValueError as error:
        hint = suggestion(re.sub(r"[(?].*|\s+pii\s*$", "", written), _TYPE_WORDS)
        raise Refused(f"has an {error}", path=(name,), hint=hint) from error
