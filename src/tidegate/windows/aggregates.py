"""The aggregates of window queries: the rows of each group to one value.

Results do not depend on how the stream was cut: integers and decimals are summed exactly, doubles
with one rounding at the end (Shewchuk, "Adaptive Precision Floating-Point Arithmetic", as in
`math.fsum`), so no order of addition is left to chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.schema import ColumnType, Kind
from tidegate.windows.groups import Groups

NUMBERS = frozenset({Kind.BIGINT, Kind.DOUBLE, Kind.DECIMAL})
ANY = frozenset(Kind)

_BIGINT, _DOUBLE = ColumnType(Kind.BIGINT), ColumnType(Kind.DOUBLE)


@dataclass(frozen=True, slots=True)
class Aggregated:
    """One value per group, and why a group has none (`sum does not fit a bigint`)."""

    values: pa.Array[Any]
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Function:
    """An aggregate function: which kinds it takes, what it gives, and how it is computed.

    `compute` gets the groups (filtered, without repeats, and without nulls unless `takes_nulls`),
    the values by row and their type. `fold` names how `tidegate.windows.folding` keeps it, if rows
    need not be kept.
    """

    kinds: frozenset[Kind]
    result: Callable[[ColumnType], ColumnType]
    compute: Callable[[Groups, pa.Array[Any], ColumnType], Aggregated]
    takes_nulls: bool = False
    is_list: bool = False
    fold: str | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate of a query: its function and the held columns that it reads.

    `argument` is None for `count(*)`; `condition` is the column of its FILTER.
    """

    function: Function
    type: ColumnType
    argument: str | None = None
    condition: str | None = None
    distinct: bool = False

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of the result."""
        item = self.type.arrow
        return pa.list_(item) if self.function.is_list else item

    def of(self, rows: pa.RecordBatch, groups: Groups) -> Aggregated:
        """The value of each group."""
        if self.condition is not None:
            groups = groups.keep(true_mask(rows.column(self.condition)))
        if self.argument is None:
            return Aggregated(pa.array(groups.lengths))
        values = rows.column(self.argument)
        if values.null_count and not self.function.takes_nulls:
            groups = groups.keep(true_mask(values.is_valid()))
        if self.distinct:
            groups = groups.distinct(values)
        return self.function.compute(groups, values, self.type)


def _count(groups: Groups, _values: pa.Array[Any], _type: ColumnType) -> Aggregated:
    return Aggregated(pa.array(groups.lengths))


def _list(groups: Groups, values: pa.Array[Any], type_: ColumnType) -> Aggregated:
    """All values in order of arrival, nulls included; null where there is no row."""
    empty = pa.array(groups.lengths == 0)
    bounds: Any = pa.array(groups.bounds, pa.int32())
    taken = values.take(groups.rows)
    lists = pa.ListArray.from_arrays(bounds, taken, type=pa.list_(type_.arrow))
    return Aggregated(pc.if_else(empty, pa.scalar(None, lists.type), lists))


def _first(groups: Groups, values: pa.Array[Any], _type: ColumnType) -> Aggregated:
    return Aggregated(values.take(groups.pick()))


def _last(groups: Groups, values: pa.Array[Any], _type: ColumnType) -> Aggregated:
    return Aggregated(values.take(groups.pick(last=True)))


def _min(groups: Groups, values: pa.Array[Any], _type: ColumnType) -> Aggregated:
    return Aggregated(unsigned_zero(values.take(in_order_of(groups, values).pick())))


def _max(groups: Groups, values: pa.Array[Any], _type: ColumnType) -> Aggregated:
    return Aggregated(unsigned_zero(values.take(in_order_of(groups, values).pick(last=True))))


def in_order_of(groups: Groups, values: pa.Array[Any]) -> Groups:
    """The groups with their rows in the order of their values; NaN is the greatest, as in SQL."""
    ranks = pc.rank(unsigned_zero(values), tiebreaker="dense").to_numpy()
    order = np.lexsort((ranks[groups.rows], groups.numbers))
    return Groups(groups.rows[order], groups.bounds)


def unsigned_zero(values: pa.Array[Any]) -> pa.Array[Any]:
    """The values with -0.0 as 0.0: the two are equal, so that neither is the smaller one."""
    return pc.add(values, 0.0) if pa.types.is_floating(values.type) else values


def _sum(groups: Groups, values: pa.Array[Any], type_: ColumnType) -> Aggregated:
    if type_.kind is Kind.DOUBLE:
        return Aggregated(_doubles(_float_sums(groups, values), groups))
    sums = _whole_sums(groups, whole(values))
    return fitting(sums, (groups.lengths == 0).tolist(), type_)


def _avg(groups: Groups, values: pa.Array[Any], _type: ColumnType) -> Aggregated:
    return Aggregated(_doubles(_means(groups, values), groups))


def _means(groups: Groups, values: pa.Array[Any]) -> npt.NDArray[np.float64]:
    counts = np.maximum(groups.lengths, 1)
    if pa.types.is_floating(values.type):
        return _float_sums(groups, values) / counts
    scale = values.type.scale if pa.types.is_decimal(values.type) else 0
    sums = _whole_sums(groups, whole(values))
    # Python divides whole numbers of any size with one rounding.
    pairs = zip(sums, counts.tolist(), strict=True)
    return np.array([s / (n * 10**scale) for s, n in pairs], dtype=np.float64)


def _variance(
    *, sample: bool, root: bool
) -> Callable[[Groups, pa.Array[Any], ColumnType], Aggregated]:
    def compute(groups: Groups, values: pa.Array[Any], _type: ColumnType) -> Aggregated:
        doubles = pc.cast(values, pa.float64(), safe=False)
        means = np.repeat(_means(groups, doubles), groups.lengths)
        with np.errstate(invalid="ignore", over="ignore"):
            squares = np.square(_ordered(groups, doubles) - means)
        # One value does not vary, whatever it is: DuckDB gives 0 for a lone NaN too.
        squares[np.repeat(groups.lengths == 1, groups.lengths)] = 0.0
        total = _segment_sums(squares, groups.bounds)
        divisors = groups.lengths - int(sample)
        spread = total / np.maximum(divisors, 1)
        shown = np.sqrt(spread) if root else spread
        return Aggregated(pa.array(shown, mask=divisors < 1))

    return compute


def _float_sums(groups: Groups, values: pa.Array[Any]) -> npt.NDArray[np.float64]:
    return _segment_sums(_ordered(groups, values), groups.bounds)


def _ordered(groups: Groups, values: pa.Array[Any]) -> npt.NDArray[Any]:
    """The values in the order of `groups.rows`, as NumPy holds them."""
    filled = values.fill_null(0) if values.null_count else values
    ordered: npt.NDArray[Any] = filled.to_numpy(zero_copy_only=False)[groups.rows]
    return ordered


def _segment_sums(
    values: npt.NDArray[np.float64], bounds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    ends = bounds.tolist()
    listed = values.tolist()
    sums = [_float_sum(listed[a:b]) for a, b in pairwise(ends)]
    return np.array(sums, dtype=np.float64)


def _float_sum(values: list[float]) -> float:
    if len(values) == 1:
        return values[0]
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond the range of doubles, or infinities of both signs
        return sum(values)


def whole(values: pa.Array[Any]) -> npt.NDArray[np.int64]:
    """Integers, booleans and decimals (as their scaled value) as int64; nulls as 0."""
    if pa.types.is_decimal(values.type):
        scaled = pc.cast(values, pa.decimal128(38, values.type.scale))
        # 16 bytes a value; below 19 digits the lower eight are the whole number.
        halves = pa.Array.from_buffers(
            pa.int64(), 2 * len(scaled), [None, scaled.buffers()[1]], offset=2 * scaled.offset
        )
        return np.where(true_mask(values.is_valid()), halves.to_numpy()[::2], 0)
    return np.asarray(pc.cast(values, pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def _whole_sums(groups: Groups, values: npt.NDArray[np.int64]) -> list[int]:
    """Exact sums: the halves of the numbers are added apart, which cannot overflow."""
    ordered = values[groups.rows]
    ahead = [_ahead(half)[groups.bounds] for half in (ordered >> 32, ordered & 0xFFFFFFFF)]
    high, low = (np.diff(a).tolist() for a in ahead)
    return [(h << 32) + lo for h, lo in zip(high, low, strict=True)]


def _ahead(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(values)))


def fitting(sums: Sequence[int], empty: Sequence[bool], type_: ColumnType) -> Aggregated:
    """Sums as values of their type: null where empty, null and an error where they do not fit."""
    limit = 10**18 - 1 if type_.kind is Kind.DECIMAL else 2**63 - 1
    lowest = -limit if type_.kind is Kind.DECIMAL else -(2**63)
    errors = {
        g: f"sum does not fit a {type_}" for g, s in enumerate(sums) if not lowest <= s <= limit
    }
    kept = [
        None if e or g in errors else s for g, (s, e) in enumerate(zip(sums, empty, strict=True))
    ]
    if type_.kind is Kind.DECIMAL:
        scaled = [None if s is None else Decimal(s).scaleb(-type_.scale) for s in kept]
        return Aggregated(pa.array(scaled, type_.arrow), errors)
    return Aggregated(pa.array(kept, pa.int64()), errors)


def _doubles(values: npt.NDArray[np.float64], groups: Groups) -> pa.Array[Any]:
    return pa.array(values, mask=groups.lengths == 0)


def true_mask(column: pa.Array[Any]) -> npt.NDArray[np.bool_]:
    """Where a boolean column is true, not false or null."""
    return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)  # noqa: FBT003 - Arrow's own signature


def _same(type_: ColumnType) -> ColumnType:
    return type_


def _sum_type(type_: ColumnType) -> ColumnType:
    if type_.kind is Kind.DECIMAL:
        return ColumnType(Kind.DECIMAL, 18, type_.scale)
    return _BIGINT if type_.kind is Kind.BOOLEAN else type_


def _always(type_: ColumnType) -> Callable[[ColumnType], ColumnType]:
    return lambda _argument: type_


_COUNT = Function(ANY, _always(_BIGINT), _count, fold="count")
_LIST = Function(ANY, _same, _list, takes_nulls=True, is_list=True)
_FIRST = Function(ANY, _same, _first, takes_nulls=True)
_LAST = Function(ANY, _same, _last, takes_nulls=True)
_BOOLEAN = frozenset({Kind.BOOLEAN})


def _spread(*, sample: bool, root: bool) -> Function:
    return Function(NUMBERS, _always(_DOUBLE), _variance(sample=sample, root=root))


# By the names of DuckDB and, where they differ, of Stream Analytics.
FUNCTIONS: Mapping[str, Function] = {
    "count": _COUNT,
    "count_big": _COUNT,
    "count_if": Function(
        _BOOLEAN, _always(_BIGINT), _sum, fold="sum"
    ),  # null without a row, as in DuckDB
    "sum": Function(NUMBERS | _BOOLEAN, _sum_type, _sum, fold="sum"),
    "avg": Function(NUMBERS, _always(_DOUBLE), _avg, fold="avg"),
    "mean": Function(NUMBERS, _always(_DOUBLE), _avg, fold="avg"),
    "min": Function(ANY, _same, _min, fold="min"),
    "max": Function(ANY, _same, _max, fold="max"),
    "bool_and": Function(_BOOLEAN, _same, _min, fold="min"),
    "bool_or": Function(_BOOLEAN, _same, _max, fold="max"),
    "first": _FIRST,
    "arbitrary": _FIRST,
    "last": _LAST,
    "any_value": Function(ANY, _same, _first),
    "list": _LIST,
    "array_agg": _LIST,
    "collect": _LIST,
    "stddev": _spread(sample=True, root=True),
    "stddev_samp": _spread(sample=True, root=True),
    "stddev_pop": _spread(sample=False, root=True),
    "stdev": _spread(sample=True, root=True),
    "stdevp": _spread(sample=False, root=True),
    "variance": _spread(sample=True, root=False),
    "var_samp": _spread(sample=True, root=False),
    "var_pop": _spread(sample=False, root=False),
    "var": _spread(sample=True, root=False),
    "varp": _spread(sample=False, root=False),
}
