"""Labels in the middle of traffic: what features see, live, replayed, rebuilt, after a crash."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import tidegate
from chargebacks import FEATURES, MORE_FEATURES, Step, expected, table, traffic, write
from shops import NOON, SECOND, copy_while_running, rows, running, snapshot
from tidegate.accepted import Accepted
from tidegate.labelling import Desk
from tidegate.pipeline import Pipeline
from tidegate.project.project import Project
from tidegate.records import Records
from tidegate.testing.clock import ManualClock
from waiting import PATIENCE_SECONDS


def desk(pipeline: Pipeline, *, blind: bool = False) -> Desk:
    """The desk of a pipeline; a `blind` one leaves it to the engine to find events."""
    found = Accepted(
        pipeline.folder.tables, pipeline.program.schema, pending=pipeline.writer.events
    )
    find = (lambda _ids: {}) if blind else found.find
    return Desk(find, pipeline.append, clock=pipeline.clock)


def take(pipeline: Pipeline, step: Step, *, blind: bool = False) -> None:
    records = Records.of(step.records)
    if step.payments:
        pipeline.door.submit(records, source="test")
    else:
        assert not desk(pipeline, blind=blind).take(records, source="bank").mistakes


def close(seen: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(seen, float):
        return math.isclose(seen, wanted, rel_tol=1e-9)
    return bool(seen == wanted)


def assert_as_expected(project: Project) -> None:
    seen, wanted = table(project, "features").to_pylist(), expected(project)
    assert len(seen) == len(wanted) > 0
    for row, other in zip(seen, wanted, strict=True):
        for name, value in other.items():
            assert close(row[name], value), (row["event_id"], name, row[name], value)


def bits(found: pa.Table) -> list[tuple[Any, ...]]:
    lists = [found.column(n).to_pylist() for n in found.column_names if n != "decided_at"]
    return list(
        zip(*[[v.hex() if isinstance(v, float) else v for v in c] for c in lists], strict=True)
    )


@pytest.mark.parametrize("seed", range(3))
def test_features_see_labels_from_their_place_in_the_log_on(tmp_path: Path, seed: int) -> None:
    """However labels find their event; and what is computed again comes out equal."""
    project, chance = write(tmp_path / "bank"), random.Random(seed)
    with running(project) as pipeline:
        for step in traffic(300, seed=seed):
            take(pipeline, step, blind=chance.random() < 0.5)
            if chance.random() < 0.1:
                assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert_as_expected(project)
    assert rows(project, "SELECT count(*) FROM labels WHERE event_offset IS NULL") != [(0,)]
    bank = tidegate.open(project.root)
    assert bank.verify().equal
    bank.replay()
    live, again = table(project, "features"), table(project, "replay")
    assert bits(again.select(live.column_names)) == bits(live)


def test_a_restart_from_a_snapshot_and_from_nothing_goes_on_alike(tmp_path: Path) -> None:
    """Labels wait through it, and what they corrected stays corrected."""
    steps = list(traffic(240, seed=7))
    project = write(tmp_path / "bank")
    with running(project) as pipeline:
        for step in steps[: len(steps) // 2]:
            take(pipeline, step)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        snapshot(pipeline)
        crashed = copy_while_running(pipeline, tmp_path / "crashed")
        bare = copy_while_running(pipeline, tmp_path / "bare")
        for path in (bare.data / "snapshots").glob("*"):
            path.unlink()
        for step in steps[len(steps) // 2 :]:
            take(pipeline, step)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert_as_expected(project)
    for other in (crashed, bare):
        with running(other) as pipeline:
            for step in steps[len(steps) // 2 :]:
                take(pipeline, step)
            assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        assert_as_expected(other)
        assert bits(table(other, "features")) == bits(table(project, "features"))
        assert tidegate.open(other.root).verify().equal


def test_new_features_are_rebuilt_with_the_labels_where_they_came(tmp_path: Path) -> None:
    steps = list(traffic(240, seed=11))
    project = write(tmp_path / "bank", edits={'[labels]\ncolumn = "is_fraud"\n': ""})
    with running(project) as pipeline:
        for step in steps[: len(steps) // 2]:
            take(pipeline, step)
    project = write(project.root, features=MORE_FEATURES)
    with running(project) as pipeline:
        for step in steps[len(steps) // 2 :]:
            take(pipeline, step)
    wanted = expected(project)
    switched = rows(project, "SELECT max(log_offset) FROM versions")[0][0]
    later = [
        (row, other)
        for row, other in zip(table(project, "features").to_pylist(), wanted, strict=True)
        if row["log_offset"] > switched
    ]
    assert len(later) > 50
    assert all(close(row[n], v) for row, other in later for n, v in other.items())
    assert tidegate.open(project.root).verify().equal


def test_an_entity_is_shown_with_its_labels(tmp_path: Path) -> None:
    project = write(tmp_path / "bank")
    with running(project) as pipeline:
        take(pipeline, Step(payments=(payment("p1", 0), payment("p2", 5))))
        take(pipeline, Step(labels=(labelled("p1"), labelled("p3"))))
        take(pipeline, Step(payments=(payment("p3", 9),)))
    bank = tidegate.open(project.root)
    (row,) = bank.entity({"card": "c1"}).to_pylist()
    assert (row["card_frauds"], row["card_known"], row["payments"]) == (2, 2, 3)


def payment(name: str, minute: int, **values: Any) -> dict[str, Any]:
    at = f"2023-06-07T12:{minute:02d}:00Z"
    return {"id": name, "at": at, "card": "c1", "shop": 1, "amount": "5.00", **values}


def labelled(name: str, label: str = "fraud") -> dict[str, Any]:
    return {"event_id": name, "label": label}


def test_an_event_sees_the_label_that_came_before_it_and_its_table_does_not(
    tmp_path: Path,
) -> None:
    project = write(tmp_path / "bank")
    with running(project) as pipeline:
        take(pipeline, Step(labels=(labelled("p1"),)))
        take(pipeline, Step(payments=(payment("p1", 0, is_fraud=0), payment("p2", 1))))
    assert rows(project, "SELECT card_frauds FROM features ORDER BY log_offset") == [(1,), (1,)]
    assert rows(project, "SELECT action FROM decisions WHERE event_id = 'p1'") == [("review",)]
    assert rows(project, "SELECT is_fraud FROM events WHERE id = 'p1'") == [(0,)]
    assert tidegate.open(project.root).verify().equal


def test_labels_that_wait_are_bounded_and_those_let_go_are_counted(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    settings = '[labels]\ncolumn = "is_fraud"\nwaiting_max = 3\nwaiting_time = "1 hour"\n'
    project = write(tmp_path / "bank", edits={'[labels]\ncolumn = "is_fraud"\n': settings})
    with running(project, clock) as pipeline:
        take(pipeline, Step(labels=tuple(labelled(f"p{i}") for i in range(5))))
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        assert (len(pipeline.engine.waiting), pipeline.engine.waiting.let_go) == (3, 2)
        clock.advance(3_601 * SECOND)
        take(pipeline, Step(labels=(labelled("p9"),)))
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        assert (len(pipeline.engine.waiting), pipeline.engine.waiting.let_go) == (1, 5)
        take(pipeline, Step(payments=(payment("p4", 0), payment("p9", 0))))
    assert rows(project, "SELECT card_known FROM features ORDER BY log_offset") == [(0,), (1,)]


def test_the_last_label_of_an_event_counts_and_stands_beside_its_decision(tmp_path: Path) -> None:
    project = write(tmp_path / "bank")
    with running(project) as pipeline:
        take(pipeline, Step(payments=(payment("p1", 0), payment("p2", 1))))
        take(pipeline, Step(labels=(labelled("p1"), labelled("p9"))))
        take(pipeline, Step(labels=(labelled("p1", "legitimate"), labelled("p2"))))
    bank = tidegate.open(project.root)
    found = bank.query("SELECT event_id, label, action FROM labelled ORDER BY event_id").arrow()
    assert [tuple(r.values()) for r in found.to_pylist()] == [
        ("p1", "legitimate", "approve"),
        ("p2", "fraud", "approve"),
        ("p9", "fraud", None),
    ]
    assert bank.query("SELECT * FROM labels").schema.names == [
        *("at", "event_id", "label", "source", "known_at", "author"),
        *("event_offset", "log_offset", "at_date"),
    ]


def test_features_of_a_frame_in_memory_need_no_offsets(tmp_path: Path) -> None:
    project = write(tmp_path / "bank", features=FEATURES)
    found = tidegate.open(project.root).features([payment("p1", 0, is_fraud=1)])
    assert found.column("card_frauds").to_pylist() == [1]
