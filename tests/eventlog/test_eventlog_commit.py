"""Calls share commits: whoever waits is committed by the first of those waiting."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tidegate.errors import StorageFullError, TransientError
from tidegate.eventlog.commit import Call, CommitQueue
from tidegate.eventlog.contract import Append
from tidegate.eventlog.rows import pack
from tidegate.records import Records
from waiting import PATIENCE_SECONDS


def call(name: str = "x", *, size: int = 1) -> Call:
    noise = random.Random(name).randbytes(size)  # it must not shrink when compressed
    return Call([pack(Append(Records.of([noise]), name, 0))])


class Held:
    """A commit that takes as long as the test wants."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.error: BaseException | None = None
        self.entered = threading.Semaphore(0)
        self.released = threading.Semaphore(0)

    def __call__(self, calls: Sequence[Call]) -> None:
        self.groups.append([c.entries[0].source for c in calls])
        self.entered.release()
        assert self.released.acquire(timeout=PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        for c in calls:
            c.offsets = [len(self.groups)]


def queued(queue: CommitQueue, count: int) -> None:
    """Wait until this many calls wait in the queue."""
    while len(queue._waiting) < count:
        threading.Event().wait(0.001)


def submit_all(
    queue: CommitQueue, held: Held, pool: ThreadPoolExecutor, *calls: Call
) -> list[Future[list[int]]]:
    """Submit the calls, the first of which is being committed while the others wait, in order."""
    futures = [pool.submit(queue.submit, calls[0])]
    assert held.entered.acquire(timeout=PATIENCE_SECONDS)
    for n, waiting in enumerate(calls[1:], start=1):
        futures.append(pool.submit(queue.submit, waiting))
        queued(queue, n)
    return futures


def test_a_lone_call_is_committed_at_once() -> None:
    held = Held()
    held.released.release()
    assert CommitQueue(held, bytes_max=1000).submit(call("a")) == [1]
    assert held.groups == [["a"]]


def test_calls_that_wait_share_the_next_commit_in_order_of_arrival() -> None:
    held = Held()
    queue = CommitQueue(held, bytes_max=1000)
    with ThreadPoolExecutor(8) as pool:
        futures = submit_all(queue, held, pool, call("a"), call("b"), call("c"), call("d"))
        held.released.release(2)
        assert [f.result(PATIENCE_SECONDS) for f in futures] == [[1], [2], [2], [2]]
    assert held.groups == [["a"], ["b", "c", "d"]]


class _Gate:
    """A lock behind which the thread that leaves it first stops until it may go on."""

    def __init__(self, lock: threading.Lock) -> None:
        self.left, self.may_go_on = threading.Event(), threading.Event()
        self._lock, self._armed = lock, True

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        armed, self._armed = self._armed, False
        self._lock.release()
        if armed:
            self.left.set()
            assert self.may_go_on.wait(PATIENCE_SECONDS)


def test_a_call_that_is_to_lead_before_it_could_wait_commits_for_all() -> None:
    """It used to release its turn twice: it failed, and those behind it waited for ever."""
    held = Held()
    queue = CommitQueue(held, bytes_max=1000)
    last = call("c")
    with ThreadPoolExecutor(8) as pool:
        futures = submit_all(queue, held, pool, call("a"))
        gate = _Gate(queue._lock)
        queue._lock = gate  # type: ignore[assignment]
        futures.append(pool.submit(queue.submit, call("b")))
        assert gate.left.wait(PATIENCE_SECONDS)
        futures.append(pool.submit(queue.submit, last))
        queued(queue, 2)
        held.released.release(2)
        assert futures[0].result(PATIENCE_SECONDS) == [1]
        gate.may_go_on.set()
        try:
            assert futures[1].result(PATIENCE_SECONDS) == [2]
        except BaseException:
            last.turn.release()  # else the test would wait for it, too
            raise
        assert futures[2].result(PATIENCE_SECONDS) == [2]
    assert held.groups == [["a"], ["b", "c"]]


def test_a_group_is_bounded_by_bytes_but_no_call_is_split() -> None:
    held = Held()
    queue = CommitQueue(held, bytes_max=1000)
    calls = [call("a"), call("b", size=500), call("c", size=500), call("d", size=9000), call("e")]
    with ThreadPoolExecutor(8) as pool:
        futures = submit_all(queue, held, pool, *calls)
        held.released.release(5)
        for future in futures:
            future.result(PATIENCE_SECONDS)
    assert held.groups == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_a_failed_commit_fails_its_group_and_no_other() -> None:
    held = Held()
    queue = CommitQueue(held, bytes_max=1000)
    with ThreadPoolExecutor(8) as pool:
        futures = submit_all(queue, held, pool, call("a"), call("b"), call("c"))
        held.released.release()
        assert futures[0].result(PATIENCE_SECONDS) == [1]
        held.error = StorageFullError("full")
        held.released.release()
        for future in futures[1:]:
            with pytest.raises(StorageFullError):
                future.result(PATIENCE_SECONDS)
        held.error = None
        held.released.release()
        assert queue.submit(call("d")) == [3]


def test_an_interrupted_leader_leaves_nobody_waiting() -> None:
    held = Held()
    queue = CommitQueue(held, bytes_max=1000)
    with ThreadPoolExecutor(8) as pool:
        futures = submit_all(queue, held, pool, call("a"), call("b"), call("c"))
        held.released.release()
        futures[0].result(PATIENCE_SECONDS)
        held.error = KeyboardInterrupt()
        held.released.release()
        raised = {type(future.exception(PATIENCE_SECONDS)) for future in futures[1:]}
        assert raised == {KeyboardInterrupt, TransientError}
        held.error = None
        held.released.release()
        assert queue.submit(call("d")) == [3]


class Interrupted:
    """A lock whose waiter is interrupted once the test says so."""

    def __init__(self) -> None:
        self.now = threading.Event()

    def acquire(self) -> bool:
        assert self.now.wait(PATIENCE_SECONDS)
        raise KeyboardInterrupt

    def release(self) -> None:
        pass


@pytest.mark.parametrize("when", ["while it waits", "as it is to lead"])
def test_an_interrupted_follower_hands_the_lead_on(when: str) -> None:
    held, turn = Held(), Interrupted()
    queue = CommitQueue(held, bytes_max=1000)
    interrupted = call("b")
    interrupted.turn = turn  # type: ignore[assignment]
    with ThreadPoolExecutor(8) as pool:
        first, second, third = submit_all(queue, held, pool, call("a"), interrupted, call("c"))
        if when == "as it is to lead":
            held.released.release()
            assert first.result(PATIENCE_SECONDS) == [1]
        turn.now.set()
        assert isinstance(second.exception(PATIENCE_SECONDS), KeyboardInterrupt)
        held.released.release(2)
        assert [first.result(PATIENCE_SECONDS), third.result(PATIENCE_SECONDS)] == [[1], [2]]
    assert held.groups == [["a"], ["c"]]


def test_drain_waits_for_accepted_calls_and_refuses_others() -> None:
    held = Held()
    queue = CommitQueue(held, bytes_max=1000)
    with ThreadPoolExecutor(8) as pool:
        futures = submit_all(queue, held, pool, call("a"), call("b"))
        draining = pool.submit(queue.drain)
        while not queue._drained:
            threading.Event().wait(0.001)
        with pytest.raises(ValueError, match="closed"):
            queue.submit(call("c"))
        assert not draining.done()
        held.released.release(2)
        draining.result(PATIENCE_SECONDS)
        assert [f.result(PATIENCE_SECONDS) for f in futures] == [[1], [2]]
