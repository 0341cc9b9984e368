"""Functions of text: case, parts, joining, and patterns. Positions count code points, from 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from tidegate.sql.functions.arithmetic import per_row
from tidegate.sql.functions.pattern import like_regex, regex
from tidegate.sql.functions.signature import Function, Resolve, Signature, takes
from tidegate.sql.tree import Node, Operation
from tidegate.sql.types import BIGINT, BOOLEAN, NULL, TEXT, TEXTUAL, Type

# What DuckDB trims when not told otherwise: Unicode's space separators, but no tab or line end.
SPACES = " \u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def _simple_upper(char: str) -> str:
    """The one character that is this one's capital; DuckDB never makes two of one."""
    upper = char.upper()
    if len(upper) == 1:
        return upper
    title = char.title()
    return "\u1e9e" if char == "\u00df" else title if len(title) == 1 else char


def _simple_lower(char: str) -> str:
    return "i" if char == "\u0130" else char.lower()


_MANY_UPPER = "".join(c for c in map(chr, range(0x80, 0x10000)) if len(c.upper()) > 1)
# A sigma at a word's end has a small letter of its own in Polars, not in DuckDB.
_MANY_LOWER = "\u0130\u03a3"


def _mapped(
    series: pl.Series, whole: pl.Series, simple: Callable[[str], str], odd: str
) -> pl.Series:
    """Polars' mapping, with the rows that have odd characters mapped one character at a time."""
    rows = series.str.contains_any(list(odd)).fill_null(value=False)
    if not rows.any():
        return whole
    fixed = ["".join(map(simple, text)) for text in series.filter(rows).to_list()]
    return whole.scatter(rows.arg_true(), fixed)


def upper(value: pl.Expr) -> pl.Expr:
    """The text in capitals, one for one."""
    return _per_series(
        value, lambda s: _mapped(s, s.str.to_uppercase(), _simple_upper, _MANY_UPPER)
    )


def lower(value: pl.Expr) -> pl.Expr:
    """The text in small letters, one for one."""
    return _per_series(
        value, lambda s: _mapped(s, s.str.to_lowercase(), _simple_lower, _MANY_LOWER)
    )


def _per_series(value: pl.Expr, compute: Callable[[pl.Series], pl.Series]) -> pl.Expr:
    return value.map_batches(compute, return_dtype=pl.String(), is_elementwise=True)


def _substring(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    """From `start` (from 1, or back from the end), `length` on or, where negative, back."""
    text, start = args[0], args[1]
    size = text.str.len_chars().cast(pl.Int64)
    # Positions far outside the text are all alike; clipping keeps the sums from wrapping.
    start = start.clip(-(2**40), 2**40)
    begin = pl.when(start > 0).then(start - 1).when(start < 0).then(size + start)
    begin = begin.when(start == 0).then(-1)
    if len(args) == 2:
        return _cut(text, begin, size)
    length = args[2].clip(-(2**40), 2**40)
    first = pl.when(length >= 0).then(begin).otherwise(begin + length)
    last = pl.when(length >= 0).then(begin + length).otherwise(begin)
    return _cut(text, first, last)


def _cut(text: pl.Expr, first: pl.Expr, last: pl.Expr) -> pl.Expr:
    first = first.clip(0)
    length = (last - first).clip(0)
    known = first.is_not_null() & length.is_not_null()
    return pl.when(known).then(text.str.slice(first, length))


def _left(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    text, count = args
    size = text.str.len_chars().cast(pl.Int64)
    return _cut(text, pl.lit(0), pl.when(count >= 0).then(count).otherwise(size + count))


def _right(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    text, count = args
    size = text.str.len_chars().cast(pl.Int64)
    taken = pl.when(count >= 0).then(pl.min_horizontal(count, size)).otherwise(size + count)
    return _cut(text, size - taken, size)


def _trimmer(name: str, strip: Callable[[pl.Expr, str], pl.Expr]) -> Function:
    def build(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
        if len(args) == 1:
            return strip(args[0], SPACES)
        chars = node.args[1].value
        if chars is None:
            return pl.lit(None, dtype=pl.String)
        return strip(args[0], str(chars)) if chars else args[0]

    return Function(
        name,
        f"{name}(text) or {name}(text, 'characters')",
        takes(TEXT, TEXT, gives=TEXT, by=Operation(name, build), optional=1),
        literals=frozenset({1}),
    )


def _replace(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    text, found, put = args
    if not node.args[1].is_literal:
        return per_row(lambda t, f, p: t.replace(f, p) if f else t, args, pl.String())
    if node.args[1].value == "":
        # Nothing to look for, nothing replaced; Polars would put it between all characters.
        return pl.when(put.is_not_null()).then(text)
    return text.str.replace_all(found, put, literal=True)


def _char_position(text: pl.Expr, found: pl.Expr) -> pl.Expr:
    return per_row(lambda t, f: t.find(f) + 1, [text, found], pl.Int64())


def _joined(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    return pl.concat_str([a.fill_null("") for a in args])


CONCAT = Operation("concat", _joined, once=True, nulls=True)
APPEND = Operation("||", lambda _, a: pl.concat_str(list(a)), once=True)


def texts(by: Operation) -> Resolve:
    """A resolver for any number of values, each turned into text."""

    def resolve(types: Sequence[Type]) -> Signature | None:
        return Signature((TEXT,) * len(types), TEXT, by) if types else None

    return resolve


def _appended(types: Sequence[Type]) -> Signature | None:
    if len(types) != 2 or not any(t.name in TEXTUAL or t == NULL for t in types):
        return None
    return Signature((TEXT, TEXT), TEXT, APPEND)


def _searched(pattern_of: Callable[[Node], str]) -> Callable[[Node, Sequence[pl.Expr]], pl.Expr]:
    def build(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
        if any(arg.value is None for arg in node.args[1:]):
            return pl.lit(None, dtype=pl.Boolean)
        return args[0].str.contains(pattern_of(node), literal=False, strict=True)

    return build


def _option(node: Node, index: int, default: str) -> str:
    return str(node.args[index].value) if len(node.args) > index else default


def _like_pattern(node: Node) -> str:
    return like_regex(str(node.args[1].value), _option(node, 2, ""))


def _regexp_pattern(node: Node) -> str:
    return regex(str(node.args[1].value), _option(node, 2, ""))


def _ilike(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    if any(arg.value is None for arg in node.args[1:]):
        return pl.lit(None, dtype=pl.Boolean)
    small = "".join(map(_simple_lower, str(node.args[1].value)))
    escape = "".join(map(_simple_lower, _option(node, 2, "")))
    return lower(args[0]).str.contains(like_regex(small, escape), literal=False, strict=True)


def _check(pattern_of: Callable[[Node], str]) -> Callable[[Sequence[Node]], str | None]:
    """A check that the pattern can be compiled, done by compiling it."""

    def prepare(args: Sequence[Node]) -> str | None:
        if any(arg.value is None for arg in args[1:]):
            return None
        node = Node(CONCAT, BOOLEAN, tuple(args))
        try:
            pl.Series([""]).str.contains(pattern_of(node), literal=False, strict=True)
        except ValueError as error:
            return str(error)
        except pl.exceptions.ComputeError:
            return (
                f"`{args[1].value}` is not a regular expression that can be searched in linear time"
            )
        return None

    return prepare


def _pattern(
    name: str,
    shown: str,
    build: Callable[[Node, Sequence[pl.Expr]], pl.Expr],
    of: Callable[[Node], str],
) -> Function:
    resolve = takes(TEXT, TEXT, TEXT, gives=BOOLEAN, by=Operation(name, build), optional=1)
    return Function(name, shown, resolve, literals=frozenset({1, 2}), prepare=_check(of))


def _strict(name: str, shown: str, params: int, gives: Type, build: object) -> Function:
    assert callable(build)  # noqa: S101 - the table below gives functions
    by = Operation(name, lambda _, args: build(*args))
    return Function(name, shown, takes(*[TEXT] * params, gives=gives, by=by))


def _sub(name: str) -> Function:
    by = Operation("substring", _substring)
    shown = f"{name}(text, start) or {name}(text, start, length)"
    return Function(name, shown, takes(TEXT, BIGINT, BIGINT, gives=TEXT, by=by, optional=1))


FUNCTIONS = (
    _strict("lower", "lower(text)", 1, TEXT, lower),
    _strict("lcase", "lcase(text)", 1, TEXT, lower),
    _strict("upper", "upper(text)", 1, TEXT, upper),
    _strict("ucase", "ucase(text)", 1, TEXT, upper),
    *(
        _strict(n, f"{n}(text)", 1, BIGINT, lambda s: s.str.len_chars().cast(pl.Int64))
        for n in ("length", "len", "char_length")
    ),
    _trimmer("trim", lambda s, chars: s.str.strip_chars(chars)),
    _trimmer("ltrim", lambda s, chars: s.str.strip_chars_start(chars)),
    _trimmer("rtrim", lambda s, chars: s.str.strip_chars_end(chars)),
    _sub("substr"),
    _sub("substring"),
    Function(
        "left", "left(text, count)", takes(TEXT, BIGINT, gives=TEXT, by=Operation("left", _left))
    ),
    Function(
        "right",
        "right(text, count)",
        takes(TEXT, BIGINT, gives=TEXT, by=Operation("right", _right)),
    ),
    Function(
        "replace",
        "replace(text, found, put)",
        takes(TEXT, TEXT, TEXT, gives=TEXT, by=Operation("replace", _replace)),
    ),
    *(
        _strict(n, f"{n}(text, start)", 2, BOOLEAN, lambda s, t: s.str.starts_with(t))
        for n in ("starts_with", "prefix")
    ),
    *(
        _strict(n, f"{n}(text, end)", 2, BOOLEAN, lambda s, t: s.str.ends_with(t))
        for n in ("ends_with", "suffix")
    ),
    _strict(
        "contains", "contains(text, part)", 2, BOOLEAN, lambda s, t: s.str.contains(t, literal=True)
    ),
    *(
        _strict(n, f"{n}(text, part)", 2, BIGINT, _char_position)
        for n in ("strpos", "instr", "position")
    ),
    Function("concat", "concat(value, …)", texts(CONCAT)),
    Function("||", "text || text", _appended),
    _pattern("like", "text LIKE 'pattern'", _searched(_like_pattern), _like_pattern),
    _pattern("ilike", "text ILIKE 'pattern'", _ilike, _like_pattern),
    _pattern(
        "regexp_matches",
        "regexp_matches(text, 'pattern')",
        _searched(_regexp_pattern),
        _regexp_pattern,
    ),
)
