"""Whole numbers as text are what Arrow's cast makes of them."""

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.events.digits import as_text, texts


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(0, 3))
@example([0, 9, 10, -9, -10, 99, 100, 10**18 - 1, 10**18, -(10**18), 2**63 - 1, -(2**63)], 0)
def test_numbers_are_written_as_arrow_casts_them(numbers: list[int], first: int) -> None:
    given_ = pa.array(numbers, pa.int64()).slice(first)
    found = texts(given_)
    found.validate(full=True)
    assert found.to_pylist() == given_.cast(pa.string()).to_pylist()


def test_a_missing_number_has_no_text() -> None:
    with pytest.raises(ValueError, match="without nulls"):
        texts(pa.array([1, None], pa.int64()))


def test_ids_of_any_type_are_text() -> None:
    words = pa.array(["a", None], pa.string())
    assert as_text(words) is words
    for numbers in (pa.array([7, -12], pa.int64()), pa.array([7, None], pa.int64())):
        assert as_text(numbers).to_pylist() == numbers.cast(pa.string()).to_pylist()
    assert as_text(pa.array([1.5])).to_pylist() == ["1.5"]
