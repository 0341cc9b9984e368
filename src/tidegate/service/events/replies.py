"""Hands records to the door and brings back what became of them, many requests at a time.

Single records that come in during one turn of the event loop are handed over together, and all
results of a commit come back in one wake-up. Nothing waits for a timer: a turn ends as soon as
the loop has seen to all that was there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from tidegate.door import Door, Receipt
from tidegate.errors import OverloadedError, TidegateError
from tidegate.events.decode import DeadRecord
from tidegate.records import Records
from tidegate.service.errors import Refusal

Result = Receipt | TidegateError


class Waiter(Protocol):
    """Who waits for what became of records; a future will do."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Result, /) -> None:
        """Tell what became of the records."""


_JOINED_BYTES_MAX = 1 << 20


class Replies:
    """Offers records to a door and waits for what became of them, for one event loop."""

    def __init__(
        self, door: Door, loop: asyncio.AbstractEventLoop, *, source: str, timeout_seconds: float
    ) -> None:
        self._door = door
        self._loop = loop
        self._source = source
        self._timeout_seconds = timeout_seconds
        self._singles: list[bytes] = []
        self._waiting: list[Waiter] = []
        self._bytes = 0

    async def offer_one(self, record: bytes) -> Receipt:
        """The receipt of a body that is one record, once it is durable; raises as `offer`."""
        waiting: asyncio.Future[Result] = self._loop.create_future()
        self.put_one(record, waiting)
        return _received(await waiting)

    async def offer(self, records: Records) -> Receipt:
        """The receipt, once the records are durable.

        Raises: OverloadedError, StorageFullError; Refusal (503) when the time runs out, and then
        the records may be taken or not.
        """
        waiting: asyncio.Future[Result] = self._loop.create_future()
        self.put(records, waiting)
        return _received(await waiting)

    def put_one(self, record: bytes, waiter: Waiter) -> None:
        """Hand over a body that is one record, with all others of this turn of the loop.

        The waiter is told in a later turn, OverloadedError too.
        """
        if not self._singles:
            self._loop.call_soon(self._flush)
        self._singles.append(record)
        self._waiting.append(waiter)
        self._bytes += len(record)
        if self._bytes > _JOINED_BYTES_MAX:
            self._flush()

    def put(self, records: Records, waiter: Waiter) -> None:
        """Hand over records. Raises: OverloadedError; all else the waiter is told."""
        self._hand_over(records, [waiter])

    def _flush(self) -> None:
        """Hand over the single records of this turn."""
        if not self._singles:
            return
        records, waiting = Records.of(self._singles), self._waiting
        self._singles, self._waiting, self._bytes = [], [], 0
        try:
            self._hand_over(records, waiting)
        except OverloadedError as error:
            _settle([(waiting, error)])

    def _hand_over(self, records: Records, waiting: list[Waiter]) -> None:
        self._door.offer(records, source=self._source, token=waiting, notify=self._tell)
        self._loop.call_later(self._timeout_seconds, _give_up, waiting)

    def _tell(self, results: list[tuple[list[Waiter], Result]]) -> None:
        """Called from the door's thread."""
        # A loop that has ended has nobody left to tell; the door must not fall over it.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, results)


def _received(result: Result) -> Receipt:
    if isinstance(result, TidegateError):
        raise result
    return result


def _settle(results: Sequence[tuple[list[Waiter], Result]]) -> None:
    for waiting, result in results:
        # Empty if it was given up before.
        parts = [result] * len(waiting) if len(waiting) < 2 else _parts(result, len(waiting))
        for each, part in zip(waiting, parts, strict=True):
            if not each.done():
                each.set_result(part)
        waiting.clear()  # lets go of the requests before the timer does


def _parts(result: Result, count: int) -> list[Result]:
    """What each of several single records has of their common result."""
    if isinstance(result, TidegateError):
        return [result] * count
    parts: list[Result] = [Receipt(result.first_offset + i, 1, ()) for i in range(count)]
    for dead in result.dead:
        own = DeadRecord(0, dead.reason, dead.column, dead.message)
        parts[dead.row] = Receipt(result.first_offset + dead.row, 1, (own,))
    return parts


def _give_up(waiting: list[Waiter]) -> None:
    if waiting:
        message = (
            "the log did not answer in time, and the records may be taken or not: send them "
            "again, a repeated id changes nothing"
        )
        refusal = Refusal(503, "commit_timeout", message, retry_after_seconds=1)
        _settle([(waiting, refusal)])
