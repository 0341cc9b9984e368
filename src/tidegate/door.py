"""The door: records in, offsets out once they are durable, with a report on each bad record.

Submissions that wait are decoded and committed together (no timer): one alone pays one commit,
many share it. What the door decodes is handed to the engine through the `Tail`, so that in steady
state nothing is decoded twice; the engine reads the log itself whenever the tail does not have it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from traceback import format_exception
from typing import Any, Protocol

import numpy as np
import structlog

from tidegate.clock import Clock
from tidegate.engine import Work
from tidegate.errors import OverloadedError, TidegateError
from tidegate.eventlog.contract import Append, Entry, EntryKind, EventLog
from tidegate.events.decode import DeadRecord
from tidegate.program import Program
from tidegate.records import Records
from tidegate.stages import Stages, timed
from tidegate.together import Together

_log = structlog.get_logger()

_MOMENT_SECONDS = 0.1
_ROOM_SECONDS = 1.0
_PLACED_SECONDS = 1.0
_AHEAD_MAX = 4  # groups decoded and waiting for the commit before theirs to end
_AHEAD_BYTES_MIN = 64 << 10  # smaller ones are not worth another thread

JOINED_BYTES_MAX = 4 << 20  # submissions are joined up to this size: one decode, one log entry


@dataclass(frozen=True, slots=True)
class Receipt:
    """Records taken: their offsets are `first_offset` and on; `dead` are those that are no events.

    A dead letter's id is the offset of its record: `first_offset + dead.row`.
    """

    first_offset: int
    count: int
    dead: tuple[DeadRecord, ...]


# Tells the submitters of one loop or thread what became of their submissions, all in one call.
Notify = Callable[[list[tuple[Any, Receipt | TidegateError]]], None]


class Awaiting(Protocol):
    """Where submitters wait for decisions."""

    def place(self, token: Any, receipt: Receipt) -> None:
        """The records of a submission are durable at these offsets; called in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class Submission:
    """Records that wait to be taken; `token` is handed back to `notify` with the result.

    With `awaiting`, the submitter wants decisions: it is told of there, not of the receipt.
    """

    records: Records
    source: str
    token: Any
    notify: Notify
    awaiting: Awaiting | None = None


class Tail:
    """Decoded entries at the end of the log that the engine has not come to yet; bounded.

    What does not fit is left out: the engine then reads it from the log.
    """

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._work: dict[int, Work] = {}
        self._lock = threading.Condition()

    @property
    def bytes_held(self) -> int:
        """Bytes of the records that wait here to be decided."""
        return self._bytes

    def push(self, work: Sequence[Work]) -> None:
        """Add entries as they were appended."""
        with self._lock:
            for item in work:
                size = len(item.entry.records.payload)
                if self._bytes + size <= self._bytes_max:
                    self._work[item.entry.first_offset] = item
                    self._bytes += size

    def take(self, offset: int, *, records_max: int) -> list[Work]:
        """Remove and return the entries from `offset` on, without a gap; those before it go."""
        taken: list[Work] = []
        records = 0
        with self._lock:
            while records < records_max and (item := self._work.pop(offset, None)) is not None:
                self._bytes -= len(item.entry.records.payload)
                taken.append(item)
                records += len(item.entry.records)
                offset = item.entry.next_offset
            if not taken:
                self._drop_before(offset)
            self._lock.notify_all()
        return taken

    def wait_for_room(self, *, timeout_seconds: float) -> bool:
        """Wait until the tail is no longer full; False when the time runs out."""
        with self._lock:
            return self._lock.wait_for(self._has_room, timeout_seconds)

    def _has_room(self) -> bool:
        return not self._bytes or self._bytes + JOINED_BYTES_MAX <= self._bytes_max

    def _drop_before(self, offset: int) -> None:
        for first in [f for f in self._work if f < offset]:
            self._bytes -= len(self._work.pop(first).entry.records.payload)


class Door:
    """Takes submissions from any thread; a thread of its own decodes, another one commits.

    So the next records are decoded while the disk makes the last ones durable; a few bytes are
    committed by the first thread, since waking another costs more than that saves.
    """

    def __init__(
        self,
        log: EventLog,
        tail: Tail,
        program: Program,
        *,
        clock: Clock,
        queue_bytes_max: int,
        queue_records_max: int,
        together: Together | None = None,
        stages: Stages | None = None,
    ) -> None:
        self._program = program
        self._log = log
        self._tail = tail
        self._clock = clock
        self._queue_bytes_max = queue_bytes_max
        self._queue_records_max = queue_records_max
        self._stages = stages or Stages()
        self._waiting: deque[Submission] = deque()
        self._bytes = self._records = 0
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # what the first thread waits for
        self._more = threading.Condition(lock)  # what the second one waits for
        self._closing = False
        self._together = together or Together()
        self._placing = threading.Lock()  # while what is committed is not handed on yet
        self.next_offset = log.next_offset  # after what this process appended last
        self._committed_at = -_MOMENT_SECONDS
        self._ahead: deque[_Taken | None] = deque()  # decoded, not yet committed; None ends it
        self._is_committing = False  # the second thread has, or is about to have, something to do
        self._threads = (
            threading.Thread(target=self._decode_all, name="door", daemon=True),
            threading.Thread(target=self._commit_all, name="commit", daemon=True),
        )

    def open(self) -> None:
        """Begin to take submissions."""
        for thread in self._threads:
            thread.start()

    def use(self, program: Program) -> None:
        """Decode by another version from now on; the engine decodes anew what came before."""
        self._program = program

    @property
    def queued_records(self) -> int:
        """Records that wait to be committed."""
        return self._records

    @property
    def queued_bytes(self) -> int:
        """Their bytes."""
        return self._bytes

    def offer(
        self,
        records: Records,
        *,
        source: str,
        token: Any,
        notify: Notify,
        awaiting: Awaiting | None = None,
    ) -> None:
        """Queue records; `notify` is called from the door's thread when they are durable.

        With `awaiting`, it is called for what cannot be taken alone, and `awaiting.place` for what
        is, once it is durable and before the engine can come to it.
        Raises: OverloadedError if the queue is full or the door is closing; ValueError if there is
        no record.
        """
        if not len(records):
            raise ValueError("no records")
        size = len(records.payload)
        with self._changed:
            if self._closing:
                raise OverloadedError("the server is shutting down", retry_after_seconds=1)
            full = self._bytes + size > self._queue_bytes_max
            if self._waiting and (full or self._records + len(records) > self._queue_records_max):
                raise OverloadedError("the queue of the door is full", retry_after_seconds=1)
            self._waiting.append(Submission(records, source, token, notify, awaiting))
            self._bytes += size
            self._records += len(records)
            self._changed.notify()

    def submit(self, records: Records, *, source: str) -> Receipt:
        """Queue records and wait until they are durable.

        Raises: OverloadedError; StorageFullError if nothing was written.
        """
        done: Future[Receipt] = Future()
        self.offer(records, source=source, token=done, notify=settle)
        return done.result()

    def close(self) -> None:
        """Take nothing more, commit what is queued, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def decode(self, records: Records, *, source: str) -> Work:
        """An entry to be, decoded and made ready for the log; callers may use many threads."""
        now, program = self._clock.now(), self._program
        with timed(self._stages.decode):
            decoded = program.intake.admit(records, ingest_time=now)
        entry = Entry(-1, EntryKind.EVENTS, source, now, records)
        prepared = self._log.prepare(Append(records, source, now))
        return Work(entry, decoded, program.version, prepared)

    def commit(
        self, work: Sequence[Work], *, placed: Callable[[Sequence[int]], None] | None = None
    ) -> list[int]:
        """Append decoded entries in one commit, hand them to the tail, and return their offsets.

        `placed` is told the offsets before the engine can come to them.
        """
        entries = [
            w.prepared or Append(w.entry.records, w.entry.source, w.entry.ingest_time) for w in work
        ]
        with self._placing:
            with timed(self._stages.commit):
                offsets = self._log.append_many(entries)
            if placed is not None:
                placed(offsets)
            entries_placed = [
                Work(_at(offset, w.entry), w.decoded, w.version)
                for w, offset in zip(work, offsets, strict=True)
            ]
            self.next_offset = entries_placed[-1].entry.next_offset
            self._committed_at = time.monotonic()
            self._tail.push(entries_placed)
        self._together.note(self.next_offset - entries_placed[0].entry.first_offset)
        return offsets

    def wait_until_placed(self) -> None:
        """Wait for a commit under way to hand its entries on, which the log shows a little sooner.

        A commit that takes long is not waited for: the log has what is to be read.
        """
        if self._placing.acquire(timeout=_PLACED_SECONDS):
            self._placing.release()

    @property
    def is_active(self) -> bool:
        """Whether records came in a moment ago."""
        return time.monotonic() - self._committed_at < _MOMENT_SECONDS

    def _decode_all(self) -> None:
        """The first thread: all that waits, in order, a group at a time."""
        self._together.join()
        while (batch := self._gather()) is not None:
            for group in _groups(batch):
                taken = _Taken(group, self._decoded(group))
                if not self._hand_on(taken):
                    self._take([taken])
        self._end()

    def _gather(self) -> list[Submission] | None:
        """All that waits; None when the door is closed and nothing waits.

        While the second thread commits, a little waits to become more.
        """
        with self._changed:
            while not self._closing and (
                not self._waiting or (self._is_committing and self._bytes < _AHEAD_BYTES_MIN)
            ):
                self._changed.wait()
            batch = list(self._waiting)
            self._waiting.clear()
            self._bytes = self._records = 0
            return batch or None

    def _decoded(self, group: Sequence[Submission]) -> Work | TidegateError:
        try:
            return self.decode(_join(group), source=group[0].source)
        except Exception as error:  # noqa: BLE001 - the edge of the loop: the next must be taken
            return _refused(error)

    def _hand_on(self, taken: _Taken) -> bool:
        """Leave a group to the second thread; False for one that is committed sooner here."""
        size = sum(len(s.records.payload) for s in taken.group)
        with self._changed:
            if size < _AHEAD_BYTES_MIN and not self._is_committing:
                return False
            while len(self._ahead) >= _AHEAD_MAX:
                self._changed.wait()
            self._ahead.append(taken)
            self._is_committing = True
            self._more.notify()
        return True

    def _end(self) -> None:
        with self._changed:
            self._ahead.append(None)
            self._more.notify()

    def _commit_all(self) -> None:
        """The second thread: all that is decoded, in one commit."""
        self._together.join()
        while True:
            with self._changed:
                self._is_committing = bool(self._ahead)
                self._changed.notify()
                while not self._ahead:
                    self._more.wait()
                taken = [t for t in self._ahead if t is not None]
                ended = len(taken) < len(self._ahead)
                self._ahead.clear()
                self._changed.notify()
            self._take(taken)
            if ended:
                return

    def _take(self, taken: Sequence[_Taken]) -> None:
        for each in taken:
            if isinstance(each.work, TidegateError):
                _notify(each.group, [each.work] * len(each.group))
        good = [(t.group, t.work) for t in taken if isinstance(t.work, Work)]
        if not good:
            return
        # A full tail would have the engine read and decode again: better to slow down.
        self._tail.wait_for_room(timeout_seconds=_ROOM_SECONDS)
        told: list[tuple[Sequence[Submission], Sequence[Receipt]]] = []

        def placed(offsets: Sequence[int]) -> None:
            for (group, work), offset in zip(good, offsets, strict=True):
                dead = work.decoded.dead if work.decoded else ()
                told.append((group, _receipts(group, offset, dead)))
            _place(told)

        try:
            self.commit([work for _, work in good], placed=placed)
        except Exception as error:  # noqa: BLE001 - the edge of the loop: the next must be taken
            refusal = _refused(error)
            for group, _ in good:
                _notify(group, [refusal] * len(group))
            return
        for group, receipts in told:
            taken_in = [(s, r) for s, r in zip(group, receipts, strict=True) if s.awaiting is None]
            _notify([s for s, _ in taken_in], [r for _, r in taken_in])


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """Submissions that make one entry, and that entry decoded or why it cannot be."""

    group: Sequence[Submission]
    work: Work | TidegateError


def _refused(error: Exception) -> TidegateError:
    """What submitters are told of an error; one that is no error of ours is logged whole."""
    if isinstance(error, TidegateError):
        return error
    _log.error("records_not_taken", trace="".join(format_exception(error)))
    return TidegateError(f"the records cannot be taken: {error}")


def settle(results: list[tuple[Any, Receipt | TidegateError]]) -> None:
    """Put results into futures of `concurrent.futures`."""
    for future, result in results:
        if isinstance(result, Receipt):
            future.set_result(result)
        else:
            future.set_exception(result)


def _groups(batch: Sequence[Submission]) -> list[list[Submission]]:
    """Submissions that become one entry each: same source, joined up to a size, in order."""
    groups: list[list[Submission]] = []
    size = 0
    for item in batch:
        size += len(item.records.payload)
        if not groups or size > JOINED_BYTES_MAX or groups[-1][0].source != item.source:
            groups.append([])
            size = len(item.records.payload)
        groups[-1].append(item)
    return groups


def _join(group: Sequence[Submission]) -> Records:
    if len(group) == 1:
        return group[0].records
    parts = [s.records for s in group]
    shifts = np.cumsum([0] + [len(p.payload) + 1 for p in parts[:-1]])
    return Records(
        b"\n".join(p.payload for p in parts),
        np.concatenate([p.starts + shift for p, shift in zip(parts, shifts, strict=True)]),
        np.concatenate([p.ends + shift for p, shift in zip(parts, shifts, strict=True)]),
    )


def _at(offset: int, entry: Entry) -> Entry:
    return Entry(offset, entry.kind, entry.source, entry.ingest_time, entry.records)


def _receipts(group: Sequence[Submission], first: int, dead: Sequence[DeadRecord]) -> list[Receipt]:
    """Each submission's own receipt, its dead records counted from its own first record."""
    if len(group) == 1:
        return [Receipt(first, len(group[0].records), tuple(dead))]
    counts = [len(s.records) for s in group]
    begins = np.concatenate([[0], np.cumsum(counts)]).tolist()
    owned: list[list[DeadRecord]] = [[] for _ in group]
    for record in dead:
        owner = int(np.searchsorted(begins, record.row, side="right")) - 1
        owned[owner].append(replace(record, row=record.row - begins[owner]))
    return [
        Receipt(first + begin, count, tuple(own))
        for begin, count, own in zip(begins, counts, owned, strict=False)
    ]


def _place(told: Sequence[tuple[Sequence[Submission], Sequence[Receipt]]]) -> None:
    """Have those who want decisions waited for where their records lie."""
    for group, receipts in told:
        for item, receipt in zip(group, receipts, strict=True):
            if item.awaiting is not None:
                item.awaiting.place(item.token, receipt)


def _notify(group: Sequence[Submission], results: Sequence[Receipt | TidegateError]) -> None:
    told: dict[Notify, list[tuple[Any, Receipt | TidegateError]]] = {}
    for item, result in zip(group, results, strict=True):
        told.setdefault(item.notify, []).append((item.token, result))
    for notify, pairs in told.items():
        try:
            notify(pairs)
        except Exception as error:  # noqa: BLE001 - the edge of the loop: the others must be told
            _log.error("submitter_not_told", trace="".join(format_exception(error)))
