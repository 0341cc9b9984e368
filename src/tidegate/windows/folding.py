"""Rows folded into one where they will always be aggregated together.

Rows of the same group that lie in the same windows are one for counts, exact sums, averages of
whole numbers, minima and maxima: for queries of such aggregates alone, what is held is bounded by
the groups and not by the events. A held row is then a *partial*: it stands for one event or many.

Three steps, each on columns: `lift` makes an event's row a partial, `merge` makes one partial of
each group, `finish` gives the aggregates' values. Merging partials of parts equals lifting the
whole, in any cut, because nothing is rounded before `finish`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.windows.aggregates import (
    Aggregate,
    Aggregated,
    fitting,
    in_order_of,
    true_mask,
    unsigned_zero,
    whole,
)
from tidegate.windows.groups import Groups
from tidegate.windows.intake import HELD_TIME

Columns: TypeAlias = "dict[str, pa.Array[Any]]"
Wholes = npt.NDArray[np.int64]


class Part(Protocol):
    """One aggregate's columns in a partial."""

    def lift(self, rows: pa.RecordBatch) -> Columns:
        """The columns for rows of single events."""

    def merge(self, partials: pa.RecordBatch, groups: Groups) -> Columns:
        """The columns for one partial per group."""

    def finish(self, partials: pa.RecordBatch) -> Aggregated:
        """The aggregate's value of each partial."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows count."""

    name: str
    aggregate: Aggregate

    def lift(self, rows: pa.RecordBatch) -> Columns:
        """One for a row that counts, else zero."""
        return {f"n {self.name}": pa.array(_counting(rows, self.aggregate).astype(np.int64))}

    def merge(self, partials: pa.RecordBatch, groups: Groups) -> Columns:
        """The sums of the counts."""
        return _summed(partials, groups, [f"n {self.name}"])

    def finish(self, partials: pa.RecordBatch) -> Aggregated:
        """The count."""
        return Aggregated(partials.column(f"n {self.name}"))


@dataclass(frozen=True, slots=True)
class Total:
    """An exact sum, kept as the sums of the upper and the lower halves; or an average of it."""

    name: str
    aggregate: Aggregate
    averages: bool
    scale: int

    def lift(self, rows: pa.RecordBatch) -> Columns:
        """The halves of the value, and whether it counts."""
        counting = _counting(rows, self.aggregate)
        values = np.where(counting, whole(rows.column(str(self.aggregate.argument))), 0)
        parts = (counting.astype(np.int64), values >> 32, values & 0xFFFFFFFF)
        return {n: pa.array(p) for n, p in zip(self._names(), parts, strict=True)}

    def merge(self, partials: pa.RecordBatch, groups: Groups) -> Columns:
        """The sums of the halves and of the counts."""
        return _summed(partials, groups, self._names())

    def finish(self, partials: pa.RecordBatch) -> Aggregated:
        """The sum or the average; null where nothing counts."""
        counts, high, low = (partials.column(n).to_numpy().tolist() for n in self._names())
        sums = [(h << 32) + lo for h, lo in zip(high, low, strict=True)]
        if not self.averages:
            return fitting(sums, [n == 0 for n in counts], self.aggregate.type)
        pairs = zip(sums, counts, strict=True)
        means = [s / (n * 10**self.scale) if n else None for s, n in pairs]
        return Aggregated(pa.array(means, pa.float64()))

    def _names(self) -> list[str]:
        return [f"{part} {self.name}" for part in ("n", "high", "low")]


@dataclass(frozen=True, slots=True)
class Extreme:
    """The smallest or the greatest value."""

    name: str
    aggregate: Aggregate
    greatest: bool

    def lift(self, rows: pa.RecordBatch) -> Columns:
        """The value, or null where it does not count."""
        counting = _counting(rows, self.aggregate)
        values = unsigned_zero(rows.column(str(self.aggregate.argument)))
        nothing = pa.scalar(None, values.type)
        return {f"x {self.name}": pc.if_else(pa.array(counting), values, nothing)}

    def merge(self, partials: pa.RecordBatch, groups: Groups) -> Columns:
        """The extreme of the values that are not null."""
        values = partials.column(f"x {self.name}")
        ordered = in_order_of(groups.keep(true_mask(values.is_valid())), values)
        return {f"x {self.name}": values.take(ordered.pick(last=self.greatest))}

    def finish(self, partials: pa.RecordBatch) -> Aggregated:
        """The extreme."""
        return Aggregated(partials.column(f"x {self.name}"))


class Folding:
    """Folds the rows of one query; `schema` is that of its partials."""

    def __init__(self, held: pa.Schema, keys: Sequence[str], parts: Mapping[str, Part]) -> None:
        self._kept = [HELD_TIME, *keys]
        self._parts = dict(parts)
        self.schema = self.lift(pa.RecordBatch.from_pylist([], schema=held)).schema

    def lift(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of single events as partials."""
        columns: Columns = {n: rows.column(n) for n in self._kept}
        for part in self._parts.values():
            columns |= part.lift(rows)
        return pa.RecordBatch.from_pydict(columns)

    def merge(self, partials: pa.RecordBatch, groups: Groups) -> pa.RecordBatch:
        """One partial for each group, in the groups' order; its time is that of its first row."""
        firsts = groups.pick()
        columns: Columns = {n: partials.column(n).take(firsts) for n in self._kept}
        for part in self._parts.values():
            columns |= part.merge(partials, groups)
        return pa.RecordBatch.from_pydict(columns)

    def finish(self, partials: pa.RecordBatch, groups: Groups) -> dict[str, Aggregated]:
        """The aggregates of each group."""
        merged = self.merge(partials, groups)
        return {name: part.finish(merged) for name, part in self._parts.items()}


def folding(
    held: pa.Schema, keys: Sequence[str], aggregates: Mapping[str, Aggregate]
) -> Folding | None:
    """How the rows of a query fold; none where an aggregate needs each row."""
    parts = {name: _part(name, a, held) for name, a in aggregates.items()}
    found = {name: part for name, part in parts.items() if part is not None}
    return Folding(held, keys, found) if len(found) == len(parts) else None


def _part(name: str, aggregate: Aggregate, held: pa.Schema) -> Part | None:
    if aggregate.distinct:
        return None
    match aggregate.function.fold:
        case "count":
            return Count(name, aggregate)
        case "min" | "max" as fold:
            return Extreme(name, aggregate, greatest=fold == "max")
        case "sum" | "avg" as fold:
            type_ = held.field(str(aggregate.argument)).type
            scale = type_.scale if isinstance(type_, pa.Decimal128Type) else 0
            exact = not pa.types.is_floating(type_)
            return Total(name, aggregate, fold == "avg", scale) if exact else None
        case _:
            return None


def _counting(rows: pa.RecordBatch, aggregate: Aggregate) -> npt.NDArray[np.bool_]:
    """The rows that count: FILTER is true and the argument is not null."""
    mask = np.ones(rows.num_rows, dtype=np.bool_)
    if aggregate.condition is not None:
        mask &= true_mask(rows.column(aggregate.condition))
    if aggregate.argument is not None:
        mask &= true_mask(rows.column(aggregate.argument).is_valid())
    return mask


def _summed(partials: pa.RecordBatch, groups: Groups, names: Sequence[str]) -> Columns:
    return {n: pa.array(_sums(partials.column(n).to_numpy(), groups)) for n in names}


def _sums(values: Wholes, groups: Groups) -> Wholes:
    ahead = np.concatenate(([0], np.cumsum(values[groups.rows])))
    return np.diff(ahead[groups.bounds])
