"""Threads come together while commits are small, and go apart as soon as one is not."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tidegate.together import SMALL_RECORDS, Together, _Used
from waiting import PATIENCE_SECONDS

ALLOWED = os.sched_getaffinity(0)

pytestmark = pytest.mark.skipif(len(ALLOWED) < 2, reason="there is one processor alone")


@contextmanager
def running(first: Callable[[], None] = lambda: None) -> Iterator[int]:
    """A thread that does something `first` and then waits; its id."""
    found: list[int] = []
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        first()
        found.append(threading.get_native_id())
        begun.set()
        ended.wait()

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    yield found[0]
    ended.set()
    thread.join()


def joined(together: Together) -> AbstractContextManager[int]:
    """A thread of its own among those together; its id."""
    return running(together.join)


def small_ones(together: Together, count: int = 100) -> None:
    for _ in range(count):
        together.note(1)


def test_small_commits_bring_the_threads_to_one_processor_and_a_large_one_apart() -> None:
    together = Together()
    with joined(together) as first, joined(together) as second:
        small_ones(together)
        places = [os.sched_getaffinity(thread) for thread in (first, second)]
        assert places[0] == places[1]
        assert len(places[0]) == 1
        together.note(SMALL_RECORDS + 1)
        assert [os.sched_getaffinity(t) for t in (first, second)] == [ALLOWED, ALLOWED]


def test_a_few_small_commits_among_large_ones_change_nothing() -> None:
    together = Together()
    with joined(together) as thread:
        for _ in range(100):
            small_ones(together, 10)
            together.note(100_000)
        assert os.sched_getaffinity(thread) == ALLOWED
        assert not together.is_gathered


def test_a_thread_that_has_ended_is_forgotten() -> None:
    together = Together()
    with joined(together):
        pass
    with joined(together) as thread:
        small_ones(together)
        assert len(os.sched_getaffinity(thread)) == 1
        together.note(100_000)


def test_who_leaves_may_run_anywhere() -> None:
    together = Together()
    together.join()
    try:
        small_ones(together)
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        together.leave()
    assert os.sched_getaffinity(0) == ALLOWED


def burn(processor: int) -> subprocess.Popen[bytes]:
    code = (
        "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\n"
        "while True: pass"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(processor)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def leave_free(processors: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it look as if nobody used these processors from now on, whatever else runs there."""
    look, begun = _Used.now, time.monotonic()
    before = look(())._idle

    def quiet(threads: Iterable[int]) -> _Used:
        used, ticks = look(threads), int(100 * (time.monotonic() - begun))
        return _Used(used._idle | {p: before[p] + ticks for p in processors}, used._own)

    monkeypatch.setattr(_Used, "now", quiet)


def test_threads_together_move_away_from_a_processor_that_others_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tidegate.together._SECONDS_IN_A_PLACE", 0.5)
    together = Together()
    with joined(together) as thread:
        small_ones(together)
        [place] = os.sched_getaffinity(thread)
        leave_free(ALLOWED - {place}, monkeypatch)
        with burn(place) as other:
            try:
                deadline = time.monotonic() + PATIENCE_SECONDS
                while os.sched_getaffinity(thread) == {place}:
                    assert time.monotonic() < deadline, "they stay beside a processor's other user"
                    time.sleep(0.05)
                    together.note(1)
                assert len(os.sched_getaffinity(thread)) == 1
                assert together.is_gathered
            finally:
                other.kill()


def test_threads_and_processes_begun_by_one_of_them_run_where_they_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tidegate.together._SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr("tidegate.together._SECONDS_IN_A_PLACE", 600.0)
    together = Together()
    together.join()
    try:
        small_ones(together)
        [place] = os.sched_getaffinity(0)
        with running() as thread:
            assert os.sched_getaffinity(thread) == {place}
            together.note(1)
            assert os.sched_getaffinity(thread) == ALLOWED
            assert os.sched_getaffinity(0) == {place}
        with subprocess.Popen(["sleep", "60"]) as process:
            assert os.sched_getaffinity(process.pid) == {place}
            together.release(process.pid)
            assert os.sched_getaffinity(process.pid) == ALLOWED
            process.kill()
    finally:
        together.leave()
