"""The yardstick of the benchmark: a route of the same server that does nothing with the body."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from tidegate.service.answer import answer

_BODY = b'{"accepted":1,"dead":0,"first_offset":1,"next_offset":2}'


class BareEndpoint:
    """Reads the body, discards it and answers a constant."""

    path_format = "/bare"

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        while (await receive()).get("more_body", False):
            pass
        await answer(send, 202, _BODY)
