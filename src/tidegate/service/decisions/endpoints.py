"""What was decided on an event, and why."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import msgspec
from fastapi import APIRouter, Path
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from tidegate.errors import OverloadedError
from tidegate.service.answer import json_response
from tidegate.service.description import errors, shown
from tidegate.service.errors import Refusal
from tidegate.service.state import State

_PREFIX = b"/v1/decisions/"
_LOOKUPS_MAX = 64  # running and waiting; each may read files


class _Anything(Convertor[str]):
    """The rest of a path, slashes and line ends among it: an id may hold either."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


class RuleHit(msgspec.Struct, frozen=True):
    """A rule whose condition held, and why, in words."""

    name: str
    action: str
    mode: str
    reason: str


class Decision(msgspec.Struct, frozen=True):
    """The decision on one event; times are UTC."""

    event_id: str
    event_time: datetime
    action: str
    score: float | None
    rules: list[RuleHit]
    version: str
    log_offset: int
    decided_at: datetime


def decision_routes(state: State) -> APIRouter:
    """`/v1/decisions/{event_id}`."""
    router = APIRouter(tags=["decisions"])
    lookups = Lookups(state)

    @router.get(
        "/v1/decisions/{event_id:anything}",
        summary="The decision on an event",
        responses=shown(Decision) | errors(404, 429, 503),
    )
    async def decision(
        request: Request,
        event_id: Annotated[str, Path(description="The event's id, percent-encoded.")],
    ) -> Response:
        """Action, score, the rules that hit and their reasons; 404 while there is none (yet)."""
        exact = event_id_of(request.scope)
        found = None if exact is None else await lookups.find(exact)
        if found is None:
            raise Refusal(404, "no_decision", f"no decision on event `{event_id[:200]}` (yet)")
        return json_response(msgspec.convert(_in_utc(found), Decision))

    return router


class Lookups:
    """Decisions looked up in a few threads; beyond a number that wait, callers are turned away."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._running = 0

    async def find(self, event_id: str) -> dict[str, Any] | None:
        """The decision as the pipeline gives it. Raises: OverloadedError."""
        if self._running >= _LOOKUPS_MAX:
            raise OverloadedError("too many decisions are asked for", retry_after_seconds=1)
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._state.lookups, self._state.pipeline.decision, event_id
            )
        finally:
            self._running -= 1


def event_id_of(scope: Any) -> str | None:
    """The id in the path, unquoted once and exactly; None if it is not UTF-8.

    The server's own unquoting replaces what is not UTF-8, and so could find another event.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    try:
        return unquote_to_bytes(raw.removeprefix(_PREFIX)).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _in_utc(decision: dict[str, Any]) -> dict[str, Any]:
    times = {name: decision[name].replace(tzinfo=UTC) for name in ("event_time", "decided_at")}
    return decision | times
