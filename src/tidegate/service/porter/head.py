"""Requests that a porter takes, found in the bytes of a connection; all others are the house's.

This is no HTTP parser and is not to become one. It knows the plainest request that asks for one
decision, and gives up on whatever it does not fully understand: the house, which has a parser, is
then given the connection with all of its bytes, and answers as if they had come to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tidegate.service.exchange import BODY_BYTES_MAX, is_one_record
from tidegate.service.score.shapes import PATH, TIMEOUT_MS_MAX

HEAD_BYTES_MAX = 8 << 10
_HEADERS_MAX = 64
_KNOWN_MAX = 4_096  # heads remembered; a caller sends the same one again and again
_KEPT_BYTES_MAX = 1_024  # longer ones are not remembered

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(re.escape(PATH.encode("ascii")) + rb"(?:\?timeout_ms=([0-9]{1,5}))?")
_TYPES = frozenset({b"application/json"})
_ELSEWHERE = frozenset(
    {b"transfer-encoding", b"content-encoding", b"upgrade", b"expect", b"te", b"trailer"}
)
_ONCE = (b"content-length", b"content-type", b"authorization", b"x-request-id", b"connection")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request; `timeout_ms` is None where it does not say."""

    length: int
    authorization: bytes | None
    request_id: bytes
    timeout_ms: int | None


class Found(NamedTuple):
    """A whole request: its head, its body, and how many bytes it has."""

    head: Head
    body: bytes
    size: int


class NotPlain(Exception):  # noqa: N818 - it is nobody's mistake
    """Raised for bytes that do not begin with a request that a porter takes."""


class Reader:
    """Finds requests. Heads that came before are known again without a look at their lines."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def find(self, data: bytes) -> Found | None:
        """The request at the beginning; None while it is not whole. Raises: NotPlain."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > HEAD_BYTES_MAX:
                raise NotPlain
            return None
        head, first = self._head(data[:end]), end + 4
        size = first + head.length
        if len(data) < size:
            return None
        body = data[first:size]
        if not is_one_record(body):
            raise NotPlain
        return Found(head, body, size)

    def _head(self, lines: bytes) -> Head:
        known = self._known.get(lines)
        if known is not None:
            return known
        head = parsed(lines)
        # An id for each request would only drive out what comes again.
        if not head.request_id and len(lines) <= _KEPT_BYTES_MAX:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[lines] = head
        return head


def parsed(lines: bytes) -> Head:
    """What a head says, without the empty line behind it. Raises: NotPlain.

    >>> parsed(b"POST /v1/score HTTP/1.1\\r\\nContent-Length: 12").length
    12
    """
    if len(lines) > HEAD_BYTES_MAX:
        raise NotPlain
    request, *rest = lines.split(b"\r\n")
    method, _, target = request.partition(b" ")
    target, _, version = target.partition(b" ")
    found = _TARGET.fullmatch(target)
    if method != b"POST" or version != b"HTTP/1.1" or found is None or len(rest) > _HEADERS_MAX:
        raise NotPlain
    headers = _headers(rest)
    return Head(
        _length(headers.get(b"content-length", b"")),
        headers.get(b"authorization"),
        headers.get(b"x-request-id", b""),
        None if found[1] is None else _timeout(found[1]),
    )


def _headers(lines: list[bytes]) -> Mapping[bytes, bytes]:
    """The headers by name. Raises: NotPlain for any that a porter must not pass over."""
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if not (colon and _NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise NotPlain
        if name in _ELSEWHERE or (name in _ONCE and name in headers):
            raise NotPlain
        headers[name] = value
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        raise NotPlain
    if headers.get(b"content-type", b"application/json") not in _TYPES:
        raise NotPlain
    return headers


def _length(value: bytes) -> int:
    if not (value.isdigit() and len(value) <= 8 and 0 < int(value) <= BODY_BYTES_MAX):
        raise NotPlain
    return int(value)


def _timeout(value: bytes) -> int:
    if not 1 <= int(value) <= TIMEOUT_MS_MAX:
        raise NotPlain
    return int(value)
