"""Answers as ASGI messages, without a response object between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Scope, Send

from tidegate.service.errors import Refusal

JSON = b"application/json"

_encode = msgspec.json.Encoder().encode


async def answer(
    send: Send, status: int, body: bytes, *, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a whole answer of JSON."""
    length = b"%d" % len(body)
    fields = [(b"content-type", JSON), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Send an error in its one shape."""
    body = refusal.body(scope["state"]["request_id"])
    await answer(send, refusal.status, body, headers=refusal.headers())


def json_response(content: Any, *, status: int = 200) -> Response:
    """An answer of JSON for routes that are not hot."""
    return Response(_encode(content), status_code=status, media_type="application/json")


def error_response(refusal: Refusal, *, request_id: str) -> Response:
    """The same for an error."""
    headers = {k.decode(): v.decode("latin-1") for k, v in refusal.headers()}
    body = refusal.body(request_id)
    return Response(
        body, status_code=refusal.status, headers=headers, media_type="application/json"
    )
