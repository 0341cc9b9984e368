"""The writer: holds what is decided and not yet in the tables, and puts it there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

import pyarrow as pa
import structlog

from tidegate.errors import TransientError
from tidegate.outcome import Outcome, joined
from tidegate.stages import Stages, timed
from tidegate.warehouse.warehouse import Warehouse

_log = structlog.get_logger()

_PAUSE_SECONDS_MAX = 5.0
_SMALL_ROWS = 512  # an outcome of no more is joined with those beside it
# So many at once, or rows of them: others have the interpreter in between.
_JOINED = 32
_JOINED_ROWS = 2_048


class Writer:
    """Takes outcomes from the engine and writes them to the warehouse, many in one commit.

    A commit begins when `rows` wait, or when the oldest has waited for `every_seconds`. Where the
    warehouse cannot be written, the writer tries again with growing pauses and the engine waits
    once `rows_max` are pending: nothing is dropped, and the log goes on taking records.

    Small outcomes are joined while they wait. Each of their columns costs the interpreter some
    time until it is written, and more when it is let go: for a second of single events that is
    tens of milliseconds, in which nobody would get a decision. So it is spent bit by bit.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        *,
        rows: int,
        rows_max: int,
        every_seconds: float,
        written: Callable[[], None],
        failed: Callable[[BaseException], None],
        stages: Stages | None = None,
    ) -> None:
        self._warehouse = warehouse
        self._rows = min(rows, rows_max)  # the engine waits there, so the writer must not
        self._rows_max = rows_max
        self._every_seconds = every_seconds
        self._written = written
        self._failed = failed
        self._stages = stages or Stages()
        self._pending: list[Outcome] = []
        self._pending_rows = 0
        self._small = self._small_rows = 0  # of the pending outcomes, the last so many are small
        self._writing: Sequence[Outcome] = ()
        self._oldest = 0.0
        self._flushing = self._stopping = False
        self._changed = threading.Condition()
        self.failures = 0
        self._thread = threading.Thread(target=self._run, name="warehouse", daemon=True)
        self._thread.start()

    @property
    def pending_rows(self) -> int:
        """Rows decided and not yet written."""
        return self._pending_rows + sum(_rows(o) for o in self._writing)

    def put(self, outcomes: Sequence[Outcome]) -> None:
        """Add outcomes; waits while too much is pending."""
        with self._changed:
            while self._pending_rows > self._rows_max and not self._stopping:
                self._changed.wait()
            is_first = not self._pending
            if is_first:
                self._oldest = time.monotonic()
            for outcome in outcomes:
                self._add(outcome)
            # Whoever is woken for nothing takes the interpreter from those who decide.
            if is_first or self._has_to_join() or self._due():
                self._changed.notify_all()

    def _add(self, outcome: Outcome) -> None:
        rows = _rows(outcome)
        self._pending.append(outcome)
        self._pending_rows += rows
        if rows <= _SMALL_ROWS and not outcome.controls:
            self._small, self._small_rows = self._small + 1, self._small_rows + rows
        else:
            self._small = self._small_rows = 0

    def _has_to_join(self) -> bool:
        return self._small >= _JOINED or (self._small > 1 and self._small_rows >= _JOINED_ROWS)

    def flush(self, *, timeout_seconds: float) -> bool:
        """Write what is pending without waiting for more; False when the time runs out."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            while self._pending or self._writing:
                left = deadline - time.monotonic()
                if left <= 0 or self._stopping or not self._changed.wait(left):
                    break
            self._flushing = False
            return not (self._pending or self._writing)

    def stop(self) -> None:
        """Stop at once; what is pending is decided again after the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def waiting(self) -> list[Outcome]:
        """What is not yet written, in order of the log."""
        with self._changed:
            return [*self._writing, *self._pending]

    def find(self, event_id: str) -> dict[str, Any] | None:
        """The decision on an event that is not yet written, as a row of its table."""
        for outcome in reversed(self.waiting()):
            place = outcome.decided.whose.place(event_id)
            if place >= 0:
                return dict(outcome.decisions.slice(place, 1).to_pylist()[0])
        return None

    def events(self) -> list[pa.RecordBatch]:
        """The accepted events that are not yet written, in order of the log."""
        return [outcome.events for outcome in self.waiting()]

    def _run(self) -> None:
        try:
            while (batch := self._gather()) is not None:
                if self._write(batch):
                    self._written()
        except BaseException as error:  # noqa: BLE001 - the edge of the thread: the pipeline decides
            self._failed(error)
            with self._changed:
                self._stopping = True  # nobody writes any more, so nobody must wait for it
                self._changed.notify_all()

    def _gather(self) -> Sequence[Outcome] | None:
        """What is to be written next; None when stopping."""
        with self._changed:
            self._writing = ()
            self._changed.notify_all()
        while True:
            with self._changed:
                while not (self._stopping or self._due() or self._has_to_join()):
                    self._changed.wait(self._until_due())
                if self._stopping:
                    return None
                if self._due():
                    return self._take()
                first = len(self._pending) - self._small
                few = _first_few(self._pending[first:])
            self._join(few, first)

    def _take(self) -> Sequence[Outcome]:
        self._writing, self._pending = self._pending, []
        self._pending_rows = self._small = self._small_rows = 0
        self._changed.notify_all()
        return self._writing

    def _join(self, few: list[Outcome], first: int) -> None:
        """Put one outcome in the place of a few, of which the first is the `first`-th pending."""
        parts = [joined(list(alike)) for _, alike in groupby(few, key=_shape)]
        with self._changed:  # the engine may have added some meanwhile; nobody else takes away
            are_last = first + self._small == len(self._pending)  # with those small ones behind
            self._pending[first : first + len(few)] = parts
            if are_last:
                self._small -= len(few)
                self._small_rows -= sum(_rows(outcome) for outcome in few)
        while few:
            few.pop()  # one by one: others may have the interpreter in between

    def _due(self) -> bool:
        return bool(self._pending) and (
            self._flushing
            or self._pending_rows >= self._rows
            or time.monotonic() - self._oldest >= self._every_seconds
        )

    def _until_due(self) -> float | None:
        if not self._pending:
            return None
        return max(0.0, self._oldest + self._every_seconds - time.monotonic())

    def _write(self, batch: Sequence[Outcome]) -> bool:
        """Write until it succeeds; False if told to stop before that."""
        pause = 0.05
        while not self._stopping:
            try:
                for alike in _alike(batch):
                    with timed(self._stages.write):
                        self._warehouse.write(alike)
            except TransientError as error:
                self.failures += 1
                _log.warning("warehouse_write_failed", reason=str(error), pause_seconds=pause)
                self._rest(pause)
                pause = min(pause * 2, _PAUSE_SECONDS_MAX)
            else:
                self.failures = 0
                return True
        return False

    def _rest(self, seconds: float) -> None:
        """Pause; what the engine adds meanwhile is no reason to try again sooner."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, timeout=seconds)


def _first_few(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The first of some small ones, two at least, that are joined at once."""
    rows = accumulate(_rows(outcome) for outcome in outcomes[: _JOINED - 1])
    few = 1 + sum(1 for count in rows if count < _JOINED_ROWS)
    return list(outcomes[: max(2, few)])


def _alike(batch: Sequence[Outcome]) -> Iterator[list[Outcome]]:
    """The outcomes in stretches whose tables have the same columns: a version may change them."""
    for _, alike in groupby(batch, key=lambda o: {n: b.schema for n, b in o.tables().items()}):
        yield list(alike)


def _shape(outcome: Outcome) -> tuple[object, ...]:
    """The columns of the tables that a version may change."""
    features = None if outcome.featured is None else outcome.featured.schema
    windows = {name: rows.schema for name, rows in outcome.windows.items()}
    return outcome.events.schema, features, windows


def _rows(outcome: Outcome) -> int:
    """Rows by which an outcome is counted; one at least, so that offsets advance too."""
    return max(1, outcome.events.num_rows + outcome.dead_letters.num_rows)
