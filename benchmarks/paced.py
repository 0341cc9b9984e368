"""An open-loop generator: requests leave when they are due, however long answers take.

python -m benchmarks.paced PORT FILE FIRST RATE SECONDS START

Latency counts from when a request was due, so that a server that stalls cannot hide it by holding
up the generator. Connections have one request under way at most; a request that is due while all
are taken waits, and its wait counts. The first START seconds, in which every connection has its
first request, are told apart. Prints one line of JSON.

The loop is compiled and calls the system itself: server and generator share the processors, and one
in Python took more of them than the server did.
"""

from __future__ import annotations

import ctypes
import json
import platform
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

_CONNECTIONS = 256
_CONNECTIONS_MAX = 512
_RATE_OF_CONNECTIONS = 6_000.0  # requests a second beyond which there are more of them
_LINES_MAX = 100_000
_PREPARE_SECONDS = 5.0  # from the start of the process on, until what runs beside has begun
_END_SECONDS = 3.0
_PAUSE_MAX = 0.05

_SENT, _REFUSED, _FAILED, _EARLY, _TAKEN = range(5)
_Floats = npt.NDArray[np.float64]


def main(arguments: Sequence[str]) -> None:
    began = time.monotonic()
    port, path, first, rate, seconds, start = arguments
    sender = _Sender(int(port), _lines(Path(path), int(first), int(float(rate) * float(seconds))))
    time.sleep(max(0.0, began + _PREPARE_SECONDS - time.monotonic()))
    print(json.dumps(sender.run(float(rate), float(seconds), float(start))))


def _lines(path: Path, first: int, count: int) -> list[bytes]:
    with path.open("rb") as file:
        found = [line.strip() for line in islice(file, first, first + min(count, _LINES_MAX))]
    if not found:
        raise SystemExit(f"{path} has no line {first}")
    return found


class _Sender:
    def __init__(self, port: int, lines: Sequence[bytes]) -> None:
        head = b"POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
        made = [head + b"content-length: %d\r\n\r\n" % len(line) + line for line in lines]
        self._port = port
        self._payload = np.frombuffer(b"".join(made), dtype=np.uint8)
        self._bounds = np.cumsum([0, *map(len, made)]).astype(np.int64)
        # Compiled before it counts; nothing is sent.
        self._run(1.0, 0, 0.0, [])

    def run(self, rate: float, seconds: float, start: float) -> dict[str, float]:
        """What became of the requests of so many seconds."""
        more = rate > _RATE_OF_CONNECTIONS / 2
        connections = [self._connect() for _ in range(_CONNECTIONS_MAX if more else _CONNECTIONS)]
        latencies, counts = self._run(rate, int(rate * seconds), start, connections)
        early, taken = latencies[0, : counts[_EARLY]], latencies[1, : counts[_TAKEN]]
        p50, p99 = np.percentile(taken, (50, 99)) if len(taken) else (np.nan, np.nan)
        return {
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "max_ms": float(taken.max(initial=0.0)),
            **({"start_p99_ms": float(np.percentile(early, 99))} if len(early) else {}),
            "sent_rate": counts[_SENT] / seconds,
            "accepted_rate": (len(early) + len(taken)) / seconds,
            "sent": float(counts[_SENT]),
            "refused": float(counts[_REFUSED]),
            "failed": float(counts[_FAILED]),
        }

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.settimeout(0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _run(
        self, rate: float, count: int, start: float, connections: Sequence[socket.socket]
    ) -> tuple[_Floats, list[int]]:
        """Milliseconds of those that are early and of the others, and how many of each kind."""
        latencies, counts = np.zeros((2, max(1, count))), np.zeros(5, dtype=np.int64)
        numbers = np.array([connection.fileno() for connection in connections], dtype=np.int64)
        with select.epoll() as epoll:
            for connection in connections:
                epoll.register(connection, select.EPOLLIN)
            given = self._payload, self._bounds, latencies, counts
            _send_when_due(rate, count, start, epoll.fileno(), numbers, *given)
        return latencies, counts.tolist()


# -- the compiled loop -----------------------------------------------------------------------------

_INT, _WORD = ctypes.c_int, ctypes.c_ssize_t  # addresses are words


def _call(name: str, *given: Any) -> Any:
    """A function of the C library, which answers with a word."""
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes, function.restype = given, _WORD
    return function


_send = _call("send", _INT, _WORD, _WORD, _INT)
_receive = _call("recv", _INT, _WORD, _WORD, _INT)
_ready = _call("epoll_wait", _INT, _WORD, _INT, _INT)
_forget = _call("epoll_ctl", _INT, _INT, _INT, _WORD)
_poll = _call("ppoll", _WORD, _WORD, _WORD, _WORD)
_clock = _call("clock_gettime", _INT, _WORD)

_MONOTONIC, _IN, _DELETE, _NO_SIGNAL = 1, 1, 2, 0x4000
_ANSWER_BYTES = 1 << 16
_EVENTS = 256
# An event of epoll in words of four bytes, and where its descriptor stands; packed on one machine.
_STEP, _PLACE = (3, 1) if platform.machine() == "x86_64" else (4, 2)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, njit(function))


@_compiled
def _now(time: Any) -> float:
    _clock(_MONOTONIC, time.ctypes.data)
    return float(time[0] + 1e-9 * time[1])


@_compiled
def _wait(epoll: int, seconds: float, time: Any, polled: Any) -> None:
    """Wait for an answer, to the microsecond: epoll's own waits are milliseconds."""
    time[0], time[1] = 0, int(seconds * 1e9)
    polled[0], polled[1] = epoll, _IN
    _poll(polled.ctypes.data, 1, time.ctypes.data, 0)


@_compiled
def _send_when_due(
    rate: float,
    count: int,
    start: float,
    epoll: int,
    numbers: Any,
    payload: Any,
    bounds: Any,
    latencies: Any,
    counts: Any,
) -> None:
    time, polled = np.zeros(2, np.int64), np.zeros(2, np.int32)
    events, answer = np.zeros(_STEP * _EVENTS, np.int32), np.zeros(_ANSWER_BYTES, np.uint8)
    last = 0 if len(numbers) == 0 else numbers.max()
    due = np.full(last + 1, -1.0)  # by descriptor
    # Those that are free, in the order in which they became so.
    ring, head, free = numbers.copy(), 0, len(numbers)
    sent = under_way = 0
    begun = now = _now(time)
    end = begun + count / rate + _END_SECONDS
    while now < end and (sent < count or under_way > 0):
        until = min(count, int((now - begun) * rate) + 1)
        while sent < until and free > 0:
            connection = ring[head]
            head, free = (head + 1) % len(ring), free - 1
            line = sent % (len(bounds) - 1)
            size = bounds[line + 1] - bounds[line]
            place = payload.ctypes.data + bounds[line]
            if _send(connection, place, size, _NO_SIGNAL) == size:
                due[connection] = begun + sent / rate
                under_way += 1
            else:
                counts[_FAILED] += 1
            sent += 1
        pause = _PAUSE_MAX
        if free > 0:
            pause = min(pause, begun + sent / rate - _now(time))
        if pause > 0:
            _wait(epoll, pause, time, polled)
        for e in range(_ready(epoll, events.ctypes.data, _EVENTS, 0)):
            connection = events[_STEP * e + _PLACE]
            read = _receive(connection, answer.ctypes.data, _ANSWER_BYTES, 0)
            was_due, due[connection] = due[connection], -1.0
            if read <= 0:
                _forget(epoll, _DELETE, connection, 0)
            if was_due < 0:
                continue
            under_way -= 1
            if read <= 0:
                counts[_FAILED] += 1
                continue
            status = 100 * answer[9] + 10 * answer[10] + answer[11] - 111 * 48
            if status == 200:
                kind = 0 if was_due < begun + start else 1
                latencies[kind, counts[_EARLY + kind]] = (_now(time) - was_due) * 1000
                counts[_EARLY + kind] += 1
            elif status == 429:
                counts[_REFUSED] += 1
            else:
                counts[_FAILED] += 1
            ring[(head + free) % len(ring)] = connection
            free += 1
        now = _now(time)
    counts[_SENT], counts[_FAILED] = sent, counts[_FAILED] + under_way
    time[0] = polled[0] = events[0] = answer[0] = 0  # what is not used any more may be freed


if __name__ == "__main__":
    main(sys.argv[1:])
