"""What was decided first on an event is found by its offset, before and after it is written."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from payments import encoded, payments, write
from shops import running
from tidegate.decided import FirstDecisions
from tidegate.pipeline import Pipeline
from tidegate.project.project import load
from tidegate.records import Records
from tidegate.verdicts import Decided
from tidegate.warehouse.feed import TableFeed
from tidegate.warehouse.query import query
from waiting import PATIENCE_SECONDS

EVENTS = encoded(payments(700))
LATE = 'commit_every = "1 hour"'


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """A project that writes its tables when it is told to."""
    folder = tmp_path / "shop"
    write(folder)
    settings = folder / "tidegate.toml"
    settings.write_text(settings.read_text().replace('commit_every = "20 ms"', LATE))
    with running(load(folder)) as pipeline:
        yield pipeline


def decide(pipeline: Pipeline, first: int, end: int, *, by: int = 9) -> None:
    """Take some of the events in, a few at a time."""
    for at in range(first, end, by):
        pipeline.door.submit(Records.of(EVENTS[at : min(at + by, end)]), source="test")
    assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)


def written(pipeline: Pipeline) -> dict[int, tuple[Any, ...]]:
    """By offset what the tables say of each event."""
    whose = "event_id, event_time, event_date, log_offset"
    sql = f"""SELECT log_offset, d.event_id, action, rules, f.* EXCLUDE ({whose})
    FROM decisions AS d JOIN features AS f USING (log_offset)"""
    rows = query(pipeline.folder.tables, sql).arrow().to_pylist()
    return {row.pop("log_offset"): tuple(row.items()) for row in rows}


def told(found: Decided) -> tuple[Any, ...]:
    named = {"event_id": found.event_id, "action": found.action, "rules": found.rules}
    return tuple({**named, **found.features}.items())


def test_those_that_wait_and_those_in_the_tables_are_found_alike(pipeline: Pipeline) -> None:
    base = pipeline.log.next_offset  # behind the record of the version
    decide(pipeline, 0, 400)
    assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    decide(pipeline, 400, 700)
    assert pipeline.writer.pending_rows == 300
    chance, offsets = random.Random(3), range(base, base + 700)
    asked = [[n] for n in chance.sample(offsets, 60)]
    asked += [chance.sample(offsets, 200), list(offsets), [*offsets[390:410]] * 2]
    before = [pipeline.first_decisions(offsets) for offsets in asked]
    assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    after = [pipeline.first_decisions(offsets) for offsets in asked]
    expected = written(pipeline)
    assert any(rules for row in expected.values() for name, rules in row if name == "rules")
    for found in (before, after):
        for wanted, decided in zip(asked, found, strict=True):
            assert decided.keys() == set(wanted)
            assert {o: told(d) for o, d in decided.items()} == {o: expected[o] for o in wanted}
            assert all(d.log_offset == o for o, d in decided.items())


def test_what_there_is_not_is_left_out(pipeline: Pipeline) -> None:
    base = pipeline.log.next_offset
    assert pipeline.first_decisions([0, base, base + 5]) == {}
    pipeline.door.submit(Records.of([EVENTS[0], b"no event", EVENTS[0], EVENTS[1]]), source="test")
    assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
    assert pipeline.first_decisions(range(base + 9)).keys() == {base, base + 3}
    assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert pipeline.first_decisions(range(base + 9)).keys() == {base, base + 3}
    assert pipeline.first_decisions([1 << 40]) == {}


def test_a_stretch_is_read_again_only_where_it_has_grown(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    feed = pipeline.warehouse.feed

    def noted(table: str) -> TableFeed:
        reads.append(table)
        return feed(table)

    monkeypatch.setattr(pipeline.warehouse, "feed", noted)
    first = FirstDecisions(pipeline.warehouse, pipeline.writer.waiting)
    base = pipeline.log.next_offset
    decide(pipeline, 0, 100)
    assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    for offset in range(base, base + 100):
        assert first.at([offset])[offset].log_offset == offset
    assert sorted(reads) == ["decisions", "features"]
    decide(pipeline, 100, 200)
    assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert first.at([base + 50, base + 150]).keys() == {base + 50, base + 150}
    assert sorted(reads) == ["decisions"] * 2 + ["features"] * 2
