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
from contextlib import suppress

SMALL_RECORDS = 256  # of a commit; the interpreter is what such a one takes its time for
_SMALL_IN_A_ROW = 32  # commits, until the threads are brought together
_SECONDS_IN_A_PLACE = 10.0  # then the system may choose another processor for them


class Together:
    """The threads of one pipeline. They `join` by themselves; one of them calls `note`."""

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._lock = threading.Lock()
        self._small = 0
        self._since = 0.0
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
            if not self._small or time.monotonic() - self._since > _SECONDS_IN_A_PLACE:
                self._scatter()
        elif self._small >= _SMALL_IN_A_ROW and len(self._allowed) > 1:
            self._gather()

    def _gather(self) -> None:
        processor = _processor()
        if processor not in self._allowed:
            return
        with self._lock:
            self._place(self._threads, {processor})
            self.is_gathered, self._since = True, time.monotonic()

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


def _processor() -> int:
    """The processor that the calling thread runs on; -1 where the system does not tell."""
    try:
        return int(ctypes.CDLL(None).sched_getcpu())
    except (AttributeError, OSError):
        return -1
