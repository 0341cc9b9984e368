"""Threads that share the interpreter, on one processor while their batches are small.

Only one thread at a time runs Python. Where the event loop, the door and the engine hand each other
batches of a few events, they take turns hundreds of times a second, and on several processors each
turn costs a wake-up of another processor and moves the same counters of references from one cache
to the next: half of the rate of single events, measured. With large batches they spend their time
in compiled code that runs side by side, and so belong on processors of their own.

Only where the operating system can tell threads where to run; else nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SMALL_RECORDS = 1_024  # of a commit; the interpreter is what such a one takes its time for
_SMALL_IN_A_ROW = 32  # commits, until the threads are brought together
_SECONDS_IN_A_PLACE = 10.0  # then another processor is looked for, should this one be shared
_WORTH_MOVING = 0.1  # of a processor's time
_SECONDS_BETWEEN_LOOKS = 1.0  # for threads that were begun by one of those together


class Together:
    """The threads of one pipeline. They `join` by themselves; one of them calls `note`."""

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._lock = threading.Lock()
        self._small = 0
        self._since = self._looked = 0.0
        self._processor, self._used = -1, _Used({}, 0)
        self.is_gathered = False
        self._allowed: set[int] = set()
        with suppress(AttributeError, OSError):  # another system has other ways
            self._allowed = os.sched_getaffinity(0)

    def join(self) -> None:
        """Count the calling thread among those that share the interpreter."""
        with self._lock:
            self._threads.add(threading.get_native_id())

    def leave(self) -> None:
        """Let the calling thread, which is about to end or to do other work, run where it likes."""
        with self._lock:
            thread = threading.get_native_id()
            self._threads.discard(thread)
            self._place({thread}, self._allowed)

    def note(self, records: int) -> None:
        """A commit had so many records."""
        self._small = self._small + 1 if records <= SMALL_RECORDS else 0
        if self.is_gathered:
            if not self._small:
                self._scatter()
            elif (now := time.monotonic()) - self._since > _SECONDS_IN_A_PLACE:
                self._look_around()
            elif now - self._looked > _SECONDS_BETWEEN_LOOKS:
                self._free_others()
        elif self._small >= _SMALL_IN_A_ROW and len(self._allowed) > 1:
            self._gather()

    def release(self, process: int) -> None:
        """Let a process run where it likes that one of the threads has started."""
        self._place({process}, self._allowed)

    def _gather(self) -> None:
        processor = _processor()
        if processor in self._allowed:
            self._settle(processor, _Used.now(self._threads))

    def _look_around(self) -> None:
        """Move where there is more time than is left here; all at once, so that no turn is lost."""
        used = _Used.now(self._threads)
        self._settle(used.freest(self._used, self._processor, among=self._allowed), used)

    def _settle(self, processor: int, used: _Used) -> None:
        with self._lock:
            if processor != self._processor or not self.is_gathered:
                self._place(self._threads, {processor})
            self._processor, self._used = processor, used
            self.is_gathered, self._since = True, time.monotonic()
        self._free_others()

    def _free_others(self) -> None:
        """Let threads run where they like that came from one of these: they begin where it is."""
        self._looked = time.monotonic()
        with suppress(OSError, AttributeError), self._lock:
            others = {int(task.name) for task in Path("/proc/self/task").iterdir()} - self._threads
            here = {self._processor}
            self._place({t for t in others if _place_of(t) == here}, self._allowed)

    def _scatter(self) -> None:
        with self._lock:
            self._place(self._threads, self._allowed)
            self.is_gathered, self._small = False, 0

    @staticmethod
    def _place(threads: set[int], processors: set[int]) -> None:
        for thread in list(threads):
            try:
                os.sched_setaffinity(thread, processors)
            except ProcessLookupError:
                threads.discard(thread)  # it has ended
            except (AttributeError, OSError):
                return


def _place_of(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:  # it has ended
        return set()


def _processor() -> int:
    """The processor that the calling thread runs on; -1 where the system does not tell."""
    try:
        return int(ctypes.CDLL(None).sched_getcpu())
    except (AttributeError, OSError):
        return -1


class _Used:
    """How much time the processors had nothing to do so far, and threads had one; in ticks."""

    def __init__(self, idle: dict[int, int], own: int) -> None:
        self._idle, self._own = idle, own

    @classmethod
    def now(cls, threads: Iterable[int]) -> _Used:
        """As of now; nothing is known where the system does not tell."""
        idle: dict[int, int] = {}
        with suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/stat").read_text().splitlines():
                name, *times = line.split()
                if name.startswith("cpu") and name != "cpu":
                    idle[int(name[3:])] = int(times[3]) + int(times[4])  # waiting for a disk too
        return cls(idle, sum(map(_ticks, list(threads))))

    def freest(self, before: _Used, here: int, *, among: Iterable[int]) -> int:
        """The processor with the most time for threads that ran `here` since `before`.

        What they used themselves counts as free; `here` unless another has clearly more.
        """
        since = {p: self._idle[p] - before._idle[p] for p in self._idle if p in before._idle}
        free = {p: ticks for p, ticks in since.items() if p in among}
        if here not in free:
            return here
        free[here] += self._own - before._own
        best = max(free, key=free.__getitem__)
        worth = _WORTH_MOVING * _SECONDS_IN_A_PLACE * _TICKS_A_SECOND
        return best if free[best] > free[here] + worth else here


_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _ticks(thread: int) -> int:
    """Processor time of a thread of this process so far."""
    try:
        told = Path(f"/proc/self/task/{thread}/stat").read_text()
    except OSError:
        return 0
    times = told.rpartition(")")[2].split()  # the name before may have anything in it
    return int(times[11]) + int(times[12])
