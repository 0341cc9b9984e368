"""A clock that is moved by hand."""

import pytest

from tidegate.clock import Clock
from tidegate.testing.clock import ManualClock


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock: Clock = ManualClock(5)
    assert clock.now() == clock.now() == 5


def test_a_manual_clock_moves_by_a_span_or_to_a_time() -> None:
    clock = ManualClock(5)
    assert clock.advance(10) == 15
    clock.set(100)
    assert clock.now() == 100


def test_time_never_goes_back() -> None:
    clock = ManualClock(5)
    with pytest.raises(ValueError, match="go back"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="go back"):
        clock.set(4)
    assert clock.now() == 5
