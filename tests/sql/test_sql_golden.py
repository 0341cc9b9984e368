"""Golden files: expressions that DuckDB answers for, and what is refused with which words."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from duckdb_oracle import SCOPE, Oracle, batch_of, same

from tidegate.errors import ProjectError
from tidegate.schema import Schema
from tidegate.sql.expression import ExpressionSet, Scope, compile_expression
from tidegate.sql.source import SourceText

GOLDEN = Path(__file__).parent / "golden"

ROWS = batch_of(
    a=[1, -7, None, 2**63 - 1, -(2**63), 0, 100, 5],
    b=[3, 2, 1, 2, -1, 0, None, -5],
    d=[1.5, -2.5, None, float("nan"), float("inf"), -0.0, 1e300, 0.1],
    f=[0.5, 3.0, 1.0, 2.0, -1.0, 0.0, float("nan"), 1e-5],
    e=[Decimal(n) / 100 for n in (125, -310, 0, 9999999999, -9999999999, 0, 5, 1235)],
    w=[Decimal(n) / 10**6 for n in (1, 10**18 - 1, 1 - 10**18, 0, 1500000, 2500000, -500000, 3)],
    s=["hello", "", None, "Straße ﬁ", "aé😀b", "ΑΣ ΟΔΟΣ", "  x\t\u00a0", "İK%_\\"],
    u=["l", "", "x", None, "é", "Σ", " ", "_"],
    o=[True, False, None, True, False, None, True, False],
    p=[True, True, True, False, False, None, None, None],
    t=[0, -1, None, 1706732685123456, -12239074677 * 10**6, 253402300799999999, -(10**15), 10**15],
    v=[1677578400 * 10**6, 5, 7, None, 0, 86400 * 10**6, -86400 * 10**6 - 1, 951868800 * 10**6],
    j=[
        '{"a":1,"b":"x","c":[1,{"k":"é"}]}',
        "[]",
        None,
        '{"a":null}',
        '{"b":true}',
        '"s"',
        "5",
        '{"a b":1.5}',
    ],
)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.mark.parametrize("theme", ["numbers", "casts", "text", "times", "curves"])
def test_golden_expressions_equal_duckdb(oracle: Oracle, theme: str) -> None:
    relative = 1e-12 if theme == "curves" else 0.0
    wrong = []
    for text in (GOLDEN / f"{theme}.sql").read_text("utf-8").splitlines():
        rows = oracle.compare(text, ROWS)
        wrong += [(text, i, row) for i, row in enumerate(rows) if not same(row, relative=relative)]
    assert wrong == []


@pytest.mark.parametrize("theme", ["numbers", "casts", "text", "times", "curves"])
def test_a_value_does_not_depend_on_how_the_rows_are_cut(theme: str) -> None:
    texts = (GOLDEN / f"{theme}.sql").read_text("utf-8").splitlines()
    together = ExpressionSet([compile_expression(SourceText(t), SCOPE) for t in texts])
    whole = together.evaluate(ROWS)
    ones = [together.evaluate(ROWS.slice(i, 1)) for i in range(ROWS.num_rows)]
    for index, (text, evaluated) in enumerate(zip(texts, whole, strict=True)):
        joined = pa.concat_arrays([one[index].values for one in ones])
        assert _bits(joined) == _bits(evaluated.values), text
        errors = {i: one[index].errors[0] for i, one in enumerate(ones) if one[index].errors}
        assert errors == dict(evaluated.errors), text


def _bits(values: pa.Array) -> list[str]:  # type: ignore[type-arg]
    shown = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
    return [repr(v) for v in shown.to_pylist()]


@pytest.mark.parametrize("theme", ["numbers", "casts", "text", "times", "curves"])
def test_no_rows_give_no_values_of_the_same_types(theme: str) -> None:
    texts = (GOLDEN / f"{theme}.sql").read_text("utf-8").splitlines()
    expressions = [compile_expression(SourceText(t), SCOPE) for t in texts]
    evaluated = ExpressionSet(expressions).evaluate(ROWS.slice(0, 0))
    assert [len(e.values) for e in evaluated] == [0] * len(texts)
    assert [e.values.type for e in evaluated] == [x.type.arrow for x in expressions]
    assert all(e.errors == {} for e in evaluated)


STORE = Scope.of(
    Schema.of(
        [
            ("id", "text"),
            ("ts", "timestamp"),
            ("store_id", "bigint?"),
            ("discount", "double?"),
            ("price", "decimal(10,2)?"),
            ("is_return", "boolean?"),
            ("payload", "json?"),
            ("note", "text?"),
        ],
        id="id",
        event_time="ts",
    )
)


def refusals() -> list[tuple[str, str]]:
    blocks = (GOLDEN / "refused.txt").read_text("utf-8").strip("\n").split("\n\n")
    return [(block.split("\n")[0], "\n".join(block.split("\n")[1:])) for block in blocks]


@pytest.mark.parametrize(("text", "said"), refusals(), ids=lambda value: value.split("\n")[0][:40])
def test_a_mistake_is_shown_with_its_place_and_a_hint(text: str, said: str) -> None:
    with pytest.raises(ProjectError) as caught:
        compile_expression(SourceText(text, "rules.toml", 7, 9), STORE)
    assert str(caught.value) == said


def test_golden_rows_have_times_on_both_sides_of_1970() -> None:
    times = [t for t in ROWS.column("t").to_pylist() if t is not None]
    assert min(times) < datetime(1970, 1, 1) < max(times)  # noqa: DTZ001 - naive is UTC here
