"""`POST /v1/events` for the OpenAPI document: a plain route does not describe itself."""

from __future__ import annotations

from typing import Any

from tidegate.service.description import errors, shown
from tidegate.service.events.report import NoneTaken, PartlyTaken, Taken

_TEXT = """
The body is one JSON object, an array of objects, or one object a line (NDJSON), as it is or
compressed by gzip. The answer comes once the records are durable. What is no event is kept as a
dead letter, byte for byte, and reported with the reason; the others are taken all the same.
"""

_OBJECT = {"type": "object", "additionalProperties": True}
_LINES = {"schema": {"type": "string", "description": "One JSON object a line."}}


def events_path() -> dict[str, Any]:
    """The path item."""
    answers = shown(Taken, status=202) | shown(PartlyTaken, status=207)
    refusals = errors(400, 408, 413, 415, 429, 500, 503, 507)
    responses = answers | shown(NoneTaken, status=422) | refusals
    return {
        "/v1/events": {
            "post": {
                "tags": ["events"],
                "summary": "Send events",
                "description": _TEXT.strip(),
                "operationId": "send_events",
                "parameters": [encoding()],
                "requestBody": events_body(),
                "responses": {str(s): responses[s] for s in sorted(responses, key=str)},
            }
        }
    }


def encoding() -> dict[str, Any]:
    """The header that says how a body is compressed."""
    return {
        "name": "Content-Encoding",
        "in": "header",
        "required": False,
        "description": "How the body is compressed, if it is.",
        "schema": {"type": "string", "enum": ["gzip", "x-gzip", "identity", ""]},
    }


def events_body() -> dict[str, Any]:
    """The body of a request that brings events."""
    either = {"oneOf": [_OBJECT, {"type": "array", "items": _OBJECT}]}
    contents = {"application/json": {"schema": either}, "application/x-ndjson": _LINES}
    return {"required": True, "content": contents}
