"""The connection: bounds on headers and on slow senders, the one error shape, the short way.

The HTTP library bounds neither the size of a request's head nor the time that a request takes to
arrive, and answers in plain text. Here a request must have arrived whole within a time, whatever
it is and however slowly it drips, and what it may make the server read is bounded. Small requests
of the hot routes are answered from here (`exchange.py`), all others by the application.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from time import perf_counter
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from tidegate.service.answer import answer
from tidegate.service.edge import log_failure
from tidegate.service.errors import Refusal, internal_error
from tidegate.service.exchange import Exchange, Route
from tidegate.service.metrics.tally import Tally
from tidegate.service.requests import RequestIds
from tidegate.service.score.shapes import PATH

_HEAD_BYTES_MAX = 64 << 10
_SCORE = PATH.encode("ascii")
_ASKED = b"POST " + _SCORE
# Set in a request's state where its work is worth nothing to a sender that says no more: one that
# is gone looks the same as one that still listens.
ENDS_WITH_SENDER = "ends_with_sender"
# A body that is sent in chunks of one byte takes six bytes on the wire for each.
_WIRE_FACTOR = 8


# Whether a caller may take a hot route: authorization, path and address.
Admits = Callable[[bytes | None, str, str], bool]


class Lodge(Protocol):
    """Where connections may go that ask for decisions.

    `heard` is how often something came on one that did not go there.
    """

    heard: int

    def wants(self) -> bool:
        """Whether one may be given away now."""

    def suits(self, data: bytes) -> bool:
        """Whether what was read of one begins a request that is taken there."""

    def take(self, connection: int, data: bytes) -> None:
        """Give it away, by a descriptor that is closed when it has gone, with what was read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may ask for, and where its requests are counted.

    `routes` has the hot routes by path, all of them POST; `admits` says at once whether a caller
    may use one, and what it does not let in goes the application's way.
    """

    body_bytes_max: int
    timeout_seconds: float
    ids: RequestIds
    tally: Tally
    routes: Mapping[bytes, Route] = field(default_factory=dict)
    admits: Admits = lambda _authorization, _path, _address: True
    lodge: Lodge | None = None

    @property
    def wire_bytes_max(self) -> int:
        """Bytes that one request may take on the wire, counted while it is not whole."""
        return self.body_bytes_max * _WIRE_FACTOR + _HEAD_BYTES_MAX


class Connection(HttpToolsProtocol):
    """One connection. `_since` is when it began to owe us a request; None once that is whole.

    `first` is what a porter had read of it before it gave it back; None if it was with none.
    """

    def __init__(
        self, *args: Any, limits: Limits, first: bytes | None = None, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self._limits = limits
        self._first = first
        self._since: float | None = None
        self._has_head = False
        self._has_begun = False
        self._is_refused = False
        self._received = 0
        self._running: RequestResponseCycle | None = None
        self._address = ""
        self._heading: tuple[object, bytes] = (None, b"")

    # -- what the parser tells -------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """A sender has come."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._address = self.client[0] if self.client else ""
        if self._first:
            self.data_received(self._first)

    def connection_lost(self, exc: Exception | None) -> None:
        """The sender is gone: nobody waits for the request that is being answered."""
        super().connection_lost(exc)
        # The library tells only the newest of several pipelined requests.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio has it
        """The sender says no more, but may still listen; True while it has answers to come."""
        if self._since is not None:
            self.refuse(Refusal(400, "cut_off", "the request ended before it was whole"))
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_waiting = cycle is not None and not (cycle.response_complete or cycle.disconnected)
        if cycle is not None and is_waiting:
            cycle.keep_alive = False
            if cycle.scope["state"].get(ENDS_WITH_SENDER):
                cycle.disconnected = True
                cycle.message_event.set()
                return False
        return is_waiting

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._limits.lodge is not None:
            self._limits.lodge.heard += 1
        if self._is_refused or self._leaves(data):
            return
        super().data_received(data)
        if self._since is None:
            return
        self._received += len(data)
        if not self._has_head and self._received > _HEAD_BYTES_MAX:
            message = f"the head of the request has more than {_HEAD_BYTES_MAX} bytes"
            self.refuse(Refusal(431, "head_too_large", message))
        elif self._received > self._limits.wire_bytes_max:
            self.refuse(Refusal(413, "body_too_large", "the request takes too many bytes"))

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._since = self.loop.time()
        self._has_begun, self._has_head, self._received = True, False, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come; what comes after the body is none and is left alone."""
        if not self._has_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head of a request is whole."""
        exchange = self._exchange()
        if exchange is None:
            super().on_headers_complete()
        else:
            self.cycle = cast("RequestResponseCycle", exchange)
        self._has_head = True

    def on_message_complete(self) -> None:
        """A request is whole."""
        super().on_message_complete()
        self._since = None
        self._has_begun = False
        exchange = cast("RequestResponseCycle | Exchange", self.cycle)
        if isinstance(exchange, Exchange) and not exchange.response_complete:
            self._take(exchange)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # -- the short way ---------------------------------------------------------------------------

    def _exchange(self) -> Exchange | None:
        """The request whose head is whole, where it goes the short way."""
        limits, before = self._limits, self.cycle
        path, _, query = self.url.partition(b"?")
        if path not in limits.routes or self.parser.get_method() != b"POST":
            return None
        is_first = before is None or before.response_complete
        is_plain = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        if not (is_first and is_plain):
            return None
        exchange = Exchange(path, query, self._send)
        if not exchange.accepts(self.headers, limits.ids):
            return None
        admitted = limits.admits(exchange.authorization, path.decode("ascii"), self._address)
        return exchange if admitted else None

    def _take(self, exchange: Exchange) -> None:
        try:
            self._limits.routes[exchange.path](exchange)
        except Exception as error:  # noqa: BLE001 - the edge of a request: it is logged and answered
            log_failure(error, route=exchange.path.decode("ascii"), request_id=exchange.request_id)
            exchange.refuse(internal_error())

    def _send(self, exchange: Exchange, status: int, rest: bytes) -> None:
        seconds = perf_counter() - exchange.began
        is_gone = exchange.disconnected or self.transport.is_closing()
        told = 0 if is_gone else status
        self._limits.tally.count(
            "POST", exchange.path.decode("ascii"), told, seconds, exchange.request_id
        )
        if is_gone:
            return
        self.transport.write(STATUS_LINE[status] + self._defaults() + rest)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _leaves(self, data: bytes) -> bool:
        """Whether a porter is given the connection, with the request that begins here.

        Not after an answer: that one may not be on its way yet, and those who are refused at once
        are the ones who have to leave.
        """
        lodge = self._limits.lodge
        if lodge is None or self._has_begun or not data.startswith(_ASKED):
            return False
        if self._first is not None or self.scheme != "http" or not self._is_idle():
            return False
        if not (lodge.wants() and lodge.suits(data)):
            return False
        self.transport.pause_reading()
        lodge.take(os.dup(self.transport.get_extra_info("socket").fileno()), data)
        self.transport.abort()  # only this end: the porter has it now
        return True

    def _is_idle(self) -> bool:
        """Whether all that was asked here is answered, and the answers are on their way."""
        cycle, transport = self.cycle, self.transport
        is_answered = cycle is None or (cycle.response_complete and not self.pipeline)
        return is_answered and not (transport.get_write_buffer_size() or transport.is_closing())

    def _defaults(self) -> bytes:
        """The headers that the server adds to every answer; it renews them once a second."""
        headers = self.server_state.default_headers
        if self._heading[0] is not headers:
            joined = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            self._heading = (headers, joined)
        return self._heading[1]

    # -- refusing --------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - its text is no JSON
        """Refuse what is no HTTP."""
        self.refuse(Refusal(400, "bad_http", "this is not an HTTP request that can be read"))

    def close_if_late(self, now: float) -> None:
        """Refuse a request that has not arrived whole in time; `now` is the loop's time."""
        late = self._since is not None and now - self._since >= self._limits.timeout_seconds
        # Behind a request that is being answered, the next one is not being read.
        if late and not self.pipeline:
            seconds = self._limits.timeout_seconds
            message = f"the request has not arrived whole within {seconds:g} seconds"
            self.refuse(Refusal(408, "request_timeout", message))

    def refuse_unfinished(self) -> None:
        """Refuse a request that is still arriving: the server is shutting down."""
        if self._since is not None:
            message = "the server is shutting down"
            self.refuse(Refusal(503, "shutting_down", message, retry_after_seconds=1))

    def refuse(self, refusal: Refusal) -> None:
        """Answer the request that is arriving with an error, after those before it, and close."""
        self._is_refused = True
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_own = self._has_head and self._since is not None
        if is_own and cycle is not None and self.pipeline:
            self._refuse_in_turn(cycle, refusal)
        elif cycle is None or cycle.response_complete:
            self._close(refusal if self._has_begun and not is_own else None)
        elif is_own:
            # Whoever waits for the rest of the body learns that nobody is left to answer.
            is_answered = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
            self._close(None if is_answered else refusal)
        else:
            cycle.keep_alive = False

    def _refuse_in_turn(self, cycle: RequestResponseCycle, refusal: Refusal) -> None:
        """The body of a request that waits behind others will not come: answer it in its turn."""
        request_id = self._limits.ids.make()

        async def refused(_scope: Any, _receive: Any, send: Any) -> None:
            await answer(send, refusal.status, refusal.body(request_id), headers=refusal.headers())

        cycle.keep_alive = False
        self.pipeline[0] = (cycle, cast("Any", refused))

    def _close(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            request_id = self._limits.ids.make()
            self.transport.write(_written(refusal, request_id))
            self._limits.tally.count("none", "connection", refusal.status, 0.0, request_id)
        self.transport.close()


def _written(refusal: Refusal, request_id: str) -> bytes:
    """A whole HTTP answer that closes the connection."""
    body = refusal.body(request_id)
    phrase = HTTPStatus(refusal.status).phrase
    head = [
        f"HTTP/1.1 {refusal.status} {phrase}".encode(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id.encode("ascii"),
        b"connection: close",
        *(name + b": " + value for name, value in refusal.headers()),
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body
