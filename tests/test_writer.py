"""The writer puts outcomes into the tables, many in one commit, and loses none."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import cast

import pyarrow as pa
import pytest

from tidegate.decisions.decided import DecisionRows
from tidegate.errors import DamageError, StorageFullError
from tidegate.outcome import Outcome, joined
from tidegate.tables import AUDIT, DEAD_LETTERS, DECISIONS, DUPLICATES, LATE_ROWS
from tidegate.warehouse.warehouse import Warehouse
from tidegate.writer import Writer
from waiting import PATIENCE_SECONDS, until

EVENTS = pa.schema([("id", pa.string())])
NOW = datetime.fromisoformat("2023-06-06T20:24:00")


class Tables:
    """A warehouse that keeps what it was given, and can be made to refuse or to wait."""

    def __init__(self) -> None:
        self.commits: list[list[Outcome]] = []
        self.tried_at: list[float] = []
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def write(self, outcomes: Sequence[Outcome]) -> None:
        self.tried_at.append(time.monotonic())
        self.open.wait(2 * PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        self.commits.append(list(outcomes))

    @property
    def offsets(self) -> list[int]:
        """The first offsets of all outcomes, as they were written."""
        return [o.first_offset for commit in self.commits for o in commit]


def outcome(first: int, rows: int = 1) -> Outcome:
    decided = [
        {
            "event_id": f"e{first + i}",
            "event_time": NOW,
            "action": "approve",
            "rules": [],
            "version": "v1",
            "log_offset": first + i,
            "decided_at": NOW,
        }
        for i in range(rows)
    ]
    return Outcome(
        first,
        first + max(1, rows),
        events=pa.RecordBatch.from_pylist([{"id": d["event_id"]} for d in decided], schema=EVENTS),
        decided=DecisionRows(pa.RecordBatch.from_pylist(decided, schema=DECISIONS)),
        dead_letters=pa.RecordBatch.from_pylist([], schema=DEAD_LETTERS),
        duplicates=pa.RecordBatch.from_pylist([], schema=DUPLICATES),
        late_rows=pa.RecordBatch.from_pylist([], schema=LATE_ROWS),
        windows={},
    )


class Case:
    """A writer at work, and what it said."""

    def __init__(self, *, rows: int, rows_max: int, every_seconds: float) -> None:
        self.tables = Tables()
        self.written = 0
        self.failure: BaseException | None = None
        self.writer = Writer(
            cast("Warehouse", self.tables),
            rows=rows,
            rows_max=rows_max,
            every_seconds=every_seconds,
            written=self._written,
            failed=self._failed,
        )

    def _written(self) -> None:
        self.written += 1

    def _failed(self, error: BaseException) -> None:
        self.failure = error

    def put_aside(self, outcomes: Sequence[Outcome]) -> threading.Thread:
        """Put in a thread of its own, as the engine does."""

        def put() -> None:
            for each in outcomes:
                self.writer.put([each])

        thread = threading.Thread(target=put, daemon=True)
        thread.start()
        return thread


@contextmanager
def writing(
    *, rows: int = 100, rows_max: int = 1000, every_seconds: float = 60.0
) -> Iterator[Case]:
    case = Case(rows=rows, rows_max=rows_max, every_seconds=every_seconds)
    try:
        yield case
    finally:
        case.tables.open.set()
        case.writer.stop()


def test_a_commit_begins_when_enough_rows_wait() -> None:
    with writing(rows=10) as case:
        case.writer.put([outcome(0, 9)])
        time.sleep(0.05)
        assert case.tables.commits == []
        case.writer.put([outcome(9, 1)])
        until(lambda: case.written == 1)
        assert case.tables.offsets == [0, 9]


def test_a_commit_begins_when_the_oldest_row_has_waited_long_enough() -> None:
    with writing(every_seconds=0.1) as case:
        begun = time.monotonic()
        case.writer.put([outcome(0)])
        case.writer.put([outcome(1)])
        until(lambda: case.written == 1)
        assert case.tables.tried_at[0] - begun >= 0.1
        assert case.tables.offsets == [0, 1]


def test_flush_writes_at_once() -> None:
    with writing() as case:
        case.writer.put([outcome(0)])
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        assert case.tables.offsets == [0]


def test_flush_with_nothing_to_write_is_done_at_once() -> None:
    with writing() as case:
        assert case.writer.flush(timeout_seconds=0)


def test_flush_says_when_the_time_ran_out() -> None:
    with writing() as case:
        case.tables.open.clear()
        case.writer.put([outcome(0)])
        assert not case.writer.flush(timeout_seconds=0.05)


def test_offsets_without_rows_are_written_too() -> None:
    with writing(rows=2) as case:
        case.writer.put([outcome(0, 0)])
        case.writer.put([outcome(1, 0)])
        until(lambda: case.written == 1)
        assert case.tables.offsets == [0, 1]


def test_the_engine_waits_while_too_much_is_pending() -> None:
    with writing(rows=1, rows_max=5) as case:
        case.tables.open.clear()
        thread = case.put_aside([outcome(n) for n in range(20)])
        thread.join(0.2)
        assert thread.is_alive()
        # As much again may be on its way to the tables.
        assert case.writer.pending_rows <= 2 * (5 + 1)
        case.tables.open.set()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        assert case.tables.offsets == list(range(20))


def test_more_rows_to_a_commit_than_may_wait_is_no_deadlock() -> None:
    with writing(rows=1_000_000, rows_max=5) as case:
        thread = case.put_aside([outcome(3 * n, 3) for n in range(20)])
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        assert case.tables.offsets == list(range(0, 60, 3))


def test_an_outcome_larger_than_the_bound_is_taken() -> None:
    with writing(rows=10, rows_max=5) as case:
        case.writer.put([outcome(0, 50)])
        case.writer.put([outcome(50, 50)])
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        assert case.tables.offsets == [0, 50]


def test_after_a_full_disk_everything_is_written_once_and_in_order() -> None:
    with writing(rows=1) as case:
        case.tables.error = StorageFullError("no room")
        case.writer.put([outcome(0)])
        until(lambda: case.writer.failures >= 2)
        case.writer.put([outcome(1), outcome(2)])
        case.tables.error = None
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        assert case.tables.offsets == [0, 1, 2]
        assert case.writer.failures == 0
        assert case.failure is None


def test_pauses_between_attempts_grow_though_the_engine_goes_on() -> None:
    """What is put meanwhile is no reason to try a full disk again sooner."""
    with writing(rows=1, rows_max=100_000) as case:
        case.tables.error = StorageFullError("no room")
        begun = time.monotonic()
        offset = 0
        while time.monotonic() - begun < 0.5:
            case.writer.put([outcome(offset)])
            offset += 1
            time.sleep(0.001)
        pauses = [b - a for a, b in pairwise(case.tables.tried_at)]
        assert len(case.tables.tried_at) <= 5
        assert all(pause >= 0.04 for pause in pauses)


def test_stop_returns_at_once_while_the_tables_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rest = Writer._rest
    monkeypatch.setattr(Writer, "_rest", lambda self, _: rest(self, 2 * PATIENCE_SECONDS))
    with writing(rows=1) as case:
        case.tables.error = StorageFullError("no room")
        case.writer.put([outcome(0)])
        until(lambda: case.writer.failures)
        begun = time.monotonic()
        case.writer.stop()
        assert time.monotonic() - begun < PATIENCE_SECONDS


def test_stop_lets_go_of_an_engine_that_waits() -> None:
    with writing(rows=1, rows_max=2) as case:
        case.tables.error = StorageFullError("no room")
        thread = case.put_aside([outcome(n) for n in range(20)])
        until(lambda: case.writer.failures >= 1)
        case.writer.stop()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_an_error_that_will_not_pass_is_told_and_nobody_waits_any_more() -> None:
    with writing(rows=1, rows_max=2) as case:
        case.tables.error = DamageError("a table is torn")
        thread = case.put_aside([outcome(n) for n in range(20)])
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert isinstance(case.failure, DamageError)
        begun = time.monotonic()
        assert not case.writer.flush(timeout_seconds=2 * PATIENCE_SECONDS)
        assert time.monotonic() - begun < PATIENCE_SECONDS


def test_find_sees_what_waits_and_what_is_being_written() -> None:
    with writing(rows=5) as case:
        case.tables.open.clear()
        case.writer.put([outcome(0, 5)])
        until(lambda: case.tables.tried_at)
        case.writer.put([outcome(5, 2)])
        for event_id in ("e0", "e4", "e5", "e6"):
            found = case.writer.find(event_id)
            assert found is not None
            assert (found["event_id"], found["action"]) == (event_id, "approve")
        assert case.writer.find("e7") is None


def test_find_knows_nothing_of_what_is_in_the_tables() -> None:
    with writing() as case:
        case.writer.put([outcome(0)])
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        assert case.writer.find("e0") is None


def test_small_outcomes_become_few_while_they_wait_and_lose_nothing() -> None:
    with writing(rows=10_000, rows_max=10_000) as case:
        for first in range(1000):
            case.writer.put([outcome(first)])
        until(lambda: len(case.writer.events()) < 64)  # of each 32 one, and at most 31 loose ones
        assert case.writer.pending_rows == 1000
        assert case.writer.find("e517") is not None
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        (commit,) = case.tables.commits
        assert [o.first_offset for o in commit[1:]] == [o.next_offset for o in commit[:-1]]
        assert (commit[0].first_offset, commit[-1].next_offset) == (0, 1000)
        for name in ("events", "decisions"):
            rows = pa.Table.from_batches([o.tables()[name] for o in commit])
            key = "id" if name == "events" else "event_id"
            assert rows.column(key).to_pylist() == [f"e{i}" for i in range(1000)]


def test_outcomes_of_another_version_or_with_much_in_them_stay_apart() -> None:
    other = pa.schema([("id", pa.string()), ("card", pa.string())])
    put = [outcome(i) for i in range(20)]
    put.append(outcome(20, 600))
    for i in range(620, 684):
        each = outcome(i)
        if i >= 630:
            columns = [pa.array([f"e{i}"]), pa.array(["c1"])]
            each = replace(each, events=pa.RecordBatch.from_arrays(columns, schema=other))
        put.append(each)
    with writing(rows=10_000) as case:
        case.writer.put(put)
        until(lambda: len(case.writer.events()) < 30)
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        commits = case.tables.commits  # tables with other columns take a commit of their own
        assert [commit[0].first_offset for commit in commits] == [0, 630]
        rows = [o.events for commit in commits for o in commit]
        found = [i for batch in rows for i in batch.column("id").to_pylist()]
        assert found == [f"e{i}" for i in range(684)]
        assert any(len(batch) == 600 for batch in rows)


def test_what_people_do_while_small_outcomes_are_joined_is_written_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_joining, may_join = threading.Event(), threading.Event()

    def slowly(outcomes: Sequence[Outcome]) -> Outcome:
        is_joining.set()
        assert may_join.wait(PATIENCE_SECONDS)
        return joined(outcomes)

    monkeypatch.setattr("tidegate.writer.joined", slowly)
    audit = pa.RecordBatch.from_pylist(
        [
            {
                "at": NOW,
                "action": "list",
                "subject": "blocked",
                "author": "ada",
                "detail": "",
                "log_offset": 40,
            }
        ],
        schema=AUDIT,
    )
    with writing(rows=10_000) as case:
        for first in range(32):
            case.writer.put([outcome(first)])
        assert is_joining.wait(PATIENCE_SECONDS)
        for first in range(32, 120):
            each = outcome(first)
            case.writer.put([replace(each, controls={"audit": audit}) if first == 40 else each])
        may_join.set()
        until(lambda: len(case.writer.events()) <= 27)  # all that can be joined is
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        written = [o for commit in case.tables.commits for o in commit]
        told = [table for o in written for table in [o.tables().get("audit")] if table is not None]
        assert [rows.column("log_offset").to_pylist() for rows in told] == [[40]]
        ids = [i for o in written for i in o.events.column("id").to_pylist()]
        assert ids == [f"e{i}" for i in range(120)]


def test_messages_of_a_load_are_joined_while_they_wait() -> None:
    with writing(rows=100_000, rows_max=100_000) as case:
        for first in range(0, 512 * 12, 512):
            case.writer.put([outcome(first, 512)])
        until(lambda: [len(batch) for batch in case.writer.events()] == [2048] * 3)
        assert case.writer.flush(timeout_seconds=PATIENCE_SECONDS)
        assert case.tables.offsets == [0, 2048, 4096]
