"""The route: plain ASGI, from the body's bytes to a process that runs queries and back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

import msgspec
from starlette.types import Receive, Scope, Send

from tidegate.errors import TidegateError
from tidegate.service.answer import refuse
from tidegate.service.errors import Refusal, refusal_of
from tidegate.service.events.body import Disconnected, Envelope, receive_body
from tidegate.service.protocol import ENDS_WITH_SENDER
from tidegate.service.query.pool import QueryPool
from tidegate.service.state import State
from tidegate.warehouse.worker import Question, Told, Value

BODY_BYTES_MAX = 256 << 10
SQL_CHARACTERS_MAX = 64 << 10
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}
_ACCEPTED = {kind.partition(";")[0]: name for name, kind in MEDIA_TYPES.items()} | {
    "application/*": "json",
    "text/*": "csv",
    "*/*": "json",
}
_PIECE = 256 << 10


class QueryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SELECT, and how it is to be answered."""

    sql: str
    dialect: Literal["duckdb", "bigquery", "athena", "trino", "tsql", "snowflake", "spark"] = (
        "duckdb"
    )
    parameters: dict[str, Value] | list[Value] | None = None
    limit: int | None = None
    format: Literal["json", "csv", "arrow"] | None = None


_DECODE = msgspec.json.Decoder(QueryRequest).decode


class QueryEndpoint:
    """An ASGI application that takes one request of `POST /v1/query`."""

    path_format = "/v1/query"

    def __init__(self, state: State, pool: QueryPool) -> None:
        self._state = state
        self._pool = pool
        self._seconds_max = state.pipeline.project.query.timeout_us / 1e6

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            question = await self._question(scope, receive)
            await self._unless_gone(question, scope, receive, send)
        except Disconnected:
            return
        except TidegateError as error:
            await refuse(scope, send, refusal_of(error))

    async def _question(self, scope: Scope, receive: Receive) -> Question:
        self._state.check()
        Envelope(scope["headers"], bytes_max=BODY_BYTES_MAX)
        with self._state.budget.share() as share:
            body = await receive_body(receive, bytes_max=BODY_BYTES_MAX, share=share)
        asked = _decoded(body)
        settings = self._state.pipeline.project.query
        if len(asked.sql) > SQL_CHARACTERS_MAX:
            raise Refusal(400, "bad_query", f"`sql` has more than {SQL_CHARACTERS_MAX} characters")
        if asked.limit is not None and asked.limit < 0:
            raise Refusal(400, "bad_request", f"`limit` is {asked.limit}: 0 or more is expected")
        wanted = settings.rows_max if asked.limit is None else asked.limit
        return Question(
            sql=asked.sql,
            dialect=asked.dialect,
            parameters=asked.parameters,
            format=asked.format or accepted(scope["headers"]),
            rows_max=min(wanted, settings.rows_max),
            bytes_max=settings.result_bytes_max,
            memory_bytes=settings.memory_bytes_max,
            threads=settings.threads,
            hiding=self._state.hiding_from(scope["state"]["caller"]),
        )

    async def _unless_gone(
        self, question: Question, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer what the query gives, unless the caller goes away meanwhile: then it is ended."""

        async def deliver(told: Told, body: bytes) -> None:
            # A caller that takes longer loses the connection, so that others have their turn.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_max):
                    await _send(send, question.format, told, body)

        scope["state"][ENDS_WITH_SENDER] = True
        work = asyncio.ensure_future(self._pool.run(question, deliver))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Disconnected
            work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait({work, gone})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _decoded(body: bytes) -> QueryRequest:
    try:
        return _DECODE(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        text = f"the body is not a query: {error}"
        raise Refusal(400, "bad_request", text) from error


def accepted(headers: list[tuple[bytes, bytes]]) -> str:
    """The format that the `Accept` header asks for. Raises: Refusal (406).

    >>> accepted([(b"accept", b"text/html;q=0.5, text/csv")]), accepted([])
    ('csv', 'json')
    """
    given = b",".join(value for name, value in headers if name == b"accept").decode("latin-1")
    if not given.strip():
        return "json"
    ranked = sorted(map(_weighed, given.split(",")), key=lambda found: -found[1])
    for kind, weight in ranked:
        if weight > 0 and kind in _ACCEPTED:
            return _ACCEPTED[kind]
    kinds = ", ".join(MEDIA_TYPES.values())
    raise Refusal(406, "not_acceptable", f"an answer can be one of {kinds}")


def _weighed(item: str) -> tuple[str, float]:
    kind, *options = (part.strip().lower() for part in item.split(";"))
    weight = 1.0
    for option in options:
        if option.startswith("q="):
            with suppress(ValueError):
                weight = float(option[2:])
    return kind, weight


async def _send(send: Send, kind: str, told: Told, body: bytes) -> None:
    headers = [
        (b"content-type", MEDIA_TYPES[kind].encode()),
        (b"content-length", b"%d" % len(body)),
        (b"x-row-count", b"%d" % told.rows),
        (b"x-truncated", b"true" if told.truncated else b"false"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for first in range(0, max(len(body), 1), _PIECE):
        piece, more = body[first : first + _PIECE], first + _PIECE < len(body)
        await send({"type": "http.response.body", "body": piece, "more_body": more})
