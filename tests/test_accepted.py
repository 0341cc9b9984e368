"""Accepted events by id: wherever they are, the newest of each, however many ask at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from shops import COLUMNS, NOON, SECOND, event, running, send, write
from tidegate.accepted import Accepted
from tidegate.project.project import Project
from tidegate.records import Records
from tidegate.testing.clock import ManualClock
from waiting import PATIENCE_SECONDS


def accepted(project: Project) -> Accepted:
    return Accepted(project.data / "tables", project.stream.schema)


@pytest.mark.parametrize("kind", ["text", "bigint"])
def test_the_newest_event_of_an_id_is_found_with_its_columns(tmp_path: Path, kind: str) -> None:
    clock, columns = ManualClock(NOON), COLUMNS.replace('id = "text"', f'id = "{kind}"')
    project = write(tmp_path / "shop", columns=columns)

    def record(number: int, n: int) -> bytes:
        plain = event(str(number), n=n)
        return plain if kind == "text" else plain.replace(f'"{number}"'.encode(), b"%d" % number)

    with running(project, clock) as pipeline:
        first = send(pipeline, *(record(i, i) for i in range(50)))
        clock.advance(3_600 * SECOND)  # beyond the dedupe horizon an id may be used again
        again = send(pipeline, record(7, 700))
    found = accepted(project).find({"7", "49", "50", "07", "x"})
    assert {i: (offset, row["n"]) for i, (offset, row) in found.items()} == {
        "7": (again, 700),
        "49": (first + 49, 49),
    }
    assert found["7"][1]["at"] == NOON


def test_what_is_decided_and_not_written_is_found_first(tmp_path: Path) -> None:
    lazy = '[warehouse]\ncommit_every = "1 hour"\n'
    project = write(tmp_path / "shop", warehouse=lazy)
    with running(project) as pipeline:
        send(pipeline, event("a", n=1))  # waits until it is in the tables
        offset = pipeline.log.next_offset
        pipeline.door.submit(Records.of([event("b", n=2)]), source="test")
        assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
        tables, schema = pipeline.folder.tables, pipeline.program.schema
        both = Accepted(tables, schema, pending=pipeline.writer.events).find({"a", "b"})
        assert both["b"][0] == offset
        assert {i: row["n"] for i, (_, row) in both.items()} == {"a": 1, "b": 2}
        assert accepted(project).find({"b"}) == {}


def test_without_tables_nothing_is_found(tmp_path: Path) -> None:
    assert accepted(write(tmp_path / "shop")).find({"a"}) == {}


def test_many_who_ask_at_once_all_get_what_they_asked_for(tmp_path: Path) -> None:
    project = write(tmp_path / "shop")
    with running(project) as pipeline:
        first = send(pipeline, *(event(f"e{i}", n=i) for i in range(200)))
    finder, found = accepted(project), dict[int, object]()

    def ask(number: int) -> None:
        found[number] = finder.find({f"e{number}"})[f"e{number}"][0]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE_SECONDS)
    assert found == {n: first + n for n in range(40)}


def test_an_error_is_told_to_all_who_wait(tmp_path: Path) -> None:
    def broken() -> list[object]:
        raise RuntimeError("no memory of it")

    project = write(tmp_path / "shop")
    finder = Accepted(project.data / "tables", project.stream.schema, pending=broken)  # type: ignore[arg-type] # it only raises
    with pytest.raises(RuntimeError, match="no memory of it"):
        finder.find({"a"})
    with pytest.raises(RuntimeError, match="no memory of it"):
        finder.find({"a"})
