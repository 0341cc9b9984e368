"""Features in a running pipeline: rebuilt beside it, saved while it goes on, back after a crash."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

import tidegate
from payments import (
    FEATURES,
    MORE_FEATURES,
    RULES,
    bits,
    encoded,
    in_one_go,
    payments,
    table,
    write,
)
from shops import copy_while_running, snapshot
from tidegate import succession
from tidegate.engine import Work
from tidegate.ingest import taking
from tidegate.pipeline import Pipeline
from tidegate.project.project import Project, load
from tidegate.records import Records
from tidegate.snapshots import Snapshots
from tidegate.succession import Abandoned
from waiting import PATIENCE_SECONDS, until

STREAM = payments(3_000)


@contextmanager
def running(project: Project, *, rebuild_beside: bool = False) -> Iterator[Pipeline]:
    pipeline = Pipeline(project).open(rebuild_beside=rebuild_beside)
    try:
        yield pipeline
    finally:
        pipeline.close()


def send(pipeline: Pipeline, first: int, until: int) -> None:
    """Send a part of the stream, and wait until it is in the tables."""
    records = Records.of(encoded(STREAM[first:until]))
    pipeline.door.submit(records, source="test")
    assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS), pipeline.failure


def check(project: Project) -> None:
    """Features of the newest version are as by one evaluator over all events; all verifies."""
    shop = tidegate.open(project.root)
    assert (found := shop.verify()).equal, found.differences
    assert (whole := shop.reconcile()).equal, whole
    sql = (
        "SELECT log_offset FROM decisions WHERE version = (SELECT last(version ORDER BY log_offset)"
    )
    offsets = set(shop.query(f"{sql} FROM decisions)").arrow()["log_offset"].to_pylist())
    wanted = in_one_go(project)
    kept = table(project, "features").select(wanted.column_names)
    places = wanted.column_names.index("log_offset")
    left, right = ([r for r in bits(t) if r[places] in offsets] for t in (kept, wanted))
    assert left
    assert left == right


def test_a_restart_goes_on_from_the_snapshot_with_the_same_features(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop")
    for first in range(0, 1_500, 500):
        with running(shop) as pipeline:
            send(pipeline, first, first + 500)
    check(shop)


def test_a_snapshot_is_taken_while_the_engine_goes_on(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        for first in range(0, 2_000, 100):
            send(pipeline, first, first + 100)
            time.sleep(0.02)
            if first == 1_000:
                snapshot(pipeline)
        snapshot(pipeline)  # and no further one, since nothing more is decided
        until(lambda: len(pipeline.snapshots.offsets()) == 2)
        (newest, older) = pipeline.snapshots.load(offset_max=2**62)
        assert newest.is_whole()
        assert older.is_whole()
        assert sum(len(s) for s in newest.sections()) > 1_000
        copy_while_running(pipeline, tmp_path / "crashed")
    crashed = load(tmp_path / "crashed")
    with running(crashed) as pipeline:
        send(pipeline, 2_000, 2_200)
    check(crashed)


@pytest.mark.parametrize("place", [40, -60], ids=["the state", "the features"])
def test_a_damaged_snapshot_is_passed_over_and_nothing_changes(tmp_path: Path, place: int) -> None:
    shop = write(tmp_path / "shop")
    for first in (0, 500):
        with running(shop) as pipeline:
            send(pipeline, first, first + 500)
    snapshots = sorted((shop.data / "snapshots").glob("*.snapshot"))
    assert len(snapshots) == 2
    content = bytearray(snapshots[-1].read_bytes())
    content[place] ^= 1
    snapshots[-1].write_bytes(content)
    with running(shop) as pipeline:
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        send(pipeline, 1_000, 1_500)
    check(shop)


def test_a_torn_snapshot_without_another_is_made_good_from_the_log(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        send(pipeline, 0, 800)
    for path in (shop.data / "snapshots").glob("*.snapshot"):
        path.write_bytes(path.read_bytes()[:-1_000])
    with running(shop) as pipeline:
        send(pipeline, 800, 1_000)
    check(shop)


# -- a change of features --------------------------------------------------------------------------


def test_changed_features_are_rebuilt_before_records_are_taken(tmp_path: Path) -> None:
    """So it is without a server: whoever ingests wants what the files say now."""
    with running(write(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 1_000)
    shop = write(tmp_path / "shop", features=MORE_FEATURES)
    with taking(shop) as taker:
        list(taker.take([(Records.of(encoded(STREAM[1_000:1_400])), "test")]))
        assert taker.finish(timeout_seconds=PATIENCE_SECONDS)
    versions = tidegate.open(shop.root).query("SELECT count(DISTINCT version) AS n FROM decisions")
    assert versions.arrow()["n"].to_pylist() == [2]
    check(shop)


@contextmanager
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Rebuilds read no history until the event is set."""
    free, read = threading.Event(), Pipeline._history

    def waiting(self: Pipeline, stopped: threading.Event, *rest: object) -> Iterator[object]:
        while stopped is not self._stopping and not free.wait(0.01):
            if stopped.is_set():
                raise Abandoned
        yield from read(self, stopped, *rest)  # type: ignore[arg-type] # passed on as they came

    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "_history", waiting)
        patched.setattr(succession, "NEAR_RECORDS", 50)
        yield free
        free.set()


def test_the_version_before_decides_while_features_are_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(write(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 1_000)
        old = pipeline.program.version
    shop = write(tmp_path / "shop", features=MORE_FEATURES, rules=RULES.replace("0.55", "0.5"))
    with held_back(monkeypatch) as free, running(shop, rebuild_beside=True) as pipeline:
        send(pipeline, 1_000, 1_500)
        assert pipeline.engine.program.version == old
        free.set()
        first = 1_500
        while pipeline.engine.program.version == old and first < 2_900:
            send(pipeline, first, first + 20)  # traffic goes on
            first += 20
        until(lambda: pipeline.engine.program.version == pipeline.program.version)
        send(pipeline, first, first + 100)
    (before, after) = (
        tidegate.open(shop.root)
        .query("SELECT count(*) AS n FROM decisions GROUP BY version ORDER BY min(log_offset)")
        .arrow()
        .to_pylist()
    )
    assert before["n"] >= 1_500
    assert after["n"] >= 100
    check(shop)


def check_taken_over(shop: Project, first: int, end: int) -> None:
    """The next start takes the version over, which then decides on some more events."""
    with running(shop, rebuild_beside=True) as pipeline:
        until(lambda: pipeline.engine.program.version == pipeline.program.version)
        send(pipeline, first, end)
    check(shop)


def test_a_version_that_the_engine_has_not_reached_at_a_stop_is_not_said_to_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(write(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 300)
        end = pipeline.log.next_offset
    shop = write(tmp_path / "shop", features=MORE_FEATURES)

    def nothing(_: Pipeline) -> list[Work]:
        time.sleep(0.01)
        return []

    with monkeypatch.context() as patched, structlog.testing.capture_logs() as captured:
        patched.setattr(Pipeline, "_next_work", nothing)
        with running(shop, rebuild_beside=True) as pipeline:
            until(lambda: pipeline.log.next_offset > end)
    told = [line["event"] for line in captured]
    assert "version_in_log" in told
    assert "version_took_over" not in told
    check_taken_over(shop, 300, 400)


def test_a_rebuild_that_is_cut_off_begins_anew_with_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(write(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 600)
        old = pipeline.program.version
    shop = write(tmp_path / "shop", features=MORE_FEATURES)
    with held_back(monkeypatch), running(shop, rebuild_beside=True) as pipeline:
        send(pipeline, 600, 900)
    assert pipeline.engine.program.version == old
    check_taken_over(shop, 900, 1_000)


def test_a_crash_after_the_switch_replays_through_it(tmp_path: Path) -> None:
    with running(write(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 500)
    shop = write(tmp_path / "shop", features=MORE_FEATURES)
    kept = shutil.copytree(shop.data / "snapshots", tmp_path / "kept")
    with running(shop) as pipeline:
        send(pipeline, 500, 1_000)
        copy_while_running(pipeline, tmp_path / "crashed")
    crashed = load(tmp_path / "crashed")
    shutil.rmtree(crashed.data / "snapshots")
    shutil.copytree(kept, crashed.data / "snapshots")
    with running(crashed) as pipeline:
        assert Snapshots(kept).offsets()[-1] < 502
        send(pipeline, 1_000, 1_200)
    check(crashed)


def test_rules_that_change_alone_keep_the_features_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(write(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 500)
    shop = write(tmp_path / "shop", rules=RULES.replace("0.55", "0.5"))

    def unasked(*_: object) -> Iterator[object]:
        raise AssertionError("history was read")

    monkeypatch.setattr(Pipeline, "_history", unasked)
    with running(shop, rebuild_beside=True) as pipeline:
        assert pipeline.engine.program.version == pipeline.program.version
        send(pipeline, 500, 700)
    check(shop)


def test_features_that_go_leave_their_table_and_may_come_back(tmp_path: Path) -> None:
    with running(write(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 300)
    with running(write(tmp_path / "shop", features=None, rules="")) as pipeline:
        send(pipeline, 300, 600)
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        send(pipeline, 600, 900)
    assert table(shop, "features").num_rows == 600
    check(shop)


def test_features_that_change_their_type_are_refused_before_anything_is_decided(
    tmp_path: Path,
) -> None:
    with running(write(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 50)
    shop = write(tmp_path / "shop", features=FEATURES.replace("count(*)", "avg(risk)"))
    with pytest.raises(tidegate.InputError, match="`payments_1h` is declared as double"):
        Pipeline(shop).open()
