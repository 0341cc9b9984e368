"""The door: every submitter gets its own offsets and its own dead records once all is durable."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.door import JOINED_BYTES_MAX, Door, Receipt, Tail, settle
from tidegate.engine import Work
from tidegate.errors import OverloadedError, StorageFullError, TidegateError
from tidegate.eventlog.contract import Append, Entry, EntryKind, Prepared
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.program import Program
from tidegate.project.project import Project
from tidegate.records import Records
from tidegate.testing.clock import ManualClock
from waiting import PATIENCE_SECONDS, until

FILES = {
    "tidegate.toml": """
[stream]
id = "id"
event_time = "at"
[stream.columns]
id = "text"
at = "timestamp"
n = "bigint?"
"""
}
PROGRAM = Program.compile(Project.from_files(FILES, root=Path("shop")))
TIME_US = 1_686_081_600_000_000  # 2023-06-06 20:00
Result = Receipt | TidegateError


class Log(SqliteLog):
    """A log whose appends can be held up, and can be made to fail."""

    gate: threading.Event
    error: Exception | None
    commits: int

    def append_many(self, entries: Sequence[Append | Prepared]) -> list[int]:
        self.commits += 1
        assert self.gate.wait(2 * PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        return super().append_many(entries)


class Case:
    """A door over a log that can be held up."""

    def __init__(self, folder: Path, *, bytes_max: int, records_max: int, tail_bytes: int) -> None:
        opened = Log.open(folder / "log.sqlite")
        assert isinstance(opened, Log)
        self.log = opened
        self.log.gate, self.log.error, self.log.commits = threading.Event(), None, 0
        self.log.gate.set()
        self.tail = Tail(bytes_max=tail_bytes)
        self.door = Door(
            self.log,
            self.tail,
            PROGRAM,
            clock=ManualClock(TIME_US),
            queue_bytes_max=bytes_max,
            queue_records_max=records_max,
        )
        self.door.open()

    def offer(self, *records: bytes, source: str = "http") -> "Future[Receipt]":
        done: Future[Receipt] = Future()
        self.door.offer(Records.of(records), source=source, token=done, notify=settle)
        return done

    def hold(self) -> "Future[Receipt]":
        """Keep the door busy with one record, so that what is offered next is taken together."""
        self.log.gate.clear()
        before, held = self.log.commits, self.offer(event("held"))
        until(lambda: self.log.commits > before)
        return held

    def logged(self) -> list[tuple[int, str, bytes]]:
        """Offset, source and bytes of every record in the log."""
        rows, offset = [], 0
        while entries := self.log.read(offset):
            for entry in entries:
                rows += [
                    (entry.first_offset + i, entry.source, r) for i, r in enumerate(entry.records)
                ]
            offset = entries[-1].next_offset
        return rows


@contextmanager
def opened(
    folder: Path, *, bytes_max: int = 1 << 20, records_max: int = 1000, tail_bytes: int = 64 << 20
) -> Iterator[Case]:
    case = Case(folder, bytes_max=bytes_max, records_max=records_max, tail_bytes=tail_bytes)
    try:
        yield case
    finally:
        case.log.gate.set()
        case.door.close()
        case.log.close()


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with opened(tmp_path) as case:
        yield case


def event(name: str) -> bytes:
    return f'{{"id":"{name}","at":"2023-06-06T20:00:00"}}'.encode()


# -- receipts ------------------------------------------------------------------------------------


def test_submit_returns_offsets_once_the_records_are_in_the_log(case: Case) -> None:
    assert case.door.submit(Records.of([event("a"), event("b")]), source="x") == Receipt(0, 2, ())
    assert case.door.submit(Records.of([event("c")]), source="y") == Receipt(2, 1, ())
    assert case.logged() == [(0, "x", event("a")), (1, "x", event("b")), (2, "y", event("c"))]


def test_what_waits_shares_a_commit_and_keeps_its_order(case: Case) -> None:
    held = case.hold()
    waiting = [case.offer(event(str(n))) for n in range(50)]
    case.log.gate.set()
    assert held.result(PATIENCE_SECONDS).first_offset == 0
    assert [w.result(PATIENCE_SECONDS).first_offset for w in waiting] == list(range(1, 51))
    assert case.log.commits == 2


def test_sources_are_not_mixed_up_and_order_holds(case: Case) -> None:
    case.hold()
    waiting = [case.offer(event(str(n)), source=f"s{n % 3 // 2}") for n in range(7)]
    case.log.gate.set()
    assert [w.result(PATIENCE_SECONDS).first_offset for w in waiting] == list(range(1, 8))
    assert [source for _, source, _ in case.logged()[1:]] == [
        "s0", "s0", "s1", "s0", "s0", "s1", "s0",
    ]  # fmt: skip


RECORDS = st.sampled_from(
    [event("a"), event("b"), b"", b"not json", b'{"id":7}', b'{"id":"x","at":"never"}', b"[\n]"]
) | st.binary(max_size=12)
SUBMISSIONS = st.lists(
    st.tuples(st.lists(RECORDS, min_size=1, max_size=6), st.sampled_from(["http", "file"])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(SUBMISSIONS)
def test_receipts_match_the_log_and_the_decoder(
    tmp_path_factory: pytest.TempPathFactory, submissions: list[tuple[list[bytes], str]]
) -> None:
    """Whatever is joined: each submission has its own records, and its own dead among them."""
    with opened(tmp_path_factory.mktemp("door")) as case:
        case.hold()
        waiting = [case.offer(*records, source=source) for records, source in submissions]
        case.log.gate.set()
        receipts = [w.result(PATIENCE_SECONDS) for w in waiting]
        logged = case.logged()
    expected = 1
    for (records, source), receipt in zip(submissions, receipts, strict=True):
        assert (receipt.first_offset, receipt.count) == (expected, len(records))
        offsets = range(expected, expected + len(records))
        assert [logged[o] for o in offsets] == [
            (o, source, r) for o, r in zip(offsets, records, strict=True)
        ]
        alone = PROGRAM.intake.admit(Records.of(records), ingest_time=TIME_US)
        assert receipt.dead == alone.dead
        expected += len(records)
    assert len(logged) == expected


def test_many_threads_each_get_their_own(case: Case) -> None:
    receipts: dict[int, Receipt] = {}

    def submit(number: int) -> None:
        records = Records.of([event(f"{number}-{i}") for i in range(1 + number % 3)])
        receipts[number] = case.door.submit(records, source="http")

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    records = {offset: record for offset, _, record in case.logged()}
    for number, receipt in receipts.items():
        for i in range(receipt.count):
            assert records[receipt.first_offset + i] == event(f"{number}-{i}")
    assert sorted(records) == list(range(60))


def test_no_records_are_refused_and_the_door_goes_on(case: Case) -> None:
    with pytest.raises(ValueError, match="no records"):
        case.door.submit(Records.of([]), source="http")
    assert case.door.submit(Records.of([event("a")]), source="http").first_offset == 0


# -- refusals and failures -----------------------------------------------------------------------


def test_a_queue_with_too_many_records_refuses(tmp_path: Path) -> None:
    with opened(tmp_path, records_max=3) as case:
        case.hold()
        waiting = [case.offer(event("a")), case.offer(event("b"), event("c"))]
        with pytest.raises(OverloadedError) as refused:
            case.offer(event("d"))
        assert refused.value.retry_after_seconds > 0
        assert case.door.queued_records == 3
        case.log.gate.set()
        assert [w.result(PATIENCE_SECONDS).first_offset for w in waiting] == [1, 2]
        assert case.offer(event("d")).result(PATIENCE_SECONDS).first_offset == 4


def test_a_queue_with_too_many_bytes_refuses(tmp_path: Path) -> None:
    with opened(tmp_path, bytes_max=2 * len(event("a"))) as case:
        case.hold()
        case.offer(event("a"))
        case.offer(event("b"))
        with pytest.raises(OverloadedError, match="full"):
            case.offer(event("c"))


def test_an_empty_queue_takes_what_is_larger_than_itself(tmp_path: Path) -> None:
    with opened(tmp_path, records_max=2, bytes_max=10) as case:
        assert case.offer(*[event("a")] * 5).result(PATIENCE_SECONDS).count == 5


def test_a_full_disk_is_told_to_every_submitter_and_later_ones_are_taken(case: Case) -> None:
    case.hold()
    waiting = [case.offer(event("a")), case.offer(event("b"), source="other")]
    case.log.error = StorageFullError("no room")
    case.log.gate.set()
    for future in waiting:
        with pytest.raises(StorageFullError):
            future.result(PATIENCE_SECONDS)
    case.log.error = None
    assert case.door.submit(Records.of([event("c")]), source="http").first_offset == 0
    assert case.tail.take(0, records_max=10)[0].entry.records[0] == event("c")


def test_an_unforeseen_error_is_told_and_the_door_goes_on(case: Case) -> None:
    case.log.error = RuntimeError("a defect")
    with pytest.raises(TidegateError, match="a defect"):
        case.offer(event("a")).result(PATIENCE_SECONDS)
    case.log.error = None
    assert case.offer(event("b")).result(PATIENCE_SECONDS).first_offset == 0


def test_a_submitter_that_cannot_be_told_does_not_keep_the_others_from_it(case: Case) -> None:
    def deaf(_results: list[tuple[Any, Result]]) -> None:
        raise RuntimeError("gone")

    case.hold()
    case.door.offer(Records.of([event("a")]), source="http", token=None, notify=deaf)
    other = case.offer(event("b"))
    case.log.gate.set()
    assert other.result(PATIENCE_SECONDS).first_offset == 2
    assert case.offer(event("c")).result(PATIENCE_SECONDS).first_offset == 3


def test_each_submitter_is_told_once_for_a_commit(case: Case) -> None:
    calls: list[tuple[str, list[tuple[Any, Result]]]] = []

    def one(results: list[tuple[Any, Result]]) -> None:
        calls.append(("one", results))

    def two(results: list[tuple[Any, Result]]) -> None:
        calls.append(("two", results))

    case.hold()
    for token, notify in enumerate([one, two, one, one, two]):
        case.door.offer(Records.of([event("a")]), source="http", token=token, notify=notify)
    case.log.gate.set()
    until(lambda: len(calls) == 2)
    told = {name: [token for token, _ in results] for name, results in calls}
    assert told == {"one": [0, 2, 3], "two": [1, 4]}
    assert [r.first_offset for _, r in calls[0][1] if isinstance(r, Receipt)] == [1, 3, 4]


def test_closing_takes_what_is_queued_and_refuses_what_comes_after(case: Case) -> None:
    case.hold()
    waiting = [case.offer(event(str(n))) for n in range(5)]
    closing = threading.Thread(target=case.door.close)
    closing.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    with suppress(OverloadedError):
        while time.monotonic() < deadline:  # what still comes in is either taken or refused
            waiting.append(case.offer(event("late")))
            time.sleep(0.001)
    case.log.gate.set()
    closing.join(PATIENCE_SECONDS)
    assert [w.result(PATIENCE_SECONDS).first_offset for w in waiting] == list(
        range(1, len(waiting) + 1)
    )
    with pytest.raises(OverloadedError, match="shutting down"):
        case.offer(event("z"))


def test_a_door_that_was_never_opened_can_be_closed(tmp_path: Path) -> None:
    with SqliteLog.open(tmp_path / "log.sqlite") as log:
        Door(
            log, Tail(bytes_max=1), PROGRAM,
            clock=ManualClock(), queue_bytes_max=1, queue_records_max=1,
        ).close()  # fmt: skip


# -- the tail ------------------------------------------------------------------------------------


def work(first: int, count: int = 1, *, size: int = 10) -> Work:
    entry = Entry(first, EntryKind.EVENTS, "http", 0, Records.of([b"x" * size] * count))
    return Work(entry)


def firsts(taken: Sequence[Work]) -> list[int]:
    return [w.entry.first_offset for w in taken]


def test_the_tail_gives_what_the_door_has_decoded(case: Case) -> None:
    case.door.submit(Records.of([event("a"), b"broken"]), source="http")
    (item,) = case.tail.take(0, records_max=10)
    assert (item.entry.first_offset, item.entry.next_offset) == (0, 2)
    assert item.version == PROGRAM.version
    assert item.decoded is not None
    assert item.decoded.events["id"].to_pylist() == ["a"]
    assert [d.row for d in item.decoded.dead] == [1]


def test_the_tail_stops_before_a_gap() -> None:
    tail = Tail(bytes_max=1000)
    tail.push([work(0), work(1, 2), work(4)])
    assert firsts(tail.take(0, records_max=100)) == [0, 1]
    assert tail.take(3, records_max=100) == []
    assert firsts(tail.take(4, records_max=100)) == [4]


def test_the_tail_gives_each_entry_once() -> None:
    tail = Tail(bytes_max=1000)
    tail.push([work(0)])
    assert firsts(tail.take(0, records_max=1)) == [0]
    assert tail.take(0, records_max=1) == []


def test_the_tail_gives_about_as_many_records_as_asked_for() -> None:
    tail = Tail(bytes_max=1000)
    tail.push([work(0, 3), work(3, 3), work(6, 3)])
    assert firsts(tail.take(0, records_max=4)) == [0, 3]
    assert firsts(tail.take(6, records_max=4)) == [6]


def test_the_tail_leaves_out_what_does_not_fit() -> None:
    tail = Tail(bytes_max=25)
    tail.push([work(0), work(1), work(2)])
    assert firsts(tail.take(0, records_max=10)) == [0, 1]
    assert tail.take(2, records_max=10) == []
    tail.push([work(3), work(4)])
    assert firsts(tail.take(3, records_max=10)) == [3, 4]


def test_what_the_engine_has_passed_makes_room_in_the_tail() -> None:
    tail = Tail(bytes_max=25)
    tail.push([work(0), work(1)])
    assert tail.take(50, records_max=10) == []  # the engine read the log and is further on
    tail.push([work(50), work(51)])
    assert firsts(tail.take(50, records_max=10)) == [50, 51]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 6)), max_size=40),
    st.integers(0, 120),
)
def test_engine_and_tail_together_see_every_entry_once_and_in_order(
    steps: list[tuple[int, bool, int]], bytes_max: int
) -> None:
    """Entries come, perhaps late or not at all; what the tail lacks is read from the log."""
    tail, log, late = Tail(bytes_max=bytes_max), list[Work](), list[Work]()
    at, seen = 0, list[int]()
    for count, on_time, takes in steps:
        end = log[-1].entry.next_offset if log else 0
        log.append(work(end, count))
        (tail.push if on_time else late.extend)([log[-1]])
        if takes % 2:
            tail.push(late)
            late = []
        for _ in range(takes):
            taken = tail.take(at, records_max=3)
            taken = taken or [w for w in log if w.entry.first_offset == at]
            seen += firsts(taken)
            at = taken[-1].entry.next_offset if taken else at
    assert seen == firsts(log)[: len(seen)]
    assert tail._bytes == sum(len(w.entry.records.payload) for w in tail._work.values())
    assert tail._bytes <= bytes_max


def test_a_full_tail_is_waited_for_until_the_engine_takes_from_it() -> None:
    tail = Tail(bytes_max=JOINED_BYTES_MAX)
    assert tail.wait_for_room(timeout_seconds=0)
    tail.push([work(0)])
    assert not tail.wait_for_room(timeout_seconds=0.01)
    threading.Timer(0.02, lambda: tail.take(0, records_max=1)).start()
    assert tail.wait_for_room(timeout_seconds=PATIENCE_SECONDS)
