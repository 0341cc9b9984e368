"""Few events at once, hardly two of one key: their rows go through the frames together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidegate.features.state import FeatureState

from .shop import DAY, FIRST, SECOND, batch, calls, compiled, micros, run

_CARDS = 40
_AT_ONCE = 20


@st.composite
def _rounds(draw: st.DrawFn) -> pa.RecordBatch:
    """Events of which `_AT_ONCE` that follow each other are of as many cards, or nearly.

    Some come late.
    """
    rng, differ = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.booleans())
    gap = draw(st.sampled_from([0, SECOND, 60 * SECOND, DAY]))
    rows: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(2, 6))):
        cards = rng.permutation(_CARDS)[:_AT_ONCE]
        for card in (cards if differ else rng.integers(0, _CARDS, _AT_ONCE)).tolist():
            time = FIRST + gap * len(rows) - gap * 50 * int(rng.random() < 0.02)
            rows.append(
                {
                    "id": len(rows),
                    "event_time": time,
                    "card": f"card {card}" if card else None,
                    "terminal": int(rng.integers(0, 500)),
                    "n": int(rng.integers(-3, 6)) if rng.random() < 0.8 else None,
                    "d": float(rng.choice([0.1, 1e17, -1e17, 3.3, float("inf")])),
                    "ok": bool(rng.random() < 0.5),
                    "due": FIRST + int(rng.integers(0, 5)) * DAY,
                }
            )
    return batch(rows)


@given(st.lists(calls(), min_size=1, max_size=6), _rounds())
def test_events_of_different_keys_give_together_what_they_give_one_by_one(
    asked: list[Any], events: pa.RecordBatch
) -> None:
    made = compiled(
        f"SELECT {', '.join(f'{c.text()} AS f{i}' for i, c in enumerate(asked))} FROM events"
    )
    together = run(made, events, range(_AT_ONCE, events.num_rows, _AT_ONCE))
    alone = run(made, events, range(1, events.num_rows))
    assert repr(together.values.to_pylist()) == repr(alone.values.to_pylist())
    assert together.errors == alone.errors


_SQL = """SELECT
  count(*)                      OVER an_hour AS events,
  stddev_samp(d)                OVER an_hour AS spread,
  max(n)                        OVER a_minute AS most,
  count(DISTINCT card)          OVER an_hour AS cards,
  first_value(card)             OVER an_hour AS first,
  sum(n) OVER (PARTITION BY card ORDER BY event_time ROWS 3 PRECEDING) AS last_four
FROM events WINDOW
  an_hour  AS (PARTITION BY terminal ORDER BY event_time RANGE INTERVAL 1 HOUR PRECEDING),
  a_minute AS (PARTITION BY terminal ORDER BY event_time
               RANGE BETWEEN INTERVAL 9 MINUTES PRECEDING AND INTERVAL 1 MINUTE PRECEDING)"""


def _stream(count: int, keys: int) -> pa.RecordBatch:
    """Events of keys that come in turn, a second after each other."""
    rng = np.random.default_rng(count)
    drawn = zip(rng.integers(0, 9, count).tolist(), rng.random(count).tolist(), strict=True)
    return batch(
        [
            {
                "id": i,
                "event_time": FIRST + i * SECOND,
                "card": f"c{n}",
                "terminal": i % keys,
                "n": n,
                "d": d,
            }
            for i, (n, d) in enumerate(drawn)
        ]
    )


def test_keys_that_come_by_the_hundred_are_had_room_for() -> None:
    made, events = compiled(_SQL), _stream(6_000, 1_500)
    whole = run(made, events)
    assert whole.values.equals(run(made, events, range(100, 6_000, 100)).values)
    assert whole.values["events"].to_pylist()[-1] == 3  # of its terminal within an hour


def test_a_snapshot_underway_has_none_of_what_comes_by_the_hundred() -> None:
    made, events = compiled(_SQL), _stream(4_000, 700)
    newest = np.maximum.accumulate(micros(events))
    states = [FeatureState(made, key=bytes(16)) for _ in range(2)]
    for state in states:
        for at in range(0, 2_000, 100):
            state.update(events.slice(at, 100), newest=newest[at : at + 100])
    asked = states[0].snapshot()
    for at in range(2_000, 4_000, 100):
        states[0].update(events.slice(at, 100), newest=newest[at : at + 100])
    restored, stayed = FeatureState(made, key=bytes(16)), states[1]
    restored.restore(asked)
    for at in range(2_000, 4_000, 1_000):
        part = events.slice(at, 1_000), newest[at : at + 1_000]
        found = [s.update(part[0], newest=part[1]).values for s in (restored, stayed)]
        assert found[0].equals(found[1])
