"""What a sink does next, one step at a time: read, plan, deliver, wait, try again.

A delivery is written down (its *plan*) before it is made. After a crash or a failure the courier
knows nothing but the ledger: if a delivery was planned, the very same one is made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from traceback import format_exception

import pyarrow as pa
import structlog

from tidegate.clock import Clock
from tidegate.errors import DamageError, TransientError
from tidegate.sinks.contract import Delivery, Feed, Sink
from tidegate.sinks.ledger import Ledger, Position

_log = structlog.get_logger()

_ALL_ROWS = 1 << 62
_ROW_BYTES_ASSUMED = 512  # before the first rows; then as of those read last
_READ_ROWS_MAX = 16_384  # read at a time: a sink that has fallen behind must not fill the memory
_DOUBLINGS_MAX = 40  # beyond, every pause is the longest anyway


@dataclass(frozen=True, slots=True)
class Pace:
    """When rows are delivered and how failures are waited out; durations in microseconds.

    A delivery is made when the oldest row has waited `every_us`, or when `rows_max` rows or about
    `bytes_max` bytes (as they lie in memory) are there. Pauses double from the shortest to the
    longest and are shortened at random by up to a half, so that sinks do not come back together.
    """

    every_us: int = 60_000_000
    rows_max: int = 100_000
    bytes_max: int = 10_485_763
    pause_min_us: int = 200_000
    pause_max_us: int = 60_000_000


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """How a sink is doing. `error` is that of the last attempt, None when it went well.

    `next_attempt` is the time, UTC microseconds, before which a failed sink is not tried again.
    """

    name: str
    offset: int = 0
    end: int = 0
    rows: int = 0
    deliveries: int = 0
    failures: int = 0
    error: str | None = None
    next_attempt: int | None = None

    @property
    def lag(self) -> int:
        """Offsets of the feed that are not delivered yet."""
        return max(0, self.end - self.offset)


class Courier:
    """Carries the rows of a feed to a sink. Used by one thread; `status` may be read by any.

    `delivered` is told each new offset, and the one it starts from. `random` gives numbers in
    [0, 1).
    """

    def __init__(
        self,
        name: str,
        *,
        sink: Sink,
        feed: Feed,
        ledger: Ledger,
        pace: Pace,
        clock: Clock,
        random: Callable[[], float],
        start: int = 0,
        delivered: Callable[[int], None] = lambda _offset: None,
    ) -> None:
        self.status = SinkStatus(name, offset=start)
        self._name = name
        self._sink, self._feed, self._ledger = sink, feed, ledger
        self._pace, self._clock, self._random = pace, clock, random
        self._start = start
        self._delivered = delivered
        self._position: Position | None = None
        self._held: list[Delivery] = []
        self._scanned = start
        self._row_bytes = _ROW_BYTES_ASSUMED
        self._since: int | None = None  # from when on, at the latest, the oldest row has waited

    def step(self, *, drain: bool = False) -> int:
        """Do one thing; returns after how many microseconds the next step makes sense, 0 for now.

        With `drain` rows are delivered however young and few, and no pause after a failure is
        kept. Never raises: what goes wrong is shown in `status` and tried again.
        """
        now = self._clock.now()
        resume = self.status.next_attempt
        if resume is not None and now < resume and not drain:
            return resume - now
        try:
            moved = self._advance(now, drain=drain)
        except Exception as error:  # noqa: BLE001 - the edge of a loop that has to go on
            return self._failed(error, now)
        self.status = replace(self.status, failures=0, error=None, next_attempt=None)
        return 0 if moved else self._rest(now)

    def _advance(self, now: int, *, drain: bool) -> bool:
        """One reading or delivery; False when there is nothing to do yet."""
        position = self._position or self._load(now)
        end = self._feed.end()
        self.status = replace(self.status, end=end)
        if position.planned is not None:
            return end >= position.planned and self._deliver_again(position, position.planned)
        if end <= self._scanned and not self._held:
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        due = drain or now - self._since >= self._pace.every_us
        room = self._room()
        if not due and end - self._scanned < room:
            return False
        if end > self._scanned:
            self._read(end, room)
        if self._is_full() or (due and self._scanned >= end):
            self._flush(position)
            self._since = now if self._feed.end() > self._scanned >= end else self._since
        return True

    def _load(self, now: int) -> Position:
        """The position as the ledger has it, all else forgotten.

        Nobody knows how long the rows have waited by now, so they count as due.
        """
        self._position = self._ledger.open(self._name, start=self._start)
        self._held.clear()
        self._scanned = self._position.offset
        self._since = now - self._pace.every_us
        self._delivered(self._position.offset)
        self.status = replace(self.status, offset=self._position.offset)
        return self._position

    # -- reading ---------------------------------------------------------------------------------

    def _room(self) -> int:
        """How many more rows fit into the delivery, judged by the size of those read so far."""
        rows = sum(d.rows.num_rows for d in self._held)
        size = self._held_bytes()
        row_bytes = max(1, size // rows) if rows else self._row_bytes
        by_bytes = (self._pace.bytes_max - size) // row_bytes
        return max(1, min(self._pace.rows_max - rows, by_bytes))

    def _held_bytes(self) -> int:
        return sum(d.rows.nbytes for d in self._held)

    def _is_full(self) -> bool:
        # A tenth below the limit, since sizes are guessed: else the rest would be read in crumbs.
        rows = sum(d.rows.num_rows for d in self._held)
        return rows >= self._pace.rows_max or self._held_bytes() >= 0.9 * self._pace.bytes_max

    def _read(self, end: int, room: int) -> None:
        read = self._feed.read(self._scanned, until=end, rows_max=min(room, _READ_ROWS_MAX))
        self._scanned = read.next_offset
        if read.rows.num_rows:
            self._row_bytes = max(1, read.rows.nbytes // read.rows.num_rows)
            self._held.append(read)

    # -- delivering ------------------------------------------------------------------------------

    def _flush(self, position: Position) -> None:
        first, until = position.offset, self._scanned
        if not self._held:
            self._ledger.skip(self._name, first=first, until=until)
            self._moved(until)
            return
        rows = pa.concat_tables([d.rows for d in self._held])
        self._held.clear()
        self._ledger.plan(self._name, first=first, until=until)
        self._position = Position(first, until)
        self._deliver(Delivery(first, until, rows))

    def _deliver_again(self, position: Position, until: int) -> bool:
        delivery = self._feed.read(position.offset, until=until, rows_max=_ALL_ROWS)
        if delivery.next_offset != until:
            raise DamageError(f"the feed of sink `{self._name}` ends at {delivery.next_offset}")
        self._deliver(delivery)
        self._scanned = until
        return True

    def _deliver(self, delivery: Delivery) -> None:
        self._sink.write(delivery)
        first, until = delivery.first_offset, delivery.next_offset
        self._ledger.deliver(self._name, first=first, until=until)
        rows = self.status.rows + delivery.rows.num_rows
        self.status = replace(self.status, rows=rows, deliveries=self.status.deliveries + 1)
        self._moved(until)

    def _moved(self, offset: int) -> None:
        self._position = Position(offset)
        self.status = replace(self.status, offset=offset)
        self._delivered(offset)

    # -- waiting ---------------------------------------------------------------------------------

    def _failed(self, error: Exception, now: int) -> int:
        self._position = None
        self._held.clear()
        failures = self.status.failures + 1
        pause = self._pause(failures)
        text = str(error) if isinstance(error, TransientError) else f"defect: {error!r}"
        self.status = replace(self.status, failures=failures, error=text, next_attempt=now + pause)
        # What passes by itself needs no trace of calls. A defect does, but never with the values
        # of variables, as a logger might show them: there may be secrets among them.
        is_defect = not isinstance(error, TransientError)
        trace = "".join(format_exception(error)) if is_defect else None
        _log.warning("sink failed", sink=self._name, error=text, failures=failures, trace=trace)
        return pause

    def _pause(self, failures: int) -> int:
        doubled = self._pace.pause_min_us << min(failures - 1, _DOUBLINGS_MAX)
        longest = min(doubled, self._pace.pause_max_us)
        return max(1, int(longest * (1 - self._random() / 2)))

    def _rest(self, now: int) -> int:
        since = now if self._since is None else self._since
        until_due = since + self._pace.every_us - now
        # Due and yet nothing to do: a planned delivery waits for its feed to be whole again.
        return until_due if until_due > 0 else self._pace.every_us
