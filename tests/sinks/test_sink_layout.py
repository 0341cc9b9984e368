"""Paths with holes: what is accepted, and how values are made safe."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.sinks.layout import PathTemplate, groups, safe


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a/{event_typ}", "did you mean `{event_type}`"),
        ("a/{Yeer}", "did you mean `{Year}`"),
        ("a/{", "without its other half"),
        ("a/}b{", "without its other half"),
        ("/a", "must be relative"),
        ("a//b", "must be relative"),
        ("a/../b", "must be relative"),
        ("a/.hidden", "must be relative"),
        ("", "must be relative"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match="path") as error:
        PathTemplate.parse(path, values=["event_type"])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("sale_event", "sale_event"),
        ("a b", "a b"),
        ("é", "é"),
        ("../x", "..%2Fx"),
        ("a=b:c", "a%3Db%3Ac"),
        ("100%", "100%25"),
        ("x\x00\n", "x%00%0A"),
        ("\u2028", "%E2%80%A8"),
        ("{Year}", "%7BYear%7D"),
        ("", "__HIVE_DEFAULT_PARTITION__"),
        (None, "__HIVE_DEFAULT_PARTITION__"),
    ],
)
def test_values_are_escaped_as_hive_does(value: str | None, escaped: str) -> None:
    assert safe(value) == escaped


@given(st.text(min_size=1, max_size=13))
def test_an_escaped_value_can_be_read_back(value: str) -> None:
    assert unquote(safe(value)) == value


@given(st.text(max_size=400))
def test_no_value_climbs_out_of_its_folder_or_is_too_long_for_a_name(value: str) -> None:
    template = PathTemplate.parse("a/{v}/b", values=["v"])
    (group,) = groups(template, columns={"v": pa.chunked_array([[value]])}, times=[0])
    parts = Path(group.path).parts
    assert (len(parts), parts[0], parts[2]) == (3, "a", "b")
    assert parts[1] not in (".", "..")
    assert len(parts[1].encode()) < 200


def test_long_values_that_begin_alike_stay_apart() -> None:
    assert safe("x" * 500 + "1") != safe("x" * 500 + "2")


def test_rows_of_the_same_path_are_grouped_in_order_of_appearance() -> None:
    template = PathTemplate.parse("{kind}/{yyyy}", values=["kind"])
    kinds = pa.chunked_array([["a", "b"], ["a", "c"]])
    found = groups(template, columns={"kind": kinds}, times=[0, 0, 0, 0])
    assert [(g.path, list(g.rows)) for g in found] == [
        ("a/1970", [0, 2]),
        ("b/1970", [1]),
        ("c/1970", [3]),
    ]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (pa.array([True, None]), ["true", "__HIVE_DEFAULT_PARTITION__"]),
        (pa.array([7, None]), ["7", "__HIVE_DEFAULT_PARTITION__"]),
    ],
)
def test_values_of_other_types_are_spelled_plainly(values: pa.Array, shown: list[str]) -> None:  # type: ignore[type-arg]
    template = PathTemplate.parse("{v}", values=["v"])
    found = groups(template, columns={"v": pa.chunked_array([values])}, times=[0, 0])
    assert [g.path for g in found] == shown
