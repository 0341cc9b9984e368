"""Random plans of one entity and random streams for them, as Python values and as batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tidegate.features.entity import EntityState
from tidegate.features.plan import Aggregate, Call, EntityPlan, Frame
from tidegate.schema import ColumnType, Kind
from tidegate.sql.expression import Evaluated

from .twin import OVERFLOW, Key, Row, Twin

BIGINT, DOUBLE = ColumnType(Kind.BIGINT), ColumnType(Kind.DOUBLE)
MONEY = ColumnType(Kind.DECIMAL, 18, 2)
BOOLEAN, TIME = ColumnType(Kind.BOOLEAN), ColumnType(Kind.TIMESTAMP)
TEXT = ColumnType(Kind.TEXT)
TYPES = (BIGINT, DOUBLE, MONEY, BOOLEAN, TIME, TEXT)
SECRET = bytes(range(16))

_SUMMED = (Aggregate.SUM, Aggregate.AVG)
_SPREADS = (
    Aggregate.VAR_POP,
    Aggregate.VAR_SAMP,
    Aggregate.STDDEV_POP,
    Aggregate.STDDEV_SAMP,
)
_ANY = (Aggregate.COUNT, Aggregate.COUNT_DISTINCT, Aggregate.FIRST, Aggregate.LAST)
_ORDERED = (Aggregate.MIN, Aggregate.MAX)


def results_of(kind: ColumnType) -> dict[Aggregate, ColumnType]:
    """The aggregates that take a type, each with the type that it gives."""
    found = {a: BIGINT if a.value.startswith("count") else kind for a in _ANY}
    if kind in (BIGINT, DOUBLE, MONEY):
        found |= dict.fromkeys((*_SPREADS, Aggregate.AVG), DOUBLE) | {Aggregate.SUM: kind}
    if kind != TEXT:
        found |= dict.fromkeys(_ORDERED, kind)
    if kind == BOOLEAN:
        found |= {Aggregate.BOOL_AND: BOOLEAN, Aggregate.BOOL_OR: BOOLEAN}
    return found


def values_of(kind: ColumnType) -> st.SearchStrategy[Any]:
    """Values of a type, few enough to repeat, extreme ones among them; decimals are scaled."""
    wide = st.integers(-(2**63), 2**63 - 1)
    by_kind: dict[Kind, st.SearchStrategy[Any]] = {
        Kind.BIGINT: st.integers(-3, 3) | wide,
        Kind.DOUBLE: st.integers(-3, 3).map(float)
        | st.sampled_from([0.1, -0.0, 1e300, -1e300, 1e9, math.nan, math.inf, -math.inf])
        | st.floats(-1e6, 1e6, allow_subnormal=False),
        Kind.DECIMAL: st.integers(-3, 3) | st.integers(-(10**18) + 1, 10**18 - 1),
        Kind.BOOLEAN: st.booleans(),
        Kind.TIMESTAMP: st.integers(0, 4),
        Kind.TEXT: st.sampled_from(["", "a", "b", "Zürich", "x" * 8, "y" * 21]),
    }
    return st.none() | by_kind[kind.kind]


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    rows = draw(st.booleans())
    end = draw(st.sampled_from([0, 0, 0, 1, 3]))
    start = end + draw(st.integers(0, 12))
    return Frame(rows, start, end, exclude_current=draw(st.booleans()))


@st.composite
def calls(draw: st.DrawFn, types: Sequence[ColumnType], frame_count: int, filters: int) -> Call:
    argument = draw(st.none() | st.integers(0, len(types) - 1))
    if draw(st.integers(0, 7)) == 0:
        offset = draw(st.integers(1, 4))
        if argument is None:
            return Call(Aggregate.LAG_EXISTS, None, BOOLEAN, None, offset=offset)
        return Call(Aggregate.LAG, argument, types[argument], None, offset=offset)
    frame = draw(st.integers(0, frame_count - 1))
    kept = draw(st.none() | st.integers(0, filters - 1)) if filters else None
    if argument is None:
        return Call(Aggregate.COUNT, None, BIGINT, frame, kept)
    aggregate, kind = draw(st.sampled_from(sorted(results_of(types[argument]).items())))
    return Call(aggregate, argument, kind, frame, kept)


@st.composite
def plans(draw: st.DrawFn) -> EntityPlan:
    """A plan with up to two key columns, three values, two filters and a few calls."""
    keys = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=2))
    values = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    filters = draw(st.integers(0, 2))
    held = draw(st.lists(frames(), min_size=1, max_size=3))
    asked = draw(st.lists(calls(values, len(held), filters), min_size=1, max_size=8))
    return EntityPlan(
        tuple(f"k{i}" for i in range(len(keys))),
        tuple(keys),
        tuple(f"v{i}" for i in range(len(values))),
        tuple(values),
        tuple(f"f{i}" for i in range(filters)),
        tuple(held),
        tuple(asked),
        lateness=draw(st.sampled_from([0, 3, 20])),
        look_back=draw(st.sampled_from([2, 10, 40])),
    )


@st.composite
def plans_of(draw: st.DrawFn, aggregate: Aggregate) -> EntityPlan:
    """A plan that asks for one aggregate, with and without a filter, over all kinds of frames."""
    kinds = [k for k in TYPES if aggregate in results_of(k)]
    kind = draw(st.sampled_from(kinds))
    given = results_of(kind)[aggregate]
    held = tuple(draw(st.lists(frames(), min_size=1, max_size=3)))
    asked = [Call(aggregate, 0, given, f, kept) for f in range(len(held)) for kept in (None, 0)]
    return EntityPlan(
        ("k",), (BIGINT,), ("v",), (kind,), ("f",), held, tuple(asked), lateness=10, look_back=30
    )


@dataclass(frozen=True)
class Stream:
    """Events of a plan in log order, each with its key."""

    plan: EntityPlan
    events: tuple[tuple[Key, Row], ...]

    @property
    def newest(self) -> list[int]:
        """The running maximum of event time."""
        times = [row.time for _, row in self.events]
        return list(accumulate(times, max))

    def batch(self) -> pa.RecordBatch:
        """The events as columns."""
        plan, columns = self.plan, {}
        for i, (name, kind) in enumerate(zip(plan.keys, plan.key_types, strict=True)):
            columns[name] = array([k[i] for k, _ in self.events], kind)
        for i, (name, kind) in enumerate(zip(plan.values, plan.value_types, strict=True)):
            columns[name] = array([r.values[i] for _, r in self.events], kind)
        for i, name in enumerate(plan.filters):
            columns[name] = array([r.filters[i] for _, r in self.events], BOOLEAN)
        return pa.RecordBatch.from_pydict(columns)


def array(values: Sequence[Any], kind: ColumnType) -> pa.Array[Any]:
    """Values as a column; decimals are given scaled."""
    if kind.kind is Kind.DECIMAL:
        scaled = [None if v is None else Decimal(v).scaleb(-kind.scale) for v in values]
        return pa.array(scaled, kind.arrow)
    return pa.array(values, kind.arrow)


@st.composite
def streams(draw: st.DrawFn, chosen: st.SearchStrategy[EntityPlan] | None = None) -> Stream:
    """A plan and up to 60 events: ties, gaps and late ones, several keys, null ones too."""
    plan = draw(plans() if chosen is None else chosen)
    key = st.tuples(*(values_of(k) for k in plan.key_types))
    keys = draw(st.lists(key, min_size=1, max_size=3))
    row = st.tuples(
        st.sampled_from(keys),
        st.integers(0, 3) | st.integers(-25, 25) | st.just(200),
        st.tuples(*(values_of(v) for v in plan.value_types)),
        st.tuples(*(st.none() | st.booleans() for _ in plan.filters)),
    )
    events, now = [], 0
    for chosen_key, step, values, filters in draw(st.lists(row, max_size=60)):
        events.append((chosen_key, Row(now + step, values, filters)))
        now = max(now, now + step) if step < 200 else now + step
    return Stream(plan, tuple(events))


def updated(state: EntityState, stream: Stream, cuts: Sequence[int] = ()) -> list[list[Evaluated]]:
    """The results of a stream's batches, cut where `cuts` says."""
    batch, found = stream.batch(), []
    times = np.array([row.time for _, row in stream.events], dtype=np.int64)
    newest = np.array(stream.newest, dtype=np.int64)
    ends = [*sorted(c for c in cuts if c < len(times)), len(times)]
    for first, last in zip([0, *ends], ends, strict=False):
        part = slice(first, last)
        given = batch.slice(first, last - first)
        found.append(state.update(given, times=times[part], newest=newest[part]))
    return found


def flat(found: Sequence[Sequence[Evaluated]], calls: Sequence[Call]) -> list[list[Any]]:
    """The results call by call as the twin has them, `OVERFLOW` where there is an error."""
    return [
        [v for results in found for v in plain(results[c], call.type)]
        for c, call in enumerate(calls)
    ]


def plain(found: Evaluated, kind: ColumnType) -> list[Any]:
    """A column as the twin has it."""
    values = found.values
    values.validate(full=True)
    assert values.type == kind.arrow
    if kind.kind is Kind.TIMESTAMP:
        values = values.cast(pa.int64())
    given = values.to_pylist()
    if kind.kind is Kind.DECIMAL:
        given = [None if v is None else int(v.scaleb(kind.scale)) for v in given]
    return [OVERFLOW if i in found.errors else v for i, v in enumerate(given)]


def expected(stream: Stream) -> list[list[Any]]:
    """What the twin gives, call by call."""
    twin = Twin(stream.plan)
    rows = [
        twin.update(key, row, newest=newest)
        for (key, row), newest in zip(stream.events, stream.newest, strict=True)
    ]
    return [[row[c] for row in rows] for c in range(len(stream.plan.calls))]


def held(plan: EntityPlan, buffers: Iterable[Any]) -> bytes:
    """What a snapshot is of, as the bytes of one that was taken of it at rest."""
    return b"".join(EntityState.restore(plan, buffers, key=SECRET).snapshot())


def bits(found: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Values in a form that tells all bits of doubles apart, but for those of NaN."""
    return [[v.hex() if isinstance(v, float) else repr(v) for v in column] for column in found]


def close(seen: Any, wanted: Any) -> bool:
    """Whether values are equal; doubles to 1e-9 of what they were computed from.

    Next to zero doubles have fewer digits than that: there it is a few of their least steps.
    """
    if not isinstance(seen, float) or not isinstance(wanted, float):
        return bool(seen is wanted if wanted is OVERFLOW else seen == wanted)
    if math.isnan(wanted) or math.isinf(wanted):
        return math.isnan(seen) if math.isnan(wanted) else seen == wanted
    return math.isclose(seen, wanted, rel_tol=1e-9, abs_tol=16 * math.ulp(0.0))
