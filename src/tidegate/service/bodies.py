"""Bodies that hold events: received and inflated within limits, and cut into records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from starlette.types import Receive, Scope

from tidegate.events.body import split_body
from tidegate.records import Records
from tidegate.service.budget import Share
from tidegate.service.errors import Refusal
from tidegate.service.events.body import Envelope, inflate, receive_body
from tidegate.service.state import State

# What takes longer than a millisecond is done in a thread, so that the loop stays free.
_INFLATE_HERE = 1 << 10  # compressed bytes, which may become a thousand times as many
_SPLIT_HERE = 256 << 10

_T = TypeVar("_T")


class Bodies:
    """Takes in the bodies of a route that take at most `records_max` records."""

    def __init__(self, state: State, *, records_max: int) -> None:
        self._state = state
        self._bytes_max = state.settings.body_bytes_max
        self._records_max = records_max
        self._warm_up()

    async def receive(self, scope: Scope, receive: Receive, share: Share) -> tuple[bytes, bytes]:
        """The body, inflated, and its content type.

        Raises: Refusal (400, 413, 415), OverloadedError, Disconnected.
        """
        envelope = Envelope(scope["headers"], bytes_max=self._bytes_max)
        body = await receive_body(receive, bytes_max=self._bytes_max, share=share)
        if envelope.is_gzip:
            body = await self._inflate(body, share)
        return body, envelope.content_type

    async def split(self, body: bytes, content_type: bytes) -> Records:
        """The records of a body, one at least. Raises: Refusal, RequestError."""
        return await self.run(
            partial(self.split_here, body, content_type), here=len(body) <= _SPLIT_HERE
        )

    def split_here(self, body: bytes, content_type: bytes) -> Records:
        """The same in this thread, for a small body."""
        kind = content_type.decode("latin-1")
        records = split_body(body, content_type=kind, records_max=self._records_max)
        if not len(records):
            raise Refusal(400, "no_records", "the body holds no record: send a JSON object")
        return records

    async def run(self, work: Callable[[], _T], *, here: bool) -> _T:
        """What work gives, done in this thread or another."""
        if here:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._state.bodies, work)

    async def _inflate(self, body: bytes, share: Share) -> bytes:
        inflating = partial(inflate, body, bytes_max=self._bytes_max)
        inflated = await self.run(inflating, here=len(body) <= _INFLATE_HERE)
        share.grow(len(inflated))
        share.shrink(len(body))
        return inflated

    def _warm_up(self) -> None:
        """Load the compiled parts now, not in the first request."""
        for body in (b'{"a":1}', b'[{"a":1}]', b'{"a":1}\n{"a":2}'):
            split_body(body, content_type=None, records_max=self._records_max)
