"""Whether the process lives, and whether it keeps up."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tidegate.service.answer import json_response
from tidegate.service.description import errors, shown
from tidegate.service.errors import Refusal
from tidegate.service.state import State


class Health(msgspec.Struct, frozen=True):
    """The process lives and its engine decides."""

    status: str


class Readiness(msgspec.Struct, frozen=True):
    """The server takes events; `backlog` records wait to be decided."""

    ready: bool
    backlog: int


def health_routes(state: State) -> APIRouter:
    """`/healthz` and `/readyz`."""
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="Does the process live?", responses=shown(Health) | errors(503))
    async def healthz() -> Response:
        """200 as long as the engine runs; 503 when it has stopped on an error."""
        if state.pipeline.failure is not None:
            state.check()
        return json_response(Health("ok"))

    @router.get("/readyz", summary="Does it keep up?", responses=shown(Readiness) | errors(503))
    async def readyz() -> Response:
        """200 when events are taken and decided without long waits."""
        state.check()
        backlog = await run_in_threadpool(lambda: state.pipeline.backlog)
        limit = state.settings.queue_records_max
        if backlog > limit:
            message = f"{backlog} records wait to be decided, {limit} are thought too many"
            raise Refusal(503, "behind", message, retry_after_seconds=1)
        return json_response(Readiness(ready=True, backlog=backlog))

    return router
