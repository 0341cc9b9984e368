"""A connection that a porter keeps: one request at a time, while they are such as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from time import perf_counter, time
from typing import Protocol, cast

from tidegate.service.exchange import Exchange
from tidegate.service.porter.head import Found, NotPlain, Reader
from tidegate.service.requests import RequestIds
from tidegate.service.score.shapes import PATH

_PATH = PATH.encode("ascii")
_HELD_BYTES_MAX = 96 << 10  # behind a request that waits; no more is read meanwhile
_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode("ascii") for s in HTTPStatus}


class Porter(Protocol):
    """What a connection needs of its process."""

    reader: Reader
    ids: RequestIds
    is_closing: bool

    def ask(self, exchange: Exchange, found: Found, leave: Callable[[], None]) -> None:
        """Put a request to the house, or refuse it."""

    def served(self, status: int, seconds: float, request_id: str) -> None:
        """A request was answered; status 0: nobody was there any more."""

    def give_back(self, connection: Connection, data: bytes) -> None:
        """Let the house have a connection, and what was read of it and not answered."""

    def left(self, connection: Connection) -> None:
        """A connection is gone."""


class Connection(asyncio.Protocol):
    """`first` was read of it before it came here."""

    def __init__(self, porter: Porter, first: bytes) -> None:
        self._porter = porter
        self._data = first
        self._exchange: Exchange | None = None
        self._request = b""  # that is being answered
        self._ends = False
        self._is_paused = False
        self.transport: asyncio.Transport | None = None
        self.since = perf_counter()  # when the last answer or the last byte was

    @property
    def is_waiting(self) -> bool:
        """Whether a request is being answered."""
        return self._exchange is not None

    @property
    def is_partial(self) -> bool:
        """Whether a request has begun to come and is not whole."""
        return self._exchange is None and bool(self._data)

    # -- what the transport tells ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is here."""
        self.transport = cast("asyncio.Transport", transport)
        if self._data:
            self._read()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._data = self._data + data if self._data else data
        if self._exchange is None:
            self._read()
        elif len(self._data) > _HELD_BYTES_MAX and self.transport is not None:
            self.pause()

    def eof_received(self) -> bool:
        """The sender says no more, but may still listen; True while it has an answer to come."""
        self._ends = True
        if self._exchange is None and self._data:
            self.give_back()
        return self._exchange is not None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is gone either way
        """The sender is gone."""
        self.transport = None
        if self._exchange is not None:
            self._exchange.disconnected = True
        self._porter.left(self)

    # -- requests ----------------------------------------------------------------------------------

    def _read(self) -> None:
        """Take the request at the beginning of what was read, once it is whole."""
        self.since = perf_counter()
        try:
            found = self._porter.reader.find(self._data)
        except NotPlain:
            self.give_back()
            return
        if found is None:
            return
        self._request, self._data = self._data[: found.size], self._data[found.size :]
        self._exchange = exchange = Exchange(_PATH, b"", self._send)
        given = found.head.request_id
        ids = self._porter.ids
        exchange.request_id = ids.of(((b"x-request-id", given),)) if given else ids.make()
        self._porter.ask(exchange, found, self.give_back)

    def _send(self, exchange: Exchange, status: int, rest: bytes) -> None:
        is_gone = self.transport is None or self.transport.is_closing()
        self.since = now = perf_counter()
        told = 0 if is_gone else status
        self._porter.served(told, now - exchange.began, exchange.request_id)
        self._exchange, self._request = None, b""
        if is_gone or self.transport is None:
            return
        self.transport.write(_LINES[status] + _dated() + rest)
        if self._porter.is_closing or (self._ends and not self._data):
            self.transport.close()
            return
        if self._is_paused:
            self.transport.resume_reading()
            self._is_paused = False
        if self._data:
            # Not from here: one that sends many at once would have all of them answered in a pile.
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._exchange is None and self._data and self.transport is not None:
            self._read()

    def pause(self) -> None:
        """Read no more."""
        if not self._is_paused and self.transport is not None:
            self.transport.pause_reading()
            self._is_paused = True

    def close(self) -> None:
        """Close it, once what was answered is sent."""
        if self.transport is not None:
            self.transport.close()

    def give_back(self) -> None:
        """Let the house have it, the request that is being answered too."""
        data = self._request + self._data
        self._exchange, self._request, self._data = None, b"", b""
        self._porter.give_back(self, data)


class _Dates:
    """The `Date` header, renewed each second."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._second, self._line = -1, b""

    def __call__(self) -> bytes:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._line = b"date: %s\r\n" % formatdate(second, usegmt=True).encode("ascii")
        return self._line


_dated = _Dates()
