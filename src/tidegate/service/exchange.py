"""A small request answered without a task and an application between: the short way.

What a checkout waits for is one event in a body of some hundred bytes. The application's own way
(a task, middleware, routing, two messages for an answer) takes most of the time that such a request
costs. A request of a hot route whose head is plain goes the short way; whatever else it may be
(compressed, chunked, large, pipelined, of an old HTTP) goes to the application, which has the same
routes and answers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TypeAlias

from tidegate.errors import TidegateError
from tidegate.service.errors import refusal_of
from tidegate.service.requests import RequestIds

BODY_BYTES_MAX = 64 << 10
_ELSEWHERE = frozenset({b"transfer-encoding", b"content-encoding", b"upgrade", b"expect"})

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


def is_one_record(body: bytes) -> bool:
    """Whether the whole body is one record, as `split_body` would find at more cost."""
    return body[:1] == b"{" and body[-1:] == b"}" and b"\n" not in body


class _Nobody:
    """Stands for the event that the application's way waits on: here nobody waits."""

    __slots__ = ()

    def set(self) -> None:
        """Nothing."""


_NOBODY = _Nobody()
_ANSWER = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"
_SCOPE: dict[str, dict[str, object]] = {"state": {}}  # nothing that an application would note


class Exchange:
    """One request and its answer.

    It has what the HTTP library asks of a request that is under way: whether it is answered,
    whether the sender is gone, the body so far. All of it belongs to the loop's thread.
    """

    __slots__ = (
        "_send",
        "authorization",
        "began",
        "body",
        "content_type",
        "disconnected",
        "keep_alive",
        "message_event",
        "more_body",
        "path",
        "query",
        "request_id",
        "response_complete",
        "response_started",
    )

    scope = _SCOPE

    def __init__(self, path: bytes, query: bytes, send: Send) -> None:
        self.path, self.query = path, query
        self.began = perf_counter()
        self.body = bytearray()
        self.authorization: bytes | None = None
        self.content_type = b""
        self.request_id = ""
        self.keep_alive = self.more_body = True
        self.disconnected = self.response_started = self.response_complete = False
        self.message_event = _NOBODY
        self._send = send

    def accepts(self, headers: Headers, ids: RequestIds) -> bool:
        """Take note of the head; False for a request that is to go the application's way."""
        length, given = -1, b""
        for name, value in headers:
            if name == b"content-length":
                length = int(value[:10]) if value.isdigit() else -1
            elif name == b"content-type":
                self.content_type = value
            elif name == b"authorization":
                self.authorization = value
            elif name == b"x-request-id":
                given = value
            elif name in _ELSEWHERE:
                return False
        self.request_id = ids.of(((b"x-request-id", given),)) if given else ids.make()
        return 0 <= length <= BODY_BYTES_MAX

    def answer(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send the answer, if there is anybody left to read it; only the first call counts."""
        if self.response_complete:
            return
        self.response_started = self.response_complete = True
        more = b"".join([b"%b: %b\r\n" % header for header in headers]) if headers else b""
        if not self.keep_alive:
            more += b"connection: close\r\n"
        given = len(body), self.request_id.encode("ascii"), more, body
        self._send(self, status, _ANSWER % given)

    def refuse(self, error: TidegateError) -> None:
        """Answer with an error in its one shape."""
        refusal = refusal_of(error)
        self.answer(refusal.status, refusal.body(self.request_id), refusal.headers())


# Sends an answer: its status, and what stands after the status line and the server's own headers.
Send: TypeAlias = Callable[[Exchange, int, bytes], None]

# Takes a request that is whole, and answers it sooner or later.
Route: TypeAlias = Callable[[Exchange], None]
