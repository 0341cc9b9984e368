"""Kinds of values: what they take, what comes out, what they say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.project.setting import NOWHERE, settings_of
from tidegate.project.settings import Service
from tidegate.project.values import (
    Boolean,
    Choice,
    Choices,
    Columns,
    Duration,
    Integer,
    Name,
    Number,
    Refused,
    Size,
    Text,
    Written,
    is_inside,
    nearest,
)


def parse(kind: Written[Any], value: object) -> Any:
    return kind.parse(value, NOWHERE)


@pytest.mark.parametrize(
    ("written", "microseconds"),
    [
        ("4 minutes", 240_000_000),
        ("1 minute", 60_000_000),
        ("250 ms", 250_000),
        ("7 days", 604_800_000_000),
        ("1.5 hours", 5_400_000_000),
        ("10s", 10_000_000),
        ("3 us", 3),
        ("0 seconds", 0),
        ("2 weeks", 1_209_600_000_000),
        ("0.000001 s", 1),
    ],
)
def test_durations_come_out_in_microseconds(written: str, microseconds: int) -> None:
    assert parse(Duration(), written) == microseconds


@pytest.mark.parametrize(
    ("written", "size"),
    [("8 MiB", 8 << 20), ("64 KiB", 65_536), ("10485763 B", 10_485_763), ("1.5 kB", 1500)],
)
def test_sizes_come_out_in_bytes(written: str, size: int) -> None:
    assert parse(Size(), written) == size


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Duration(), 4, "must be a duration, not the whole number `4`"),
        (Duration(), "four minutes", 'must be a duration, not the text `"four minutes"`'),
        (Duration(), "4", 'must be a duration, not the text `"4"`'),
        (Duration(), "-1 s", 'must be a duration, not the text `"-1 s"`'),
        (Duration(), "4 minuts", "has the unknown unit `minuts`"),
        (Duration(), "0.5 us", 'is finer than its smallest unit: the text `"0.5 us"`'),
        (Duration(low="1 s"), "1 ms", "must be from 1 s to 36500 days, not `1 ms`"),
        (Duration(word="off"), "of", 'must be a duration, not the text `"of"`'),
        (Size(), "8 mib", "has the unknown unit `mib`"),
        (Size(), 1.5, "must be a size, not the number `1.5`"),
        (Integer(1, 9), 10, "must be from 1 to 9, not `10`"),
        (Integer(1), 0, "must be at least 1, not `0`"),
        (Integer(), True, "must be a whole number, not the boolean `true`"),
        (Integer(), 1.0, "must be a whole number, not the number `1.0`"),
        (Integer(0, 9), 1 << 2000, "must be from 0 to 9, not `2^2000…`"),
        (Number(0, 1), 1.5, "must be from 0 to 1, not `1.5`"),
        (Number(), float("nan"), "must be a finite number, not the number `nan`"),
        (Number(), 1 << 2000, "must be a finite number, not the whole number `2^2000…`"),
        (Number(high=1), "1", 'must be a number, not the text `"1"`'),
        (Boolean(), "yes", 'must be `true` or `false`, not the text `"yes"`'),
        (Boolean(), 1, "must be `true` or `false`, not the whole number `1`"),
        (Choice(("a", "b")), "c", 'must be one of `a`, `b`, not the text `"c"`'),
        (Choices(("a", "b")), [], "must name at least one of `a`, `b`"),
        (Choices(("a", "b")), ["a", "a"], "names `a` twice"),
        (Choices(("a", "b")), "a", 'must be a list of `a`, `b`, not the text `"a"`'),
        (Text(), " ", "must not be empty"),
        (Text(), "a\0", "must be one line of text"),
        (Text(), ["a"], "must be text, not a list"),
        (Name(), "A", 'must be a name, not the text `"A"`'),
        (Columns(), {}, "must name at least one column"),
        (Columns(), 1, "must be a table of columns and their types, not the whole number `1`"),
    ],
)
def test_a_refusal_says_what_was_seen_and_expected(
    kind: Written[Any], value: object, message: str
) -> None:
    with pytest.raises(Refused) as caught:
        parse(kind, value)
    assert caught.value.message == message


def test_a_word_can_stand_for_no_duration() -> None:
    assert parse(Duration(low="1 minute", word="forever"), "forever") == 0


def test_a_whole_number_is_a_number_too() -> None:
    value = parse(Number(), 3)
    assert value == 3.0
    assert isinstance(value, float)


def test_all_mistakes_of_a_table_of_columns_are_told() -> None:
    with pytest.raises(Refused) as caught:
        parse(Columns(), {"a": "txt", "b": 3, "Extra": "text", "c": "text", "C": "text"})
    assert [r.path for r in caught.value.parts] == [("a",), ("b",), ("Extra",), ("C",)]
    assert caught.value.parts[0].hint == "did you mean `text`?"


@given(st.integers(0, 10**9), st.sampled_from(["us", "ms", "s", "min", "h"]))
def test_durations_are_exact(amount: int, unit: str) -> None:
    per_unit = {"us": 1, "ms": 10**3, "s": 10**6, "min": 6 * 10**7, "h": 36 * 10**8}[unit]
    assert parse(Duration(high=None), f"{amount} {unit}") == amount * per_unit


@pytest.mark.parametrize("path", ["a.sql", "queries/a.sql", "a b.sql", "é.sql"])
def test_paths_below_a_folder_are_inside(path: str) -> None:
    assert is_inside(path)


@pytest.mark.parametrize(
    "path", ["", "/a", "..", "../a", "a/../b", "a//b", "a/", "./a", "a\\b", "C:a", "a\0b"]
)
def test_paths_that_may_lead_elsewhere_are_not_inside(path: str) -> None:
    assert not is_inside(path)


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    assert nearest("PROT", ["host", "port"]) == "port"
    assert nearest("zzz", ["host", "port"]) is None


def test_defaults_are_parsed_like_what_users_write() -> None:
    assert Service().body_bytes_max == 8 << 20
    assert Service().request_timeout_us == 30_000_000


def test_a_setting_of_a_duration_is_written_without_its_unit() -> None:
    keys = {s.field: s.key for s in settings_of(Service)}
    assert keys["drain_timeout_us"] == "drain_timeout"
    assert keys["port"] == "port"
