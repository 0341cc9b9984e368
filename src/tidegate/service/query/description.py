"""`POST /v1/query` for the OpenAPI document: a plain route does not describe itself."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.service.description import errors
from tidegate.service.query.endpoint import MEDIA_TYPES, QueryRequest

_TEXT = """
One SELECT over the tables, in DuckDB's SQL or another dialect. It can read the tables and nothing
else, and is bounded in rows, bytes, time and memory (`[query]` in the settings). `parameters` are
the values of `$name` (`@name` in BigQuery) or of `?`. The answer is JSON, CSV or Arrow, as `format`
or the `Accept` header says.
"""


class QueryColumn(msgspec.Struct, frozen=True):
    """A column of a result; `type` is DuckDB's."""

    name: str
    type: str


class QueryRows(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rows of a query; `truncated` where there are more than a limit lets through.

    Decimals are exact numbers, times are UTC. `notes` say what was read otherwise than written.
    """

    columns: list[QueryColumn]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    elapsed_ms: float
    notes: list[str] = msgspec.field(default_factory=list)


BODIES = (QueryRequest, QueryColumn, QueryRows)


def query_path() -> dict[str, Any]:
    """The path item."""
    responses = {200: _answer()} | errors(400, 406, 408, 413, 415, 429, 500, 503)
    return {
        "/v1/query": {
            "post": {
                "tags": ["query"],
                "summary": "Ask the tables in SQL",
                "description": _TEXT.strip(),
                "operationId": "query",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _reference(QueryRequest)}},
                },
                "responses": {str(status): responses[status] for status in sorted(responses)},
            }
        }
    }


def _answer() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    kinds = {
        MEDIA_TYPES["json"]: {"schema": _reference(QueryRows)},
        "text/csv": {"schema": {"type": "string"}},
        MEDIA_TYPES["arrow"]: {"schema": binary},
    }
    headers = {
        "X-Row-Count": {"schema": {"type": "integer"}, "description": "Rows in the answer."},
        "X-Truncated": {"schema": {"type": "boolean"}, "description": "Whether there are more."},
    }
    return {"description": "The rows.", "content": kinds, "headers": headers}


def _reference(body: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{body.__name__}"}
