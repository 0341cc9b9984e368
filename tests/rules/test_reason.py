"""Reasons in words: holes are filled in as a person would write the values."""

import math
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ProjectError
from tidegate.rules.reason import compile_reason, spoken
from tidegate.schema import Schema
from tidegate.sql.expression import Scope
from tidegate.sql.source import SourceText

SCHEMA = Schema.of(
    [
        ("id", "text"),
        ("discount", "double?"),
        ("price", "decimal(10,2)?"),
        ("qty", "bigint?"),
        ("gift", "boolean?"),
        ("ts", "timestamp?"),
        ("note", "json?"),
    ],
    id="id",
    event_time="ts",
)
BLANK: dict[str, Any] = {"id": "e1", **dict.fromkeys(SCHEMA.names[1:])}


def said(template: str, **values: Any) -> str:
    batch = pa.RecordBatch.from_pylist([BLANK | values], schema=SCHEMA.arrow)
    reason = compile_reason(SourceText(template), Scope.of(SCHEMA))
    (text,) = reason.render(batch.select(sorted(reason.columns)))
    return text


def refused(template: str) -> tuple[int, int, str]:
    with pytest.raises(ProjectError) as error:
        compile_reason(SourceText(template), Scope.of(SCHEMA))
    first = error.value.problems[0]
    return first.line, first.column, first.message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (60.0, "60"),
        (0.5, "0.5"),
        (-0.0, "0"),
        (68.84, "68.84"),
        (1e15, "1000000000000000"),
        (123456789012345680.0, "123456789012345680"),
        (0.00001, "0.00001"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (7, "7"),
        (2**63 - 1, "9223372036854775807"),
        (Decimal("60.00"), "60.00"),
        (Decimal("0E-8"), "0.00000000"),
        (True, "true"),
        (False, "false"),
        (None, "unknown"),
        ("a{b}", "a{b}"),
        (datetime.fromisoformat("2023-06-06T20:24:45.754948"), "2023-06-06 20:24:45.754948"),
        (datetime.fromisoformat("2023-06-06T20:24:00"), "2023-06-06 20:24:00"),
    ],
)
def test_values_are_written_as_people_write_them(value: object, text: str) -> None:
    assert spoken(value) == text


@given(st.floats(allow_nan=False))
def test_no_digit_of_a_number_is_lost(value: float) -> None:
    assert float(spoken(value)) == value


def test_holes_show_columns_of_every_type() -> None:
    template = "{id} {discount} {price} {qty} {gift} {ts} {note}"
    moment = datetime.fromisoformat("2023-06-06T20:24:45")
    assert (
        said(
            template, discount=60.0, price=Decimal("68.84"), qty=63, gift=True, ts=moment,
            note='{"a":1}',
        )
        == 'e1 60 68.84 63 true 2023-06-06 20:24:45 {"a":1}'
    )  # fmt: skip


def test_what_is_missing_is_unknown() -> None:
    assert said("Discount of {discount} % at {ts}") == "Discount of unknown % at unknown"


def test_a_hole_may_be_an_expression() -> None:
    assert said("{qty * 2} and {upper(id)} and {1 + 1}", qty=4) == "8 and E1 and 2"


def test_a_hole_that_cannot_be_computed_is_unknown() -> None:
    assert said("worth {qty * qty}", qty=2**62) == "worth unknown"


def test_a_text_with_braces_is_not_filled_in_again() -> None:
    assert said("{note} {id}", note="{id}") == "{id} e1"


def test_a_brace_inside_quotes_does_not_end_a_hole() -> None:
    assert said("{concat(id, '}')} {coalesce(note, '{it''s}')}") == "e1} {it's}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{id}}", "{id}"),
        ("{{{id}}}", "{e1}"),
        ("{id}{id}", "e1e1"),
        ("a}}b{{c", "a}b{c"),
        ("ünï {id} ✓", "ünï e1 ✓"),
        ("{ id }", "e1"),
        ("two\nlines {id}", "two\nlines e1"),
    ],
)
def test_braces_are_doubled_to_be_meant(template: str, text: str) -> None:
    assert said(template) == text


def test_a_reason_without_holes_is_told_for_each_row() -> None:
    rows = pa.RecordBatch.from_pylist([BLANK] * 3, schema=SCHEMA.arrow).select([])
    assert compile_reason(SourceText("so"), Scope.of(SCHEMA)).render(rows) == ["so"] * 3


@pytest.mark.parametrize(
    ("template", "line", "column", "message"),
    [
        ("at {stor}", 1, 5, "stor"),
        ("a\nb {id} {discnt}", 2, 9, "discnt"),
        ("open {id", 1, 6, "`{` without its other half"),
        ("close id}", 1, 9, "`}` without its other half"),
        ("{id + }", 1, 2, ""),
        ("empty {}", 1, 8, ""),
        ("quote {upper('x}", 1, 7, "`{` without its other half"),
    ],
)
def test_mistakes_point_at_the_hole(template: str, line: int, column: int, message: str) -> None:
    found = refused(template)
    assert found[0] == line
    assert column <= found[1] <= column + 6
    assert message in found[2]


def test_all_mistakes_are_told_together() -> None:
    with pytest.raises(ProjectError) as error:
        compile_reason(SourceText("{nope} and {neither}"), Scope.of(SCHEMA))
    assert [p.column for p in error.value.problems] == [2, 13]
