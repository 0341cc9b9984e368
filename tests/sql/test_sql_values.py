"""Columns of few rows as Python's values and several as one: the same as by way of Arrow."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.schema import ColumnType, Kind
from tidegate.sql.columns import Column, Columns, Piece, array_of
from tidegate.sql.expression import ExpressionSet, Scope, compile_expression
from tidegate.sql.source import SourceText
from tidegate.sql.values import joined, values

TYPES = {
    "n": ColumnType(Kind.BIGINT),
    "x": ColumnType(Kind.DOUBLE),
    "d": ColumnType(Kind.DECIMAL, 12, 2),
    "b": ColumnType(Kind.BOOLEAN),
    "t": ColumnType(Kind.TIMESTAMP),
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(-(2**40), 2**40),
    "x": st.floats(allow_nan=False),
    "d": st.decimals(-1000, 1000, places=2),
    "b": st.booleans(),
    "t": st.integers(0, 2**50),
}
TEXTS = {"n": "n - 1", "x": "-x", "d": "coalesce(d, d)", "b": "NOT b", "t": "coalesce(t, t)"}
EXPRESSIONS = {
    name: compile_expression(SourceText(text), Scope(TYPES, {})) for name, text in TEXTS.items()
}


def piece(name: str, given_: list[Any]) -> Column:
    """A column that the machine has made of these values."""
    batch = pa.RecordBatch.from_pydict({name: pa.array(given_, TYPES[name].arrow)})
    [(found, _)] = ExpressionSet([EXPRESSIONS[name]]).columns(Columns(batch))
    assert isinstance(found, Piece)
    return found


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_pieces_are_what_arrow_makes_of_them(name: str, data: st.DataObject) -> None:
    some = st.lists(st.none() | VALUES[name], min_size=1, max_size=20) | st.lists(
        VALUES[name], min_size=1, max_size=20
    )
    pieces = [piece(name, data.draw(some)) for _ in range(data.draw(st.integers(1, 4)))]
    for each in pieces:
        array = array_of(each)
        begin = data.draw(st.integers(0, len(array)))
        end = data.draw(st.integers(begin, len(array)))
        assert values([each], begin, end) == [array.slice(begin, end - begin).to_pylist()]
    [found] = joined([[each] for each in pieces])
    found.validate(full=True)
    assert found.equals(pa.concat_arrays([array_of(each) for each in pieces]))


def test_pieces_join_with_arrays() -> None:
    array = pa.array([Decimal("1.50"), None], TYPES["d"].arrow)
    [found] = joined([[piece("d", [Decimal(2)])], [array]])
    assert found.to_pylist() == [Decimal("2.00"), Decimal("1.50"), None]
    assert values([array, array], 1, 2) == [[None], [None]]
