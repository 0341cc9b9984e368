"""What a process that runs a project does to hold little memory; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tidegate import memory
from tidegate.memory import Thrift, Turn
from waiting import until

_GIVEN_BACK = """
from tidegate import memory
memory.spare()
from numba import njit

def held():
    text = open("/proc/self/smaps").read().split("libllvmlite")[1:]
    return sum(int(part.split("Rss:")[1].split()[0]) for part in text)

double = njit(lambda x: 2 * x)
assert double(3) == 6
before = held()
memory.leave_out("libllvmlite")
after = held()
assert njit(lambda x: 3 * x)(3) == 9  # what was left out comes back when it is called
assert double(2.5) == 5.0
print(before, after)
"""

_UNASKED = """
from tidegate import memory
from numba import njit
njit(lambda x: 2 * x)(3)
held = lambda: sum(
    int(part.split("Rss:")[1].split()[0])
    for part in open("/proc/self/smaps").read().split("libllvmlite")[1:]
)
before = held()
memory.leave_out("libllvmlite")
print(before, held())
"""

_LOADED = """
import gc
from tidegate import memory
usual = gc.get_threshold()
memory.spare()
assert gc.get_threshold() != usual
memory.loaded()
made = []
made.append(made)
del made
assert gc.get_threshold() == usual
print(gc.get_freeze_count(), gc.collect())
"""


# What frames took, and what is held when they are gone, in KB.
_FREED = """
import sys, time
if sys.argv[1:] == ["spare"]:
    from tidegate import memory
    memory.spare()
import polars as pl

def held():
    return int(open("/proc/self/smaps_rollup").read().split("Rss:")[1].split()[0])

few = pl.DataFrame({"n": range(1000)})
few.select(pl.col("n") * 2)
before = held()
frames = [few.select((pl.col("n") * i).repeat_by(50).explode()) for i in range(256)]
most = held()
del frames
many = [(pl.col("n") * i).alias(str(i)) for i in range(32)]
until = time.monotonic() + 5  # half of the time that it takes of its own accord
while held() - before > (most - before) / 6 and time.monotonic() < until:
    few.select(many)  # each thread looks at what it keeps as it is used
    time.sleep(0.02)
print(most - before, held() - before)
"""


def _run(program: str, *arguments: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return [int(figure) for figure in done.stdout.split()]


def test_code_of_a_library_is_given_back_and_still_works() -> None:
    """At least the half of what the compiler held goes, and it compiles afterwards."""
    before, after = _run(_GIVEN_BACK)
    assert after < before / 2


def test_a_process_that_did_not_ask_is_left_alone() -> None:
    """A notebook keeps what it has."""
    before, after = _run(_UNASKED)
    assert after == before


def test_what_is_loaded_is_not_looked_through_again() -> None:
    """Cycles that are made after that are collected as ever."""
    frozen, collected = _run(_LOADED)
    assert frozen > 1000
    assert collected == 1


def test_what_polars_has_freed_goes_back() -> None:
    """While it goes on working, and within seconds."""
    most, kept = _run(_FREED, "spare")
    assert kept < most / 6


class Load:
    """A load of records as `Thrift` sees it: each second so many have passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[str] = []
        self.seconds, self.passed = 0.0, 0
        monkeypatch.setattr(memory, "trim", lambda: self.given.append("heap"))
        monkeypatch.setattr(memory, "leave_out", lambda _library: self.given.append("code"))
        monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: self.seconds))
        self.are_few = False
        self.thrift = Thrift(lambda: self.passed, are_few=lambda: self.are_few)

    def second(self, records: int) -> list[str]:
        """What is given back at the end of a second with so many records."""
        self.seconds, self.passed = self.seconds + 1, self.passed + records
        self.given.clear()
        self.thrift.look()
        return list(self.given)


def test_memory_is_given_back_while_many_records_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code seldom; and once more when they have ended."""
    load = Load(monkeypatch)
    given = [load.second(100_000) for _ in range(10)]
    assert given.count(["heap"]) == 8
    assert given.count(["code", "heap"]) == 2
    assert load.second(0) == ["heap"]
    assert load.second(0) == []


def test_nothing_is_given_back_where_few_records_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody waits for each of them; what is expected to be free is for later."""
    load = Load(monkeypatch)
    load.thrift.expect()
    assert [load.second(100) for _ in range(10)] == [[]] * 10
    load.are_few = True
    assert [load.second(100_000) for _ in range(10)] == [[]] * 10
    assert load.second(0) == ["heap"]


def _in_turn(turn: Turn, **how: float | Callable[[], bool]) -> threading.Event:
    """Set once somebody else, who is another thread, has had the turn or has gone on without."""
    done = threading.Event()

    def take() -> None:
        with turn.taken(**{"seconds": 60.0, **how}):  # type: ignore[arg-type] # as it comes
            done.set()

    threading.Thread(target=take, daemon=True).start()
    return done


def test_jobs_come_one_after_the_other() -> None:
    turn = Turn()
    with turn.taken(seconds=0):
        done = _in_turn(turn)
        assert not done.wait(0.1)
    assert done.wait(10)


def test_who_waits_for_long_or_need_not_goes_on_without_a_turn() -> None:
    """And others wait for those who did."""
    turn, urged = Turn(), threading.Event()
    urged.set()
    with turn.taken(seconds=0):
        assert _in_turn(turn, seconds=0.0).wait(10)
        done = _in_turn(turn, waits=urged.is_set)
        assert not done.wait(0.1)
        urged.clear()
        assert done.wait(10)
    assert _in_turn(turn).wait(10)
    until(lambda: not turn._asked)
