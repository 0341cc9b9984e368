"""The contract of event logs as a test suite: every promise of `tidegate.eventlog.contract`.

A log is held to it by a subclass that says how a new log is made. It needs pytest and hypothesis.

    class TestMyLog(EventLogContract):
        @pytest.fixture
        def new_log(self, tmp_path):
            numbers = itertools.count()

            def new() -> Callable[[], EventLog]:
                path = tmp_path / f"{next(numbers)}.log"
                return lambda: MyLog.open(path)

            return new
"""

# ruff: noqa: D102, S101 - these are tests: their names are sentences, asserts are their trade

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.eventlog.contract import Append, Entry, EntryKind, EventLog
from tidegate.records import Records

Opener = Callable[[], EventLog]
Described = tuple[int, EntryKind, str, int, bytes, tuple[bytes, ...]]

# A generous limit for what should happen at once, on a machine under load.
_SOON_SECONDS = 10.0


def described(entry: Entry) -> Described:
    """Everything an entry says, as a value that can be compared."""
    records = (entry.records.payload, tuple(entry.records))
    return (entry.first_offset, entry.kind, entry.source, entry.ingest_time, *records)


def read_all(log: EventLog, *, bytes_max: int = 16 << 20) -> list[Entry]:
    """Every entry of the log, read from its first offset to its end."""
    entries: list[Entry] = []
    offset = log.first_offset
    while batch := log.read(offset, bytes_max=bytes_max):
        entries += batch
        offset = batch[-1].next_offset
    return entries


def add_control(log: EventLog, *records: bytes) -> int:
    """Append the records as one control entry."""
    made = Records.of(records)
    return log.append(made, source="test", ingest_time=0, kind=EntryKind.CONTROL)


def add(log: EventLog, *records: bytes, ingest_time: int = 0, source: str = "test") -> int:
    """Append the records as one entry."""
    return log.append(Records.of(records), source=source, ingest_time=ingest_time)


@st.composite
def blocks(draw: st.DrawFn) -> Records:
    """Records of any bytes, with any bytes before, between and after them."""
    pieces = draw(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=20)), min_size=1))
    lengths = np.array([[len(gap), len(record)] for gap, record in pieces], dtype=np.int64)
    ends = np.cumsum(lengths.sum(axis=1))
    payload = b"".join(gap + record for gap, record in pieces) + draw(st.binary(max_size=3))
    return Records(payload, ends - lengths[:, 1], ends)


@dataclass
class Model:
    """A log as a list in memory: slow, obvious and right."""

    entries: list[Described] = field(default_factory=list)
    first_offset: int = 0
    next_offset: int = 0
    positions: dict[str, int] = field(default_factory=dict)

    def append(self, entry: Append) -> int:
        """Keep the entry; returns its first offset."""
        first = self.next_offset
        records = (entry.records.payload, tuple(entry.records))
        self.entries.append((first, entry.kind, entry.source, entry.ingest_time, *records))
        self.next_offset += len(entry.records)
        return first

    def set_position(self, consumer: str, offset: int) -> None:
        """Move the consumer forward."""
        self.positions[consumer] = max(offset, self.positions.get(consumer, 0))

    def trim(self, before_time: int) -> int:
        """Drop entries from the front while all of them may go."""
        limit = min(self.positions.values(), default=0)
        while self.entries:
            first, _, _, ingest_time, _, records = self.entries[0]
            if first + len(records) > limit or ingest_time >= before_time:
                break
            self.first_offset = first + len(records)
            del self.entries[0]
        return self.first_offset


_APPENDS = st.builds(
    Append, blocks(), st.text(max_size=8), st.integers(0, 9), st.sampled_from(EntryKind)
)
_STEPS = st.one_of(
    st.tuples(st.just("append"), st.lists(_APPENDS, max_size=3)),
    st.tuples(st.just("position"), st.tuples(st.sampled_from("ab"), st.integers(0, 100))),
    st.tuples(st.just("forget"), st.sampled_from("ab")),
    st.tuples(st.just("trim"), st.integers(0, 10)),
    st.tuples(st.just("reopen"), st.none()),
)


class EventLogContract:
    """Behaviour of every event log; see the module for how to use it."""

    @pytest.fixture
    def new_log(self) -> Callable[[], Opener]:
        """A function that makes a new, empty log and returns how to open it, again and again."""
        raise NotImplementedError

    @pytest.fixture
    def opener(self, new_log: Callable[[], Opener]) -> Opener:
        """How to open the log of this test."""
        return new_log()

    @pytest.fixture
    def log(self, opener: Opener) -> Iterator[EventLog]:
        """The log of this test, empty at first."""
        opened = opener()
        yield opened
        opened.close()

    # Appending

    def test_a_new_log_is_empty(self, log: EventLog) -> None:
        assert (log.first_offset, log.next_offset, log.read(0)) == (0, 0, [])

    def test_append_returns_offsets_counted_from_zero_without_gaps(self, log: EventLog) -> None:
        assert [add(log, b"a", b"b"), add(log, b"c"), add(log, b"d")] == [0, 2, 3]
        assert log.next_offset == 4

    def test_an_append_without_records_is_refused(self, log: EventLog) -> None:
        with pytest.raises(ValueError, match="at least one record"):
            add(log)
        assert log.next_offset == 0

    @pytest.mark.parametrize(
        ("starts", "ends"),
        [([-1], [2]), ([0], [4]), ([2], [1]), ([0, 1], [2, 3]), ([1, 0], [2, 1]), ([0, 1], [1])],
    )
    def test_bounds_that_do_not_ascend_within_the_payload_are_refused(
        self, log: EventLog, starts: list[int], ends: list[int]
    ) -> None:
        records = Records(b"abc", np.array(starts, np.int64), np.array(ends, np.int64))
        with pytest.raises(ValueError, match="bounds"):
            log.append(records, source="test", ingest_time=0)
        assert log.next_offset == 0

    def test_append_many_returns_the_first_offset_of_each_entry(self, log: EventLog) -> None:
        entries = [Append(Records.of([b"x"] * n), f"s{n}", n) for n in (2, 1, 3)]
        assert log.append_many(entries) == [0, 2, 3]
        assert [(e.source, len(e.records)) for e in read_all(log)] == [
            (e.source, len(e.records)) for e in entries
        ]

    def test_append_many_of_nothing_does_nothing(self, log: EventLog) -> None:
        assert log.append_many([]) == []
        assert log.next_offset == 0

    def test_one_bad_entry_keeps_the_whole_call_out(self, log: EventLog) -> None:
        entries = [Append(Records.of([b"x"]), "test", 0), Append(Records.of([]), "test", 0)]
        with pytest.raises(ValueError, match="record"):
            log.append_many(entries)
        assert log.next_offset == 0

    def test_appends_of_many_threads_get_their_own_offsets(self, log: EventLog) -> None:
        def work(name: int) -> list[tuple[int, bytes]]:
            records = [b"%d-%d" % (name, i) for i in range(20)]
            return [(add(log, record), record) for record in records]

        with ThreadPoolExecutor(8) as pool:
            given_out = list(pool.map(work, range(8)))
        assert all(offsets == sorted(offsets) for offsets in given_out)
        stored = [(e.first_offset, e.records[0]) for e in read_all(log)]
        assert stored == sorted(pair for pairs in given_out for pair in pairs)
        assert [offset for offset, _ in stored] == list(range(160))

    # Reading

    @settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])
    @given(entries=st.lists(_APPENDS, min_size=1, max_size=4))
    def test_what_is_read_is_what_was_appended_byte_for_byte(
        self, new_log: Callable[[], Opener], entries: list[Append]
    ) -> None:
        log, model = new_log()(), Model()
        log.append_many(entries)
        for entry in entries:
            model.append(entry)
        assert [described(entry) for entry in read_all(log)] == model.entries
        log.close()

    def test_bounds_come_back_as_int64(self, log: EventLog) -> None:
        add(log, b"a", b"")
        records = log.read(0)[0].records
        assert {records.starts.dtype, records.ends.dtype} == {np.dtype(np.int64)}
        assert (records.starts.tolist(), records.ends.tolist()) == ([0, 2], [1, 2])

    def test_control_entries_are_found_among_the_others(self, log: EventLog) -> None:
        add(log, b"1")
        first = add_control(log, b"2", b"3")
        add(log, b"4")
        second = add_control(log, b"5")
        assert [described(e) for e in log.controls(0)] == [
            described(log.read(offset)[0]) for offset in (first, second)
        ]
        assert [e.first_offset for e in log.controls(first + 1)] == [second]
        assert log.controls(second + 1) == []

    def test_read_begins_with_the_whole_entry_that_holds_the_offset(self, log: EventLog) -> None:
        add(log, b"a", b"b", b"c")
        add(log, b"d")
        assert [e.first_offset for e in log.read(2)] == [0, 3]
        assert [list(e.records) for e in log.read(3)] == [[b"d"]]

    def test_read_stops_before_payloads_exceed_bytes_max(self, log: EventLog) -> None:
        for _ in range(4):
            add(log, bytes(100))
        assert len(log.read(0, bytes_max=299)) == 2
        assert len(log.read(0, bytes_max=300)) == 3

    def test_read_returns_at_least_one_entry(self, log: EventLog) -> None:
        add(log, bytes(100))
        add(log, bytes(100))
        assert [e.first_offset for e in log.read(1, bytes_max=1)] == [1]

    def test_an_entry_of_megabytes_is_read_whole(self, log: EventLog) -> None:
        block = np.random.default_rng(7).bytes(5 << 20)
        add(log, block)
        add(log, b"after")
        assert [list(e.records) for e in read_all(log)] == [[block], [b"after"]]

    @pytest.mark.parametrize("offset", [-1, 2, 1000])
    def test_reading_outside_of_the_log_is_refused(self, log: EventLog, offset: int) -> None:
        add(log, b"a")
        with pytest.raises(ValueError, match=str(offset)):
            log.read(offset)

    def test_a_reader_sees_every_record_in_order_while_others_append(self, log: EventLog) -> None:
        def work(name: int) -> None:
            for i in range(30):
                add(log, b"%d" % name, b"%d" % i)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        offset, seen = 0, list[bytes]()
        while offset < 240 and log.follow(offset, timeout_seconds=_SOON_SECONDS):
            for entry in log.read(offset, bytes_max=10):
                assert entry.first_offset == offset
                seen += entry.records
                offset = entry.next_offset
        for thread in threads:
            thread.join()
        by_thread = [[i for n, i in zip(seen[::2], seen[1::2], strict=True) if n == b"%d" % name]
                     for name in range(4)]  # fmt: skip
        assert by_thread == [[b"%d" % i for i in range(30)]] * 4

    # Following

    def test_follow_returns_at_once_if_the_record_is_there(self, log: EventLog) -> None:
        add(log, b"a")
        assert log.follow(0, timeout_seconds=0)

    def test_follow_gives_up_when_the_time_runs_out(self, log: EventLog) -> None:
        add(log, b"a")
        assert not log.follow(1, timeout_seconds=0.05)

    def test_follow_wakes_when_a_record_arrives(self, log: EventLog) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.follow, 1, timeout_seconds=_SOON_SECONDS)
            add(log, b"a")
            time.sleep(0.05)
            assert not waiting.done()
            add(log, b"b")
            assert waiting.result(_SOON_SECONDS)

    def test_follow_ends_when_the_log_closes(self, log: EventLog) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.follow, 0, timeout_seconds=_SOON_SECONDS * 6)
            time.sleep(0.05)
            log.close()
            assert not waiting.result(_SOON_SECONDS)

    def test_a_log_opened_twice_is_one_log(self, log: EventLog, opener: Opener) -> None:
        other = opener()
        offsets = [add(log, b"a"), add(other, b"b"), add(log, b"c")]
        assert offsets == [0, 1, 2]
        assert [described(e) for e in read_all(log)] == [described(e) for e in read_all(other)]
        other.close()

    def test_follow_notices_what_is_appended_elsewhere(self, log: EventLog, opener: Opener) -> None:
        other = opener()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.follow, 0, timeout_seconds=_SOON_SECONDS)
            add(other, b"a")
            assert waiting.result(_SOON_SECONDS)
        other.close()

    # Consumers and trimming

    def test_positions_are_those_set_last(self, log: EventLog) -> None:
        add(log, b"a", b"b", b"c")
        for consumer, offset in [("engine", 0), ("sink", 2), ("engine", 3)]:
            log.set_position(consumer, offset)
        assert log.positions() == {"engine": 3, "sink": 2}

    def test_a_position_only_grows(self, log: EventLog) -> None:
        add(log, b"a", b"b", b"c")
        log.set_position("engine", 2)
        log.set_position("engine", 1)
        assert log.positions() == {"engine": 2}

    def test_a_position_beyond_the_end_is_refused(self, log: EventLog) -> None:
        add(log, b"a")
        with pytest.raises(ValueError, match="engine"):
            log.set_position("engine", 2)
        assert log.positions() == {}

    def test_a_forgotten_consumer_has_no_position(self, log: EventLog) -> None:
        log.set_position("gone", 0)
        log.set_position("here", 0)
        log.forget("gone")
        log.forget("never was")
        assert log.positions() == {"here": 0}

    def test_without_consumers_nothing_is_trimmed(self, log: EventLog) -> None:
        add(log, b"a")
        assert log.trim(before_time=100) == 0
        assert len(log.read(0)) == 1

    def test_trim_keeps_what_the_slowest_consumer_needs(self, log: EventLog) -> None:
        for name in (b"a", b"b", b"c"):
            add(log, name)
        log.set_position("fast", 3)
        log.set_position("slow", 1)
        assert log.trim(before_time=100) == 1
        assert [list(e.records) for e in read_all(log)] == [[b"b"], [b"c"]]

    def test_trim_keeps_an_entry_of_which_a_record_is_needed(self, log: EventLog) -> None:
        add(log, b"a", b"b")
        log.set_position("engine", 1)
        assert log.trim(before_time=100) == 0

    def test_trim_keeps_what_is_young_and_all_behind_it(self, log: EventLog) -> None:
        for ingest_time in (1, 5, 1):
            add(log, b"x", ingest_time=ingest_time)
        log.set_position("engine", 3)
        assert log.trim(before_time=5) == 1
        assert [e.first_offset for e in read_all(log)] == [1, 2]

    def test_reading_what_was_trimmed_is_refused(self, log: EventLog) -> None:
        add(log, b"a")
        add(log, b"b")
        log.set_position("engine", 1)
        log.trim(before_time=100)
        with pytest.raises(ValueError, match="0"):
            log.read(0)

    def test_offsets_go_on_after_everything_was_trimmed(
        self, log: EventLog, opener: Opener
    ) -> None:
        add(log, b"a", b"b")
        log.set_position("engine", 2)
        assert log.trim(before_time=100) == 2
        assert (log.first_offset, log.next_offset, log.read(2)) == (2, 2, [])
        log.close()
        again = opener()
        assert add(again, b"c") == 2
        again.close()

    # Closing

    def test_everything_is_there_after_opening_again(self, log: EventLog, opener: Opener) -> None:
        add(log, b"a", b"b", source="http", ingest_time=7)
        log.set_position("engine", 1)
        log.set_position("engine", 2)
        before = [described(e) for e in read_all(log)]
        log.close()
        again = opener()
        assert [described(e) for e in read_all(again)] == before
        assert again.positions() == {"engine": 2}
        again.close()

    def test_closing_twice_is_fine(self, log: EventLog) -> None:
        log.close()
        log.close()

    @pytest.mark.parametrize(
        "use",
        [
            lambda log: add(log, b"a"),
            lambda log: log.read(0),
            lambda log: log.next_offset,
            lambda log: log.set_position("engine", 0),
        ],
        ids=["append", "read", "next_offset", "set_position"],
    )
    def test_a_closed_log_is_of_no_use(
        self, log: EventLog, use: Callable[[EventLog], object]
    ) -> None:
        log.close()
        with pytest.raises(ValueError, match="closed"):
            use(log)

    def test_a_sound_log_verifies(self, log: EventLog) -> None:
        for i in range(5):
            add(log, b"x" * i, b"y")
        assert list(log.verify()) == []

    # All of it together

    @settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck])
    @given(steps=st.lists(_STEPS, max_size=15), bytes_max=st.sampled_from([1, 30, 1 << 20]))
    def test_any_sequence_of_calls_leaves_what_a_list_would_hold(
        self, new_log: Callable[[], Opener], steps: Sequence[tuple[str, object]], bytes_max: int
    ) -> None:
        opener, model = new_log(), Model()
        log = opener()
        try:
            for step in steps:
                log = _take(step, log, model, opener)
                assert log.first_offset == model.first_offset
                assert log.next_offset == model.next_offset
            assert [described(e) for e in read_all(log, bytes_max=bytes_max)] == model.entries
            assert log.positions() == model.positions
        finally:
            log.close()


def _take(step: tuple[str, object], log: EventLog, model: Model, opener: Opener) -> EventLog:
    """Do one step on the log and on the model, and compare what they answer."""
    match step:
        case "append", list(entries):
            assert log.append_many(entries) == [model.append(entry) for entry in entries]
        case "position", (str(consumer), int(offset)):
            within = offset % (model.next_offset + 1)
            log.set_position(consumer, within)
            model.set_position(consumer, within)
        case "forget", str(consumer):
            log.forget(consumer)
            model.positions.pop(consumer, None)
        case "trim", int(before_time):
            assert log.trim(before_time=before_time) == model.trim(before_time)
        case "reopen", _:
            log.close()
            return opener()
    return log
