"""The yardsticks of the benchmarks: routes of the same server that do next to nothing."""

from __future__ import annotations

import msgspec
from starlette.types import Receive, Scope, Send

from tidegate.service.answer import answer

_DECISION = b'{"event_id":"1","action":"approve","score":null,"rules":[]}'
_BODY = b'{"accepted":1,"dead":0,"first_offset":1,"next_offset":2}'


class BareEndpoint:
    """Reads the body, discards it and answers a constant."""

    path_format = "/bare"

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        while (await receive()).get("more_body", False):
            pass
        await answer(send, 202, _BODY)


class BareJsonEndpoint:
    """Reads the body, parses it as JSON and answers a constant."""

    path_format = "/bare/json"

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        msgspec.json.decode(b"".join(parts))
        await answer(send, 200, _DECISION)
