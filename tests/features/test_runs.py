"""Many rows of one key in a batch, whose frames are found out several rows at a time."""

from __future__ import annotations

import numpy as np
import pytest

from .shop import FIRST, SECOND, batch, compiled, run

MAX = 2**63 - 1
ROWS = 300
SPANS = (
    "INTERVAL 1 MINUTE PRECEDING AND CURRENT ROW",
    "INTERVAL 9 MINUTES PRECEDING AND INTERVAL 2 MINUTES PRECEDING",
    "INTERVAL 30 MINUTES PRECEDING AND INTERVAL 2 MINUTES PRECEDING",
    "INTERVAL 1 HOUR PRECEDING AND INTERVAL 9 MINUTES PRECEDING",
)
CALLS = ("avg(n)", "count(n)", "sum(d)", "count(*)")
STORMS = [600, 1, 1, 1, 1, 1, 1, 1, 1, 4000]


@pytest.mark.parametrize("gaps", [[1], [0, 1], [0, 0, 0, 5, 90], STORMS])
def test_long_runs_of_a_key_give_what_its_rows_give_one_by_one(gaps: list[int]) -> None:
    rng = np.random.default_rng(len(gaps))
    seconds = np.cumsum(rng.choice(gaps, ROWS))
    numbers = rng.integers(-3, 3, ROWS).tolist()
    rows = [
        {"id": i, "event_time": FIRST + s * SECOND, "card": "a", "n": n * (MAX // 3), "d": n / 3}
        for i, (s, n) in enumerate(zip(seconds.tolist(), numbers, strict=True))
    ]
    asked = [
        f"{call} OVER (PARTITION BY card ORDER BY event_time RANGE BETWEEN {span}) AS f{k}_{c}"
        for k, span in enumerate(SPANS)
        for c, call in enumerate(CALLS)
    ]
    made = compiled(f"SELECT {', '.join(asked)} FROM events")
    whole = run(made, batch(rows)).values
    assert whole.equals(run(made, batch(rows), range(1, ROWS)).values)
    near = [(seconds[: i + 1] >= s - 60).sum() for i, s in enumerate(seconds)]
    far = [((seconds >= s - 540) & (seconds <= s - 120)).sum() for s in seconds]
    assert whole["f0_3"].to_pylist() == near
    assert whole["f1_3"].to_pylist() == far
