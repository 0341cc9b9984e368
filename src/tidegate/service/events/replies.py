"""Brings the door's results back into the event loop: one wake-up for each commit."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tidegate.door import Door, Receipt
from tidegate.errors import TidegateError
from tidegate.records import Records
from tidegate.service.errors import Refusal

_Result = Receipt | TidegateError
_Waiting = asyncio.Future[_Result]


class Replies:
    """Offers records to a door and waits for what became of them, for one event loop."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        self._door = door
        self._loop = loop

    async def offer(self, records: Records, *, source: str, timeout_seconds: float) -> Receipt:
        """The receipt, once the records are durable.

        Raises: OverloadedError, StorageFullError; Refusal (503) when the time runs out, and then
        the records may be taken or not.
        """
        waiting: _Waiting = self._loop.create_future()
        self._door.offer(records, source=source, token=waiting, notify=self._tell)
        timer = self._loop.call_later(timeout_seconds, _give_up, waiting)
        result = await waiting
        timer.cancel()
        if isinstance(result, TidegateError):
            raise result
        return result

    def _tell(self, results: list[tuple[_Waiting, _Result]]) -> None:
        """Called from the door's thread."""
        # A loop that has ended has nobody left to tell; the door must not fall over it.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, results)


def _settle(results: list[tuple[_Waiting, _Result]]) -> None:
    for waiting, result in results:
        if not waiting.done():
            waiting.set_result(result)


def _give_up(waiting: _Waiting) -> None:
    message = (
        "the log did not answer in time, and the records may be taken or not: send them again, "
        "a repeated id changes nothing"
    )
    if not waiting.done():
        waiting.set_result(Refusal(503, "commit_timeout", message, retry_after_seconds=1))
