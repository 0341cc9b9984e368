"""Anything may be sent to `/v1/events`: no 5xx, no unbounded memory, and no byte is lost."""

import gzip
import json
import random
import socket

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.events.body import split_body
from waiting import PATIENCE_SECONDS

from .process import ServerProcess, event

HEADERS = st.sampled_from(
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "application/x-ndjson"},
        {"content-type": "text/plain; charset=utf-16"},
        {"content-encoding": "gzip"},
        {"content-type": "\x7f"},
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["2026-01-01T00:00:00Z", "id", "\ud800", "\x00"])
)
TREES = st.recursive(
    LEAVES, lambda t: st.lists(t, max_size=4) | st.dictionaries(st.text(max_size=5), t, max_size=4)
)
COLUMNS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("id", "ts", "event_type", "discount", "else"), TREES)
)
MANGLED = st.builds(
    lambda text, at, put: text[: at % len(text)] + put + text[at % len(text) :],
    st.just(event("mangled")),
    st.integers(0, 1000),
    st.binary(max_size=3),
)
BODIES = st.one_of(
    st.binary(max_size=200),
    TREES.map(lambda t: json.dumps(t).encode()),
    COLUMNS.map(lambda t: json.dumps(t).encode()),
    MANGLED,
    st.lists(MANGLED | st.binary(max_size=20), max_size=6).map(b"\n".join),
    st.lists(MANGLED, max_size=6).map(lambda r: b"[" + b",".join(r) + b"]"),
    st.integers(1, 100_000).map(lambda n: b"[" * n),
    st.integers(1, 5_000).map(lambda n: b'{"a":' * n + b"1" + b"}" * n),
    st.integers(1, 5_000).map(lambda n: b'{"id":"n","discount":' + b"9" * n + b"}"),
    st.text(max_size=50).map(lambda t: t.encode("utf-16")),
)


def records_of(body: bytes, headers: dict[str, str]) -> list[bytes]:
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return list(split_body(body, content_type=headers.get("content-type"), records_max=2000))


def check(server: ServerProcess, sent: list[tuple[bytes, dict[str, str], httpx.Response]]) -> None:
    kept = server.kept()
    for body, headers, answer in sent:
        assert answer.status_code in {202, 207, 400, 413, 415, 422}, answer.text
        if answer.status_code in {202, 207, 422}:
            first, end = answer.json()["first_offset"], answer.json()["next_offset"]
            assert [kept[o] for o in range(first, end)] == records_of(body, headers)
        else:
            assert set(answer.json()["error"]) == {"code", "message", "request_id"}


def test_whatever_is_sent_is_kept_as_it_came_or_refused(server: ServerProcess) -> None:
    sent: list[tuple[bytes, dict[str, str], httpx.Response]] = []

    with server.client() as client:

        @settings(max_examples=150)
        @given(body=BODIES, headers=HEADERS, is_packed=st.booleans())
        def send(body: bytes, headers: dict[str, str], is_packed: bool) -> None:
            if headers.get("content-encoding") and is_packed:
                body = gzip.compress(body)
            sent.append((body, headers, client.post("/v1/events", content=body, headers=headers)))
            assert sent[-1][2].status_code < 500

        send()
    check(server, sent)


def test_memory_stays_bounded_under_everything_that_is_large(server: ServerProcess) -> None:
    bombs: list[tuple[bytes, dict[str, str]]] = [
        (gzip.compress(b"[" * (50 << 20)), {"content-encoding": "gzip"}),
        (gzip.compress(b"{}\n" * (10 << 20)), {"content-encoding": "gzip"}),
        (gzip.compress(b"") * 40_000, {"content-encoding": "gzip"}),
        (b"[" * (1 << 20), {}),
        (b"[" + b"1," * 400_000 + b"1]", {}),
        (b'{"a":"' + b"\\u0000" * 150_000 + b'"}', {}),
        (b"1" * (1 << 20), {}),
        (b"x" * (3 << 20), {}),
        (b"\n" * (1 << 20), {"content-type": "application/x-ndjson"}),
    ]
    with server.client() as client:

        def send_all() -> None:
            for body, headers in bombs:
                answer = client.post("/v1/events", content=body, headers=headers)
                assert answer.status_code in {400, 413, 422}, answer.text[:200]

        send_all()
        before = server.resident_bytes
        for _ in range(8):
            send_all()
        assert server.resident_bytes - before < 60 << 20
        assert client.get("/healthz").status_code == 200


def test_bytes_on_the_wire_that_are_no_request_end_their_connection_only(
    server: ServerProcess,
) -> None:
    rng = random.Random(7)
    before = complaints(server)
    head = b"POST /v1/events HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    good = head + b"2\r\n{}\r\n0\r\n\r\n"
    for _ in range(60):
        mangled = bytearray(good * 2)
        for _ in range(rng.randrange(1, 6)):
            mangled[rng.randrange(len(mangled))] = rng.randrange(256)
        with server.connect() as connection:
            connection.sendall(mangled)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(PATIENCE_SECONDS)
            while part := connection.recv(65_536):
                assert b"HTTP/1.1 5" not in part
    with server.client() as client:
        assert client.get("/healthz").status_code == 200
    assert complaints(server) == before


def complaints(server: ServerProcess) -> list[str]:
    """What the server has said, but for requests that a slow machine was slow with."""
    return [line for line in server.errors.splitlines() if "event=request_slow" not in line]
