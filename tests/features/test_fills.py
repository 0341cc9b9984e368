"""Values that stand for the nulls of window functions, written at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidegate.features.fills import fills_of
from tidegate.features.state import FeatureState

from .shop import FIRST, SECOND, batch, compiled, micros, run

HOUR = "(PARTITION BY card ORDER BY event_time RANGE INTERVAL 1 HOUR PRECEDING)"
KEY = bytes(16)
MAX = 2**63 - 1
ZERO, SEVEN = 0, int(np.float64(7).view(np.int64))
MEAN = "avg(n) over (card range 1 h to 0)"


def events(*ns: int | None) -> Any:
    rows = [
        {"id": i, "event_time": FIRST + i * SECOND, "card": "a", "n": n} for i, n in enumerate(ns)
    ]
    return batch(rows)


@pytest.mark.parametrize(
    ("features", "fills"),
    [
        (f"coalesce(avg(n) OVER {HOUR}, 7) AS a", {MEAN: SEVEN}),
        (
            f"coalesce(avg(n) OVER {HOUR}, 0) AS a, coalesce(avg(n) OVER {HOUR}, 0) AS b",
            {MEAN: ZERO},
        ),
        (f"coalesce(avg(n) OVER {HOUR}, 0) AS a, coalesce(avg(n) OVER {HOUR}, 7) AS b", {}),
        (f"coalesce(avg(n) OVER {HOUR}, 7) AS a, avg(n) OVER {HOUR} AS b", {}),
        (f"coalesce(avg(n) OVER {HOUR}, 7) AS a, avg(n) OVER {HOUR} + 1 AS b", {}),
        (f"avg(n) OVER {HOUR} AS m, coalesce(m, 7) AS a, max(m) OVER {HOUR} AS b", {}),
        (f"coalesce(avg(n) OVER {HOUR}, n) AS a", {}),
        (f"coalesce(avg(n) OVER {HOUR}, NULL) AS a", {}),
        (f"coalesce(sum(amount) OVER {HOUR}, 0) AS a", {}),  # two words each
        (f"coalesce(first_value(card) OVER {HOUR}, 'none') AS a", {}),
        ("coalesce(n, 7) AS a", {}),
    ],
)
def test_a_null_is_filled_at_once_where_nobody_sees_it(
    features: str, fills: dict[str, int]
) -> None:
    assert fills_of(compiled(f"SELECT {features} FROM events")) == fills


@pytest.mark.parametrize("cuts", [(), (1, 2, 3)])
def test_what_is_filled_at_once_is_what_the_expression_gives(cuts: tuple[int, ...]) -> None:
    calls = {"avg(n)": "7", "sum(n)": "-1", "max(d)": "-0.5", "max(due)": "TIMESTAMP '2020-01-01'"}
    filled = [f"coalesce({c} OVER {HOUR}, {x}) AS f{i}" for i, (c, x) in enumerate(calls.items())]
    asked = [
        f"CASE WHEN {c} OVER {HOUR} IS NULL THEN {x} ELSE {c} OVER {HOUR} END AS f{i}"
        for i, (c, x) in enumerate(calls.items())
    ]
    rows = events(None, 3, None, 4)
    one, other = (
        run(compiled(f"SELECT {', '.join(text)} FROM events"), rows, cuts).values
        for text in (filled, asked)
    )
    assert one.equals(other)
    assert one["f0"].to_pylist() == [7.0, 3.0, 3.0, 3.5]
    assert one["f2"].to_pylist() == [-0.5] * 4


def test_a_sum_that_does_not_fit_is_no_null_to_be_filled() -> None:
    found = run(
        compiled(f"SELECT coalesce(sum(n) OVER {HOUR}, 0) AS s FROM events"),
        events(None, MAX, 1, -1),
    )
    assert found.values["s"].to_pylist() == [0, MAX, None, MAX]
    assert list(found.errors["s"]) == [2]


def test_the_fill_is_that_of_the_features_which_have_the_state_now() -> None:
    text = f"SELECT coalesce(avg(n) OVER {HOUR}, {{}}) AS a FROM events"
    old, new = (FeatureState(compiled(text.format(fill)), key=KEY) for fill in (1, 2))
    rows = events(None)
    assert old.update(rows, newest=micros(rows)).values["a"].to_pylist() == [1.0]
    kept = b"".join(bytes(part) for part in old.snapshot())
    assert new.adopt(old) == ()
    rest = FeatureState(compiled(text.format(3)), key=KEY)
    rest.restore([kept])
    for state, fill in ((new, 2.0), (rest, 3.0)):
        assert state.update(rows, newest=micros(rows)).values["a"].to_pylist() == [fill]
        seen = state.peek({"card": "b"}, time=FIRST, newest=FIRST)
        assert seen.values["a"].to_pylist() == [fill]
