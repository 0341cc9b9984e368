"""What a process that runs a project does to hold little memory; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

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
