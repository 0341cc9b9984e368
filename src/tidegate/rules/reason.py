"""Reasons in words: a template whose holes are SQL expressions, filled in for the rows hit."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.errors import Problem, ProjectError
from tidegate.pseudonyms import pseudonyms
from tidegate.sql.columns import Columns
from tidegate.sql.expression import Expression, ExpressionSet, Scope, compile_expression
from tidegate.sql.source import SourceText

Rows = npt.NDArray[np.int64]

# SQL between braces; a brace inside quotes is part of it.
_HOLE = re.compile(r"""\{((?:[^'"}]|'[^']*'|"[^"]*")*+)\}""")
_FEW = 128  # rows that are looked at one by one sooner than as columns
_MISSING = "unknown"  # what a reason says for null


@dataclass(frozen=True, slots=True)
class Reason:
    """A compiled template: `texts[0] {holes[0]} texts[1] … texts[-1]`.

    `hides` says of each hole whether its values come from columns marked `pii`.
    """

    texts: tuple[str, ...]
    holes: ExpressionSet
    columns: frozenset[str]
    hides: tuple[bool, ...] = ()

    def say(self, columns: Columns, rows: Rows, *, key: bytes = b"") -> list[str]:
        """The reason for each of these rows of the columns, as `render` has it."""
        if len(self.texts) == 1:
            return [self.texts[0]] * len(rows)
        names = [hole.column for hole in self.holes.expressions]
        if len(rows) > _FEW or any(self.hides) or None in names:
            read = sorted(self.columns)
            batch = columns.batch_of(read).select(read)
            return self.render(batch.take(pa.array(rows, pa.int64())), key=key)
        pieces: list[Iterable[str]] = [repeat(self.texts[0], len(rows))]
        for name, text in zip(names, self.texts[1:], strict=True):
            values = _values(columns.array(name or ""), rows)
            pieces += (map(spoken, values), repeat(text, len(rows)))
        return list(map("".join, zip(*pieces, strict=True)))

    def render(self, rows: pa.RecordBatch, *, key: bytes = b"") -> list[str]:
        """The reason for each row, in order; `rows` need no columns but `columns`.

        Where a hole hides its values, their pseudonyms by `key` are said instead.
        """
        if len(self.texts) == 1:
            return [self.texts[0]] * rows.num_rows
        pieces: list[Iterable[str]] = [repeat(self.texts[0])]
        holes = zip(self.holes.evaluate(rows), self.hides, self.texts[1:], strict=True)
        for hole, hides, text in holes:
            said = _spoken_column(hole.values)
            pieces += (_hidden(said, hole.values, key) if hides else said, repeat(text))
        return list(map("".join, zip(*pieces, strict=False)))  # a repeated text has no end


def _values(array: pa.Array[Any], rows: Rows) -> list[object]:
    if len(rows) < 4:
        return [array[row].as_py() for row in rows.tolist()]
    found: list[object] = array.take(pa.array(rows, pa.int64())).to_pylist()
    return found


def _hidden(said: list[str], values: pa.Array[Any], key: bytes) -> list[str]:
    """Pseudonyms in the place of values; what is missing is said as ever."""
    stand = pseudonyms(values, key).to_pylist()
    return [word if name is None else str(name) for word, name in zip(said, stand, strict=True)]


def _spoken_column(values: pa.Array[Any]) -> list[str]:
    """Each value as a person would write it; a value that repeats is put into words once."""
    encoded: Any = values.dictionary_encode(null_encoding="encode")
    words = np.array([spoken(v) for v in encoded.dictionary.to_pylist()], dtype=object)
    said: list[str] = words[encoded.indices.to_numpy()].tolist()
    return said


def spoken(value: object) -> str:
    """A value as a person would write it: 60, not 60.0; null is `unknown`.

    >>> spoken(60.0), spoken(None), spoken(True), spoken(0.5)
    ('60', 'unknown', 'true', '0.5')
    """
    match value:
        case None:
            return _MISSING
        case bool():
            return "true" if value else "false"
        case float():
            return _number(value)
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat(sep=" ")
        case _:
            return str(value)


def _number(value: float) -> str:
    """Every digit and no more; powers of ten only where there would be rows of zeros."""
    if value == 0 or not 1e-6 <= abs(value) < 1e21:
        return "0" if value == 0 else repr(value)
    digits = repr(value)
    return (f"{Decimal(digits):f}" if "e" in digits else digits).removesuffix(".0")


def compile_reason(
    source: SourceText, scope: Scope, *, pii: Collection[str] = frozenset()
) -> Reason:
    """The template with its holes compiled; `{{` and `}}` stand for braces.

    `pii` are the columns whose values no reason says. Raises: ProjectError pointing at the hole.
    """
    texts, holes, problems = [""], list[Expression](), list[Problem]()
    for is_hole, start, end in _split(source):
        if not is_hole:
            texts[-1] += source.text[start:end].replace("{{", "{").replace("}}", "}")
            continue
        texts.append("")
        try:
            holes.append(compile_expression(source.slice(start, end), scope))
        except ProjectError as error:
            problems += error.problems
    if problems:
        raise ProjectError(problems)
    columns = frozenset().union(*(h.columns for h in holes))
    hides = tuple(not h.columns.isdisjoint(pii) for h in holes)
    return Reason(tuple(texts), ExpressionSet(holes), columns, hides)


def _split(source: SourceText) -> Iterator[tuple[bool, int, int]]:
    """Stretches of the template, `(is_hole, start, end)`, the braces of a hole left out."""
    text, at, begin = source.text, 0, 0
    while at < len(text):
        if text[at] not in "{}" or text[at : at + 2] in ("{{", "}}"):
            at += 2 if text[at] in "{}" else 1
            continue
        hole = _HOLE.match(text, at)
        if hole is None:
            hint = "write `{{` and `}}` for braces that are meant as such"
            raise ProjectError(
                [source.problem(at, f"`{text[at]}` without its other half", hint=hint)]
            )
        yield False, begin, at
        yield True, *hole.span(1)
        at = begin = hole.end()
    yield False, begin, len(text)
