"""The wiring on real folders: versions, tables that come and go, idle streams, what is kept."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from shops import (
    BY_MINUTE,
    BY_NUMBER,
    COLUMNS,
    MINUTE,
    NOON,
    SECOND,
    STREAM,
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
from tidegate import pipeline as wiring
from tidegate.errors import DamageError, StorageFullError
from tidegate.eventlog.contract import EntryKind
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.outcome import Outcome
from tidegate.pipeline import Pipeline
from tidegate.project.project import load
from tidegate.records import Records
from tidegate.testing.clock import ManualClock
from waiting import PATIENCE_SECONDS, until

LAZY_TABLES = '[warehouse]\ncommit_every = "1 hour"\nsnapshot_every = "100 ms"\n'
SINK = """
[sinks.fraud]
type = "objects"
from = "decisions"
actions = ["review"]
url = "objects"
format = "event"
path = "fraud/{yyyy}"
"""
CAPTURE = """
[sinks.all]
type = "objects"
from = "events"
url = "objects"
format = "capture"
path = "all/{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"
namespace = "n"
event_hub = "h"
every = "100 ms"
"""


# -- versions --------------------------------------------------------------------------------------


def test_a_changed_rule_decides_from_the_next_start_on(tmp_path: Path) -> None:
    with running(write(tmp_path, rules=rule("n > 5"))) as pipeline:
        send(pipeline, event("a", n=6))
        old = pipeline.program.version
    shop = write(tmp_path, rules=rule("n > 7", "block"))
    with running(shop) as pipeline:
        switched = send(pipeline, event("b", n=6), event("c", n=8))
        new = pipeline.program.version
        (entry,) = pipeline.log.read(switched - 1, bytes_max=1)
    assert (entry.kind, entry.source) == (EntryKind.CONTROL, "project")
    assert rows(shop, "SELECT event_id, action, version FROM decisions ORDER BY log_offset") == [
        ("a", "review", old), ("b", "approve", new), ("c", "block", new),
    ]  # fmt: skip


def test_old_decisions_keep_their_version_when_they_are_decided_again(tmp_path: Path) -> None:
    lazy = write(tmp_path / "shop", rules=rule("n > 5"), warehouse=LAZY_TABLES)
    with running(lazy) as pipeline:
        pipeline.door.submit(Records.of([event("a", n=6)]), source="test")
        assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
        copy_while_running(pipeline, tmp_path / "crashed")
        old = pipeline.program.version
    shop = write(tmp_path / "crashed", rules=rule("n > 7"))
    with running(shop) as pipeline:
        send(pipeline, event("b", n=6))
        new = pipeline.program.version
    assert rows(shop, "SELECT action, version FROM decisions ORDER BY log_offset") == [
        ("review", old), ("approve", new),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("fraud/{yyyy}", "fraud/{MM}"),
        lambda text: text.replace(SINK, ""),
        lambda text: text + "[service]\nport = 8701\n",
        lambda text: "# a comment\n" + text,
        lambda text: text.replace('"20 ms"', '"30 ms"'),
    ],
    ids=["a sink", "no sink", "the port", "a comment", "the pace"],
)
def test_what_decides_nothing_makes_no_version(tmp_path: Path, edit: Callable[[str], str]) -> None:
    with running(write(tmp_path, more=SINK)) as pipeline:
        send(pipeline, event("a"))
        end = pipeline.log.next_offset
    write(tmp_path, more=SINK)
    settings = tmp_path / "tidegate.toml"
    settings.write_text(edit(settings.read_text()))
    with running(load(tmp_path)) as pipeline:
        assert pipeline.log.next_offset == end


# -- tables that come and go -----------------------------------------------------------------------


def test_an_added_window_query_has_a_table_and_counts_from_then_on(tmp_path: Path) -> None:
    with running(write(tmp_path)) as pipeline:
        send(pipeline, event("a", 1, 7))
    shop = write(tmp_path, windows={"by_minute": BY_MINUTE, "by_number": BY_NUMBER})
    with running(shop) as pipeline:
        send(pipeline, event("b", 2, 8), event("c", 200))
    assert rows(shop, "SELECT ids FROM by_minute") == [(["a", "b"],)]
    assert rows(shop, "SELECT n, hits FROM by_number") == [(8, 1)]


def test_a_removed_window_query_leaves_its_table_and_nothing_else(tmp_path: Path) -> None:
    both = {"by_minute": BY_MINUTE, "by_number": BY_NUMBER}
    with running(write(tmp_path, windows=both)) as pipeline:
        send(pipeline, event("a", 1), event("b", 200))
    shop = write(tmp_path)
    with running(shop) as pipeline:
        send(pipeline, event("c", 400))
    assert len(rows(shop, "SELECT * FROM by_minute")) == 2
    with running(write(tmp_path, windows=both)) as pipeline:  # and back again
        send(pipeline, event("d", 600), event("e", 800))
    assert rows(shop, "SELECT hits FROM by_number ORDER BY log_offset") == [(1,), (1,)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"w": BY_NUMBER}, {"w": BY_NUMBER.replace("count(*)", "sum(n) AS total, count(*)")}),
        ({"w": BY_NUMBER.replace("hits", "hits, sum(n) AS total")}, {"w": BY_NUMBER}),
        ({"w": BY_NUMBER}, {}),
        ({}, {"w": BY_NUMBER}),
    ],
    ids=["a column more", "a column less", "gone", "new"],
)
def test_window_rows_that_wait_over_a_change_of_the_query_stop_nothing(
    tmp_path: Path, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """A crash before they were written: the replay closes windows by the old query."""
    lazy = write(tmp_path / "shop", warehouse=LAZY_TABLES, windows=before)
    with running(lazy) as pipeline:
        pipeline.door.submit(Records.of([event("a", 1), event("b", 200)]), source="test")
        assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
        copy_while_running(pipeline, tmp_path / "crashed")
    shop = write(tmp_path / "crashed", windows=after)
    with running(shop) as pipeline:
        send(pipeline, event("c", 210), event("d", 400))
    assert ids(shop) == ["a", "b", "c", "d"]
    if after:
        # A query that means something else begins anew, so `b` before the change is not in it.
        closed = [1, 1] if before else [1]
        assert [h for (h,) in rows(shop, "SELECT hits FROM w ORDER BY log_offset")] == closed


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [(COLUMNS, COLUMNS + 'shop = "text?"\n'), (COLUMNS + 'shop = "text?"\n', COLUMNS)],
    ids=["a column more", "a column less"],
)
def test_columns_may_come_and_go(tmp_path: Path, before: str, after: str, crash: bool) -> None:
    lazy = write(tmp_path / "shop", columns=before, warehouse=LAZY_TABLES if crash else "")
    named = event("a").replace(b'"n"', b'"shop":"x","n"')
    with running(lazy) as pipeline:
        pipeline.door.submit(Records.of([named]), source="test")
        assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
        if crash:
            copy_while_running(pipeline, tmp_path / "crashed")
    shop = write(tmp_path / ("crashed" if crash else "shop"), columns=after)
    with running(shop) as pipeline:
        send(pipeline, named.replace(b'"a"', b'"b"'))
    found = rows(shop, "SELECT id, shop, extra FROM events ORDER BY log_offset")
    declared, undeclared = ("x", None), (None, '{"shop":"x"}')
    order = [undeclared, declared] if after > before else [declared, undeclared]
    assert found == [("a", *order[0]), ("b", *order[1])]


# -- idle streams ----------------------------------------------------------------------------------

IDLE = STREAM + 'idle_after = "1 minute"\n'


def test_on_an_idle_stream_windows_close_by_the_clock(tmp_path: Path) -> None:
    shop, clock = write(tmp_path, stream=IDLE), ManualClock(NOON)
    with running(shop, clock) as pipeline:
        send(pipeline, event("a", 50))
        clock.advance(MINUTE - 1)
        time.sleep(0.6)
        assert pipeline.log.next_offset == 2
        clock.advance(1)
        until(lambda: pipeline.log.next_offset == 3)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        assert rows(shop, "SELECT ids FROM by_minute") == [(["a"],)]
        clock.advance(10 * MINUTE)
        time.sleep(0.6)
        assert pipeline.log.next_offset == 3  # nothing waits for time to pass any more


def test_the_passing_of_time_is_the_same_when_it_is_replayed(tmp_path: Path) -> None:
    """It is a record of the log: what came before it and after it stays so."""
    shop, clock = write(tmp_path / "shop", stream=IDLE), ManualClock(NOON)
    with running(shop, clock) as pipeline:
        send(pipeline, event("a", 1))
        clock.advance(3 * MINUTE)
        until(lambda: pipeline.log.next_offset == 3)
        send(pipeline, event("late", 2), event("b", 200))
        crashed = copy_while_running(pipeline, tmp_path / "crashed")
    for path in (crashed.data / "snapshots").iterdir():
        path.unlink()
    replayed = write(tmp_path / "crashed", stream=IDLE)
    tables = [p for p in (crashed.data / "tables").iterdir() if p.is_dir()]
    for table in tables:
        table.rename(tmp_path / table.name)
    (crashed.data / "tables" / "checkpoint.json").unlink(missing_ok=True)
    with running(replayed, ManualClock(NOON + 500 * MINUTE)) as pipeline:
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    sql = "SELECT ids, window_end, log_offset FROM by_minute"
    late = "SELECT event_id, watermark, log_offset FROM late_rows"
    assert rows(replayed, sql) == rows(shop, sql)
    assert rows(replayed, late) == rows(shop, late)
    assert [row[0] for row in rows(shop, late)] == ["late"]


def test_while_nobody_listened_no_time_has_passed(tmp_path: Path) -> None:
    """After a crash and an hour, senders bring what they kept: it must not be late."""
    shop, clock = write(tmp_path / "shop", stream=IDLE), ManualClock(NOON)
    with running(shop, clock) as pipeline:
        send(pipeline, event("a", 1))
        crashed = copy_while_running(pipeline, tmp_path / "crashed")
    for path in (crashed.data / "snapshots").iterdir():
        path.unlink()
    clock.advance(60 * MINUTE)
    with running(crashed, clock) as pipeline:
        time.sleep(0.6)
        send(pipeline, event("b", 2))
        clock.advance(3 * MINUTE)
        until(lambda: rows(crashed, "SELECT ids FROM by_minute") == [(["a", "b"],)])


# -- what is kept ----------------------------------------------------------------------------------

KEEP = '[log]\nkeep = "1 minute"\n'
BRIEF = STREAM.replace("10 minutes", "1 second")


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pipeline], None]:
    """Trims at every turn of the keeper, and waits for a few of them."""
    monkeypatch.setattr(keeper, "_TRIM_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "_PAUSE_SECONDS", 0.01)

    def wait(pipeline: Pipeline) -> None:
        time.sleep(0.25)

    return wait


Trims = Callable[[Pipeline], None]


def snapshots(pipeline: Pipeline) -> None:
    """Two snapshots behind all that came before: as many as are kept."""
    for name in ("one", "two"):
        snapshot(pipeline)
        send(pipeline, event(name))
    snapshot(pipeline)


def test_what_everybody_has_passed_and_is_old_is_let_go(tmp_path: Path, trims: Trims) -> None:
    clock = ManualClock(NOON)
    with running(write(tmp_path, stream=BRIEF, more=KEEP), clock) as pipeline:
        send(pipeline, event("a"))
        clock.advance(2 * MINUTE)
        kept = send(pipeline, event("b"))
        snapshots(pipeline)
        until(lambda: pipeline.log.first_offset == kept)


def test_nothing_younger_than_asked_for_is_let_go(tmp_path: Path, trims: Trims) -> None:
    clock = ManualClock(NOON)
    with running(write(tmp_path, stream=BRIEF, more=KEEP), clock) as pipeline:
        send(pipeline, event("a"))
        clock.advance(MINUTE)
        send(pipeline, event("b"))
        snapshots(pipeline)
        trims(pipeline)
        assert pipeline.log.first_offset == 0


def test_what_a_repeated_id_is_told_by_is_kept_for_the_horizon(
    tmp_path: Path, trims: Trims
) -> None:
    clock = ManualClock(NOON)
    shop = write(tmp_path, more=KEEP)
    with running(shop, clock) as pipeline:
        send(pipeline, event("a"))
        clock.advance(10 * MINUTE)
        send(pipeline, event("a"), event("b"))
        snapshots(pipeline)
        clock.advance(10 * MINUTE)
        trims(pipeline)
        assert pipeline.log.first_offset == 0
        send(pipeline, event("b"))
    assert ids(shop) == ["a", "b", "one", "two"]
    assert ids(shop, "duplicates", "event_id") == ["a", "b"]


def test_what_a_start_from_an_old_snapshot_needs_for_repeated_ids_is_kept(
    tmp_path: Path, trims: Trims, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a` is repeated at the end of its horizon, after the last snapshot, and the clock goes on."""
    clock = ManualClock(NOON)
    with running(write(tmp_path / "shop", more=KEEP), clock) as pipeline:
        send(pipeline, event("a"))
        snapshot(pipeline)
        monkeypatch.setattr(pipeline.keeper, "_every_seconds", 1e9)
        clock.advance(10 * MINUTE)
        send(pipeline, event("a"), event("b"))
        clock.advance(5 * MINUTE)
        trims(pipeline)
        crashed = copy_while_running(pipeline, tmp_path / "crashed")
    with running(crashed, clock) as pipeline:
        send(pipeline, event("c"))
    assert ids(crashed) == ["a", "b", "c"]


def test_without_a_snapshot_nothing_is_let_go(tmp_path: Path, trims: Trims) -> None:
    """A sink has passed it all, and yet a start would have to read the log from its beginning."""
    lazy = '[warehouse]\ncommit_every = "20 ms"\nsnapshot_every = "1 day"\n'
    shop = write(tmp_path / "shop", stream=BRIEF, more=KEEP + CAPTURE, warehouse=lazy)
    clock = ManualClock(NOON)
    with running(shop, clock) as pipeline:
        send(pipeline, event("a"))
        clock.advance(2 * MINUTE)
        end = send(pipeline, event("b")) + 1
        until(lambda: (clock.advance(SECOND), pipeline.log.positions().get("sink all") == end)[1])
        trims(pipeline)
        crashed = copy_while_running(pipeline, tmp_path / "crashed")
    with running(crashed, clock) as pipeline:
        send(pipeline, event("c"))
    assert ids(crashed) == ["a", "b", "c"]


def test_nothing_is_let_go_until_snapshots_have_come_back_to_where_they_were(
    tmp_path: Path, trims: Trims
) -> None:
    """Later snapshots were lost: what was passed by them is needed again by the earlier ones."""
    clock = ManualClock(NOON)
    with running(write(tmp_path, stream=BRIEF, more=KEEP), clock) as pipeline:
        for name in ("a", "b"):
            send(pipeline, event(name))
            snapshot(pipeline)
            clock.advance(2 * MINUTE)
        pipeline.log.set_position("engine", pipeline.log.next_offset)
        trims(pipeline)
        assert pipeline.log.first_offset == 0
        snapshots(pipeline)
        until(lambda: pipeline.log.first_offset > 0)


def test_what_a_sink_that_reads_the_log_has_not_delivered_is_kept(
    tmp_path: Path, trims: Trims
) -> None:
    shop = write(tmp_path, stream=BRIEF, more=KEEP + CAPTURE)
    (shop.data).mkdir()
    (shop.data / "objects").write_text("a file where the sink wants a folder")
    clock = ManualClock(NOON)
    with running(shop, clock) as pipeline:
        send(pipeline, event("a"))
        clock.advance(2 * MINUTE)
        send(pipeline, event("b"))
        snapshots(pipeline)
        trims(pipeline)
        assert pipeline.log.first_offset == 0
    with running(write(tmp_path, stream=BRIEF, more=KEEP), clock) as pipeline:
        until(lambda: pipeline.log.first_offset > 0)  # the sink was taken away


# -- faults ----------------------------------------------------------------------------------------


class Full:
    """A warehouse whose disk is full."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = StorageFullError("no room")
        self._write = pipeline.warehouse.write
        monkeypatch.setattr(pipeline.warehouse, "write", self.write)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        if self.error is not None:
            raise self.error
        self._write(outcomes)


def test_closing_while_the_tables_cannot_be_written_gives_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine waits for room that will not come: the log has it all, and the next start too."""
    monkeypatch.setattr(wiring, "PENDING_ROWS_MAX", 3)
    shop = write(tmp_path)
    pipeline = Pipeline(shop, clock=ManualClock(NOON)).open()
    Full(pipeline, monkeypatch)
    for n in range(20):
        pipeline.door.submit(Records.of([event(str(n))]), source="test")
    until(lambda: pipeline.writer.pending_rows > 3)
    closing = threading.Thread(target=pipeline.close, kwargs={"drain_seconds": 0.2}, daemon=True)
    closing.start()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()
    with running(shop) as again:
        assert again.drain(timeout_seconds=PATIENCE_SECONDS)
    assert ids(shop) == [str(n) for n in range(20)]


def test_when_there_is_room_again_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "PENDING_ROWS_MAX", 3)
    shop = write(tmp_path)
    with running(shop) as pipeline:
        full = Full(pipeline, monkeypatch)
        for n in range(20):
            pipeline.door.submit(Records.of([event(str(n))]), source="test")
        until(lambda: pipeline.writer.failures >= 1)
        assert pipeline.failure is None
        full.error = None
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert ids(shop) == [str(n) for n in range(20)]


def test_a_table_that_cannot_be_trusted_stops_the_deciding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write(tmp_path)
    pipeline = Pipeline(shop, clock=ManualClock(NOON)).open()
    full = Full(pipeline, monkeypatch)
    full.error = DamageError("a table is torn")
    pipeline.door.submit(Records.of([event("a")]), source="test")
    until(lambda: pipeline.failure is not None)
    pipeline.door.submit(Records.of([event("b")]), source="test")
    begun = time.monotonic()
    assert not pipeline.drain(timeout_seconds=600)
    assert not pipeline.close(drain_seconds=600)
    assert time.monotonic() - begun < 300  # it waited for neither
    with running(shop) as again:
        assert again.drain(timeout_seconds=PATIENCE_SECONDS)
    assert ids(shop) == ["a", "b"]


def test_what_the_tail_does_not_have_is_read_from_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "TAIL_BYTES_MAX", 200)
    shop = write(tmp_path)
    with running(shop) as pipeline:
        for n in range(30):
            records = [event(f"{n}-{i}") for i in range(1 + n % 5)]
            pipeline.door.submit(Records.of(records), source="test")
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert ids(shop) == [f"{n}-{i}" for n in range(30) for i in range(1 + n % 5)]


def test_what_another_process_appends_is_decided(tmp_path: Path) -> None:
    shop = write(tmp_path)
    with running(shop) as pipeline:
        with SqliteLog.open(pipeline.folder.log) as log:
            log.append(Records.of([event("a"), b"broken"]), source="beside", ingest_time=NOON)
        until(lambda: pipeline.counters.events == 1)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert ids(shop) == ["a"]


def test_a_decision_is_found_before_and_after_it_is_written(tmp_path: Path) -> None:
    shop = write(tmp_path, rules=rule(), warehouse='[warehouse]\ncommit_every = "1 hour"\n')
    with running(shop) as pipeline:
        assert pipeline.decision("a") is None
        pipeline.door.submit(Records.of([event("a", n=9)]), source="test")
        assert pipeline.catch_up(timeout_seconds=PATIENCE_SECONDS)
        waiting = pipeline.decision("a")
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        assert pipeline.writer.find("a") is None
        written = pipeline.decision("a")
    assert waiting is not None
    assert written is not None
    assert (waiting["action"], waiting["rules"]) == ("review", written["rules"])
    assert waiting.keys() == written.keys()


def test_upkeep_that_fails_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(write(tmp_path)) as pipeline:

        def broken() -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(pipeline.warehouse, "maintain", broken)
        monkeypatch.setattr(pipeline.keeper, "_maintained_at", 0.0)
        time.sleep(0.4)
        send(pipeline, event("a"))
        snapshot(pipeline)
