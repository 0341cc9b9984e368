"""`POST /v1/score` for the OpenAPI document: a plain route does not describe itself."""

from __future__ import annotations

from typing import Any

from tidegate.service.description import errors, shown
from tidegate.service.events.description import encoding, events_body
from tidegate.service.score.shapes import PATH, TIMEOUT_MS_MAX, Scored

_TEXT = """
The body is as for `POST /v1/events`. The events are made durable and decided, with features that
include them, and the answer is the decision: one object for an object, an array in the same order
for an array or for lines. A repeated id is answered with the first decision and `duplicate`. Past
`timeout_ms` the answer is the action that the project names for that, with `fallback`; the event is
decided all the same, and the log keeps which answer was given.
"""
_EITHER = {
    "oneOf": [
        {"$ref": "#/components/schemas/Scored"},
        {
            "type": "array",
            "items": {
                "oneOf": [
                    {"$ref": "#/components/schemas/Scored"},
                    {"$ref": "#/components/schemas/NotScored"},
                ]
            },
        },
    ]
}

_NOTHING = {
    "anyOf": [
        {"$ref": "#/components/schemas/NoneScored"},
        {"$ref": "#/components/schemas/ErrorBody"},
    ]
}


def score_path() -> dict[str, Any]:
    """The path item."""
    answers = shown(Scored) | shown(Scored, status=207)
    for status, text, schema in (
        (200, "All are decided.", _EITHER),
        (207, "Some records are no events.", _EITHER),
        (422, "No record is an event, or the deadline is none.", _NOTHING),
    ):
        answers[status] = {"description": text, "content": {"application/json": {"schema": schema}}}
    refusals = errors(400, 408, 413, 415, 429, 500, 503, 507)
    responses = answers | refusals
    return {
        PATH: {
            "post": {
                "tags": ["decisions"],
                "summary": "Send events and get the decisions",
                "description": _TEXT.strip(),
                "operationId": "score_events",
                "parameters": [_timeout(), encoding()],
                "requestBody": events_body(),
                "responses": {str(s): responses[s] for s in sorted(responses, key=str)},
            }
        }
    }


def _timeout() -> dict[str, Any]:
    return {
        "name": "timeout_ms",
        "in": "query",
        "required": False,
        "description": "How long to wait for the decision; the project's setting if absent.",
        "schema": {"type": "integer", "minimum": 1, "maximum": TIMEOUT_MS_MAX},
    }
