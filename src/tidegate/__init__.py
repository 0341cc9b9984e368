"""Fraud detection on event streams, in SQL.

>>> import tidegate
>>> shop = tidegate.open("shop")                                       # doctest: +SKIP
>>> shop.query("SELECT * FROM decisions WHERE action <> 'approve'").polars()  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from tidegate.errors import (
    DamageError,
    InputError,
    LockedError,
    OverloadedError,
    ProjectError,
    QueryError,
    RequestError,
    StorageFullError,
    TidegateError,
    TransientError,
    UnreachableError,
)

if TYPE_CHECKING:
    from tidegate.workspace import Workspace, open  # noqa: A004 - read as `tidegate.open`

__version__ = "0.1.0"

__all__ = [
    "DamageError",
    "InputError",
    "LockedError",
    "OverloadedError",
    "ProjectError",
    "QueryError",
    "RequestError",
    "StorageFullError",
    "TidegateError",
    "TransientError",
    "UnreachableError",
    "Workspace",
    "open",
]


def __getattr__(name: str) -> object:
    """What takes a second to import is imported when it is asked for."""
    if name in ("Workspace", "open"):
        from tidegate import workspace

        return getattr(workspace, name)
    raise AttributeError(f"module `tidegate` has no attribute `{name}`")
