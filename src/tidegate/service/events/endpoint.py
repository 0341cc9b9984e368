"""The hot route: plain ASGI, from the body's bytes to the door and back."""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.types import Receive, Scope, Send

from tidegate.door import Receipt
from tidegate.errors import TidegateError
from tidegate.service.answer import answer, refuse
from tidegate.service.bodies import Bodies
from tidegate.service.budget import Share
from tidegate.service.errors import refusal_of
from tidegate.service.events.body import Disconnected, check_media_type
from tidegate.service.events.replies import Replies, Result
from tidegate.service.events.report import report
from tidegate.service.exchange import Exchange, is_one_record
from tidegate.service.state import State

SOURCE = "http"
_REPORT_HERE = 500  # dead letters; to report more is done in a thread


class _Reported:
    """Waits for a receipt and answers with it; gives back the request's share of the bytes then."""

    __slots__ = ("_exchange", "_share")

    def __init__(self, exchange: Exchange, share: Share) -> None:
        self._exchange, self._share = exchange, share

    def done(self) -> bool:
        return self._exchange.response_complete

    def set_result(self, result: Result, /) -> None:
        exchange = self._exchange
        self._share.give_back()
        if isinstance(result, TidegateError):
            exchange.refuse(result)
            return
        exchange.answer(*report(result, request_id=exchange.request_id))


class EventsEndpoint:
    """An ASGI application that takes one request of `POST /v1/events`; `take` is its short way."""

    path_format = "/v1/events"

    def __init__(self, state: State) -> None:
        self._state = state
        self._bodies = Bodies(state, records_max=state.settings.batch_records_max)
        self._timeout_seconds = state.settings.request_timeout_us / 1e6
        self._replies: Replies | None = None

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
        body, content_type = await self._bodies.receive(scope, receive, share)
        return await self._hand_over(body, content_type)

    async def _hand_over(self, body: bytes, content_type: bytes) -> Receipt:
        replies = self._replies_here()
        if is_one_record(body):
            self._state.check()
            return await replies.offer_one(body)
        records = await self._bodies.split(body, content_type)
        # Asked again: the server may have been told to stop while the body was coming in.
        self._state.check()
        return await replies.offer(records)

    async def _report(self, receipt: Receipt, request_id: str) -> tuple[int, bytes]:
        reporting = partial(report, receipt, request_id=request_id)
        return await self._bodies.run(reporting, here=len(receipt.dead) <= _REPORT_HERE)

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
                self._put(exchange, _Reported(exchange, share))
                share.hand_on()
        except TidegateError as error:
            exchange.refuse(error)

    def _put(self, exchange: Exchange, waiter: _Reported) -> None:
        body, replies = bytes(exchange.body), self._replies_here()
        if is_one_record(body):
            replies.put_one(body, waiter)
        else:
            replies.put(self._bodies.split_here(body, exchange.content_type), waiter)

    def _replies_here(self) -> Replies:
        if self._replies is None:
            self._replies = Replies(
                self._state.pipeline.door,
                asyncio.get_running_loop(),
                source=SOURCE,
                timeout_seconds=self._timeout_seconds,
            )
        return self._replies
