"""`POST /v1/labels` for the OpenAPI document: a plain route does not describe itself."""

from __future__ import annotations

from typing import Any

from tidegate.labels.report import EVENT_ID_BYTES_MAX, SOURCE_CHARS_MAX
from tidegate.service.description import errors, shown
from tidegate.service.events.description import encoding
from tidegate.service.labels.report import LabelsPartlyTaken, LabelsTaken, NoLabelsTaken

_TEXT = """
What events truly were, by their ids: one JSON object, an array of objects, or one object a line
(NDJSON). The answer comes once the labels are durable; the last label of an event counts. A label
may come before its event. What cannot be read is reported with the reason and is not kept.
"""
_LABEL = {
    "type": "object",
    "required": ["event_id", "label"],
    "additionalProperties": False,
    "properties": {
        "event_id": {
            "oneOf": [
                {"type": "string", "minLength": 1, "maxLength": EVENT_ID_BYTES_MAX},
                {"type": "integer"},
            ]
        },
        "label": {"enum": ["fraud", "legitimate", True, False, 1, 0]},
        "source": {"type": ["string", "null"], "maxLength": SOURCE_CHARS_MAX},
        "known_at": {"type": ["string", "null"], "format": "date-time"},
    },
}
_LINES = {"schema": {"type": "string", "description": "One JSON object a line."}}


def labels_path() -> dict[str, Any]:
    """The path item."""
    answers = shown(LabelsTaken, status=202) | shown(LabelsPartlyTaken, status=207)
    refusals = errors(400, 408, 413, 415, 429, 500, 503, 507)
    responses = answers | shown(NoLabelsTaken, status=422) | refusals
    either = {"oneOf": [_LABEL, {"type": "array", "items": _LABEL, "minItems": 1}]}
    contents = {"application/json": {"schema": either}, "application/x-ndjson": _LINES}
    return {
        "/v1/labels": {
            "post": {
                "tags": ["labels"],
                "summary": "Say what events truly were",
                "description": _TEXT.strip(),
                "operationId": "send_labels",
                "parameters": [encoding()],
                "requestBody": {"required": True, "content": contents},
                "responses": {str(s): responses[s] for s in sorted(responses, key=str)},
            }
        }
    }
