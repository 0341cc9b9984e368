"""What callers of the package rely on: names, types, errors of rows, limits."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import sqlglot
from duckdb_oracle import SCOPE, Oracle, batch_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import expressions as exp

from tidegate.errors import ProjectError
from tidegate.schema import ColumnType, Kind, Schema
from tidegate.sql.expression import (
    Evaluated,
    Expression,
    ExpressionSet,
    Scope,
    compile_expression,
    compile_node,
)
from tidegate.sql.functions import FUNCTIONS
from tidegate.sql.source import SourceText


def compiled(text: str, *, expect: Kind | None = None) -> Expression:
    return compile_expression(SourceText(text), SCOPE, expect=expect)


def evaluated(text: str, **columns: list[object]) -> Evaluated:
    return ExpressionSet([compiled(text)]).evaluate(batch_of(**columns))[0]


def test_names_match_without_regard_to_case_unless_quoted() -> None:
    scope = Scope({"Price": ColumnType(Kind.DOUBLE)}, {})
    assert compile_expression(SourceText("PRICE > 1"), scope).columns == {"Price"}
    assert compile_expression(SourceText('"Price" > 1'), scope).columns == {"Price"}
    with pytest.raises(ProjectError, match="there is no column"):
        compile_expression(SourceText('"price" > 1'), scope)


def test_event_id_and_event_time_name_the_columns_of_the_schema() -> None:
    schema = Schema.of([("nr", "text"), ("at", "timestamp")], id="nr", event_time="at")
    expression = compile_expression(SourceText("event_time > '2024-01-01'"), Scope.of(schema))
    assert expression.columns == {"at"}


def test_canonical_text_is_one_for_one_meaning() -> None:
    assert compiled("A+b >  1 -- why").sql == compiled('"a" + B > 1').sql


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", "bigint"),
        ("1", "bigint"),
        ("e * e", "decimal(18,4)"),
        ("w + w", "decimal(18,6)"),
        ("d", "double"),
        ("a / b", "double"),
        ("a > b", "boolean"),
        ("s || a", "text"),
        ("CAST(t AS DATE)", "timestamp"),
        ("t + INTERVAL 1 DAY", "timestamp"),
        ("j", "json"),
        ("NULL", "bigint"),
    ],
)
def test_a_result_has_a_column_type(text: str, shown: str) -> None:
    assert str(compiled(text).type) == shown


def test_null_says_that_it_is_null_whatever_the_row() -> None:
    assert compiled("NULL").is_null
    assert not compiled("coalesce(NULL, a)").is_null


def test_the_kind_asked_for_is_required() -> None:
    assert compiled("a > 1", expect=Kind.BOOLEAN).type.kind is Kind.BOOLEAN
    assert compiled("NULL", expect=Kind.BOOLEAN).type.kind is Kind.BOOLEAN
    with pytest.raises(ProjectError, match="this is bigint, but boolean is needed"):
        compiled("a", expect=Kind.BOOLEAN)


def test_boolean_columns_compare_with_numbers_as_in_t_sql() -> None:
    node = sqlglot.parse_one("[o] = 1", dialect="tsql")
    expression = compile_node(node, SourceText("[o] = 1"), SCOPE)
    values = ExpressionSet([expression]).evaluate(batch_of(o=[True, False, None]))[0].values
    assert values.to_pylist() == [True, False, None]


def test_nodes_of_other_dialects_keep_the_places_of_their_parts() -> None:
    text = "UPPER(s) = 'X' AND LEN(prize) > 3"
    node = sqlglot.parse_one(text, dialect="tsql")
    with pytest.raises(ProjectError) as caught:
        compile_node(node, SourceText(text), SCOPE)
    assert [p.column for p in caught.value.problems] == [text.index("prize") + 1]


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ProjectError) as caught:
        compiled("x1 = 1 AND y2 = 2 AND lower(a) = 'x'")
    assert len(caught.value.problems) == 3


def test_an_overflow_is_an_error_of_its_row_only() -> None:
    found = evaluated("a * b", a=[2**62, 2, None], b=[4, 3, 5])
    assert found.values.to_pylist() == [None, 6, None]
    assert found.errors == {0: "integer overflow in `a * b`"}


def test_a_decimal_beyond_eighteen_digits_is_an_error_of_its_row() -> None:
    found = evaluated("w + w", w=[Decimal("999999999999.999999"), Decimal("1.5")])
    assert found.values.to_pylist() == [None, Decimal("3.000000")]
    assert found.errors == {0: "more than 18 digits in `w + w`"}


def test_a_wide_decimal_may_stand_inside_an_expression() -> None:
    found = evaluated("w + w > 1", w=[Decimal("999999999999.999999")])
    assert found.values.to_pylist() == [True]
    assert found.errors == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("o AND a // b = 1", False),
        ("a // b = 1 AND o", False),
        ("p OR a // b = 1", True),
        ("a // b = 1 OR p", True),
        ("CASE WHEN o THEN a // b ELSE 7 END", 7),
        ("CASE WHEN p THEN 7 WHEN a // b = 1 THEN 8 END", 7),
        ("coalesce(a, a // b)", 1),
        ("if(o, a // b, 7)", 7),
    ],
)
def test_an_error_in_what_does_not_decide_does_not_count(text: str, value: object) -> None:
    found = evaluated(text, a=[1], b=[0], o=[False], p=[True])
    assert found.values.to_pylist() == [value]
    assert found.errors == {}


@pytest.mark.parametrize(
    "text",
    [
        "p AND a // b = 1",
        "o OR a // b = 1",
        "NOT a // b = 1",
        "(a // b) IS NULL",
        "(a // b) IS DISTINCT FROM 1",
        "coalesce(a // b, 1)",
        "greatest(a // b, 1)",
        "concat(a // b, 'x')",
        "CASE WHEN a // b = 1 THEN 1 ELSE 2 END",
        "CASE WHEN p THEN a // b END",
        "1 IN (a // b, 1)",
        "nullif(a // b, 1)",
    ],
)
def test_an_error_in_what_decides_makes_the_value_null(text: str) -> None:
    found = evaluated(text, a=[1], b=[0], o=[False], p=[True])
    assert found.values.to_pylist() == [None]
    assert "division by zero" in found.errors[0]


def test_try_cast_gives_null_where_cast_is_an_error() -> None:
    assert evaluated("CAST(s AS BIGINT)", s=["x", "1"]).errors.keys() == {0}
    found = evaluated("TRY_CAST(s AS BIGINT)", s=["x", "1"])
    assert (found.values.to_pylist(), found.errors) == ([None, 1], {})


def test_shared_parts_are_computed_once_and_change_nothing() -> None:
    texts = ["a * b", "a * b + 1", "abs(a * b) > 3", "a * b"]
    batch = batch_of(a=[2, 2**62, None], b=[3, 4, 1])
    together = ExpressionSet([compiled(t) for t in texts]).evaluate(batch)
    alone = [ExpressionSet([compiled(t)]).evaluate(batch)[0] for t in texts]
    assert [e.values for e in together] == [e.values for e in alone]
    assert [dict(e.errors) for e in together] == [dict(e.errors) for e in alone]


def test_an_empty_set_gives_nothing() -> None:
    assert ExpressionSet([]).evaluate(batch_of(a=[1])) == []


def test_other_columns_of_a_batch_do_not_matter() -> None:
    batch = pa.record_batch({"other": pa.array([[1], [2]]), "a": pa.array([1, 2])})
    assert ExpressionSet([compiled("a + 1")]).evaluate(batch)[0].values.to_pylist() == [2, 3]


def test_a_slice_of_a_batch_gives_the_values_of_the_slice() -> None:
    batch = batch_of(a=[1, 2, 3], s=["x", "y", "z"], e=[Decimal("1.00"), Decimal("2.00"), None])
    for text in ("a", "s", "e", "s || a", "e * 2"):
        whole = ExpressionSet([compiled(text)]).evaluate(batch)[0].values
        part = ExpressionSet([compiled(text)]).evaluate(batch.slice(1, 2))[0].values
        assert part.to_pylist() == whole.to_pylist()[1:]


@pytest.mark.parametrize(
    "text",
    [
        "NOT " * 500 + "o",
        "(" * 500 + "1" + ")" * 500,
        "(" * 500,
        "- " * 500 + "1",
        "+".join(["1"] * 500),
        "CASE WHEN o THEN " * 100 + "1" + " END" * 100,
        "lower(" * 200 + "s" + ")" * 200,
        "x" * 20_001,
        "[" * 500,
        "{" * 500,
    ],
    ids=lambda text: text[:12],
)
def test_what_is_too_deep_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(ProjectError):
        compiled(text)


def test_a_long_chain_of_or_is_not_deep() -> None:
    found = evaluated(" OR ".join(f"a = {n}" for n in range(500)), a=[499, 500])
    assert found.values.to_pylist() == [True, False]


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                [
                    "a",
                    "s",
                    "o",
                    "d",
                    "(",
                    ")",
                    "[",
                    "]",
                    ",",
                    ".",
                    "+",
                    "-",
                    "*",
                    "/",
                    "//",
                    "%",
                    "=",
                    "<",
                    ">",
                    "<>",
                    "AND",
                    "OR",
                    "NOT",
                    "IN",
                    "IS",
                    "NULL",
                    "CASE",
                    "WHEN",
                    "THEN",
                    "ELSE",
                    "END",
                    "CAST",
                    "AS",
                    "::",
                    "BIGINT",
                    "'x'",
                    "1",
                    "1.5",
                    "BETWEEN",
                    "LIKE",
                    "lower(",
                    "substr(",
                    "INTERVAL",
                    "DAY",
                    "->",
                    "->>",
                    "||",
                    ";",
                    "@",
                    "#",
                    '"',
                    "'",
                    "SELECT",
                    "FROM",
                    "DISTINCT",
                    "TRY_CAST(",
                    "EXTRACT(",
                    "FILTER",
                    "OVER",
                    "(",
                    "?",
                    "$1",
                    "~",
                    "^",
                    "**",
                    "!",
                ]
            ),
            max_size=14,
        ).map(" ".join),
    )
)
def test_any_text_is_compiled_or_refused_and_never_breaks(text: str) -> None:
    with suppress(ProjectError):
        expressions = ExpressionSet([compiled(text)])
        found = expressions.evaluate(batch_of(a=[1, None], s=["x", None], o=[True, None]))
        assert len(found[0].values) == 2


def test_json_differs_from_duckdb_in_the_named_ways() -> None:
    rows = Oracle().compare(
        "j->>'a'", batch_of(j=['{"a":1,"a":2}', '{"a":12345678901234567890123}'])
    )
    assert [row.expected for row in rows] == ["1", "12345678901234567890123"]
    assert [row.found for row in rows] == ["2", "1.2345678901234568e+22"]


def test_text_with_underscores_or_hexadecimals_is_no_number_here() -> None:
    rows = Oracle().compare("TRY_CAST(s AS BIGINT)", batch_of(s=["1_000", "0x1F"]))
    assert [row.expected for row in rows] == [1000, 31]
    assert [row.found for row in rows] == [None, None]


def test_nothing_is_kept_of_the_tree_that_is_compiled() -> None:
    node = sqlglot.parse_one("LOWER(s) = 'x'", dialect="duckdb")
    before = node.sql()
    compile_node(node, SourceText("LOWER(s) = 'x'"), SCOPE)
    assert isinstance(node, exp.EQ)
    assert node.sql() == before


def test_the_page_on_sql_names_every_function() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sql.md").read_text("utf-8").lower()
    named = set(re.findall(r"[a-z_0-9]+", page))
    assert {name for name in FUNCTIONS if name.isidentifier()} - named == set()
