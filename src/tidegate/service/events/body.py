"""The body of a request: received within a limit, inflated within the same limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from starlette.types import Receive

from tidegate.service.budget import Share
from tidegate.service.errors import Refusal

# zlib copies what it has not used yet, so many small gzip members are fed in slices.
_SLICE = 16 << 10
_GZIP_ONLY = 16 + zlib.MAX_WBITS

_MEDIA_TYPES = frozenset(
    {
        b"",
        b"application/json",
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/x-jsonlines",
        b"application/octet-stream",
        b"application/x-www-form-urlencoded",  # what curl sends by itself
        b"text/plain",
    }
)


class Disconnected(Exception):  # noqa: N818 - no error: there is nobody left to answer
    """The sender went away before the body was whole."""


class Envelope:
    """What the headers say about a body. Raises: Refusal (415, 413, 400) for what is not taken."""

    __slots__ = ("content_type", "is_gzip")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], *, bytes_max: int) -> None:
        self.content_type = b""
        self.is_gzip = False
        for name, value in headers:
            if name == b"content-type":
                self.content_type = value
            elif name == b"content-length":
                _check_length(value, bytes_max)
            elif name == b"content-encoding":
                self.is_gzip = _is_gzip(value) or self.is_gzip
        check_media_type(self.content_type)


def _check_length(value: bytes, bytes_max: int) -> None:
    if value.isdigit() and int(value[:20]) > bytes_max:
        raise too_large(bytes_max)


def _is_gzip(value: bytes) -> bool:
    coding = value.strip().lower()
    if coding not in (b"gzip", b"x-gzip", b"identity", b""):
        message = f"content encoding `{_shown(coding)}` is not taken: send gzip, or none"
        raise Refusal(415, "unsupported_encoding", message)
    return coding.endswith(b"gzip")


def check_media_type(content_type: bytes) -> None:
    """Pass if a body of this type is taken. Raises: Refusal (415)."""
    if content_type in _MEDIA_TYPES:
        return
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        message = (
            f"content type `{_shown(media_type)}` is not taken: send application/json "
            "or application/x-ndjson"
        )
        raise Refusal(415, "unsupported_media_type", message)


def _shown(value: bytes) -> str:
    return value[:80].decode("latin-1")


def too_large(bytes_max: int) -> Refusal:
    """The refusal of a body that is larger than is taken."""
    message = f"the body has more than {bytes_max} bytes: send it in several requests"
    return Refusal(413, "body_too_large", message)


async def receive_body(receive: Receive, *, bytes_max: int, share: Share) -> bytes:
    """The body as it was sent, at most `bytes_max` bytes of it being held.

    Raises: Refusal (413), OverloadedError, Disconnected.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            raise too_large(bytes_max)
        share.grow(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def inflate(body: bytes, *, bytes_max: int) -> bytes:
    """What a gzip body of one or several members holds; never inflates beyond the limit.

    Raises: Refusal (413 beyond `bytes_max` bytes; 400 if it is broken or cut off).

    >>> import gzip
    >>> inflate(gzip.compress(b"ab") + gzip.compress(b"c"), bytes_max=3)
    b'abc'
    """
    try:
        pieces = list(_members(body, bytes_max))
    except zlib.error as error:
        raise Refusal(400, "bad_gzip", "the body is no valid gzip") from error
    return b"".join(pieces)


def _members(body: bytes, bytes_max: int) -> Iterator[bytes]:
    member, size = None, 0
    for at in range(0, len(body), _SLICE):
        rest = body[at : at + _SLICE]
        # Between members zeros may stand, as on tapes.
        while rest := rest if member or not at + size else rest.lstrip(b"\0"):
            member = member or zlib.decompressobj(_GZIP_ONLY)
            piece = member.decompress(rest, bytes_max + 1 - size)
            size += len(piece)
            if size > bytes_max:
                raise too_large(bytes_max)
            yield piece
            rest = member.unused_data
            member = None if member.eof else member
    if member or not body:
        raise Refusal(400, "bad_gzip", "the gzip body is cut off")
