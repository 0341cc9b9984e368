"""The counter: where a porter's requests wait for what the house decides.

Requests that come in during one turn of the loop go to the house together. Each has a time of its
own; when that has run out it is answered with the project's fallback, and the house is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from itertools import accumulate, groupby, repeat
from time import perf_counter

from msgspec import UNSET

from tidegate.errors import OverloadedError
from tidegate.service.errors import Refusal
from tidegate.service.exchange import Exchange
from tidegate.service.porter.deadlines import Deadlines
from tidegate.service.porter.head import Found
from tidegate.service.porter.messages import (
    Asked,
    Decisions,
    Elsewhere,
    FromHouse,
    Late,
    NoEvents,
    Passed,
    Refused,
    Welcome,
    framed,
)
from tidegate.service.score.refusals import Refusals
from tidegate.service.score.room import check_room
from tidegate.service.score.shapes import (
    Answer,
    Fallback,
    NotScored,
    Reason,
    Scored,
    encoded,
    fallen_back,
    featured,
    id_of,
    written,
)

# Messages to the house that are not answered. What comes meanwhile would only wait there, and each
# message costs the house as much as several events.
_UNDER_WAY_MAX = 1
_MESSAGE_BYTES_MAX = 1 << 20
# More than these would not be decided any faster together, and the first of them only wait for the
# last: who comes while many wait is answered in turn.
_MESSAGE_EVENTS_MAX = 256


class Asking:
    """A request that waits; `leave` lets the house answer it in its own way."""

    __slots__ = (
        "authorization",
        "body",
        "exchange",
        "leave",
        "number",
        "place",
        "seconds",
        "until",
        "waits",
    )

    def __init__(
        self, exchange: Exchange, found: Found, *, seconds: float, leave: Callable[[], None]
    ) -> None:
        self.exchange, self.leave, self.seconds = exchange, leave, seconds
        self.body, self.authorization = found.body, found.head.authorization
        self.number = self.place = -1
        self.waits, self.until = True, exchange.began + seconds


class Counter:
    """For one event loop; `send` takes bytes for the house, `connections` says how many are here.

    Of those who may wait this porter has the part that it has of all connections.
    """

    def __init__(
        self,
        welcome: Welcome,
        loop: asyncio.AbstractEventLoop,
        *,
        send: Callable[[bytes], None],
        connections: Callable[[], int],
    ) -> None:
        self._welcome, self._loop, self._send = welcome, loop, send
        self._connections, self._elsewhere = connections, 0
        self._version = welcome.version
        self._number = 0
        self._is_flushing = False
        self._deadlines: Deadlines[Asking] = Deadlines(loop, self._expire)
        self._refusals = Refusals(loop)
        self._here: list[Asking] = []  # of this turn of the loop
        self._asked: dict[int, dict[int, Asking]] = {}  # by number and place
        self._since: dict[int, float] = {}  # when the first of what the house is at came in
        self.waiting = 0

    def ask(self, exchange: Exchange, found: Found, leave: Callable[[], None]) -> None:
        """Put a request to the house, or refuse it where there is no room."""
        timeout_ms = found.head.timeout_ms
        seconds = self._welcome.timeout_seconds if timeout_ms is None else timeout_ms / 1000
        try:
            self._check()
        except OverloadedError as error:
            self._refusals.put(exchange, error, until=exchange.began + seconds)
            return
        asking = Asking(exchange, found, seconds=seconds, leave=leave)
        self._deadlines.add(asking, seconds)
        self._here.append(asking)
        self.waiting += 1
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Hand over what is here at the end of this turn, unless the house has enough to do."""
        if not self._is_flushing and self._may_flush():
            self._is_flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._is_flushing = False
        if self._may_flush():
            self._flush()

    def _may_flush(self) -> bool:
        return bool(self._here) and len(self._since) < _UNDER_WAY_MAX

    def _check(self) -> None:
        here = max(1, self._connections())
        check_room(
            waiting=self.waiting,
            waiting_max=max(1, self._welcome.waiting_max * here // (here + self._elsewhere)),
            oldest=self._oldest,
            hold_back_seconds=self._welcome.hold_back_seconds,
        )

    def _oldest(self) -> float:
        first = next(iter(self._since.values()), None)
        return 0.0 if first is None else perf_counter() - first

    def _flush(self) -> None:
        count = _few(self._here)
        here, self._here = self._here[:count], self._here[count:]
        for authorization, some in groupby(here, key=lambda a: a.authorization):
            self._hand_over(authorization, list(some))

    def _hand_over(self, authorization: bytes | None, some: list[Asking]) -> None:
        self._number += 1
        number, end, ends = self._number, -1, []
        for place, asking in enumerate(some):
            asking.number, asking.place = number, place
            end += 1 + len(asking.body)
            ends.append(end)
        self._asked[number] = dict(enumerate(some))
        self._since[number] = some[0].exchange.began
        payload = b"\n".join([asking.body for asking in some])
        self._send(framed(Asked(number, authorization, payload, ends)))

    # -- what the house says ---------------------------------------------------------------------

    def receive(self, message: FromHouse) -> None:
        """Answer those that the house has told of."""
        match message:
            case Passed():
                self._passed(message)
            case Decisions():
                self._decided(message)
            case NoEvents():
                self._no_events(message)
            case Refused():
                self._refused(message)
            case Elsewhere():
                for asking in self._taken(message.number, None):
                    if asking is not None:
                        asking.leave()
            case _:
                pass

    def _passed(self, told: Passed) -> None:
        """Give the house what came meanwhile: at once, or when all that it says now is answered.

        What it looks up, which may take long where it has to read its tables, holds up nobody else.
        """
        self._since.pop(told.number, None)
        self._elsewhere = told.elsewhere
        if told.is_idle:
            self._flush_now()
        else:
            self._flush_soon()

    def _taken(self, number: int, places: Iterable[int] | None) -> list[Asking | None]:
        """Those at places of what was asked, who wait no more; None for who has an answer."""
        asked = self._asked.get(number, {})
        taken: list[Asking | None] = []
        for place in list(asked) if places is None else places:
            asking = asked.pop(place, None)
            if asking is None or not asking.waits:
                taken.append(None)
                continue
            asking.waits = False
            self.waiting -= 1
            taken.append(asking)
        if not asked and self._asked.pop(number, None) is not None:
            self._since.pop(number, None)
            self._flush_soon()
        return taken

    def _decided(self, told: Decisions) -> None:
        now, found = perf_counter(), told.rows
        features = map(featured(tuple(found.names)), *found.features) if found.names else repeat({})
        columns = (found.event_ids, found.actions, found.scores, found.rules, found.versions)
        rows = zip(*columns, found.offsets, strict=True)
        for asking, row, values in zip(
            self._taken(told.number, told.places), rows, features, strict=False
        ):
            if asking is None:
                continue
            event_id, action, score, rules, self._version, offset = row
            exchange = asking.exchange
            answer = Scored(
                event_id,
                action,
                score,
                [Reason(r["name"], r["action"], r["reason"]) for r in rules if r["mode"] == "live"],
                values,
                self._version,
                offset,
                int((now - exchange.began) * 1e6),
                duplicate=True if told.are_repeated else UNSET,
            )
            exchange.answer(200, encoded(answer))

    def _no_events(self, told: NoEvents) -> None:
        askings = self._taken(told.number, [record[0] for record in told.records])
        for asking, (_, offset, reason, column, message) in zip(askings, told.records, strict=True):
            if asking is not None:
                _answer(asking.exchange, NotScored(offset, reason, column, message))

    def _refused(self, told: Refused) -> None:
        refusal = Refusal(
            *(told.status, told.code, told.message), retry_after_seconds=told.retry_after_seconds
        )
        for asking in self._taken(told.number, told.places):
            if asking is None:
                continue
            if told.status == HTTPStatus.TOO_MANY_REQUESTS:
                self._refusals.put(asking.exchange, refusal, until=asking.until)
            else:
                asking.exchange.refuse(refusal)

    def close(self) -> None:
        """Refuse at once from now on."""
        self._refusals.close()

    # -- out of time -----------------------------------------------------------------------------

    def _expire(self, asking: Asking) -> None:
        """Answer without a decision; the event is decided all the same."""
        while asking.number < 0:
            self._flush()
        asking.waits = False
        self.waiting -= 1
        reason = f"no decision within {asking.seconds * 1000:g} ms"
        given = Fallback(self._welcome.fallback_action, reason, self._version)
        event_id = id_of(asking.body, self._welcome.id_column)
        exchange = asking.exchange
        latency_us = int((perf_counter() - exchange.began) * 1e6)
        _answer(exchange, fallen_back(given, event_id=event_id, offset=None, latency_us=latency_us))
        late = Late(
            *(asking.number, asking.place, event_id or "", given.action, reason),
            answered_at=time.time_ns() // 1_000,
        )
        self._send(framed(late))


def _few(askings: Sequence[Asking]) -> int:
    """How many of them go into one message: not too many, nor too long; one at least."""
    sizes = accumulate(len(asking.body) for asking in askings[:_MESSAGE_EVENTS_MAX])
    return max(1, sum(1 for size in sizes if size <= _MESSAGE_BYTES_MAX))


def _answer(exchange: Exchange, answer: Answer) -> None:
    status, body = written([answer], is_array=False, request_id=exchange.request_id)
    exchange.answer(status, body)
