"""The route: plain ASGI, from a body of labels to the desk that takes them in and back."""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.types import Receive, Scope, Send

from tidegate.accepted import Accepted
from tidegate.errors import OverloadedError, TidegateError
from tidegate.labelling import Desk, Receipt
from tidegate.service.answer import answer, refuse
from tidegate.service.bodies import Bodies
from tidegate.service.errors import refusal_of
from tidegate.service.events.body import Disconnected
from tidegate.service.labels.report import report
from tidegate.service.state import State

SOURCE = "http"
WAITING_MAX = 64  # requests whose labels may look for their events at a time


class LabelsEndpoint:
    """An ASGI application that takes one request of `POST /v1/labels`."""

    path_format = "/v1/labels"

    def __init__(self, state: State) -> None:
        self._state = state
        self._bodies = Bodies(state, records_max=state.settings.batch_records_max)
        pipeline = state.pipeline
        accepted = Accepted(
            pipeline.folder.tables, pipeline.program.schema, pending=pipeline.writer.events
        )
        self._desk = Desk(accepted.find, pipeline.append, clock=pipeline.clock)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            with self._state.budget.share() as share:
                self._state.check()
                self._state.check_backlog()
                body, content_type = await self._bodies.receive(scope, receive, share)
                records = await self._bodies.split(body, content_type)
                author = scope["state"]["caller"].name
                taking = partial(self._desk.take, records, source=SOURCE, author=author)
                receipt = await self._aside(taking)
        except Disconnected:
            return
        except TidegateError as error:
            await refuse(scope, send, refusal_of(error))
            return
        self._state.newest_offset = max(self._state.newest_offset, receipt.next_offset)
        status, content = report(receipt, request_id=scope["state"]["request_id"])
        await answer(send, status, content)

    async def _aside(self, taking: partial[Receipt]) -> Receipt:
        """Do it in a thread: events may have to be looked for in tables."""
        if self._waiting >= WAITING_MAX:
            raise OverloadedError("too many labels are being looked up", retry_after_seconds=1)
        self._waiting += 1
        try:
            self._state.check()  # the server may have been told to stop while the body came in
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._state.labels, taking)
        finally:
            self._waiting -= 1
