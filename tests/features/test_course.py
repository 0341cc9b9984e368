"""Few events on their way through a whole plan: the same as by all other ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.features.compile import FeaturePlan
from tidegate.features.state import Features, FeatureState

from .shop import FIRST, SECOND, batch, calls, compiled, micros, scalars, streams

KEY = bytes(16)
MAX = 2**63 - 1
HOUR = "(PARTITION BY card ORDER BY event_time RANGE INTERVAL 1 HOUR PRECEDING)"
TERMINAL = "(PARTITION BY terminal ORDER BY event_time ROWS 2 PRECEDING)"
ALL = "(ORDER BY event_time RANGE INTERVAL 1 HOUR PRECEDING)"
# Windows over windows, of what is evaluated, counted and given; texts out of windows, read on;
# something that only Polars computes; columns as they are; each may have an error on the way.
EVERYTHING = (
    f"sum(n + 1) OVER {HOUR} AS s, sum(ok) OVER {HOUR} AS share, last_value(card) OVER {ALL} AS c,"
    f"count(*) FILTER (WHERE upper(card) = 'A') OVER {TERMINAL} AS a, n AS plain,"
    f"max(s) OVER {TERMINAL} AS most, count(DISTINCT c) OVER {TERMINAL} AS cards,"
    "upper(c) AS loud, most + 1 AS more, card AS told, coalesce(cards, 0) AS held"
)


def rows(*given: dict[str, Any]) -> pa.RecordBatch:
    """Events a second apart."""
    return batch(
        [{"id": i, "event_time": FIRST + i * SECOND, **row} for i, row in enumerate(given)]
    )


def two_ways(plan: FeaturePlan, batches: Sequence[pa.RecordBatch]) -> list[Features]:
    """Each batch as it comes, and again with the next one begun before: to the bit the same."""
    newest = np.maximum.accumulate(np.concatenate([micros(b) for b in batches]))
    ends = np.cumsum([b.num_rows for b in batches])
    parts = [(b, newest[end - b.num_rows : end]) for b, end in zip(batches, ends, strict=True)]
    alone, ahead = FeatureState(plan, key=KEY), FeatureState(plan, key=KEY)
    # What is begun behind others that nobody asked for takes no course.
    begun = [ahead.begin(rows.slice(0, 0), newest=times[:0]) for rows, times in parts[:1]]
    begun += [ahead.begin(rows, newest=times) for rows, times in parts]
    others = [each.result() for each in begun][1:]
    found = [alone.update(rows, newest=times) for rows, times in parts]
    for one, other in zip(found, others, strict=True):
        assert one.values.schema == other.values.schema
        assert repr(one.values.to_pylist()) == repr(other.values.to_pylist())  # nan is not nan
        assert one.errors == other.errors
    assert b"".join(alone.snapshot()) == b"".join(ahead.snapshot())
    return found


@settings(max_examples=100)
@given(data=st.data(), events=streams(ties=True, late=True))
def test_few_events_take_a_course_that_changes_no_bit(
    data: st.DataObject, events: pa.RecordBatch
) -> None:
    """Whatever the features and the batches."""
    given_ = data.draw(st.lists(calls(), min_size=1, max_size=5))
    drawn = [c.text() for c in given_] + [data.draw(scalars(c)) for c in given_]
    plan = compiled(
        "SELECT " + ", ".join(f"{f} AS f{i}" for i, f in enumerate(drawn)) + " FROM events"
    )
    ends = [*sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4))), len(events)]
    two_ways(plan, [events.slice(a, b - a) for a, b in zip([0, *ends], ends, strict=False)])


@pytest.mark.parametrize(
    ("n", "failed"),
    [
        pytest.param(5, set(), id="nothing"),
        pytest.param(MAX, {"s", "most", "more"}, id="what comes before windows"),
        pytest.param(MAX - 2, {"s", "most", "more"}, id="what windows give"),
        pytest.param(MAX - 3, {"more"}, id="what comes after windows"),
    ],
)
def test_all_that_a_plan_can_have_goes_the_same_way(n: int, failed: set[str]) -> None:
    """Also where something has an error, wherever that is on the way."""
    events = rows(
        {"card": "a", "terminal": 1, "n": 1, "ok": True},
        {"card": "b", "terminal": 1, "n": None, "ok": None},
        {"card": "a", "terminal": 2, "n": n, "ok": False},
        {"card": None, "terminal": None, "n": 3, "ok": True},
        {"card": "a", "terminal": 1, "n": -4, "ok": True},
    )
    plan = compiled(f"SELECT {EVERYTHING} FROM events")
    found = two_ways(plan, [events.slice(i, 1) for i in range(5)])
    assert [set(each.errors) for each in found] == [set(), set(), failed, set(), set()]
    told = [each.values.to_pylist()[0]["loud"] for each in found]
    assert told == ["A", "B", "A", None, "A"]
    two_ways(plan, [events.slice(0, 2), events.slice(2, 3), events.slice(3)])


def test_columns_may_come_in_any_order_among_others() -> None:
    """A course is laid out for each schema, and some are forgotten."""
    events = rows(*({"card": "ab"[i % 2], "terminal": i % 3, "n": i} for i in range(40)))
    plan = compiled(f"SELECT {EVERYTHING} FROM events")
    turned = []
    for i in range(40):
        one, names = events.slice(i, 1), events.schema.names
        more = pa.RecordBatch.from_arrays(
            [pa.array([f"{i}"]), *(one[name] for name in names)], names=[f"other{i % 20}", *names]
        )
        turn = i % len(names)
        turned.append(more.select([*range(turn, len(names) + 1), *range(turn)]))
    moved, plain = FeatureState(plan, key=KEY), FeatureState(plan, key=KEY)
    for i, other in enumerate(turned):
        one = events.slice(i, 1)
        expected = plain.update(one, newest=micros(one))
        assert moved.update(other, newest=micros(one)).values.equals(expected.values)
        assert not expected.errors
