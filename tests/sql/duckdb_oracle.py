"""DuckDB as the oracle: the same text over the same rows, one by one where it raises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from tidegate.schema import ColumnType, Kind
from tidegate.sql.expression import Expression, ExpressionSet, Scope, compile_expression
from tidegate.sql.source import SourceText

COLUMNS = {
    "a": ColumnType(Kind.BIGINT),
    "b": ColumnType(Kind.BIGINT),
    "d": ColumnType(Kind.DOUBLE),
    "f": ColumnType(Kind.DOUBLE),
    "e": ColumnType(Kind.DECIMAL, 10, 2),
    "w": ColumnType(Kind.DECIMAL, 18, 6),
    "s": ColumnType(Kind.TEXT),
    "u": ColumnType(Kind.TEXT),
    "o": ColumnType(Kind.BOOLEAN),
    "p": ColumnType(Kind.BOOLEAN),
    "t": ColumnType(Kind.TIMESTAMP),
    "v": ColumnType(Kind.TIMESTAMP),
    "j": ColumnType(Kind.JSON),
}
SCOPE = Scope(COLUMNS, {})
RAISED = object()


@dataclass
class Row:
    """What DuckDB says and what we say of one row; `RAISED` for an error."""

    expected: Any
    found: Any


def batch_of(**columns: Sequence[object]) -> pa.RecordBatch:
    """A batch of all columns, null where not given."""
    rows = max(map(len, columns.values()))
    arrays = [pa.array(columns.get(n, [None] * rows), t.arrow) for n, t in COLUMNS.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(COLUMNS))


class Oracle:
    """A DuckDB connection that answers for expressions over a batch."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        # Folding would raise for constants in branches that no row takes.
        self.connection.execute("PRAGMA disable_optimizer")
        self.connection.execute("SET threads = 1")

    def compare(self, text: str, batch: pa.RecordBatch) -> list[Row]:
        """Both answers for each row of the batch."""
        expression = compile_expression(SourceText(text), SCOPE)
        [evaluated] = ExpressionSet([expression]).evaluate(batch)
        # A batch as small as this goes by NumPy where that covers it; as a large one, by Polars.
        [otherwise] = ExpressionSet([expression], direct_rows_max=0).evaluate(batch)
        assert otherwise.errors == evaluated.errors
        assert _same_bits(otherwise.values, evaluated.values)
        found = _values(evaluated.values, expression)
        for row in evaluated.errors:
            assert found[row] is None
            found[row] = RAISED
        return [
            Row(e, f) for e, f in zip(self._answers(text, expression, batch), found, strict=True)
        ]

    def _answers(self, text: str, expression: Expression, batch: pa.RecordBatch) -> list[Any]:
        try:
            return self._ask(text, expression, batch)
        except duckdb.Error:
            if batch.num_rows <= 1:
                return [RAISED] * batch.num_rows
        rows = (batch.slice(i, 1) for i in range(batch.num_rows))
        return [self._answers(text, expression, row)[0] for row in rows]

    def _ask(self, text: str, expression: Expression, batch: pa.RecordBatch) -> list[Any]:
        self.connection.register("rows", pa.table(batch))
        asked = _asked(text, expression.type)
        query = f"SELECT {asked} FROM (SELECT * REPLACE (j::JSON AS j) FROM rows)"
        answers = [row[0] for row in self.connection.execute(query).fetchall()]
        self.connection.unregister("rows")
        return [_answer(a, expression.type.kind) for a in answers]


def _same_bits(left: pa.Array[Any], right: pa.Array[Any]) -> bool:
    """Whether two columns are equal, zeros with their sign; one NaN is like another."""
    if pa.types.is_floating(left.type):
        return left.type == right.type and repr(left.to_pylist()) == repr(right.to_pylist())
    return left.equals(right)


def _asked(text: str, type_: ColumnType) -> str:
    match type_.kind:
        case Kind.TIMESTAMP:
            return f"epoch_us(CAST(({text}) AS TIMESTAMP))"
        case Kind.DECIMAL:
            return f"CAST(({text}) AS VARCHAR)"
        case Kind.DOUBLE:
            return f"CAST(({text}) AS DOUBLE)"
        case _:
            return f"({text})"


def _answer(value: Any, kind: Kind) -> Any:
    if value is not None and kind is Kind.DECIMAL:
        number = Decimal(value)
        return RAISED if len(number.as_tuple().digits) > 18 else number
    return value


def _values(array: pa.Array[Any], expression: Expression) -> list[Any]:
    # Times as whole numbers: Python's end with the year 9999.
    times = expression.type.kind is Kind.TIMESTAMP
    return (array.cast(pa.int64()) if times else array).to_pylist()


def same(row: Row, *, relative: float = 0.0) -> bool:
    """Whether both say the same: doubles bit for bit, or within the relative difference."""
    expected, found = row.expected, row.found
    if isinstance(expected, float) and isinstance(found, float):
        if math.isnan(expected) or math.isnan(found):
            return math.isnan(expected) and math.isnan(found)
        if relative and math.isfinite(expected):
            return math.isclose(expected, found, rel_tol=relative, abs_tol=1e-300)
        return expected == found and math.copysign(1, expected) == math.copysign(1, found)
    return type(expected) is type(found) and bool(expected == found)
