"""Group commit: calls from many threads share one commit, without a timer.

The first call that finds nobody committing leads: it commits all that waits, its own call among
it. What arrives meanwhile waits, and is committed together by the first of those waiting. So a
lone call pays for exactly one commit, and under load a commit serves everybody who waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from tidegate.errors import TransientError
from tidegate.eventlog.rows import Packed

# What a row costs besides its payload and bounds, roughly.
_ROW_BYTES = 64


class Call:
    """One call waiting for its entries to be durable."""

    __slots__ = ("bytes", "entries", "error", "leads", "offsets", "turn")

    def __init__(self, entries: Sequence[Packed]) -> None:
        self.entries = entries
        self.bytes = sum(len(e.payload) + len(e.bounds) + _ROW_BYTES for e in entries)
        self.offsets: list[int] = []
        self.error: BaseException | None = None
        self.leads = False
        self.turn = threading.Lock()  # released when the call is done, or when it is to lead
        self.turn.acquire()


class CommitQueue:
    """Calls in order of arrival, handed to `commit` in groups of at most `bytes_max`.

    `commit` runs in one of the calling threads, never twice at a time. It fills the `offsets` of
    each call; if it raises, every call of its group raises the same. A single call larger than
    `bytes_max` is a group of its own, as it must not be split.
    """

    def __init__(self, commit: Callable[[Sequence[Call]], None], *, bytes_max: int) -> None:
        self._commit = commit
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._waiting: deque[Call] = deque()
        self._led = False
        self._idle = threading.Condition(self._lock)
        self._drained = False

    def submit(self, call: Call) -> list[int]:
        """Wait until the call is committed; returns its offsets or raises its error."""
        with self._lock:
            if self._drained:
                raise ValueError("the log is closed")
            self._waiting.append(call)
            is_first, self._led = not self._led, True
            call.leads = is_first
        if not is_first:
            self._wait(call)  # even if it is to lead by now: its turn, released for that, is taken
        if call.leads:
            self._lead()
        if call.error is not None:
            raise call.error
        return call.offsets

    def drain(self) -> None:
        """Refuse further calls and wait until those accepted are committed."""
        with self._lock:
            self._drained = True
            while self._led:
                self._idle.wait()

    def _wait(self, call: Call) -> None:
        try:
            call.turn.acquire()
        except BaseException:  # the thread is interrupted: the others must not wait for it
            self._abandon(call)
            raise

    def _lead(self) -> None:
        group = self._take()
        try:
            self._commit(group)
        except Exception as error:  # noqa: BLE001 - each call of the group raises it
            _fail(group, error)
        except BaseException:
            _fail(group, TransientError("the commit was interrupted; append again"))
            raise
        finally:
            # First the next leader, so that its commit runs while the others wake up.
            self._hand_over()
            for call in group:
                call.turn.release()

    def _take(self) -> list[Call]:
        with self._lock:
            group = [self._waiting.popleft()]
            size = group[0].bytes
            while self._waiting and size + self._waiting[0].bytes <= self._bytes_max:
                group.append(self._waiting.popleft())
                size += group[-1].bytes
            return group

    def _hand_over(self) -> None:
        with self._lock:
            self._led = bool(self._waiting)
            if self._led:
                self._waiting[0].leads = True
                self._waiting[0].turn.release()
            else:
                self._idle.notify_all()

    def _abandon(self, call: Call) -> None:
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
        if call.leads:
            self._hand_over()


def _fail(group: Sequence[Call], error: BaseException) -> None:
    for call in group:
        call.error = error
