"""The connection: bounds on headers and on slow senders, and the one error shape down here too.

The HTTP library bounds neither the size of a request's head nor the time that a request takes to
arrive, and answers in plain text. Here a request must have arrived whole within a time, whatever
it is and however slowly it drips, and what it may make the server read is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tidegate.service.answer import answer
from tidegate.service.errors import Refusal
from tidegate.service.metrics.tally import Tally
from tidegate.service.requests import RequestIds

_HEAD_BYTES_MAX = 64 << 10
# A body that is sent in chunks of one byte takes six bytes on the wire for each.
_WIRE_FACTOR = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may ask for, and where its refusals are counted."""

    body_bytes_max: int
    timeout_seconds: float
    ids: RequestIds
    tally: Tally

    @property
    def wire_bytes_max(self) -> int:
        """Bytes that one request may take on the wire, counted while it is not whole."""
        return self.body_bytes_max * _WIRE_FACTOR + _HEAD_BYTES_MAX


class Connection(HttpToolsProtocol):
    """One connection. `_since` is when it began to owe us a request; None once that is whole."""

    def __init__(self, *args: Any, limits: Limits, **named: Any) -> None:
        super().__init__(*args, **named)
        self._limits = limits
        self._since: float | None = None
        self._has_head = False
        self._has_begun = False
        self._is_refused = False
        self._received = 0
        self._running: RequestResponseCycle | None = None

    # -- what the parser tells -------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """A sender has come."""
        super().connection_made(transport)
        self._since = self.loop.time()

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
        return is_waiting

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._is_refused:
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
        super().on_headers_complete()
        self._has_head = True

    def on_message_complete(self) -> None:
        """A request is whole."""
        super().on_message_complete()
        self._since = None
        self._has_begun = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

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
            self._limits.tally.count("none", "connection", refusal.status, 0.0)
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
