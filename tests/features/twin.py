"""The slow, obvious twin of `EntityState`: lists, every frame looked through for every event."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tidegate.features.plan import Aggregate, Call, EntityPlan, Frame
from tidegate.schema import ColumnType, Kind

Key = tuple[Any, ...]
OVERFLOW = object()


@dataclass(frozen=True)
class Row:
    """An event: decimals as scaled integers, everything else as Python has it."""

    time: int
    values: tuple[Any, ...]
    filters: tuple[bool | None, ...]


@dataclass
class Twin:
    """What `EntityState` promises, without any of its means; keeps everything for ever."""

    plan: EntityPlan
    rows: dict[Key, list[Row]] = field(default_factory=dict)

    def update(self, key: Key, row: Row, *, newest: int) -> list[Any]:
        """What the calls give for an event, which counts from then on."""
        key = tuple(same(k) for k in key)
        horizon = newest - (self.plan.reach + self.plan.lateness)
        if row.time < horizon:
            return [self._call(c, [row], 0, True, row.time, -math.inf) for c in self.plan.calls]
        rows = self.rows.setdefault(key, [])
        place = sum(r.time <= row.time for r in rows)
        rows.insert(place, row)
        return [self._call(c, rows, place, True, row.time, horizon) for c in self.plan.calls]

    def peek(self, key: Key, *, time: int, newest: int) -> list[Any]:
        """What the calls would give at `time` without an event of its own."""
        rows = self.rows.get(tuple(same(k) for k in key), [])
        horizon = newest - (self.plan.reach + self.plan.lateness)
        place = sum(r.time <= time for r in rows)
        return [self._call(c, rows, place, False, time, horizon) for c in self.plan.calls]

    def _call(
        self, call: Call, rows: Sequence[Row], place: int, own: bool, time: int, horizon: float
    ) -> Any:
        if call.frame is None:
            return self._lag(call, rows, place, time, horizon)
        frame = self.plan.frames[call.frame]
        seen = [rows[i] for i in self._frame(frame, rows, place, own, time, horizon)]
        if call.filter is not None:
            seen = [r for r in seen if r.filters[call.filter]]
        kind = None if call.argument is None else self.plan.value_types[call.argument]
        values = [1 if call.argument is None else r.values[call.argument] for r in seen]
        return aggregate(call.aggregate, values, kind, call.type)

    def _frame(
        self, frame: Frame, rows: Sequence[Row], place: int, own: bool, time: int, horizon: float
    ) -> Iterator[int]:
        for i, row in enumerate(rows):
            if frame.exclude_current and own and i == place:
                continue
            if frame.rows:
                near = place - frame.start <= i <= place - frame.end
                inside = near and row.time >= time - self.plan.look_back and (own or i < place)
            else:
                inside = time - frame.start <= row.time <= time - frame.end
            if inside and row.time >= horizon:
                yield i

    def _lag(self, call: Call, rows: Sequence[Row], place: int, time: int, horizon: float) -> Any:
        i = place - call.offset
        there = i >= 0 and rows[i].time >= max(time - self.plan.look_back, horizon)
        if call.aggregate is Aggregate.LAG_EXISTS:
            return there
        assert call.argument is not None
        return rows[i].values[call.argument] if there else None


def same(value: Any) -> Any:
    """The value under which equal ones are found: all NaN are one, 0.0 and -0.0 too."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value + 0.0
    return value


def aggregate(
    kind: Aggregate, values: Sequence[Any], given: ColumnType | None, to: ColumnType
) -> Any:
    """The aggregate of the values, null ones among them."""
    if kind is Aggregate.FIRST:
        return values[0] if values else None
    if kind is Aggregate.LAST:
        return values[-1] if values else None
    held = [v for v in values if v is not None]
    if kind is Aggregate.COUNT:
        return len(held)
    if kind is Aggregate.COUNT_DISTINCT:
        return len({same(v) for v in held})
    return _NAMED[kind](held, given, to) if held else None


def _sum(values: Sequence[Any], given: ColumnType, to: ColumnType) -> Any:
    if given.kind is Kind.DOUBLE:
        return real_sum(values)
    total = sum(values)
    limit = 10**to.precision - 1 if to.kind is Kind.DECIMAL else 2**63 - 1
    return total if -limit - (to.kind is Kind.BIGINT) <= total <= limit else OVERFLOW


def real_sum(values: Sequence[float]) -> float:
    """The sum as IEEE has it for infinities and NaN, rounded once for all else."""
    odd = [v for v in values if not math.isfinite(v)]
    if odd:
        return float(sum(odd))
    return nearest(exact_sum(values))


def exact_sum(values: Sequence[Any]) -> Fraction:
    """The sum, not rounded at all."""
    total = Fraction(0)
    for value in values:
        total += Fraction(value)
    return total


def nearest(exact: Fraction | int) -> float:
    """The double next to a rational number."""
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _avg(values: Sequence[Any], given: ColumnType, to: ColumnType) -> float:
    if any(isinstance(v, float) and not math.isfinite(v) for v in values):
        return real_sum(values)
    return nearest(exact_sum(values) / Fraction(len(values) * 10**given.scale))


def variance(values: Sequence[Any], given: ColumnType, sample: int) -> float | None:
    """The variance of values as doubles; that of one alone is 0."""
    if len(values) <= sample:
        return None
    if len(values) == 1:
        return 0.0
    reals = [v / 10**given.scale for v in values]
    if any(not math.isfinite(v) for v in reals):
        return math.nan
    mean = exact_sum(reals) / len(reals)
    squares = exact_sum([(Fraction(v) - mean) ** 2 for v in reals])
    return nearest(squares / (len(reals) - sample))


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def _rank(value: Any) -> Any:
    if isinstance(value, float):
        return (math.isnan(value), 0.0 if math.isnan(value) else value)
    return value


_NAMED: Mapping[Aggregate, Any] = {
    Aggregate.SUM: _sum,
    Aggregate.AVG: _avg,
    Aggregate.MIN: lambda v, _, __: min(v, key=_rank),
    Aggregate.MAX: lambda v, _, __: max(v, key=_rank),
    Aggregate.VAR_POP: lambda v, g, _: variance(v, g, 0),
    Aggregate.VAR_SAMP: lambda v, g, _: variance(v, g, 1),
    Aggregate.STDDEV_POP: lambda v, g, _: _root(variance(v, g, 0)),
    Aggregate.STDDEV_SAMP: lambda v, g, _: _root(variance(v, g, 1)),
    Aggregate.BOOL_AND: lambda v, _, __: all(v),
    Aggregate.BOOL_OR: lambda v, _, __: any(v),
}
