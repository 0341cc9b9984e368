"""`/metrics` in Prometheus' text format."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tidegate.service.description import Responses
from tidegate.service.metrics.collector import ServiceCollector
from tidegate.service.state import State

_PLAIN: Responses = {200: {"description": "Metrics.", "content": {"text/plain": {}}}}


def metrics_routes(state: State) -> APIRouter:
    """`/metrics`."""
    router = APIRouter(tags=["operation"])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(state))

    @router.get("/metrics", summary="What is being done", responses=_PLAIN)
    async def metrics() -> Response:
        """All counters and gauges, for Prometheus."""
        text = await run_in_threadpool(generate_latest, registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    return router
