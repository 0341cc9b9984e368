"""The machine that runs expressions on small batches gives what Polars gives, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.schema import ColumnType, Kind
from tidegate.sql.columns import Columns, Piece, array_of
from tidegate.sql.direct import covered
from tidegate.sql.expression import ExpressionSet, Scope, compile_expression
from tidegate.sql.frame import Frame
from tidegate.sql.functions.time import CALENDAR, DAY
from tidegate.sql.source import SourceText

TYPES = {
    "t": ColumnType(Kind.TIMESTAMP),
    "s": ColumnType(Kind.TEXT),
    "u": ColumnType(Kind.TEXT),
    "n": ColumnType(Kind.BIGINT),
    "x": ColumnType(Kind.DOUBLE),
    "d": ColumnType(Kind.DECIMAL, 12, 2),
    "b": ColumnType(Kind.BOOLEAN),
}
SCOPE = Scope(TYPES, {})
NAMES = {"doy": "dayofyear", "dow": "dayofweek"}
# Days whose microseconds fit 64 bits.
DAYS = st.integers(-106_751_991, 106_751_990)


def both(text: str, **columns: pa.Array[Any]) -> list[pa.Array[Any]]:
    """The values by the machine, which must cover the expression, and those by Polars."""
    batch = pa.RecordBatch.from_pydict(columns)
    expression = compile_expression(SourceText(text), SCOPE)
    assert covered(expression.tree)
    return [
        ExpressionSet([expression], direct_rows_max=limit).evaluate(batch)[0].values
        for limit in (10_000, 0)
    ]


@pytest.mark.parametrize("part", sorted(CALENDAR))
@given(days=st.lists(DAYS, min_size=1, max_size=200))
def test_parts_of_dates_are_those_of_the_calendar(part: str, days: list[int]) -> None:
    """Over all of the time that a column can hold, leap years and years before 1 among it."""
    micros = np.array(days) * DAY + 86_399_999_999
    column = pa.array(micros, pa.int64()).view(pa.timestamp("us"))
    for text in (f"{NAMES.get(part, part)}(t)", f"date_part('{part}', t)"):
        machine, polars = both(text, t=column)
        assert machine.equals(polars)
        assert machine.to_pylist() == CALENDAR[part](np.array(days)).tolist()


@pytest.mark.parametrize("comparison", ["=", "<>", "<", "<=", ">", ">="])
@given(rows=st.lists(st.tuples(st.none() | st.text(), st.none() | st.text()), min_size=1))
def test_texts_compare_by_their_bytes(
    comparison: str, rows: list[tuple[str | None, str | None]]
) -> None:
    """With one another and with a literal, beginnings, empty ones and nulls among them."""
    left, right = (pa.array(list(side), pa.string()) for side in zip(*rows, strict=True))
    for text in (f"s {comparison} u", f"s {comparison} 'ä\U0001f40d'", f"s {comparison} ''"):
        machine, polars = both(text, s=left, u=right)
        assert machine.equals(polars)


def test_what_is_cut_out_of_a_column_is_read_from_where_it_begins() -> None:
    """Columns of every form, with nulls, that begin in the middle of a byte."""
    n = 40
    columns: dict[str, pa.Array[Any]] = {
        "t": pa.array([None if i % 7 == 0 else i * DAY for i in range(n)], pa.timestamp("us")),
        "s": pa.array([None if i % 5 == 0 else f"text {i}" for i in range(n)]),
        "n": pa.array([None if i % 3 == 0 else i for i in range(n)]),
        "x": pa.array([None if i % 4 == 0 else i / 2 for i in range(n)]),
        "d": pa.array([None if i % 6 == 0 else Decimal(i) / 4 for i in range(n)], TYPES["d"].arrow),
        "b": pa.array([None if i % 8 == 0 else i % 3 == 0 for i in range(n)]),
    }
    texts = ["day(t)", "s IN ('text 14', 'text 17')", "n IN (11, 13)", "x * 2", "d + 1", "NOT b"]
    cut = {name: column.slice(11, 13) for name, column in columns.items()}
    for text in texts:
        machine, polars = both(text, **cut)
        assert machine.equals(polars), text


def _from_the_end(task: Callable[[int, int], None], size: int) -> None:
    """Three pieces at a time, the last first."""
    for first in reversed(range(0, size, 3)):
        task(first, min(size, first + 3))


@pytest.mark.parametrize("text", ["n + 1", "n IS NULL", "coalesce(d, 0.5)", "x * 2", "s = 'a'"])
def test_a_large_batch_goes_section_by_section(text: str) -> None:
    """Values of every size, with nulls, from the middle of a byte on, to a section not full."""
    n = 70_011
    number = np.arange(n)
    columns: dict[str, pa.Array[Any]] = {
        "n": pa.array(number, mask=number % 3 == 0),
        "x": pa.array(number / 7, mask=number % 5 == 0),
        "d": pa.array([None, Decimal("0.25"), Decimal(-3)], TYPES["d"].arrow).take(number % 3),
        "s": pa.array(["a", "bc", None]).take(number % 3),
    }
    batch = pa.RecordBatch.from_pydict({name: c.slice(11) for name, c in columns.items()})
    expression = compile_expression(SourceText(text), SCOPE)
    assert covered(expression.tree)
    by_sections = ExpressionSet([expression], direct_rows_max=100)
    [(found, errors)] = by_sections.columns(Columns(batch), _from_the_end)
    assert isinstance(found, Piece)  # which Polars does not make
    [polars] = ExpressionSet([expression], direct_rows_max=0).evaluate(batch)
    assert found.array.equals(polars.values)
    assert errors == {}


def test_an_error_in_any_section_is_told_as_it_is_in_a_small_batch() -> None:
    """The whole batch then goes the other way."""
    expression = compile_expression(SourceText("n + 9223372036854775806"), SCOPE)
    batch = pa.RecordBatch.from_pydict({"n": pa.array([0] * 50_000 + [2])})
    together = ExpressionSet([expression], direct_rows_max=100)
    [(found, errors)] = together.columns(Columns(batch), _from_the_end)
    assert list(errors) == [50_000]
    assert array_of(found).null_count == 1


def test_a_condition_is_true_where_it_is_neither_false_nor_unknown() -> None:
    """The rows come as bytes; where a row has an error it is told, and not true."""
    conditions = [
        compile_expression(SourceText(text), SCOPE, expect=Kind.BOOLEAN)
        for text in ("n > 1", "n + 9223372036854775806 > 0", "b", "lower(s) = 'a'")
    ]
    batch = pa.RecordBatch.from_pydict(
        {"n": pa.array([1, 2, None]), "b": pa.array([True, None, False]), "s": ["A", "b", None]}
    )
    truths, errors = ExpressionSet(conditions).truths(Columns(batch))
    assert truths.tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert {number: list(rows) for number, rows in errors.items()} == {1: [1]}


def test_a_batch_without_rows_is_not_worth_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of repeated events alone: the columns have their types, and nobody computes anything."""
    monkeypatch.setattr(Frame, "run", lambda *_: pytest.fail("Polars was asked"))
    texts = ("n + 1", "x", "upper(s)", "b AND n > 1", "d * 2")
    expressions = [compile_expression(SourceText(text), SCOPE) for text in texts]
    batch = pa.RecordBatch.from_pydict({n: pa.array([], TYPES[n].arrow) for n in "nxsbd"})
    found = ExpressionSet(expressions).columns(Columns(batch))
    assert [array_of(c).type for c, _ in found] == [e.type.arrow for e in expressions]
    assert [(len(array_of(c)), errors) for c, errors in found] == [(0, {})] * len(texts)


def test_a_thousand_values_share_few_registers() -> None:
    """A long chain is as deep as it is wide: what nothing reads any more is given away."""
    text = " OR ".join(f"(n > {i} AND x < {i})" for i in range(500))
    machine, polars = both(text, n=pa.array([None, 3, 600]), x=pa.array([1.0, 5.0, float("nan")]))
    assert machine.equals(polars)
