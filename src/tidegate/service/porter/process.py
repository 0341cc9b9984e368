"""A porter's process: `python -m tidegate.service.porter.process TALK MOVES`, two descriptors.

It ends when the house is gone or has told it to, and all that was asked is answered.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import cast

import msgspec
import uvloop

from tidegate.service.exchange import Exchange
from tidegate.service.journal import Journal
from tidegate.service.logs import configure_logs
from tidegate.service.porter.connection import Connection
from tidegate.service.porter.counter import Counter
from tidegate.service.porter.head import Found, Reader
from tidegate.service.porter.messages import (
    Close,
    Frames,
    FromHouse,
    Ready,
    Served,
    Welcome,
    framed,
)
from tidegate.service.porter.moves import Moves
from tidegate.service.processes import tune_interpreter
from tidegate.service.requests import RequestIds
from tidegate.service.score.shapes import PATH
from tidegate.stages import BUCKETS

_PARTIAL_SECONDS = 1.0  # a request that is not whole by then is the house's, with its time limits
_IDLE_SECONDS = 60.0
_SWEEP_SECONDS = 0.5
_LEFT_SECONDS = 0.02  # until the house is told of connections that are gone, many at once
_LEAVE_SECONDS = 1.0  # for answers to be read, before a connection is given back
_LEAVE_LOOK_SECONDS = 0.002


class Process(asyncio.Protocol):
    """One porter; the protocol of its talk with the house."""

    def __init__(self, loop: asyncio.AbstractEventLoop, moves: socket.socket) -> None:
        self._loop = loop
        self._frames = Frames()
        self._decoder = msgspec.msgpack.Decoder(FromHouse)
        self._connections: set[Connection] = set()
        self._served = _Served()
        self._counter: Counter | None = None
        self._journal = Journal()
        self.reader = Reader()
        self.ids = RequestIds("porter")
        self.is_closing = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self._moves = Moves(moves, loop, taken=self._take, ended=self._end)
        self._talk: asyncio.Transport | None = None

    # -- the house -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The talk begins."""
        self._talk = cast("asyncio.Transport", transport)
        self._sweep()

    def data_received(self, data: bytes) -> None:
        """The house says something."""
        for body in self._frames.feed(data):
            message: FromHouse = self._decoder.decode(body)
            if isinstance(message, Welcome):
                self._begin(message)
            elif isinstance(message, Close):
                self._close()
            elif self._counter is not None:
                self._counter.receive(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is gone either way
        """The house is gone."""
        self._end()

    def _begin(self, welcome: Welcome) -> None:
        self.ids = RequestIds(welcome.request_prefix)
        self._journal = Journal(slow_seconds=welcome.slow_seconds)
        self._counter = Counter(
            welcome, self._loop, send=self._tell, connections=lambda: len(self._connections)
        )
        self._tell(framed(Ready()))

    def _tell(self, data: bytes) -> None:
        if self._talk is not None and not self._talk.is_closing():
            self._talk.write(data)

    def _close(self) -> None:
        """Answer what was asked; give back what is not whole; take nothing more."""
        self.is_closing = True
        if self._counter is not None:
            self._counter.close()
        for connection in list(self._connections):
            if connection.is_partial:
                connection.give_back()
            elif not connection.is_waiting:
                connection.close()
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if self.is_closing and not self._connections and self._talk is not None:
            self._report()
            self._talk.close()  # once all is written

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    # -- connections -----------------------------------------------------------------------------

    def _take(self, connection: socket.socket, data: bytes) -> None:
        self._loop.create_task(self._let_in(connection, data))

    async def _let_in(self, connection: socket.socket, data: bytes) -> None:
        made = Connection(self, data)
        self._connections.add(made)
        try:
            await self._loop.connect_accepted_socket(lambda: made, connection)
        except OSError:
            self.left(made)
            connection.close()

    def ask(self, exchange: Exchange, found: Found, leave: Callable[[], None]) -> None:
        """Put a request to the house, or refuse it."""
        assert self._counter is not None  # noqa: S101 - the house greets before it sends anybody
        self._counter.ask(exchange, found, leave)

    def served(self, status: int, seconds: float, request_id: str) -> None:
        """Count an answer."""
        self._served.count(status, seconds)
        self._journal.note("POST", PATH, status, seconds, request_id)

    def give_back(self, connection: Connection, data: bytes) -> None:
        """Let the house have a connection, once the answers before are on their way."""
        self._report()  # so that who asks for metrics next finds its own requests there
        self._leave(connection, data, until=perf_counter() + _LEAVE_SECONDS)

    def _leave(self, connection: Connection, data: bytes, *, until: float) -> None:
        transport = connection.transport
        if transport is None or transport.is_closing():
            return
        connection.pause()
        if transport.get_write_buffer_size() and perf_counter() < until:
            leaving = partial(self._leave, connection, data, until=until)
            self._loop.call_later(_LEAVE_LOOK_SECONDS, leaving)
            return
        # Who does not read its answers is not worth more.
        if not transport.get_write_buffer_size():
            self._moves.send(os.dup(transport.get_extra_info("socket").fileno()), data)
        transport.abort()

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._served.left += 1
        if self._served.left == 1:
            self._loop.call_later(_LEFT_SECONDS, self._report)
        self._end_if_empty()

    def _sweep(self) -> None:
        """Give back what takes long to be whole, close what is idle."""
        now = perf_counter()
        for connection in list(self._connections):
            if connection.is_partial and now - connection.since > _PARTIAL_SECONDS:
                connection.give_back()
            elif not connection.is_waiting and now - connection.since > _IDLE_SECONDS:
                connection.close()
        self._report()
        self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _report(self) -> None:
        told = self._served.told()
        if told is not None:
            self._tell(framed(told))


class _Served:
    """Answers since they were last told of, and connections that have left."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.left = 0
        self._statuses: Counts[int] = Counts()
        self._counts = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def count(self, status: int, seconds: float) -> None:
        """Count one."""
        self._statuses[status] += 1
        if status != HTTPStatus.TOO_MANY_REQUESTS:  # as the house's own tally does
            self._counts[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def told(self) -> Served | None:
        """What there is to tell; None if nothing."""
        if not (self._statuses or self.left):
            return None
        told = Served(dict(self._statuses), self._counts, self._seconds, self.left)
        self._clear()
        return told


async def _run(talk: socket.socket, moves: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    process = Process(loop, moves)
    await loop.connect_accepted_socket(lambda: process, talk)
    tune_interpreter()
    await process.ended


def main() -> None:
    """Be a porter until the house is gone."""
    talk, moves = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    configure_logs(as_json="--json-logs" in sys.argv)
    for end in (talk, moves):
        end.settimeout(0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(talk, moves))


if __name__ == "__main__":
    main()
