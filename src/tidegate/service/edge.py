"""The outer edge of the application: who may pass, ids on answers, a tally, no error past it."""

from __future__ import annotations

from time import perf_counter
from traceback import format_tb
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.service.access.admission import Access, authorization_of
from tidegate.service.answer import refuse
from tidegate.service.errors import Refusal, internal_error
from tidegate.service.metrics.tally import Tally
from tidegate.service.requests import RequestIds

_log = structlog.get_logger()


class Edge:
    """Wraps the application; plain ASGI, so that it costs microseconds."""

    def __init__(self, app: ASGIApp, *, ids: RequestIds, tally: Tally, access: Access) -> None:
        self._app = app
        self._ids = ids
        self._tally = tally
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id = self._ids.of(scope["headers"])
        # A server that calls without `state` is within the ASGI specification.
        scope.setdefault("state", {})["request_id"] = request_id
        # Each request is a task of its own, and so are the variables that its log lines carry.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        stamp = (b"x-request-id", request_id.encode("ascii"))
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), stamp]
            await send(message)

        try:
            await self._pass(scope, receive, stamped)
        except Exception as error:  # noqa: BLE001 - the edge of a request: it is logged and answered
            log_failure(error, route=_route(scope), request_id=request_id)
            if not status:
                await refuse(scope, stamped, internal_error())
        spent = perf_counter() - began
        self._tally.count(scope["method"], _route(scope), status, spent, request_id)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in that may come in; who it is from is in the scope's state."""
        path, method = scope["path"], scope["method"]
        authorization = authorization_of(scope["headers"])
        address = (scope.get("client") or ("",))[0]
        caller = self._access.admit(authorization, path, method, address)
        if caller is None:
            caller = await self._access.identify(authorization, path, method, address)
        if isinstance(caller, Refusal):
            await refuse(scope, send, caller)
            return
        scope["state"]["caller"] = caller
        await self._app(scope, receive, send)


def _route(scope: Scope) -> str:
    """The path as it was declared, so that ids in paths do not make a series each."""
    route: Any = scope.get("route") or scope.get("endpoint")
    return getattr(route, "path_format", None) or "other"


def log_failure(error: Exception, *, route: str, request_id: str) -> None:
    """Say in the log that a request failed on an error that nobody foresaw."""
    # Without the error's message: it may quote what was sent, and logs hold no event contents.
    _log.error(
        "request_failed",
        request_id=request_id,
        route=route,
        error=type(error).__name__,
        trace="".join(format_tb(error.__traceback__)),
    )
