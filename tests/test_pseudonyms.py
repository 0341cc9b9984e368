"""Pseudonyms: equal for equal values, of no use without the key, in every shape of a column."""

import hmac
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.pseudonyms import pseudonym, pseudonym_key, pseudonyms

KEY = pseudonym_key(bytes(16))
OTHER = pseudonym_key(bytes([1] * 16))


def of(text: str) -> str:
    return pseudonym(text, KEY)


@given(st.lists(st.text(max_size=5) | st.none(), max_size=30))
def test_equal_values_have_equal_pseudonyms_and_missing_ones_have_none(
    texts: list[str | None],
) -> None:
    stands = pseudonyms(pa.array(texts, pa.string()), KEY).to_pylist()
    assert [s is None for s in stands] == [t is None for t in texts]
    assert len(set(stands)) == len(set(texts))
    assert stands == [t if t is None else of(t) for t in texts]


def test_another_installation_has_other_pseudonyms() -> None:
    assert pseudonym("4711", KEY) != pseudonym("4711", OTHER)


def test_a_pseudonym_is_a_keyed_hash_by_a_key_derived_from_the_installation() -> None:
    installation = bytes(range(16))
    derived = hmac.new(installation, b"tidegate pii 1", "sha256").digest()
    assert pseudonym_key(installation) == derived
    expected = hmac.new(derived, b"4711", "sha256").hexdigest()[:20]
    assert pseudonym("4711", derived) == f"pii:{expected}"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([4711, None]), ["4711", None]),
        (pa.array([Decimal("1.50")], pa.decimal128(10, 2)), ["1.50"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([datetime(2026, 1, 1)], pa.timestamp("us")), ["2026-01-01 00:00:00.000000"]),  # noqa: DTZ001 - as Arrow has it
        (pa.array([b"\xff\x00"]), ["ff00"]),
        (pa.array([], pa.int64()), []),
    ],
)
def test_every_type_of_a_column_has_pseudonyms(values: Any, texts: list[str | None]) -> None:
    stands = pseudonyms(values, KEY)
    assert stands.type == pa.string()
    assert stands.to_pylist() == [t if t is None else of(t) for t in texts]


def test_a_number_and_the_same_number_as_text_have_one_pseudonym() -> None:
    [number] = pseudonyms(pa.array([4711]), KEY).to_pylist()
    assert number == of("4711")


def test_lists_and_structs_keep_their_shape() -> None:
    lists = pa.array([["a", "b", None], None, [], ["a"]])
    a, b = of("a"), of("b")
    assert pseudonyms(lists, KEY).to_pylist() == [[a, b, None], None, [], [a]]
    assert pseudonyms(lists.slice(3), KEY).to_pylist() == [[a]]
    structs = pa.array([{"x": 1, "y": ["a"]}, None, {"x": None, "y": None}])
    assert pseudonyms(structs, KEY).to_pylist() == [
        {"x": of("1"), "y": [a]}, None, {"x": None, "y": None},
    ]  # fmt: skip
