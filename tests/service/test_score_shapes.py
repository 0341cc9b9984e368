"""Answers are written alike, whatever holds their features."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.service.score.shapes import Reason, Scored, encoded, featured, written

VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()


def scored(features: dict[str, object]) -> Scored:
    rules = [Reason("burst", "review", 'the "fifth" of an hour')]
    return Scored("p1", "review", None, rules, features, "9f3f", 7, 1830)


@given(st.dictionaries(st.text(), VALUES, max_size=30))
def test_features_of_any_name_and_value_are_written_as_a_dict_is(values: dict[str, object]) -> None:
    made = featured(tuple(values))(*values.values())
    assert encoded(scored(made)) == encoded(scored(values))
    assert written([scored(values)], is_array=False, request_id="r") == (200, encoded(scored(made)))


@pytest.mark.parametrize("name", ['amount "net"', "back\\slash", "two\nlines"])
def test_a_name_that_no_struct_may_have_is_written_too(name: str) -> None:
    told = msgspec.json.decode(encoded(scored(featured(("plain", name))(1, 2.5))))
    assert told["features"] == {"plain": 1, name: 2.5}


def test_too_few_values_are_not_taken_for_all() -> None:
    for names in (("a", "b"), ("a", 'b"')):
        with pytest.raises((TypeError, ValueError)):
            featured(names)(1)
