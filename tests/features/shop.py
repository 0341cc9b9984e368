"""Random streams of a small shop and random features over them, for tests beside DuckDB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tidegate.features.compile import FeaturePlan, compile_features
from tidegate.features.state import Features, FeatureState
from tidegate.schema import Schema
from tidegate.sql.source import SourceText

SHOP = Schema.of(
    [
        ("id", "bigint"),
        ("event_time", "timestamp"),
        ("card", "text?"),
        ("terminal", "bigint?"),
        ("n", "bigint?"),
        ("amount", "decimal(10,2)?"),
        ("d", "double?"),
        ("ok", "boolean?"),
        ("due", "timestamp?"),
    ],
    id="id",
    event_time="event_time",
)
DAY = 86_400_000_000
FIRST = 1_700_000_000_000_000
SECOND = 1_000_000
# Gaps and spans of the frames meet often, so that rows fall on the bounds of frames.
GAPS = (1_000, SECOND, 30 * SECOND, 60 * SECOND, 600 * SECOND, 3_600 * SECOND, DAY)
SPANS = (
    "1 SECOND",
    "30 SECONDS",
    "1 MINUTE",
    "10 MINUTES",
    "1 HOUR",
    "2 HOURS",
    "1 DAY",
    "37 DAYS",
)


def compiled(text: str, *, lateness: int = 0, schema: Schema = SHOP) -> FeaturePlan:
    """The plan of a text, with rows looked up as far back as any test reaches."""
    return compile_features(
        SourceText(text, "features.sql"), schema, lateness=lateness, look_back=4_000 * DAY
    )


def batch(rows: Sequence[dict[str, Any]], *, schema: Schema = SHOP) -> pa.RecordBatch:
    """Rows as a batch of the declared columns."""
    return pa.RecordBatch.from_pylist(list(rows), schema=schema.arrow)


def run(plan: FeaturePlan, events: pa.RecordBatch, cuts: Sequence[int] = ()) -> Features:
    """The features of all events, the stream cut into batches before the rows `cuts`."""
    state = FeatureState(plan, key=bytes(16))
    newest = np.maximum.accumulate(micros(events))
    bounds = [0, *sorted(cuts), events.num_rows]
    found = []
    for low, high in pairwise(bounds):
        part = state.update(events.slice(low, high - low), newest=newest[low:high])
        found.append((low, part))
    errors: dict[str, dict[int, str]] = {}
    for low, part in found:
        for name, failed in part.errors.items():
            errors.setdefault(name, {}).update({low + row: why for row, why in failed.items()})
    table = pa.Table.from_batches([f.values for _, f in found], schema=plan.schema)
    whole = pa.RecordBatch.from_arrays(
        [pa.concat_arrays(c.chunks) for c in table.columns],
        schema=plan.schema,
    )
    return Features(whole.columns, plan.schema, errors)


def micros(events: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The events' times."""
    return np.asarray(events.column("event_time").view(pa.int64()).to_numpy())


class Duck:
    """DuckDB as the oracle; one connection for many questions."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(config={"threads": 1})

    def ask(self, text: str, events: pa.RecordBatch) -> list[tuple[Any, ...]] | None:
        """The rows for the text in the order of the log; none where it cannot compute them."""
        self.connection.register("events", pa.table(events))
        named = text.replace("SELECT", "SELECT id AS id_,", 1)
        query = f"SELECT * EXCLUDE (id_) FROM ({named}) ORDER BY id_"
        try:
            return self.connection.execute(query).fetchall()
        except (duckdb.OutOfRangeException, duckdb.ConversionException):
            return None
        finally:
            self.connection.unregister("events")


def same(expected: Any, found: Any, *, near: float = 1e-12) -> bool:
    """Whether both are one value: doubles to 1e-9 or `near`, all others exactly.

    `near` grows with the root of a value, as the rounding of a variance does with the spread.
    Intervals are compared as seconds.
    """
    if isinstance(expected, timedelta):
        expected = expected.total_seconds()
    if expected is None or found is None:
        return expected is None and found is None
    if isinstance(found, float):
        expected = float(expected)
        if math.isnan(expected) or math.isnan(found):
            return math.isnan(expected) and math.isnan(found)
        near *= max(1.0, math.sqrt(abs(expected)))
        return math.isclose(expected, found, rel_tol=1e-9, abs_tol=near)
    return bool(expected == found)


# Doubles are eighths, so that sums are exact in any order and no tolerance hides a lost row.
_DOUBLES = st.integers(-800, 800).map(lambda i: i / 8)
_ODD = st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e300])


@st.composite
def streams(draw: st.DrawFn, *, ties: bool = False, late: bool = False) -> pa.RecordBatch:
    """Events in the order of the log: `ties` may share their time, `late` ones come out of order.

    Times are whole milliseconds.
    """
    size = draw(st.integers(0, 25))
    gaps = draw(st.lists(st.sampled_from((0,) * 4 * ties + GAPS), min_size=size, max_size=size))
    times = (FIRST + np.cumsum([0, *gaps])[1:]).tolist()
    if late:
        times = draw(st.permutations(times))
    doubles = st.one_of(_DOUBLES, _ODD) if draw(st.booleans()) else _DOUBLES
    event = st.fixed_dictionaries(
        {
            "card": st.sampled_from(["a", "A", "b", None]),
            "terminal": st.sampled_from([1, 2, None]),
            "n": st.none() | st.integers(-3, 5) | st.integers(-(2**40), 2**40),
            "amount": st.none() | st.integers(-500, 50_000).map(lambda i: Decimal(i) / 100),
            "d": st.none() | doubles,
            "ok": st.sampled_from([True, False, None]),
            "due": st.none() | st.integers(0, 5).map(lambda i: FIRST + i * DAY),
        }
    )
    rows = [{"id": i, "event_time": t, **draw(event)} for i, t in enumerate(times)]
    return batch(rows)


@dataclass(frozen=True)
class Written:
    """A window function as text, over a window that `widened` may let begin a little earlier.

    `filter` stands before OVER. `kind` is the kind of value: n(umber), b(oolean), t(ime), x(other).
    """

    call: str
    over: str
    span: str | None
    kind: str

    def text(self, *, widened: bool = False) -> str:
        """The SQL; widened by just under a millisecond, for times made unique within one."""
        if self.span is None:
            return f"{self.call} OVER ({self.over})"
        span = f"INTERVAL {self.span}"
        if widened:
            span = f"(INTERVAL {self.span} + INTERVAL 999 MICROSECONDS)"
        return f"{self.call} OVER ({self.over.format(span=span)})"


_KEYS = ("card", "terminal", "card, terminal", "ok, due", "lower(card)", "n % 2, card", "")
_FILTERS = ("ok", "amount > 100", "n IS NOT NULL AND NOT ok", "card = 'a'", "d >= 0")
_NUMBERS = ("n", "amount", "d", "n % 7", "amount * 2", "d + 1")
_ANYTHING = (*_NUMBERS, "card", "ok", "due", "coalesce(card, 'none')")
_NUMERIC = (
    *("sum", "avg", "mean", "min", "max", "count", "stddev", "stddev_samp", "stddev_pop"),
    *("variance", "var_samp", "var_pop"),
)


@st.composite
def windows(draw: st.DrawFn) -> tuple[str, str | None]:
    """What stands in OVER, with a hole where a RANGE frame begins, and how far back that is."""
    keys = draw(st.sampled_from(_KEYS))
    partition = f"PARTITION BY {keys} " if keys else ""
    exclude = draw(st.sampled_from(["", "", " EXCLUDE CURRENT ROW", " EXCLUDE NO OTHERS"]))
    order = f"{partition}ORDER BY event_time"
    if draw(st.booleans()):
        first = draw(st.integers(0, 6))
        last = draw(st.integers(0, first))
        until = draw(st.sampled_from(["CURRENT ROW", f"{last} PRECEDING"]))
        short = f"ROWS {first} PRECEDING"
        frame = draw(st.sampled_from([short, f"ROWS BETWEEN {first} PRECEDING AND {until}"]))
        return f"{order} {frame}{exclude}", None
    first, last = sorted(draw(st.tuples(*[st.integers(0, len(SPANS) - 1)] * 2)), reverse=True)
    until = draw(st.sampled_from(["CURRENT ROW", f"INTERVAL '{SPANS[last]}' PRECEDING"]))
    bounds = draw(st.sampled_from(["{span} PRECEDING", f"BETWEEN {{span}} PRECEDING AND {until}"]))
    return f"{order} RANGE {bounds}{exclude}", SPANS[first]


@st.composite
def calls(draw: st.DrawFn, numbers: Sequence[str] = _NUMBERS) -> Written:
    """A window function over `numbers` or other columns."""
    over, span = draw(windows())
    form = draw(st.sampled_from(["number", "number", "any", "truth", "row", "lag", "time"]))
    if form == "lag":
        return draw(_lags(over.split("ORDER BY", maxsplit=1)[0]))
    given = draw(st.sampled_from(numbers))
    call, kind = {
        "number": (f"{draw(st.sampled_from(_NUMERIC))}({given})", "n"),
        "any": (draw(_counts()), "n"),
        "truth": (draw(_truths()), "x"),
        "row": (draw(_rows()), "x"),
        "time": (f"{draw(st.sampled_from(['min', 'max']))}({draw(st.sampled_from(_TIMES))})", "t"),
    }[form]
    if form != "row" and draw(st.booleans()):
        call += f" FILTER (WHERE {draw(st.sampled_from(_FILTERS))})"
    return Written(call, over, span, kind)


_TIMES = ("due", "event_time", "due + INTERVAL 1 HOUR")


@st.composite
def _counts(draw: st.DrawFn) -> str:
    distinct = draw(st.sampled_from(["", "DISTINCT "]))
    value = f"count({distinct}{draw(st.sampled_from(_ANYTHING))})"
    return draw(st.sampled_from(["count(*)", "count(1)", "count()", value, value, value]))


@st.composite
def _truths(draw: st.DrawFn) -> str:
    condition = draw(st.sampled_from(["ok", "n > 2", "amount < d"]))
    name = draw(st.sampled_from(["bool_and", "bool_or", "min", "max", "sum", "count_if"]))
    return f"{name}({condition})"


@st.composite
def _rows(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(["first_value", "last_value", "first", "last"]))
    return f"{name}({draw(st.sampled_from(_ANYTHING))})"


@st.composite
def _lags(draw: st.DrawFn, partition: str) -> Written:
    defaults = [("n", "-1"), ("card", "'none'"), ("amount", "n % 3"), ("due", "event_time")]
    value, default = draw(st.sampled_from(defaults))
    offset = draw(st.integers(0, 3))
    forms = [f"lag({value})", f"lag({value}, {offset})", f"lag({value}, {offset}, {default})"]
    return Written(draw(st.sampled_from(forms)), f"{partition}ORDER BY event_time", None, "x")


@st.composite
def scalars(draw: st.DrawFn, call: Written, *, widened: bool = False) -> str:
    """The call by itself, or within an expression."""
    text = call.text(widened=widened)
    forms = [text, text, f"{text} IS NULL"]
    if call.kind == "n":
        forms += [
            f"n / nullif({text}, 0)",
            f"coalesce({text}, 0) > 2.00123",
            f"CAST({text} AS double) + d",
        ]
    if call.kind == "t":
        forms += [f"event_time - {text}", f"{text} < event_time"]
    return draw(st.sampled_from(forms))
