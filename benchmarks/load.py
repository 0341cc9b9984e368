"""Load on a server, from a process of its own: requests are made before the clock starts.

python -m benchmarks.load batches PORT FILE CONNECTIONS LINES
python -m benchmarks.load singles PORT PATH FILE FIRST CONNECTIONS SECONDS
"""

from __future__ import annotations

import json
import re
import select
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.corpus import batches
from benchmarks.process import Use

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_NEXT_OFFSET = re.compile(rb'"next_offset":(\d+)')
_LINES_OF_SINGLES = 200_000


def request(path: str, body: bytes, *, content_type: str) -> bytes:
    """A request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _whole(answer: bytes) -> bool:
    head = answer.find(b"\r\n\r\n")
    length = _LENGTH.search(answer, 0, head) if head >= 0 else None
    return length is not None and len(answer) >= head + 4 + int(length[1])


# -- batches: blocking connections, a thread for each ----------------------------------------------


class Sender(Thread):
    """Sends requests one after the other; one that is told to wait is sent again."""

    def __init__(self, port: int, waiting: deque[bytes]) -> None:
        super().__init__()
        self.next_offset = 0
        self.held_back = 0
        self.refused: list[bytes] = []
        self._waiting = waiting
        self._connection = _connect(port)

    def run(self) -> None:
        while self._waiting:
            try:
                body = self._waiting.popleft()
            except IndexError:
                return
            self._send(body)

    def _send(self, body: bytes) -> None:
        while True:
            self._connection.sendall(body)
            answer = self._receive()
            status = answer[9:12]
            if status != b"429":
                break
            self.held_back += 1
            time.sleep(0.1)
        if status != b"202":
            self.refused.append(answer)
        elif found := _NEXT_OFFSET.search(answer):
            self.next_offset = max(self.next_offset, int(found[1]))

    def _receive(self) -> bytes:
        answer = b""
        while not _whole(answer):
            more = self._connection.recv(65536)
            if not more:
                raise ConnectionError(f"the server closed the connection after {answer!r}")
            answer += more
        return answer


def send_batches(port: int, file: Path, *, connections: int, lines: int) -> dict[str, Any]:
    """Send the file by several connections; when it began and ended, and the offset reached."""
    waiting = deque(
        request("/v1/events", batch, content_type="application/x-ndjson")
        for batch in batches(file, lines=lines)
    )
    requests = len(waiting)
    senders = [Sender(port, waiting) for _ in range(connections)]
    before, started = Use.now(), time.perf_counter()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    ended, after = time.perf_counter(), Use.now()
    refused = [answer for sender in senders for answer in sender.refused]
    if refused:
        raise SystemExit(f"{len(refused)} requests were refused: {refused[0]!r}")
    return {
        "requests": requests,
        "started": started,
        "acknowledged": ended,
        "next_offset": max(s.next_offset for s in senders),
        "held_back": sum(s.held_back for s in senders),
        "cpu_seconds": after.seconds - before.seconds,
    }


# -- singles: many connections on one thread; used where there is no wrk ---------------------------


class Client:
    """A connection that has always one request under way."""

    __slots__ = ("answer", "connection", "sent_at")

    def __init__(self, port: int) -> None:
        self.connection = _connect(port)
        self.answer = b""
        self.sent_at = 0.0

    def send(self, body: bytes) -> None:
        self.answer = b""
        self.sent_at = time.perf_counter()
        self.connection.sendall(body)

    def receive(self) -> bool:
        """Take what has come; True when the answer is whole. Raises: ConnectionError."""
        more = self.connection.recv(65536)
        if not more:
            raise ConnectionError("the server closed the connection")
        self.answer += more
        return _whole(self.answer)


def send_singles(
    port: int, path: str, records: list[bytes], *, connections: int, seconds: float
) -> dict[str, Any]:
    """Post records one by one for a while; counts, and latencies in microseconds."""
    bodies = cycle([request(path, r, content_type="application/json") for r in records])
    clients = [Client(port) for _ in range(connections)]
    poller = select.epoll()
    by_number = {c.connection.fileno(): c for c in clients}
    for number in by_number:
        poller.register(number, select.EPOLLIN)
    before, started = Use.now(), time.perf_counter()
    for client in clients:
        client.send(next(bodies))
    latencies, errors = _converse(poller, by_number, bodies, until=started + seconds)
    elapsed, used = time.perf_counter() - started, Use.now()
    cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    return {
        "requests": len(latencies),
        "seconds": elapsed,
        "errors": errors,
        "p50_us": cuts[49] * 1e6,
        "p99_us": cuts[98] * 1e6,
        "cpu_seconds": used.seconds - before.seconds,
    }


def _converse(
    poller: select.epoll, clients: dict[int, Client], bodies: Iterator[bytes], *, until: float
) -> tuple[list[float], int]:
    latencies: list[float] = []
    errors = 0
    while time.perf_counter() < until:
        for number, _ in poller.poll(0.1):
            client = clients[number]
            if client.receive():
                latencies.append(time.perf_counter() - client.sent_at)
                errors += client.answer[9:12] != b"202"
                client.send(next(bodies))
    return latencies, errors


def main(what: str, port: str, *more: str) -> None:
    if what == "batches":
        file, connections, lines = more
        found = send_batches(int(port), Path(file), connections=int(connections), lines=int(lines))
    else:
        path, file, first, connections, seconds = more
        with Path(file).open("rb") as opened:
            chosen = islice(opened, int(first), int(first) + _LINES_OF_SINGLES)
            records = [line.rstrip() for line in chosen]
        found = send_singles(
            int(port), path, records, connections=int(connections), seconds=float(seconds)
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
