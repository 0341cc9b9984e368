"""What a caller needs for each route, for the OpenAPI document; taken from the table of routes."""

from __future__ import annotations

from typing import Any

from tidegate.service.access.scopes import row_of
from tidegate.service.description import errors

_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key. Where the project asks for none, none is needed.",
}


def secured(document: dict[str, Any]) -> None:
    """Say of each operation which scopes open it, and how callers without them are answered."""
    document["components"].setdefault("securitySchemes", {})["key"] = _SCHEME
    for path, operations in document["paths"].items():
        row = row_of(path)
        if row is None or not row.scopes:
            continue
        for operation in operations.values():
            operation["security"] = [{"key": []}, {}]
            operation["x-scopes"] = [*row.scopes]
            for status, response in errors(401, 403, 429).items():
                operation["responses"].setdefault(str(status), response)
