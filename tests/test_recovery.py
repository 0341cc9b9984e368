"""Whatever is lost but the log, the same tables come out again; what cannot be is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from shops import (
    MINUTE,
    NOON,
    STREAM,
    Process,
    copy_while_running,
    event,
    ids,
    rows,
    rule,
    running,
    send,
    snapshot,
    write,
)
from tidegate import keeper
from tidegate.errors import DamageError, InputError, LockedError
from tidegate.eventlog.contract import EntryKind
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.events.dedupe import Dedupe
from tidegate.pipeline import Pipeline
from tidegate.project.project import Project
from tidegate.records import Records
from tidegate.testing.clock import ManualClock
from waiting import PATIENCE_SECONDS, until

LAZY_TABLES = '[warehouse]\ncommit_every = "1 hour"\nsnapshot_every = "100 ms"\n'
LAZY_SNAPSHOTS = '[warehouse]\ncommit_every = "20 ms"\nsnapshot_every = "1 day"\n'
FIRST = [event("a", 1), event("b", 2, 9), b"broken", event("a", 3), event("c", 100)]
SECOND = [event("b", 4), event("d", 101, 9), event("e", 200)]
TABLES = {
    "events": "SELECT id, n, log_offset FROM events",
    "decisions": "SELECT event_id, action, version, rules, log_offset FROM decisions",
    "dead": "SELECT log_offset, reason, record FROM dead_letters",
    "duplicates": "SELECT log_offset, event_id, first_offset FROM duplicates",
    "windows": "SELECT ids, window_end, log_offset FROM by_minute",
}


def tables(project: Project) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, each table in order of the log; when they were decided is left out."""
    return {name: rows(project, f"{sql} ORDER BY log_offset") for name, sql in TABLES.items()}


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    return write(tmp_path / "shop", rules=rule())


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The tables after both parts of the stream, without any trouble between."""
    project = write(tmp_path / "plain", rules=rule())
    with running(project) as pipeline:
        send(pipeline, *FIRST)
        send(pipeline, *SECOND)
    return tables(project)


def test_after_closing_nothing_is_to_be_replayed(shop: Project, expected: object) -> None:
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
    end = pipeline.engine.offset
    with running(shop) as pipeline:
        assert pipeline.snapshots.offsets()[-1] == end
        assert pipeline.counters.events == 0
        send(pipeline, *SECOND)
    assert tables(shop) == expected


@pytest.mark.parametrize("warehouse", [LAZY_TABLES, LAZY_SNAPSHOTS], ids=["tables", "snapshots"])
def test_after_a_crash_what_lags_behind_catches_up(
    tmp_path: Path, warehouse: str, expected: object
) -> None:
    """The tables, or the snapshots, have nothing of what was decided."""
    lazy = write(tmp_path / "shop", rules=rule(), warehouse=warehouse)
    with running(lazy) as pipeline:
        pipeline.door.submit(Records.of(FIRST), source="test")
        assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
        if warehouse == LAZY_SNAPSHOTS:
            assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
            assert pipeline.snapshots.offsets() == []
        else:
            assert pipeline.warehouse.position == 0
        crashed = copy_while_running(pipeline, tmp_path / "crashed")
    with running(crashed) as pipeline:
        send(pipeline, *SECOND)
    assert tables(crashed) == expected


def test_without_any_snapshot_the_log_is_read_again(shop: Project, expected: object) -> None:
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
    shutil.rmtree(shop.data / "snapshots")
    with running(shop) as pipeline:
        assert pipeline.counters.events == 3
        send(pipeline, *SECOND)
    assert tables(shop) == expected


def test_without_the_tables_they_are_made_again(shop: Project, expected: object) -> None:
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
        send(pipeline, *SECOND)
    shutil.rmtree(shop.data / "tables")
    with running(shop) as pipeline:
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert tables(shop) == expected


def test_a_torn_snapshot_is_passed_over(shop: Project, expected: object) -> None:
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
    for path in (shop.data / "snapshots").glob("*.snapshot"):
        path.write_bytes(path.read_bytes()[:-1])
    with running(shop) as pipeline:
        send(pipeline, *SECOND)
    assert tables(shop) == expected


@pytest.fixture
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of ids that writes a file for every two of them."""
    monkeypatch.setitem(Dedupe.open.__func__.__kwdefaults__, "table_ids", 2)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("small_index")
def test_without_the_index_of_ids_repeated_ones_are_still_told(
    shop: Project, expected: object
) -> None:
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
    assert list((shop.data / "dedupe").glob("*.run"))
    shutil.rmtree(shop.data / "dedupe")
    with running(shop) as pipeline:
        assert pipeline.counters.events == 3  # decided again, from the log
        send(pipeline, *SECOND)
    assert tables(shop) == expected


@pytest.mark.usefixtures("small_index")
def test_files_of_the_index_that_nothing_needs_are_removed(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop", stream=STREAM.replace("10 minutes", "1 second"))
    clock = ManualClock(NOON)
    with running(shop, clock) as pipeline:
        for n in range(6):
            send(pipeline, *[event(f"e{n}-{i}") for i in range(6)])
            snapshot(pipeline)
            clock.advance(MINUTE)
        # Three for each of the two snapshots that are kept, and for the index itself.
        assert len(list((shop.data / "dedupe").glob("*.run"))) <= 9
    with running(shop, clock) as pipeline:
        send(pipeline, event("last"))
    assert len(ids(shop)) == 37


# -- a killed process ------------------------------------------------------------------------------


@pytest.mark.crash
def test_what_a_killed_process_acknowledged_is_there(shop: Project, expected: object) -> None:
    """And while it runs, a second one is refused, and told by whom."""
    process = Process(shop.root)
    try:
        process.send(*FIRST)
        with pytest.raises(LockedError, match=rf"in use by the first \(process {process.pid}\)"):
            Pipeline(shop, clock=ManualClock(NOON)).open()
        process.kill()
        with running(shop) as pipeline:
            send(pipeline, *SECOND)
    finally:
        process.kill()
    assert tables(shop) == expected


# -- what cannot be --------------------------------------------------------------------------------


def test_a_trimmed_log_without_snapshots_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_TRIM_EVERY_SECONDS", 0.0)
    stream = STREAM.replace("10 minutes", "1 second")
    shop = write(tmp_path / "shop", stream=stream, more='[log]\nkeep = "1 minute"\n')
    clock = ManualClock(NOON)
    with running(shop, clock) as pipeline:
        send(pipeline, *FIRST)
        clock.advance(5 * MINUTE)
        send(pipeline, *SECOND)
        snapshot(pipeline)
        send(pipeline, event("f"))
        snapshot(pipeline)
        until(lambda: pipeline.log.first_offset > 0)
    shutil.rmtree(shop.data / "snapshots")
    with pytest.raises(DamageError, match=r"no snapshot .* bring back .* or begin a new one"):
        Pipeline(shop, clock=clock).open()


def test_a_snapshot_from_before_the_log_begins_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_TRIM_EVERY_SECONDS", 0.0)
    stream = STREAM.replace("10 minutes", "1 second")
    shop = write(tmp_path / "shop", stream=stream, more='[log]\nkeep = "1 minute"\n')
    clock, old = ManualClock(NOON), tmp_path / "old"
    with running(shop, clock) as pipeline:
        send(pipeline, event("a"))
        snapshot(pipeline)
        shutil.copytree(shop.data / "snapshots", old)
        for name in ("b", "c", "d"):
            clock.advance(5 * MINUTE)
            send(pipeline, event(name))
            snapshot(pipeline)
        until(lambda: pipeline.log.first_offset > 2)
    shutil.rmtree(shop.data / "snapshots")
    old.rename(shop.data / "snapshots")
    with pytest.raises(DamageError, match="nothing to begin from"):
        Pipeline(shop, clock=clock).open()


def test_tables_that_reach_further_than_the_log_are_refused(shop: Project) -> None:
    """To go on would give new events offsets that the tables hold already, and skip them."""
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
    for path in shop.data.glob("log.sqlite*"):
        path.unlink()
    with pytest.raises(DamageError, match="the log ends at 0: bring back"):
        Pipeline(shop).open()


def test_the_horizon_that_the_log_began_with_holds_for_its_replay(tmp_path: Path) -> None:
    """Nothing is decided by another horizon, not even on the way to refusing it."""
    shop, clock = write(tmp_path / "shop"), ManualClock(NOON)
    with running(shop, clock) as pipeline:
        send(pipeline, event("a"))
        clock.advance(15 * MINUTE)
        send(pipeline, event("a"))
    for name in ("snapshots", "tables"):
        shutil.rmtree(shop.data / name)
    longer = write(tmp_path / "shop", stream=STREAM.replace("10 minutes", "20 minutes"))
    refused = Pipeline(longer, clock=clock)
    with pytest.raises(InputError):
        refused.open()
    assert (refused.counters.events, refused.counters.duplicates) == (2, {})


@pytest.mark.parametrize("without", [(), ("snapshots",), ("snapshots", "tables")])
def test_another_dedupe_horizon_is_refused(tmp_path: Path, without: tuple[str, ...]) -> None:
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
    for name in without:
        shutil.rmtree(shop.data / name)
    shop = write(tmp_path / "shop", stream=STREAM.replace("10 minutes", "20 minutes"))
    with pytest.raises(InputError, match=r"was 600 seconds .* cannot become 1200 seconds"):
        Pipeline(shop).open()
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
    assert ids(shop) == ["a", "b", "c"]


def test_another_id_column_is_refused(tmp_path: Path) -> None:
    columns = '[stream.columns]\nid = "text"\nat = "timestamp"\nother = "text"\n'
    shop = write(tmp_path / "shop", columns=columns, windows={})
    with running(shop) as pipeline:
        send(pipeline, b'{"id":"a","other":"x","at":"2023-06-07T12:00:00"}')
    stream = STREAM.replace('id = "id"', 'id = "other"')
    shop = write(tmp_path / "shop", stream=stream, columns=columns, windows={})
    with pytest.raises(InputError, match=r"was `id` .* cannot become `other`"):
        Pipeline(shop).open()


def test_a_control_record_that_is_none_stops_the_start_and_nothing_is_added_to_the_log(
    tmp_path: Path,
) -> None:
    """Every attempt says the same, and leaves no lock and no record behind."""
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        send(pipeline, *FIRST)
    with SqliteLog.open(pipeline.folder.log) as log:
        log.append(Records.of([b"junk"]), source="?", ingest_time=NOON, kind=EntryKind.CONTROL)
        end = log.next_offset
    changed = write(tmp_path / "shop", rules=rule("n > 1"))
    for _ in range(3):
        with pytest.raises(DamageError, match=f"control record at offset {end - 1}"):
            Pipeline(changed, clock=ManualClock(NOON)).open()
    with SqliteLog.open(pipeline.folder.log) as log:
        assert log.next_offset == end
