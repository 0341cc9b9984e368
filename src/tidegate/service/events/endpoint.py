"""The hot route: plain ASGI, from the body's bytes to the door and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from tidegate.door import Receipt
from tidegate.errors import TidegateError
from tidegate.events.body import split_body
from tidegate.records import Records
from tidegate.service.answer import answer, refuse
from tidegate.service.budget import Share
from tidegate.service.errors import Refusal, refusal_of
from tidegate.service.events.body import (
    Disconnected,
    Envelope,
    check_media_type,
    inflate,
    receive_body,
)
from tidegate.service.events.replies import Replies, Result
from tidegate.service.events.report import report
from tidegate.service.exchange import Exchange
from tidegate.service.state import State

SOURCE = "http"
NO_RECORDS = "the body holds no record: send a JSON object"

# What takes longer than a millisecond is done in a thread, so that the loop stays free.
_INFLATE_HERE = 1 << 10  # compressed bytes, which may become a thousand times as many
_SPLIT_HERE = 256 << 10
_REPORT_HERE = 500  # dead letters

_T = TypeVar("_T")


class _Reported:
    """Waits for a receipt and answers with it; gives back the request's share of the bytes then."""

    __slots__ = ("_exchange", "_share", "_state")

    def __init__(self, exchange: Exchange, state: State, share: Share) -> None:
        self._exchange, self._state, self._share = exchange, state, share

    def done(self) -> bool:
        return self._exchange.response_complete

    def set_result(self, result: Result, /) -> None:
        exchange, state = self._exchange, self._state
        self._share.give_back()
        if isinstance(result, TidegateError):
            exchange.refuse(result)
            return
        state.newest_offset = max(state.newest_offset, result.first_offset + result.count)
        exchange.answer(*report(result, request_id=exchange.request_id))


class EventsEndpoint:
    """An ASGI application that takes one request of `POST /v1/events`; `take` is its short way."""

    path_format = "/v1/events"

    def __init__(self, state: State) -> None:
        self._state = state
        settings = state.settings
        self._bytes_max = settings.body_bytes_max
        self._records_max = settings.batch_records_max
        self._timeout_seconds = settings.request_timeout_us / 1e6
        self._replies: Replies | None = None
        self._warm_up()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        with self._state.budget.share() as share:
            try:
                receipt = await self._take(scope, receive, share)
            except Disconnected:
                return
            except TidegateError as error:
                await refuse(scope, send, refusal_of(error))
                return
        status, body = await self._report(receipt, scope["state"]["request_id"])
        await answer(send, status, body)

    async def _take(self, scope: Scope, receive: Receive, share: Share) -> Receipt:
        state = self._state
        state.check()
        state.check_backlog()
        envelope = Envelope(scope["headers"], bytes_max=self._bytes_max)
        body = await receive_body(receive, bytes_max=self._bytes_max, share=share)
        if envelope.is_gzip:
            body = await self._inflate(body, share)
        receipt = await self._hand_over(body, envelope.content_type)
        state.newest_offset = max(state.newest_offset, receipt.first_offset + receipt.count)
        return receipt

    async def _hand_over(self, body: bytes, content_type: bytes) -> Receipt:
        replies = self._replies_here()
        if is_one_record(body):
            self._state.check()
            return await replies.offer_one(body)
        records = await self._split(body, content_type)
        if not len(records):
            raise Refusal(400, "no_records", NO_RECORDS)
        # Asked again: the server may have been told to stop while the body was coming in.
        self._state.check()
        return await replies.offer(records)

    async def _inflate(self, body: bytes, share: Share) -> bytes:
        inflating = partial(inflate, body, bytes_max=self._bytes_max)
        inflated = await self._run(inflating, here=len(body) <= _INFLATE_HERE)
        share.grow(len(inflated))
        share.shrink(len(body))
        return inflated

    async def _split(self, body: bytes, content_type: bytes) -> Records:
        splitting = partial(
            split_body,
            body,
            content_type=content_type.decode("latin-1"),
            records_max=self._records_max,
        )
        return await self._run(splitting, here=len(body) <= _SPLIT_HERE)

    async def _report(self, receipt: Receipt, request_id: str) -> tuple[int, bytes]:
        reporting = partial(report, receipt, request_id=request_id)
        return await self._run(reporting, here=len(receipt.dead) <= _REPORT_HERE)

    async def _run(self, work: Callable[[], _T], *, here: bool) -> _T:
        if here:
            return work()
        bodies: Executor = self._state.bodies
        return await asyncio.get_running_loop().run_in_executor(bodies, work)

    # -- the short way ---------------------------------------------------------------------------

    def take(self, exchange: Exchange) -> None:
        """Answer a small request that has come whole, once its records are durable."""
        state = self._state
        try:
            state.check()
            state.check_backlog()
            check_media_type(exchange.content_type)
            with state.budget.share() as share:
                share.grow(len(exchange.body))
                self._put(exchange, _Reported(exchange, state, share))
                share.hand_on()
        except TidegateError as error:
            exchange.refuse(error)

    def _put(self, exchange: Exchange, waiter: _Reported) -> None:
        body, replies = bytes(exchange.body), self._replies_here()
        if is_one_record(body):
            replies.put_one(body, waiter)
            return
        kind = exchange.content_type.decode("latin-1")
        records = split_body(body, content_type=kind, records_max=self._records_max)
        if not len(records):
            raise Refusal(400, "no_records", NO_RECORDS)
        replies.put(records, waiter)

    def _replies_here(self) -> Replies:
        if self._replies is None:
            self._replies = Replies(
                self._state.pipeline.door,
                asyncio.get_running_loop(),
                source=SOURCE,
                timeout_seconds=self._timeout_seconds,
            )
        return self._replies

    def _warm_up(self) -> None:
        """Load the compiled parts now, not in the first request."""
        for body in (b'{"a":1}', b'[{"a":1}]', b'{"a":1}\n{"a":2}'):
            split_body(body, content_type=None, records_max=self._records_max)


def is_one_record(body: bytes) -> bool:
    """Whether the whole body is one record, as `split_body` would find at more cost."""
    return body[:1] == b"{" and body[-1:] == b"}" and b"\n" not in body
