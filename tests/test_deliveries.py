"""Which rows each sink follows, and what of the log is kept for it."""

from pathlib import Path

import pytest

from shops import BY_MINUTE, NOON, event, running, send, write
from tidegate.deliveries import open_sinks
from tidegate.errors import InputError
from tidegate.pipeline import Pipeline
from tidegate.program import Program
from tidegate.testing.clock import ManualClock

INTO = BY_MINUTE.replace("FROM", "INTO [alarms] FROM")


def sink(name: str, *lines: str) -> str:
    fixed = ['type = "objects"', 'url = "objects"']
    return "\n".join([f"[sinks.{name}]", *fixed, *lines, ""])


def windowed(output: str) -> str:
    return sink("w", 'from = "w"', 'format = "json"', 'path = "w/{yyyy}"', f'output = "{output}"')


CAPTURE = sink(
    "all",
    'from = "events"',
    'format = "capture"',
    'path = "all/{Namespace}/{EventHub}/{PartitionId}'
    '/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"',
    'namespace = "n"',
    'event_hub = "h"',
)
FRAUD = sink(
    "fraud",
    'from = "decisions"',
    'format = "event"',
    'actions = ["review"]',
    'path = "fraud/n={n}/dt={yyyy}"',
)


def compiled(folder: Path, more: str) -> Program:
    return Program.compile(write(folder, more=more, windows={"w": INTO}))


def test_an_output_that_the_query_names_is_taken(tmp_path: Path) -> None:
    assert compiled(tmp_path, windowed("alarms")).windows[0].outputs == ("alarms",)


def test_an_output_that_the_query_does_not_name_is_refused(tmp_path: Path) -> None:
    project = write(tmp_path, more=windowed("alrms"), windows={"w": INTO})
    with pytest.raises(InputError, match=r"(?s)`w` has no output `alrms`.*it has `alarms`"):
        Pipeline(project)


def test_an_output_of_a_query_without_into_is_refused(tmp_path: Path) -> None:
    project = write(tmp_path, more=windowed("alarms"), windows={"w": BY_MINUTE})
    with pytest.raises(InputError, match="only window queries with INTO have outputs"):
        Pipeline(project)


def test_a_wrong_output_is_told_before_the_data_folder_is_touched(tmp_path: Path) -> None:
    project = write(tmp_path, more=windowed("alrms"), windows={"w": INTO})
    with pytest.raises(InputError):
        Pipeline(project)
    assert not project.data.exists()


def test_only_what_is_captured_as_it_came_is_read_from_the_log(tmp_path: Path) -> None:
    program = compiled(tmp_path, CAPTURE + FRAUD + windowed("alarms"))
    opened = open_sinks(program, folder=tmp_path, environment={})
    assert {name: d.reads_log for name, d in opened.items()} == {
        "all": True, "fraud": False, "w": False,
    }  # fmt: skip
    for delivering in opened.values():
        delivering.sink.close()


def test_a_path_that_does_not_fit_the_rows_of_its_window_query_is_refused(tmp_path: Path) -> None:
    program = compiled(tmp_path, windowed("alarms").replace("{yyyy}", "{store}"))
    with pytest.raises(InputError, match="store"):
        open_sinks(program, folder=tmp_path, environment={})


def test_the_log_keeps_what_a_capturing_sink_needs_until_it_is_taken_away(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    with running(write(tmp_path, more=CAPTURE + FRAUD), clock) as pipeline:
        assert pipeline.log.positions()["sink all"] == 0
        assert "sink fraud" not in pipeline.log.positions()
        end = send(pipeline, event("a")) + 1
    with running(write(tmp_path, more=CAPTURE + FRAUD), clock) as pipeline:
        assert pipeline.log.positions()["sink all"] == end  # closing delivered it
    with running(write(tmp_path, more=FRAUD), clock) as pipeline:
        assert "sink all" not in pipeline.log.positions()
