"""Decisions and features of few events are what they are as rows of their tables."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidegate.decisions import decided, featured
from tidegate.decisions.decided import DecisionRows, Decisions, FewDecisions, Hit, Stamp
from tidegate.decisions.featured import FeatureRows, FewFeatured
from tidegate.decisions.whose import Whose
from tidegate.tables import DECISIONS, features_schema

BEGIN = datetime.fromisoformat("2023-06-06T20:24:00")
RULES = [("big", "block", "live"), ("new", "review", "shadow"), ("vip", "allow", "live")]


def whose(first: int, n: int) -> Whose:
    """The events e0, e1 … at offsets 100 and on, from `first` on."""
    numbers = range(first, first + n)
    return Whose(
        pa.array([f"e{i}" for i in numbers], pa.string()),
        pa.array([BEGIN + timedelta(seconds=i) for i in numbers], pa.timestamp("us")),
        pa.array([100 + i for i in numbers], pa.int64()),
    )


@st.composite
def few(draw: st.DrawFn) -> list[FewDecisions]:
    """Decisions on batches that follow each other."""
    found, first = [], 0
    for n in draw(st.lists(st.integers(0, 5), min_size=1, max_size=4)):
        actions = draw(st.lists(st.sampled_from(["approve", "block"]), min_size=n, max_size=n))
        rows = draw(st.sets(st.tuples(st.integers(0, max(0, n - 1)), st.sampled_from(RULES))))
        hits = [Hit(row, *rule, f"because of {row}") for row, rule in sorted(rows) if n]
        stamp = Stamp(n, draw(st.sampled_from(["v1", "v2"])), draw(st.integers(0, 10)))
        found.append(FewDecisions(whose(first, n), actions, hits, [stamp]))
        first += n
    return found


def counted(parts: Sequence[Decisions]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    actions, rules = Counter[str](), Counter[tuple[str, str]]()
    for part in parts:
        part.count(actions, rules)
    return actions, rules


@given(few())
def test_few_decisions_are_told_and_counted_as_their_rows_are(parts: list[FewDecisions]) -> None:
    for part in parts:
        part.rows.validate(full=True)
        whole = DecisionRows(part.rows)
        assert whole.rows.schema == DECISIONS
        for begin in range(len(part) + 1):
            assert part.told(begin, len(part)) == whole.told(begin, len(part))
        assert counted([part]) == counted([whole])


@given(few())
def test_joined_they_are_the_rows_of_each_one_after_the_other(parts: list[FewDecisions]) -> None:
    expected = pa.Table.from_batches([part.rows for part in parts])
    mixed = [DecisionRows(parts[0].rows), *parts[1:]]
    for given_ in (parts, mixed):
        found = decided.joined(given_)
        found.rows.validate(full=True)
        assert pa.Table.from_batches([found.rows]).equals(expected)
        assert counted([found]) == counted(parts)


def test_decisions_are_found_by_the_offsets_of_their_events() -> None:
    told = FewDecisions(whose(0, 4), ["approve"] * 4, [], [Stamp(4, "v1", 0)]).told(1, 4)
    assert told.offsets == [101, 102, 103]
    assert told.at(told.places(102, 104)).ids == ["e2", "e3"]


def test_an_event_is_found_by_its_id() -> None:
    assert [whose(0, 3).place(i) for i in ("e0", "e2", "e3")] == [0, 2, -1]


def test_few_features_are_told_and_joined_as_their_rows_are() -> None:
    names = ["spent", "seen"]
    fields: list[pa.Field[Any]] = [pa.field("spent", pa.float64()), pa.field("seen", pa.int64())]
    schema = features_schema(pa.schema(fields))
    columns: list[list[pa.Array[Any]]] = [
        [pa.array([1.5, None], pa.float64()), pa.array([1, 2], pa.int64())],
        [pa.array([2.5], pa.float64()), pa.array([None], pa.int64())],
    ]
    parts = [
        FewFeatured(whose(0, 2), names, columns[0], schema),
        FewFeatured(whose(2, 1), names, columns[1], schema),
    ]
    expected = pa.Table.from_batches([part.rows for part in parts])
    assert expected.schema == schema
    assert FeatureRows(parts[0].rows).names == names
    assert parts[0].told(0, 2) == FeatureRows(parts[0].rows).told(0, 2) == [[1.5, None], [1, 2]]
    mixed = [FeatureRows(parts[0].rows), parts[1]]
    for given_ in (parts, mixed):
        assert pa.Table.from_batches([featured.joined(given_).rows]).equals(expected)
