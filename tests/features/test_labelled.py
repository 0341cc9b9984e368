"""Features over the column that takes labels: what a label changes, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidegate.errors import ProjectError
from tidegate.features.compile import FeaturePlan, compile_features
from tidegate.features.state import FeatureState
from tidegate.schema import Schema
from tidegate.sql.source import SourceText

from .shop import DAY, FIRST, SECOND, batch, micros

SHOP = Schema.of(
    [
        *(("id", "text"), ("event_time", "timestamp"), ("card", "text?"), ("store", "text?")),
        *(("amount", "double?"), ("fraud", "bigint?")),
    ],
    id="id",
    event_time="event_time",
)
DELAYED = (
    "(PARTITION BY card ORDER BY event_time "
    "RANGE BETWEEN INTERVAL 37 DAYS PRECEDING AND INTERVAL 7 DAYS PRECEDING)"
)
HOUR = "(PARTITION BY card ORDER BY event_time RANGE INTERVAL 1 HOUR PRECEDING)"


def plan(features: str, *, label: str | None = "fraud") -> FeaturePlan:
    source = SourceText(f"SELECT {features} FROM events", "features.sql")
    return compile_features(source, SHOP, lateness=0, look_back=400 * DAY, label=label)


class Feed:
    """A state, fed with one event after the other."""

    def __init__(self, made: FeaturePlan) -> None:
        self.state = FeatureState(made, key=bytes(16))
        self._offset, self._newest = 0, FIRST

    def batch(self, offset: int, values: Mapping[str, Any]) -> pa.RecordBatch:
        row = {"id": str(offset), "event_time": FIRST + offset * SECOND, "card": "a", **values}
        return batch([row], schema=SHOP).append_column("log_offset", pa.array([offset]))

    def event(self, **values: Any) -> dict[str, Any]:
        """The features of an event that comes a second after the one before."""
        rows = self.batch(self._offset, values)
        self._offset += 1
        self._newest = max(self._newest, int(micros(rows)[0]))
        found = self.state.update(rows, newest=np.array([self._newest]))
        assert not found.errors
        return dict(found.values.to_pylist()[0])

    def label(self, offset: int, **values: Any) -> int:
        """Let the event at an offset have these values, the label among them."""
        return self.state.amend(self.batch(offset, values))


def test_a_label_counts_from_then_on_in_every_entity_and_expression() -> None:
    made = plan(
        f"sum(fraud) OVER {HOUR} AS frauds, "
        f"sum(CASE WHEN fraud = 1 THEN amount END) OVER {HOUR} AS lost, "
        f"count(*) FILTER (WHERE fraud = 1 AND amount > 10) OVER {HOUR} AS large, "
        "avg(fraud) OVER (PARTITION BY store ORDER BY event_time ROWS 9 PRECEDING) AS rate, "
        "lag(fraud) OVER (PARTITION BY card ORDER BY event_time) AS last, "
        f"count(*) OVER {HOUR} AS n"
    )
    feed = Feed(made)
    feed.event(store="s", amount=20.0)
    feed.event(store="s", amount=5.0, fraud=0)
    seen = feed.event(store="s", amount=1.0)
    assert seen == {"frauds": 0, "lost": None, "large": 0, "rate": 0.0, "last": 0, "n": 3}
    assert feed.label(0, store="s", amount=20.0, fraud=1) == 2
    assert feed.label(1, store="s", amount=5.0, fraud=1) == 2
    seen = feed.event(store="s", amount=1.0)
    assert seen == {"frauds": 2, "lost": 25.0, "large": 1, "rate": 1.0, "last": None, "n": 4}
    feed.label(0, store="s", amount=20.0, fraud=0)
    seen = feed.event(store="s", amount=1.0)
    assert seen == {"frauds": 1, "lost": 5.0, "large": 0, "rate": 0.5, "last": None, "n": 5}


def test_a_delayed_frame_sees_a_label_that_came_before_it_reached_the_event() -> None:
    feed = Feed(plan(f"sum(fraud) OVER {DELAYED} AS frauds, count(fraud) OVER {DELAYED} AS known"))
    for _ in range(3):
        feed.event()
    assert feed.label(1, fraud=1) == 1
    late = 10 * DAY // SECOND
    feed._offset = late
    assert feed.event() == {"frauds": 1, "known": 1}
    feed.label(2, fraud=0)
    assert feed.event() == {"frauds": 1, "known": 2}
    feed._offset = 60 * DAY // SECOND
    assert feed.event() == {"frauds": None, "known": 0}


def test_windows_over_windows_keep_what_they_saw() -> None:
    """What a window gave for an earlier event was decided then; its label still filters rows."""
    made = plan(
        f"sum(fraud) OVER {HOUR} AS frauds, max(frauds) OVER {HOUR} AS most, "
        f"sum(frauds) FILTER (WHERE fraud = 1) OVER {HOUR} AS chosen"
    )
    feed = Feed(made)
    feed.event(fraud=1)
    assert feed.event(fraud=1) == {"frauds": 2, "most": 2, "chosen": 3}
    feed.label(1, fraud=0)
    assert feed.event() == {"frauds": 1, "most": 2, "chosen": 1}


def test_an_entity_that_does_not_read_the_label_keeps_no_offsets() -> None:
    made = plan(
        f"sum(fraud) OVER {HOUR} AS a, max(amount) OVER (ORDER BY event_time ROWS 3 PRECEDING) AS b"
    )
    kept = {e.plan.keys: "log_offset" in e.plan.values for e in made.entities}
    assert kept == {("card",): True, (): False}
    assert made.takes_labels
    assert not plan(f"max(amount) OVER {HOUR} AS b").takes_labels


def test_state_from_before_the_column_took_labels_is_not_taken_over() -> None:
    text = (
        f"sum(fraud) OVER {HOUR} AS a, max(amount) OVER (ORDER BY event_time ROWS 3 PRECEDING) AS b"
    )
    before, after = plan(text, label=None), plan(text)
    same = [
        a.fingerprint == b.fingerprint for a, b in zip(before.entities, after.entities, strict=True)
    ]
    assert sorted(same) == [False, True]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            "count(*) OVER (PARTITION BY fraud ORDER BY event_time ROWS 3 PRECEDING) AS n",
            "cannot be partitioned by it",
        ),
        (
            f"count(*) OVER {HOUR} AS n, sum(fraud * n) OVER {HOUR} AS m",
            "cannot be read together with windows' values here",
        ),
        (
            (
                f"count(*) OVER {HOUR} AS n, "
                "sum(fraud) OVER (PARTITION BY n ORDER BY event_time ROWS 3 PRECEDING) AS m"
            ),
            "cannot be read together with windows' values here",
        ),
    ],
)
def test_what_labels_could_not_reach_is_refused_with_its_place(features: str, message: str) -> None:
    assert plan(features, label=None).features
    with pytest.raises(ProjectError) as raised:
        plan(features)
    (problem,) = raised.value.problems
    assert problem.file == "features.sql"
    assert message in str(problem)
