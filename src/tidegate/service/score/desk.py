"""The desk: hands events to the door and brings decisions back, many requests at a time.

Requests that come in during one turn of the event loop are handed over together, and what the
engine decided in one pass comes back in one wake-up. Nothing waits for a timer.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from tidegate.door import Door, Receipt
from tidegate.errors import OverloadedError, TidegateError
from tidegate.records import Records
from tidegate.service.score.room import check_room
from tidegate.verdicts import Awaited, Results, Verdicts

SOURCE = "score"


class Asker(Protocol):
    """A request that waits for decisions."""

    count: int
    awaited: Awaited | None
    place: int  # of its first record among those that `awaited` stands for

    def told(self, results: Results) -> None:
        """The verdicts on its records, or why there are none."""

    def failed(self, error: Exception) -> None:
        """To tell it has failed on an error that nobody foresaw."""


class Desk:
    """Takes requests of one event loop."""

    def __init__(
        self,
        door: Door,
        verdicts: Verdicts,
        loop: asyncio.AbstractEventLoop,
        *,
        waiting_max: int,
        hold_back_seconds: float,
    ) -> None:
        self._door, self._verdicts, self._loop = door, verdicts, loop
        self._waiting_max, self._hold_back = waiting_max, hold_back_seconds
        self._singles: list[bytes] = []
        self._askers: list[Asker] = []
        self._since: dict[Awaited, tuple[float, int]] = {}  # in order of time
        self.waiting = 0

    def check(self) -> None:
        """Pass if there is room for a request. Raises: OverloadedError."""
        check_room(
            waiting=self.waiting,
            waiting_max=self._waiting_max,
            oldest=self._oldest,
            hold_back_seconds=self._hold_back,
        )

    def _oldest(self) -> float:
        first = next(iter(self._since.values()), None)
        return 0.0 if first is None else monotonic() - first[0]

    def put_one(self, record: bytes, asker: Asker) -> None:
        """Hand over a body that is one record, with all others of this turn of the loop."""
        if not self._singles:
            self._loop.call_soon(self._flush)
        self._singles.append(record)
        self._askers.append(asker)
        self.waiting += 1

    def put(self, records: Records, asker: Asker) -> None:
        """Hand over the records of one request."""
        self.waiting += len(records)
        self._hand_over(records, [asker])

    def _flush(self) -> None:
        records, askers = Records.of(self._singles), self._askers
        self._singles, self._askers = [], []
        self._hand_over(records, askers)

    def _hand_over(self, records: Records, askers: list[Asker]) -> None:
        awaited = Awaited(askers, self._tell)
        place = 0
        for asker in askers:
            asker.awaited, asker.place = awaited, place
            place += asker.count
        self._since[awaited] = (monotonic(), len(records))
        try:
            self._door.offer(
                records,
                source=SOURCE,
                token=awaited,
                notify=self._refuse,
                awaiting=self._verdicts,
            )
        except OverloadedError as error:
            self._settle([(awaited, error)])

    def _refuse(self, results: list[tuple[Any, Receipt | TidegateError]]) -> None:
        """Called from the door's thread for what cannot be taken."""
        self._tell([(a, r) for a, r in results if isinstance(r, TidegateError)])

    def _tell(self, results: list[tuple[Awaited, Results]]) -> None:
        """Called from the engine's thread, with what was decided."""
        # A loop that has ended has nobody left to tell; the engine must not fall over it.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, results)

    def _settle(self, results: list[tuple[Awaited, Results]]) -> None:
        for awaited, found in results:
            _, count = self._since.pop(awaited, (0.0, 0))
            self.waiting -= count
            askers: list[Asker] = awaited.token
            # They know it and it knows them: thousands of such circles a second would have to be
            # looked for, and everybody waits while they are.
            awaited.token = None
            for asker in askers:
                own = found
                if not isinstance(own, TidegateError):
                    own = own[asker.place : asker.place + asker.count]
                try:
                    asker.told(own)
                except Exception as error:  # noqa: BLE001 - the others must be told all the same
                    asker.failed(error)
