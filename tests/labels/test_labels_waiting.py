"""Labels that wait for their event, against a list and nothing else; and their bounds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidegate.labels.waiting import Bounds, Waiting
from tidegate.schema import Schema

SCHEMA = Schema.of(
    [("id", "bigint"), ("at", "timestamp"), ("fraud", "boolean?")], id="id", event_time="at"
)
Step = tuple[str, int, bool, int]  # what, id, label, microseconds after the step before

steps = st.lists(
    st.tuples(
        st.sampled_from(["label", "event"]), st.integers(0, 6), st.booleans(), st.integers(-2, 9)
    ),
    max_size=60,
)


def batch(ids: list[int]) -> pa.RecordBatch:
    rows = [{"id": i, "at": 0, "fraud": None} for i in ids]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA.arrow)


def put(waiting: Waiting, event_id: int, label: bool, at: int) -> None:
    waiting.put(str(event_id), "fraud" if label else "legitimate", at=at)


def twin(given_steps: list[Step], bounds: Bounds) -> tuple[list[Any], int]:
    """For each event the label that waited for it, and how many labels were let go."""
    held: list[tuple[int, bool, int]] = []
    found, gone, now = [], 0, 0
    for what, event_id, label, later in given_steps:
        now += later
        mine = [h for h in held if h[0] == event_id]
        held = [h for h in held if h[0] != event_id]
        if what == "event":
            found.append(mine[0][1] if mine else None)
            continue
        held.append((event_id, label, now))
        while held and (len(held) > bounds.labels or held[0][2] < now - bounds.age):
            held, gone = held[1:], gone + 1
    return found, gone


@given(steps, st.integers(0, 4), st.integers(0, 30), st.sets(st.integers(0, 60)))
def test_an_event_finds_the_last_label_that_waits(
    given_steps: list[Step], labels: int, age: int, cuts: set[int]
) -> None:
    """However events are cut into batches, and with a snapshot at every cut."""
    bounds = Bounds(labels, age)
    waiting, now, seen = Waiting(bounds), 0, []
    for first, last in pairwise(sorted({0, len(given_steps), *cuts})):
        pending: list[int] = []
        for what, event_id, label, later in given_steps[first:last]:
            now += later
            if what == "event":
                pending.append(event_id)
                continue
            seen += waiting.fill(batch(pending), SCHEMA, "fraud")["fraud"].to_pylist()
            pending = []
            put(waiting, event_id, label, now)
        seen += waiting.fill(batch(pending), SCHEMA, "fraud")["fraud"].to_pylist()
        saved, waiting = waiting.snapshot(), Waiting(bounds)
        waiting.restore(saved)
    assert (seen, waiting.let_go) == twin(given_steps, bounds)


def test_without_a_column_events_stay_as_they_are_and_labels_stop_waiting() -> None:
    waiting = Waiting(Bounds())
    put(waiting, 1, label=True, at=0)
    events = batch([2, 1])
    assert waiting.fill(events, SCHEMA, None) is events
    assert len(waiting) == 0


def test_what_an_event_said_itself_gives_way_to_the_label() -> None:
    waiting = Waiting(Bounds())
    put(waiting, 1, label=False, at=0)
    rows = [{"id": i, "at": 0, "fraud": True} for i in (1, 2)]
    events = pa.RecordBatch.from_pylist(rows, schema=SCHEMA.arrow)
    assert waiting.fill(events, SCHEMA, "fraud")["fraud"].to_pylist() == [False, True]
