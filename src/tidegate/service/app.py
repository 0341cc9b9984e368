"""The application: every route, and what holds on all of them."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from tidegate import __version__
from tidegate.errors import TidegateError
from tidegate.pipeline import Pipeline
from tidegate.service.access.description import secured
from tidegate.service.access.endpoints import BODIES as KEY_BODIES
from tidegate.service.access.endpoints import keys_routes
from tidegate.service.answer import error_response
from tidegate.service.bare import BareEndpoint, BareJsonEndpoint
from tidegate.service.decisions.endpoints import Decision, RuleHit, decision_routes
from tidegate.service.description import describe
from tidegate.service.edge import Edge
from tidegate.service.errors import ErrorBody, ErrorDetail, Refusal, refusal_of, status_refusal
from tidegate.service.events.description import events_path
from tidegate.service.events.endpoint import EventsEndpoint
from tidegate.service.events.report import DeadLetter, NoneTaken, PartlyTaken, Taken
from tidegate.service.health.endpoints import Health, Readiness, health_routes
from tidegate.service.labels.description import labels_path
from tidegate.service.labels.endpoint import LabelsEndpoint
from tidegate.service.labels.report import BODIES as LABEL_BODIES
from tidegate.service.lists.endpoints import BODIES as LIST_BODIES
from tidegate.service.lists.endpoints import lists_routes
from tidegate.service.metrics.endpoints import metrics_routes
from tidegate.service.producer.endpoints import producer_routes
from tidegate.service.query.description import BODIES as QUERY_BODIES
from tidegate.service.query.description import query_path
from tidegate.service.query.endpoint import QueryEndpoint
from tidegate.service.requests import RequestIds
from tidegate.service.score.description import score_path
from tidegate.service.score.endpoint import ScoreEndpoint
from tidegate.service.score.shapes import NoneScored, NotScored, Reason, Scored
from tidegate.service.state import State
from tidegate.service.versions.endpoints import BODIES as VERSION_BODIES
from tidegate.service.versions.endpoints import versions_routes

_TEXT = """
Fraud detection on event streams, in SQL. Send events, ask for decisions. Every error has one shape:
`{"error": {"code", "message", "request_id"}}`; `X-Request-Id` is taken over or made.
"""
_BODIES = (
    *(Taken, PartlyTaken, NoneTaken, DeadLetter, Decision, RuleHit),
    *(Health, Readiness, ErrorBody, ErrorDetail),
    *KEY_BODIES,
    *LABEL_BODIES,
    *QUERY_BODIES,
    *VERSION_BODIES,
    *LIST_BODIES,
    *(Scored, NotScored, NoneScored, Reason),
)


def create_app(
    pipeline: Pipeline, *, request_ids: RequestIds | None = None, bare: bool = False
) -> FastAPI:
    """The application for a pipeline that is open; `app.state.service` is its `State`.

    `bare` adds `POST /bare`, the yardstick of the benchmark. Limits on headers and on slow senders
    are kept by the server (`serve`), not by the application.
    """
    state = State.of(pipeline)
    app = _empty_app()
    app.state.service = state
    _add_hot(app, state, EventsEndpoint(state))
    _add_hot(app, state, ScoreEndpoint(state))
    if bare:
        for yardstick in (BareEndpoint(), BareJsonEndpoint()):
            app.router.routes.append(Route(yardstick.path_format, yardstick, methods=["POST"]))
    app.router.routes.append(
        Route(QueryEndpoint.path_format, QueryEndpoint(state, state.queries), methods=["POST"])
    )
    app.router.routes.append(
        Route(LabelsEndpoint.path_format, LabelsEndpoint(state), methods=["POST"])
    )
    app.include_router(decision_routes(state))
    if state.settings.producer_endpoint:
        app.include_router(producer_routes(state))
    app.include_router(health_routes(state))
    app.include_router(metrics_routes(state))
    app.include_router(keys_routes(state))
    app.include_router(versions_routes(state))
    app.include_router(lists_routes(state))
    _answer_errors(app)
    ids = request_ids or RequestIds(secrets.token_hex(4))
    app.add_middleware(Edge, ids=ids, tally=state.tally, access=state.access)
    paths = events_path() | score_path() | labels_path() | query_path()
    describe(app, paths, bodies=_BODIES, finish=secured)
    return app


def _add_hot(app: FastAPI, state: State, endpoint: EventsEndpoint | ScoreEndpoint) -> None:
    """A route that also answers small requests on its own, without the application."""
    app.router.routes.append(Route(endpoint.path_format, endpoint, methods=["POST"]))
    state.short_routes[endpoint.path_format.encode()] = endpoint.take


def _empty_app() -> FastAPI:
    """An application whose documentation loads nothing from elsewhere."""
    app: FastAPI = FastAPIOffline(
        title="Tidegate", version=__version__, description=_TEXT.strip(), redirect_slashes=False
    )
    return app


def _answer_errors(app: FastAPI) -> None:
    async def bare_status(request: Request, error: Exception) -> Response:
        status = cast("HTTPException", error).status_code
        allow = _allowed(app, request) if status == HTTPStatus.METHOD_NOT_ALLOWED else None
        return _refused(request, status_refusal(status, allow=allow))

    async def invalid(request: Request, error: Exception) -> Response:
        first = cast("RequestValidationError", error).errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _refused(request, Refusal(422, "invalid_request", f"{place}: {first['msg']}"))

    async def refused(request: Request, error: Exception) -> Response:
        return _refused(request, refusal_of(cast("TidegateError", error)))

    app.add_exception_handler(HTTPException, bare_status)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(TidegateError, refused)


def _allowed(app: FastAPI, request: Request) -> str:
    """The methods of a path, which may have a route for each; one with its very name goes first."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    path = request.scope["path"]
    for outer in app.routes:
        included = getattr(outer, "original_router", None)  # the routes of `include_router`
        for route in [outer] if included is None else included.routes:
            if route.matches(request.scope)[0] is not Match.NONE:
                methods = getattr(route, "methods", None) or set()
                found[getattr(route, "path", None) == path] |= methods
    return ", ".join(sorted(found[True] or found[False]))


def _refused(request: Request, refusal: Refusal) -> Response:
    return error_response(refusal, request_id=request.state.request_id)
