"""What senders may do to a connection: drip, lie, cut off, pipeline, fill; and what they get."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from uuid import uuid4

import pytest

from waiting import PATIENCE_SECONDS

from .process import ServerProcess, end, event, launch

TIMEOUT = 4  # of the hasty server, in seconds


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that does not wait long for the rest of a request."""
    settings = f'request_timeout = "{TIMEOUT} seconds"\n'
    running = launch(tmp_path_factory.mktemp("hasty"), settings=settings)
    yield running
    end(running)


def request(body: bytes, *, path: str = "/v1/events", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + body


def said(connection: socket.socket, *, seconds: float = PATIENCE_SECONDS) -> bytes:
    """All that the server says until it closes or falls silent for so long."""
    connection.settimeout(seconds)
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except (TimeoutError, ConnectionResetError):
        pass
    return b"".join(parts)


def answered(connection: socket.socket, count: int) -> bytes:
    """So many answers, on a connection that stays open; and what else is said at once."""
    text = b""
    connection.settimeout(PATIENCE_SECONDS)
    while whole(text) < count and (part := connection.recv(65_536)):
        text += part
    return text + said(connection, seconds=0.2)


def whole(text: bytes) -> int:
    """How many answers have come whole."""
    count = 0
    while (found := re.search(rb"content-length: (\d+)(?s:.*?)\r\n\r\n", text)) and (
        len(text) >= (end_of := found.end() + int(found[1]))
    ):
        count, text = count + 1, text[end_of:]
    return count


def statuses(text: bytes) -> list[int]:
    return [int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3})", text)]


def code(text: bytes) -> str:
    shape = rb'"error":\{"code":"(\w+)","message":"[^"]+","request_id":"[^"]+"\}'
    found: list[bytes] = re.findall(shape, text)
    return found[-1].decode()


def test_what_does_not_arrive_whole_in_time_is_given_up(hasty: ServerProcess) -> None:
    begun = time.monotonic()
    sent = [b"POST /v1/ev", b"GET / HTTP/1.1\r\nhost: h\r\nx: ", request(b"{", length=1000), b""]
    connections = [hasty.connect() for _ in sent]
    for connection, part in zip(connections, sent, strict=True):
        connection.sendall(part)
    answers = [said(connection) for connection in connections]
    assert [statuses(a) for a in answers] == [[408], [408], [408], []]
    assert {code(a) for a in answers if a} == {"request_timeout"}
    assert time.monotonic() - begun > TIMEOUT - 0.5
    for connection in connections:
        connection.close()


def test_a_body_that_drips_is_given_up_as_well(hasty: ServerProcess) -> None:
    begun = time.monotonic()
    with hasty.connect() as connection:
        connection.sendall(request(b"{", length=1000))
        connection.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() - begun < PATIENCE_SECONDS:
            connection.sendall(b" ")
            with suppress(TimeoutError):
                answer = connection.recv(65_536)
    assert (statuses(answer), code(answer)) == ([408], "request_timeout")


def test_a_body_that_is_shorter_than_announced_is_not_taken(server: ServerProcess) -> None:
    record = event(uuid4().hex)
    with server.connect() as connection:
        connection.sendall(request(record, length=len(record) + 10))
        connection.shutdown(socket.SHUT_WR)
        assert code(said(connection)) == "cut_off"
    assert record not in server.kept().values()


def test_a_body_that_is_longer_than_announced_is_cut_and_the_rest_refused(
    server: ServerProcess,
) -> None:
    record = event(uuid4().hex)
    with server.connect() as connection:
        connection.sendall(request(record + b" and more", length=len(record)))
        answer = said(connection)
    assert statuses(answer)[0] == 202
    assert record in server.kept().values()


def test_who_has_said_all_and_only_listens_is_answered(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.sendall(request(event(uuid4().hex)) * 3)
        connection.shutdown(socket.SHUT_WR)
        assert statuses(said(connection)) == [202] * 3


def test_a_chunked_body_that_is_cut_off_is_not_taken(server: ServerProcess) -> None:
    record = event(uuid4().hex)
    head = b"POST /v1/events HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(record), record))
        connection.shutdown(socket.SHUT_WR)
        assert code(said(connection)) == "cut_off"
    assert record not in server.kept().values()


def test_a_broken_chunk_is_refused_in_the_one_shape(server: ServerProcess) -> None:
    head = b"POST /v1/events HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head + b"3\r\n{} \r\nzz\r\n")
        answer = said(connection)
    assert (statuses(answer), code(answer)) == ([400], "bad_http")


def test_what_is_no_http_is_refused_in_the_one_shape(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = said(connection)
    assert (statuses(answer), code(answer)) == ([400], "bad_http")
    assert b"content-type: application/json" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 100_000,
        b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
        b"GET /" + b"a" * 100_000,
    ],
)
def test_a_head_without_measure_is_refused(server: ServerProcess, head: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(head)
        answer = said(connection)
    assert (statuses(answer), code(answer)) == ([431], "head_too_large")


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    records = [event(uuid4().hex) for _ in range(20)]
    with server.connect() as connection:
        connection.sendall(b"".join(map(request, records)))
        answer = answered(connection, 20)
    assert statuses(answer) == [202] * 20
    kept = server.kept()
    offsets = [int(o) for o in re.findall(rb'"first_offset":(\d+)', answer)]
    assert [kept[o] for o in offsets] == records


def test_garbage_behind_good_requests_does_not_take_their_answers(server: ServerProcess) -> None:
    records = [event(uuid4().hex) for _ in range(3)]
    with server.connect() as connection:
        connection.sendall(b"".join(map(request, records)) + b"\x00garbage\r\n\r\n")
        answer = said(connection)
    assert statuses(answer)[:3] == [202] * 3
    assert set(records) <= set(server.kept().values())


def test_a_broken_body_behind_a_good_request_is_refused_in_its_turn(server: ServerProcess) -> None:
    record = event(uuid4().hex)
    broken = b"POST /v1/events HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
    with server.connect() as connection:
        connection.sendall(request(record) + broken)
        answer = said(connection)
    assert statuses(answer) == [202, 400]
    assert code(answer) == "bad_http"
    assert record in server.kept().values()


def test_who_sends_too_much_reads_why_and_does_not_hang(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.sendall(request(b"x" * 300_000, length=5 << 20))
        answer = answered(connection, 1)
    assert (statuses(answer), code(answer)) == ([413], "body_too_large")


def test_who_goes_on_sending_after_a_refusal_is_cut_off(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.sendall(request(b"", length=1 << 40))
        with pytest.raises(OSError, match=r"[Rr]eset|[Bb]roken"):
            connection.sendall(b"x" * (60 << 20))


def test_an_expectation_is_answered_before_the_body_is_sent(server: ServerProcess) -> None:
    head = (
        b"POST /v1/events HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    )
    record = event(uuid4().hex)
    with server.connect() as connection:
        connection.sendall(head % (5 << 20))
        assert statuses(answered(connection, 1)) == [413]
    with server.connect() as connection:
        connection.sendall(head % len(record))
        assert statuses(connection.recv(1000)) == [100]
        connection.sendall(record)
        assert statuses(connection.recv(1000)) == [202]


def test_an_offer_to_upgrade_is_left_alone(server: ServerProcess) -> None:
    upgrade = b"connection: upgrade\r\nupgrade: %s\r\ncontent-length: 0\r\n\r\n"
    for protocol in (b"h2c", b"websocket"):
        with server.connect() as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: h\r\n" + upgrade % protocol)
            assert statuses(answered(connection, 1)) == [200]


def test_trailers_are_no_headers(server: ServerProcess) -> None:
    record = event(uuid4().hex)
    head = b"POST /v1/events HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n0\r\ncontent-encoding: gzip\r\n\r\n" % (len(record), record)
    with server.connect() as connection:
        connection.sendall(head + chunk)
        assert statuses(answered(connection, 1)) == [202]


def test_slow_senders_together_hold_no_more_than_the_budget(hasty: ServerProcess) -> None:
    """2 MiB may be held; eight senders of 600 KB each that do not end would hold more."""
    connections = [hasty.connect() for _ in range(8)]
    try:
        for connection in connections:
            connection.sendall(request(b" " * 600_000, length=700_000))
        answers = [said(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    codes = sorted(code(a) for a in answers)
    assert set(codes) == {"overloaded", "request_timeout"}
    assert 3 <= codes.count("overloaded") <= 5
