"""Runs a plan on batches by Polars: Arrow columns in, Arrow columns and the errors of rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import or_
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa

from tidegate.schema import ColumnType, Kind
from tidegate.sql.functions.arithmetic import within
from tidegate.sql.functions.logic import balanced
from tidegate.sql.functions.time import DAY
from tidegate.sql.plan import Plan, staged
from tidegate.sql.tree import COLUMN, Fault, Lowered, Node
from tidegate.sql.types import DIGITS_INT64, Name

Result: TypeAlias = "tuple[pa.Array[Any], Mapping[int, str]]"

_NOTHING: Mapping[int, str] = {}
# Stands in for the columns of a batch when none is read: a frame needs one to have rows.
_ROWS = "#rows"
# Whether any operation failed in a row, decisive or not.
_SUSPECT = "#suspect"


class Frame:
    """A plan for several trees, each with the column type in which its values go out.

    `columns` are those that it reads.
    """

    def __init__(self, outputs: Sequence[tuple[Node, ColumnType]]) -> None:
        trees = [tree for tree, _ in outputs]
        self._types = [type_ for _, type_ in outputs]
        self.columns = sorted({str(n.value) for t in trees for n in t.walk() if n.op is COLUMN})
        plan = Plan(trees)
        lowered = [_outgoing(plan.lower(tree), tree, plan) for tree in trees]
        self._stages = plan.stages
        self._told = {
            i: _told(low.faults).alias(f"e{i}") for i, low in enumerate(lowered) if low.faults
        }
        self._select = [low.value.alias(f"v{i}") for i, low in enumerate(lowered)]
        origins = {id(f.origin): f.origin for low in lowered for f in low.faults}
        if origins:
            self._select.append(balanced(or_, list(origins.values())).alias(_SUSPECT))

    def run(self, batch: pa.RecordBatch) -> list[Result]:
        """Values and errors of each tree, in order."""
        if not self._types:
            return []
        frame = self._frame(batch)
        values = _computed(frame, self._stages, self._select)
        failed = self._failed(frame, values)
        columns = values.select(f"v{i}" for i in range(len(self._types))).to_arrow()
        return [
            (_arrow(columns.column(i), type_, batch.num_rows), failed.get(i, _NOTHING))
            for i, type_ in enumerate(self._types)
        ]

    def _frame(self, batch: pa.RecordBatch) -> pl.DataFrame:
        if not self.columns:
            return pl.DataFrame({_ROWS: pl.zeros(batch.num_rows, pl.Int8, eager=True)})
        frame = pl.from_arrow(batch.select(self.columns))
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a batch becomes a frame
        return frame

    def _failed(self, frame: pl.DataFrame, values: pl.DataFrame) -> dict[int, Mapping[int, str]]:
        if not self._told or not values[_SUSPECT].any():
            return {}
        # Only now, and only for the rows concerned, is it worked out what counts and why.
        rows = values[_SUSPECT].arg_true()
        sentences = _computed(frame[rows], self._stages, list(self._told.values()))
        numbers = rows.to_list()
        return {i: _sentences(numbers, sentences[f"e{i}"]) for i in self._told}


def _sentences(rows: Sequence[int], told: pl.Series) -> Mapping[int, str]:
    return {row: text for row, text in zip(rows, told.to_list(), strict=True) if text is not None}


def _told(faults: Sequence[Fault]) -> pl.Expr:
    """The sentence of the first fault that holds, null where none does."""
    return pl.coalesce([pl.when(f.condition).then(pl.lit(f.sentence)) for f in faults])


def _computed(
    frame: pl.DataFrame, stages: Sequence[Sequence[pl.Expr]], select: Sequence[pl.Expr]
) -> pl.DataFrame:
    # The last step adds columns too, rather than selecting: literals then have the frame's height.
    return staged(frame, stages).with_columns(select)


def _outgoing(lowered: Lowered, tree: Node, plan: Plan) -> Lowered:
    """The value as it leaves: dates as timestamps, decimals within 18 digits or an error."""
    match tree.type.name:
        case Name.TIMESTAMP:
            return replace(lowered, value=lowered.value.cast(pl.Datetime("us")))
        case Name.DATE:
            micros = lowered.value * DAY
            return replace(lowered, value=micros.cast(pl.Datetime("us")))
        case Name.DECIMAL:
            return _outgoing_decimal(plan.share(lowered), tree)
        case _:
            return lowered


def _outgoing_decimal(lowered: Lowered, tree: Node) -> Lowered:
    fits = within(lowered.value, 10**DIGITS_INT64 - 1)
    faults = lowered.faults
    if tree.type.precision > DIGITS_INT64:
        sentence = f"more than {DIGITS_INT64} digits in `{tree.text}`"
        beyond = ~fits.fill_null(value=True)
        faults = (*faults, Fault(beyond, sentence, beyond))
    value = pl.when(fits).then(lowered.value).cast(pl.Decimal(38, 0))
    return Lowered(value, lowered.level, faults)


def _arrow(column: pa.ChunkedArray[Any], type_: ColumnType, rows: int) -> pa.Array[Any]:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):
        array = pa.array([], array.type)
    if type_.kind is Kind.DECIMAL:
        # The whole number is the value scaled: the same bytes under the declared type.
        return pa.Array.from_buffers(type_.arrow, rows, array.buffers(), offset=array.offset)
    return array if array.type == type_.arrow else array.cast(type_.arrow)
