"""Fraud detection on event streams, in SQL.

>>> import tidegate
>>> shop = tidegate.open("shop")                                       # doctest: +SKIP
>>> shop.query("SELECT * FROM decisions WHERE action <> 'approve'").polars()  # doctest: +SKIP
"""

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
)
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
    "Workspace",
    "open",
]
