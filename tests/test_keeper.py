"""What the keeper's work asks of the stages beside it."""

import threading
import time
from pathlib import Path

import pytest

from shops import event, running, send, write
from tidegate import keeper
from tidegate.events.copied import Copied
from tidegate.events.dedupe import Dedupe
from tidegate.keeper import Keeper
from tidegate.pipeline import Pipeline
from waiting import PATIENCE_SECONDS, until


def test_half_as_much_is_read_ahead_while_files_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(write(tmp_path)) as pipeline:
        monkeypatch.setattr(Pipeline, "backlog", 60)
        pipeline.wait_for_room(100)
        monkeypatch.setattr(Keeper, "is_merging", True)
        waiting = threading.Thread(target=pipeline.wait_for_room, args=(100,))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        monkeypatch.setattr(Pipeline, "backlog", 50)
        waiting.join(PATIENCE_SECONDS)
        assert not waiting.is_alive()
        monkeypatch.setattr(Pipeline, "backlog", 0)


def test_files_are_being_merged_until_a_while_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(write(tmp_path)) as pipeline:
        told = [pipeline.keeper.is_merging]
        with pipeline.keeper._merging():
            told.append(pipeline.keeper.is_merging)
        told.append(pipeline.keeper.is_merging)
        monkeypatch.setattr(keeper, "_MERGING_SECONDS", 0.0)
        told.append(pipeline.keeper.is_merging)
        assert told == [False, True, True, False]


def test_a_merge_waits_for_a_sink_but_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outside may hang, and files are merged all the same."""
    monkeypatch.setattr(keeper, "_TURN_SECONDS", 0.1)
    with (
        running(write(tmp_path)) as pipeline,
        pipeline._turn.taken(seconds=0),
        pipeline.keeper._merging(),
    ):
        assert len(pipeline._turn._asked) == 2


def test_decisions_go_on_while_a_snapshot_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_pack = threading.Event(), threading.Event()

    def held_up(copied: Copied) -> bytes:
        begun.set()
        assert may_pack.wait(PATIENCE_SECONDS)
        return sound(copied)

    sound = Copied.written
    with running(write(tmp_path)) as pipeline:
        monkeypatch.setattr(Copied, "written", held_up)
        send(pipeline, event("a"))
        assert begun.wait(PATIENCE_SECONDS)
        send(pipeline, event("b"), event("a"))
        assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
        assert (pipeline.counters.events, sum(pipeline.counters.duplicates.values())) == (2, 1)
        assert pipeline.snapshots.offsets() == []
        may_pack.set()
        until(lambda: pipeline.snapshots.offsets() != [])


def test_no_snapshot_waits_for_a_run_of_ids_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(write(tmp_path)) as pipeline:
        monkeypatch.setattr(Dedupe, "is_writing", True)
        send(pipeline, event("a"))
        assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
        time.sleep(0.3)
        assert pipeline.snapshots.offsets() == []
        monkeypatch.setattr(Dedupe, "is_writing", False)
        until(lambda: pipeline.snapshots.offsets() != [])
