"""The OpenAPI document: schemas made of the very structs that are sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tidegate.service.errors import ErrorBody

_REFERENCE = "#/components/schemas/{name}"

Responses = dict[int | str, dict[str, Any]]


def shown(body: type[msgspec.Struct], *, status: int = 200) -> Responses:
    """The description of an answer whose body is `body`."""
    text = (body.__doc__ or "").partition("\n")[0]
    return {status: _response(text, body)}


def errors(*statuses: int) -> Responses:
    """The description of errors, which all have one shape."""
    return {s: _response(HTTPStatus(s).phrase, ErrorBody) for s in statuses}


def _response(text: str, body: type) -> dict[str, Any]:
    reference = {"$ref": _REFERENCE.format(name=body.__name__)}
    return {"description": text, "content": {"application/json": {"schema": reference}}}


def describe(
    app: FastAPI,
    paths: dict[str, Any],
    *,
    bodies: Sequence[type],
    finish: Callable[[dict[str, Any]], None],
) -> None:
    """Let `app` serve its document, with `paths` that plain routes answer and all `bodies` sent.

    `finish` says what holds on all routes.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, paths, bodies)
            finish(app.openapi_schema)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # the way that FastAPI documents


def _document(app: FastAPI, paths: dict[str, Any], bodies: Sequence[type]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, schemas = msgspec.json.schema_components(bodies, ref_template=_REFERENCE)
    known = document.setdefault("components", {}).setdefault("schemas", {})
    known |= schemas
    document["paths"] = paths | document["paths"]
    for operations in document["paths"].values():
        for operation in operations.values():
            _use_one_error_shape(operation["responses"])
    for name in ("HTTPValidationError", "ValidationError"):
        known.pop(name, None)
    return document


def _use_one_error_shape(responses: dict[str, Any]) -> None:
    """FastAPI describes its own shape of 422, which is never sent."""
    if "HTTPValidationError" in str(responses.get("422")):
        responses |= {"422": errors(422)[422]}
