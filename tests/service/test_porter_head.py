"""What a porter takes for a request is what the house's own parser makes of the same bytes."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.service.exchange import BODY_BYTES_MAX
from tidegate.service.porter.head import HEAD_BYTES_MAX, NotPlain, Reader

BODY = b'{"id":"p1"}'


def request(
    *headers: bytes, target: bytes = b"/v1/score", body: bytes = BODY, length: bytes | None = None
) -> bytes:
    told = b"%d" % len(body) if length is None else length
    lines = [b"POST %s HTTP/1.1" % target, b"host: h", *headers, b"content-length: " + told]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_a_plain_request_is_found_whole_and_what_is_behind_it_left_alone() -> None:
    data = request(
        b"Authorization: Bearer tg_1", b"X-Request-Id: r7", b"Content-Type: application/json"
    )
    found = Reader().find(data + b"POST /v1/sc")
    assert found is not None
    assert (found.body, found.size) == (BODY, len(data))
    head = found.head
    assert (head.authorization, head.request_id) == (b"Bearer tg_1", b"r7")
    assert head.timeout_ms is None


def test_a_request_is_awaited_until_its_last_byte() -> None:
    data = request()
    assert all(Reader().find(data[:size]) is None for size in range(len(data)))
    assert Reader().find(data) is not None


def test_a_time_is_read_from_the_query() -> None:
    found = Reader().find(request(target=b"/v1/score?timeout_ms=250"))
    assert found is not None
    assert found.head.timeout_ms == 250


def test_heads_that_come_again_mean_the_same() -> None:
    reader = Reader()
    first, second = (
        reader.find(request(b"a: b")),
        reader.find(request(b"a: b", body=b'{"id":"p2"}')),
    )
    assert first is not None
    assert second is not None
    assert (first.head, second.body) == (second.head, b'{"id":"p2"}')


@pytest.mark.parametrize(
    "data",
    [
        request().replace(b"POST", b"GET", 1),
        request().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        request().replace(b"/v1/score", b"http://h/v1/score", 1),
        request(target=b"/v1/events"),
        request(target=b"/v1/score?timeout_ms=0"),
        request(target=b"/v1/score?timeout_ms=60001"),
        request(target=b"/v1/score?other=1"),
        request(body=b'[{"id":"p1"}]'),
        request(body=b'{"id":"p1"}\n{"id":"p2"}'),
        request(body=b"", length=b"0"),
        request(length=b"+11"),
        request(length=b"1_1"),
        request(length=b"%d" % (BODY_BYTES_MAX + 1)),
        request(b"content-length: 11"),
        request(b"transfer-encoding: chunked"),
        request(b"content-encoding: gzip"),
        request(b"content-type: text/plain"),
        request(b"expect: 100-continue"),
        request(b"connection: close"),
        request(b"connection: upgrade", b"upgrade: h2c"),
        request(b"authorization: Bearer a", b"authorization: Bearer b"),
        request(b"a: b\r\n folded"),
        request(b"a : b"),
        request(b"no colon"),
        request(b"a: b\nc: d"),
        request(b"a: \x00"),
        b"\r\n" + request(),
        b"x" * (HEAD_BYTES_MAX + 1),
    ],
)
def test_whatever_is_not_plain_is_left_to_the_house(data: bytes) -> None:
    with pytest.raises(NotPlain):
        Reader().find(data)


class _Parsed:
    """What the house's parser says of a request."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.url, self.body, self.is_whole = b"", b"", False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"Content-Type: application/json",
                b"content-length: 11",
                b"Connection: keep-alive",
                b"Connection: close",
                b"Authorization:Bearer tg_1",
                b"authorization: \t x ",
                b"X-Request-Id: order-7",
                b"Transfer-Encoding: chunked",
                b"accept: */*",
                b": empty",
                b" folded",
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=5,
)


@given(LINES, st.sampled_from([b"/v1/score", b"/v1/score?timeout_ms=7", b"/v1/score/", b"*"]))
def test_what_it_takes_the_houses_parser_reads_alike(lines: list[bytes], target: bytes) -> None:
    data = request(*lines, target=target)
    try:
        found = Reader().find(data)
    except NotPlain:
        return
    assert found is not None
    parsed = _Parsed(data[: found.size])
    assert parsed.is_whole
    assert (parsed.body, parsed.url) == (found.body, target)
    assert parsed.parser.get_method() == b"POST"
    assert parsed.parser.should_keep_alive()
    assert parsed.headers.get(b"authorization", b"").strip() == (found.head.authorization or b"")
    assert parsed.headers.get(b"x-request-id", b"") == found.head.request_id
