"""Connections on their way between two processes, with the bytes that were read of them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

# A request that a porter gave up on, and what came behind it, must fit into one message.
BYTES_MAX = 160 << 10
_BUFFER_BYTES = 512 << 10

Taken = Callable[[socket.socket, bytes], None]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep messages apart."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
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
        self._waiting: deque[tuple[int, bytes]] = deque()
        loop.add_reader(end.fileno(), self._receive)

    def send(self, connection: int, data: bytes) -> bool:
        """Give a connection away, whose descriptor is closed here; False if that cannot be."""
        if len(data) > BYTES_MAX:
            os.close(connection)
            return False
        self._waiting.append((connection, data))
        if len(self._waiting) == 1:
            self._send()
        return True

    def close(self) -> None:
        """Close this end, and the connections that were not taken."""
        if self._end.fileno() < 0:
            return
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        while self._waiting:
            os.close(self._waiting.popleft()[0])
        self._end.close()

    def _send(self) -> None:
        """Send what waits; the rest when there is room."""
        while self._waiting:
            connection, data = self._waiting[0]
            try:
                # A message of no bytes would look like the end.
                socket.send_fds(self._end, [b"+", data], [connection])
            except BlockingIOError:
                self._loop.add_writer(self._end.fileno(), self._send)
                return
            except OSError:  # the other end is gone; the reader sees that as well
                pass
            self._waiting.popleft()
            os.close(connection)
        self._loop.remove_writer(self._end.fileno())

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            while True:
                try:
                    data, descriptors, _, _ = socket.recv_fds(self._end, BYTES_MAX + 1, 1)
                except ConnectionError:
                    data, descriptors = b"", []
                if not data:
                    self._loop.remove_reader(self._end.fileno())
                    self._ended()
                    return
                for descriptor in descriptors:
                    connection = socket.socket(fileno=descriptor)
                    connection.settimeout(0)
                    self._taken(connection, data[1:])
