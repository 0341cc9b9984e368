"""The short way of small requests answers as the application does, and keeps HTTP's rules."""

import json
import re
import socket
from collections.abc import Callable
from uuid import uuid4

import pytest

from waiting import PATIENCE_SECONDS

from .process import ServerProcess, event

PLAIN = b"POST /v1/events HTTP/1.1\r\nhost: h\r\nx-request-id: r-1\r\n"
BODIES: dict[str, Callable[[], bytes]] = {
    "event": lambda: event(uuid4().hex),
    "array": lambda: b"[" + event(uuid4().hex) + b"," + event(uuid4().hex) + b"]",
    "lines": lambda: event(uuid4().hex) + b"\n" + event(uuid4().hex) + b"\n",
    "partly": lambda: event(uuid4().hex) + b'\n{"id": 1',
    "no_event": lambda: b'{"id": 7}',
    "no_json": lambda: b"\xff\xfe",
    "nothing": lambda: b"",
    "blank": lambda: b" \n ",
    "empty_array": lambda: b"[]",
}


def short(body: bytes, *, head: bytes = b"") -> bytes:
    return PLAIN + head + b"content-length: %d\r\n\r\n" % len(body) + body


def long(body: bytes, *, head: bytes = b"") -> bytes:
    """The same in chunks, which only the application takes."""
    chunks = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    return PLAIN + head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def answers(connection: socket.socket, count: int) -> list[tuple[int, dict[str, str], object]]:
    """Status, headers and body of the next answers on a connection."""
    connection.settimeout(PATIENCE_SECONDS)
    text = b""
    found: list[tuple[int, dict[str, str], object]] = []
    while len(found) < count:
        head, end, rest = text.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length and len(rest) >= int(length[1]):
            lines = head.decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:])
            size = int(length[1])
            found.append((int(lines[0].split()[1]), headers, json.loads(rest[:size])))
            text = rest[size:]
            continue
        part = connection.recv(65_536)
        assert part, f"closed after {len(found)} answers and {text!r}"
        text += part
    return found


def without_offsets(body: object) -> object:
    """The body of an answer, its offsets counted from its own first one."""
    if not isinstance(body, dict) or "first_offset" not in body:
        return body
    first = body["first_offset"]
    letters = [d | {"id": d["id"] - first} for d in body.get("dead_letters", [])]
    return (
        body
        | {"first_offset": 0, "next_offset": body["next_offset"] - first}
        | ({"dead_letters": letters} if letters else {})
    )


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("head", [b"", b"content-type: text/html\r\n"], ids=["json", "html"])
def test_both_ways_answer_alike(server: ServerProcess, kind: str, head: bytes) -> None:
    found = []
    for way in (short, long):
        with server.connect() as connection:
            connection.sendall(way(BODIES[kind](), head=head))
            ((status, headers, body),) = answers(connection, 1)
        kept = {n: v for n, v in headers.items() if n not in ("date", "content-length")}
        found.append((status, kept, without_offsets(body)))
    assert found[0] == found[1]
    assert found[0][1]["x-request-id"] == "r-1"


def test_pipelined_requests_are_answered_in_their_order(server: ServerProcess) -> None:
    ids = [uuid4().hex for _ in range(6)]
    requests = [short(event(i)) if n % 2 else long(event(i)) for n, i in enumerate(ids)]
    with server.connect() as connection:
        connection.sendall(b"".join(requests))
        found = answers(connection, 6)
    bodies = [body for _, _, body in found]
    assert all(isinstance(b, dict) for b in bodies)
    offsets = [b["first_offset"] for b in bodies if isinstance(b, dict)]
    kept = server.kept()
    assert [kept[offset] for offset in offsets] == [event(i) for i in ids]


def test_a_connection_is_kept_and_closed_as_asked(server: ServerProcess) -> None:
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(short(event(uuid4().hex)))
            ((status, headers, _),) = answers(connection, 1)
            assert (status, headers.get("connection")) == (202, None)
        connection.sendall(short(event(uuid4().hex), head=b"connection: close\r\n"))
        ((status, headers, _),) = answers(connection, 1)
        assert (status, headers["connection"]) == (202, "close")
        assert connection.recv(1) == b""


def test_what_a_sender_left_behind_is_taken_all_the_same(server: ServerProcess) -> None:
    record = event(uuid4().hex)
    with server.connect() as connection:
        connection.sendall(short(record))
    with server.client() as client:
        answer = client.post("/v1/events", content=event(uuid4().hex))
    assert answer.status_code == 202
    assert record in server.kept().values()


def test_a_body_larger_than_the_short_way_takes_is_taken_the_other(server: ServerProcess) -> None:
    body = b"\n".join(event(uuid4().hex) for _ in range(1_000))
    with server.connect() as connection:
        connection.sendall(short(body))
        ((status, _, found),) = answers(connection, 1)
    assert (status, len(body) > 64 << 10) == (202, True)
    assert isinstance(found, dict)
    assert found["accepted"] == 1_000
