"""Lists hold what a plain walk over all changes says, however types, times and cuts fall."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.controls import ListRecord
from tidegate.lists.membership import FORGOTTEN_AFTER_US, Lists
from tidegate.lists.values import TEXT_MAX, canonical, key, micros_of
from tidegate.schema import Column, ColumnType

TEXT = Column.parse("v", "text").type
DAY = 86_400_000_000


def type_of(written: str) -> ColumnType:
    return Column.parse("v", written).type


def asked(lists: Lists, values: list[Any], type_: ColumnType, *, at: int = 0) -> list[Any]:
    times = np.full(len(values), at, dtype=np.int64)
    array = pa.array(values, type_.arrow)
    return lists.ask("l", array, times=times, newest=times).to_pylist()


@pytest.mark.parametrize(
    ("written", "text", "one"),
    [
        ("text", " 4711", " 4711"),
        ("bigint", " +4711 ", "4711"),
        ("double", "1e2", "100.0"),
        ("double", "-0.0", "0.0"),
        ("decimal(9,2)", "12.5", "12.50"),
        ("boolean", "TRUE", "true"),
        ("timestamp", "2027-01-01", "2027-01-01T00:00:00Z"),
        ("timestamp", "2027-01-01T01:00:00+01:00", "2027-01-01T00:00:00Z"),
        ("json", '{"a":1}', '{"a":1}'),
    ],
)
def test_a_value_has_one_text_however_it_was_written(written: str, text: str, one: str) -> None:
    assert canonical(text, type_of(written)) == one
    assert canonical(one, type_of(written)) == one


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("bigint", "47.1"),
        ("bigint", str(2**63)),
        ("bigint", "٣"),
        ("double", "nan"),
        ("double", "inf"),
        ("decimal(4,2)", "1.234"),
        ("decimal(4,2)", "123.00"),
        ("decimal(4,2)", "1e9999"),
        ("decimal(4,2)", "NaN"),
        ("boolean", "yes"),
        ("timestamp", "tomorrow"),
        ("text", "x" * (TEXT_MAX + 1)),
    ],
)
def test_what_is_no_value_is_refused(written: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        key(text, type_of(written))


@pytest.mark.parametrize(
    ("written", "texts", "values"),
    [
        ("bigint", ["1", "-7"], [1, -7, 2, None]),
        ("double", ["1.5", "0"], [1.5, -0.0, float("nan"), None]),
        ("boolean", ["true"], [True, True, False, None]),
        ("timestamp", ["1970-01-02"], [DAY, DAY, DAY + 1, None]),
    ],
)
def test_values_of_each_type_are_found(written: str, texts: list[str], values: list[Any]) -> None:
    lists = Lists({"l": type_of(written)})
    lists.apply(ListRecord("l", "add", tuple(texts)), newest=0)
    expected = [True, True, False, None]
    assert asked(lists, values, type_of(written)) == expected
    assert asked(lists, values * 200, type_of(written)) == expected * 200


def test_decimals_of_other_widths_are_found_by_their_value() -> None:
    lists = Lists({"l": type_of("decimal(12,2)")})
    lists.apply(ListRecord("l", "add", ("12.50",)), newest=0)
    narrow = pa.array([None, "12.50", "12.51"], pa.string()).cast(pa.decimal128(6, 2))
    times = np.zeros(3, dtype=np.int64)
    assert lists.ask("l", narrow, times=times, newest=times).to_pylist() == [None, True, False]


def test_entries_stay_while_another_version_has_another_type_or_none() -> None:
    lists = Lists({"l": TEXT})
    lists.apply(ListRecord("l", "add", ("7", "07", "x")), newest=0)
    lists.use({"l": type_of("bigint")})
    assert asked(lists, [7, 8], type_of("bigint")) == [True, False]
    lists.use({})
    lists.apply(ListRecord("l", "add", ("y",)), newest=0)
    lists.use({"l": TEXT})
    assert asked(lists, ["7", "x", "y", "z"], TEXT) == [True, True, True, False]


def test_a_list_that_nobody_declares_takes_changes_and_finds_nothing_of_others() -> None:
    lists = Lists({})
    lists.apply(ListRecord("l", "add", ("a",)), newest=0)
    assert lists.entries == {"l": 1}


def test_what_ended_long_ago_is_let_go_and_memory_with_it() -> None:
    lists = Lists({"l": TEXT})
    for day in range(200):
        values = tuple(f"{day}-{n}" for n in range(100))
        lists.apply(ListRecord("l", "add", values, until=day * DAY), newest=day * DAY)
    assert len(lists) < 100 * 80
    times = np.full(3, 149 * DAY, dtype=np.int64)
    cards = pa.array(["150-1", "169-1", "170-1"])
    found = lists.ask("l", cards, times=times, newest=times + 50 * DAY)
    assert found.to_pylist() == [False, False, True]


@pytest.mark.parametrize("written", ["text", "bigint", "double", "decimal(9,2)", "timestamp"])
def test_long_lists_and_batches_find_the_same(written: str) -> None:
    """With values added after the list was first asked for, and taken off again."""
    type_ = type_of(written)
    texts = [
        f"2027-01-01T00:00:{n % 60:02d}.{n:06d}" if written == "timestamp" else str(n)
        for n in range(30_000)
    ]
    values = pa.array([*texts, None], pa.string()).cast(type_.arrow)
    lists = Lists({"l": type_})
    on: set[int] = set()
    times = np.zeros(len(values), dtype=np.int64)
    for first in (0, 6_000, 18_000):
        added = [n for n in range(first, first + 6_000) if n % 3]
        lists.apply(ListRecord("l", "add", tuple(texts[n] for n in added)), newest=0)
        lists.apply(ListRecord("l", "remove", tuple(texts[n] for n in added[::7])), newest=0)
        on |= set(added) - set(added[::7])
        found = lists.ask("l", values, times=times, newest=times).to_pylist()
        assert found == [*(n in on for n in range(30_000)), None]
        ones = [
            lists.ask("l", values.slice(n, 1), times=times[:1], newest=times[:1])[0].as_py()
            for n in range(0, 30_001, 997)
        ]
        assert ones == found[::997]


def test_times_are_read_as_utc() -> None:
    zoned = micros_of("2027-01-01T02:00:00+02:00")
    assert zoned == micros_of("2027-01-01") == micros_of("2027-01-01T00:00:00Z")
    epoch = datetime(1970, 1, 1)  # noqa: DTZ001 - times are UTC without a zone
    assert epoch + timedelta(microseconds=zoned) == datetime(2027, 1, 1)  # noqa: DTZ001 - as above


VALUES = [f"v{n}" for n in range(8)]
TIMES = st.integers(0, 90).map(lambda day: day * DAY)
CHANGES = st.builds(
    ListRecord,
    name=st.just("l"),
    change=st.sampled_from(["add", "add", "remove"]),
    values=st.lists(st.sampled_from(VALUES), min_size=1, max_size=3).map(tuple),
    until=st.none() | TIMES,
)
EVENTS = st.tuples(st.sampled_from([*VALUES, None]), TIMES)
STEPS = st.lists(CHANGES | st.lists(EVENTS, min_size=1, max_size=5), max_size=30)


def walked(steps: list[Any]) -> list[Any]:
    """The slow twin: for each event, the newest change that names its value."""
    changes: list[ListRecord] = []
    newest, answers = 0, []
    for step in steps:
        if isinstance(step, ListRecord):
            changes.append(step)
            continue
        for value, time in step:
            newest = max(newest, time)
            last = next((c for c in reversed(changes) if value in c.values), None)
            if value is None or last is None or last.change == "remove":
                answers.append(None if value is None else False)
                continue
            until = 2**62 if last.until is None else last.until
            forgotten = last.until is not None and newest >= until + FORGOTTEN_AFTER_US
            answers.append(time < until and not forgotten)
    return answers


@given(steps=STEPS, cut=st.integers(1, 5), saved=st.integers(0, 30))
def test_answers_are_those_of_a_walk_over_all_changes(
    steps: list[Any], cut: int, saved: int
) -> None:
    lists, newest, answers = Lists({"l": TEXT}), 0, []
    for number, step in enumerate(steps):
        if number == saved:
            state = lists.snapshot()
            lists = Lists({"l": TEXT})
            lists.restore(state)
        if isinstance(step, ListRecord):
            lists.apply(step, newest=newest)
            lists._of("l")._swept = 0  # as if there were thousands: what is swept changes nothing
            continue
        for first in range(0, len(step), cut):
            part = step[first : first + cut]
            times = np.array([t for _, t in part], dtype=np.int64)
            after = np.maximum.accumulate(np.maximum(times, newest))
            values = pa.array([v for v, _ in part], pa.string())
            answers += lists.ask("l", values, times=times, newest=after).to_pylist()
            newest = int(after[-1])
    assert answers == walked(steps)
