"""Connections on their way between two processes, with the bytes that were read of them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_PART_BYTES = 32 << 10  # of one message; the system bounds them
_MORE, _LAST = b"+", b"."

Taken = Callable[[socket.socket, bytes], None]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep messages apart."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.settimeout(0)
    return ends


class Moves:
    """One end; `taken` is told each connection that comes, `ended` when the other end is gone.

    All of it belongs to the loop's thread.
    """

    def __init__(
        self,
        end: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        taken: Taken,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._end, self._loop = end, loop
        self._taken, self._ended = taken, ended
        self._waiting: deque[tuple[int | None, bytes]] = deque()  # messages, some with a connection
        self._coming: tuple[socket.socket, bytes] | None = None  # not all of its bytes are here
        loop.add_reader(end.fileno(), self._receive)

    def send(self, connection: int, data: bytes) -> None:
        """Give a connection away, by a descriptor that is closed here when it has gone."""
        was_idle = not self._waiting
        parts = [data[i : i + _PART_BYTES] for i in range(0, len(data), _PART_BYTES)] or [b""]
        descriptors = [connection, *([None] * (len(parts) - 1))]
        marks = [*([_MORE] * (len(parts) - 1)), _LAST]
        self._waiting += zip(descriptors, map(bytes.__add__, marks, parts), strict=True)
        if was_idle:
            self._send()

    def close(self) -> None:
        """Close this end, and the connections that were not taken."""
        if self._end.fileno() < 0:
            return
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        for connection, _ in self._waiting:
            if connection is not None:
                os.close(connection)
        self._waiting.clear()
        if self._coming is not None:
            self._coming[0].close()
        self._end.close()

    def _send(self) -> None:
        """Send what waits; the rest when there is room."""
        while self._waiting:
            connection, message = self._waiting[0]
            try:
                socket.send_fds(self._end, [message], [] if connection is None else [connection])
            except BlockingIOError:
                self._loop.add_writer(self._end.fileno(), self._send)
                return
            except OSError:  # the other end is gone; the reader sees that as well
                pass
            self._waiting.popleft()
            if connection is not None:
                os.close(connection)
        self._loop.remove_writer(self._end.fileno())

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            while True:
                try:
                    message, given, _, _ = socket.recv_fds(self._end, 1 + _PART_BYTES, 1)
                except ConnectionError:
                    message, given = b"", []
                if not message:
                    self._loop.remove_reader(self._end.fileno())
                    self._ended()
                    return
                self._put_together(message, given)

    def _put_together(self, message: bytes, given: list[int]) -> None:
        """Tell of a connection once all that was read of it is here."""
        if given:
            connection = socket.socket(fileno=given[0])
            connection.settimeout(0)
            self._coming = connection, b""
        if self._coming is None:
            return  # its descriptor could not be taken: too many are open
        connection, data = self._coming
        data += message[1:]
        self._coming = None if message[:1] == _LAST else (connection, data)
        if self._coming is None:
            self._taken(connection, data)
