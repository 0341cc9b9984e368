"""An open-loop generator: requests leave when they are due, however long answers take.

python -m benchmarks.paced PORT FILE FIRST RATE SECONDS START

Latency counts from when a request was due, so that a server that stalls cannot hide it by holding
up the generator. Each process has connections with one request under way at most; a request that
is due while all are taken waits, and its wait counts. The first START seconds, in which every
connection has its first request, are told apart. Prints one line of JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import select
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

CONNECTIONS = 256
_PROCESSES_MAX = 2
_RATE_OF_ONE = 6_000.0  # requests a second that one process sends with ease
_END_SECONDS = 3.0


def main(arguments: Sequence[str]) -> None:
    port, path, first, rate, seconds, start = arguments
    count = max(1, min(_PROCESSES_MAX, round(float(rate) / _RATE_OF_ONE + 0.5)))
    share = float(rate) / count
    lines = int(share * float(seconds)) + 1
    context = multiprocessing.get_context("spawn")
    with context.Pool(count) as pool:
        begin = time.time() + 2.0
        work = [
            (int(port), path, int(first) + i * lines, share, float(seconds), float(start), begin)
            for i in range(count)
        ]
        parts = pool.starmap(send, work)
    print(json.dumps(_joined(parts, float(seconds))))


def _joined(parts: Sequence[dict[str, list[float]]], seconds: float) -> dict[str, float]:
    early, taken = (np.concatenate([p[k] for p in parts]) for k in ("early_ms", "taken_ms"))
    told = {k: float(sum(p[k][0] for p in parts)) for k in ("sent", "refused", "failed")}
    p50, p99 = np.percentile(taken, (50, 99)) if len(taken) else (np.nan, np.nan)
    return {
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(taken.max(initial=0.0)),
        **({"start_p99_ms": float(np.percentile(early, 99))} if len(early) else {}),
        "sent_rate": told["sent"] / seconds,
        "accepted_rate": (len(early) + len(taken)) / seconds,
        **told,
    }


def send(
    port: int, path: str, first: int, rate: float, seconds: float, start: float, begin: float
) -> dict[str, list[float]]:
    """Send for so long; latencies in ms of what was decided, and counts of the rest."""
    requests = _requests(Path(path), first, int(rate * seconds))
    sender = _Sender(port, requests, start)
    time.sleep(max(0.0, begin - time.time()))
    return sender.run(rate)


def _requests(path: Path, first: int, count: int) -> list[bytes]:
    head = b"POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
    with path.open("rb") as file:
        lines = [line.strip() for line in islice(file, first, first + min(count, 100_000))]
    if not lines:
        raise SystemExit(f"{path} has no line {first}")
    made = [head + b"content-length: %d\r\n\r\n" % len(line) + line for line in lines]
    return [made[i % len(made)] for i in range(count)]


class _Sender:
    def __init__(self, port: int, requests: list[bytes], start: float) -> None:
        self._requests, self._start = requests, start
        self._free: deque[socket.socket] = deque()
        self._due: dict[socket.socket, float] = {}
        self._selector = selectors.DefaultSelector()
        self.early: list[float] = []
        self.taken: list[float] = []
        self.refused = self.failed = 0
        for _ in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.settimeout(0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ)
            self._free.append(connection)

    def run(self, rate: float) -> dict[str, list[float]]:
        count, sent = len(self._requests), 0
        begun = time.perf_counter()
        self._start += begun
        end = begun + count / rate
        while (now := time.perf_counter()) < end + _END_SECONDS and (sent < count or self._due):
            until = min(count, int((now - begun) * rate) + 1)
            while sent < until and self._free:
                connection = self._free.popleft()
                connection.send(self._requests[sent])
                self._due[connection] = begun + sent / rate
                sent += 1
            pause = max(0.0, begun + sent / rate - time.perf_counter()) if self._free else 0.05
            self._wait(min(pause, 0.05))
            for key, _ in self._selector.select(0):
                self._read(key.fileobj)  # type: ignore[arg-type] # a socket, as registered
        self.failed += len(self._due)
        return {
            "early_ms": self.early,
            "taken_ms": self.taken,
            "sent": [sent],
            "refused": [self.refused],
            "failed": [self.failed],
        }

    def _wait(self, seconds: float) -> None:
        """Wait for an answer, to the microsecond: the selector's own waits are milliseconds."""
        if seconds > 0:
            select.select([self._selector], [], [], seconds)

    def _read(self, connection: socket.socket) -> None:
        answer = connection.recv(65_536)
        due = self._due.pop(connection, None)
        if not answer:
            self._selector.unregister(connection)
            self.failed += due is not None
            return
        if due is None:
            return
        status = answer[9:12]
        if status == b"200":
            taken = self.early if due < self._start else self.taken
            taken.append((time.perf_counter() - due) * 1000)
        elif status == b"429":
            self.refused += 1
        else:
            self.failed += 1
        self._free.append(connection)


if __name__ == "__main__":
    main(sys.argv[1:])
