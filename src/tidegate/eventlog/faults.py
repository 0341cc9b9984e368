"""SQLite's errors as Tidegate's: none of them gets past the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidegate.errors import DamageError, LockedError, StorageFullError

_FULL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOLFS,
}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
# Of the failures of a device, these say that what is stored cannot be had back.
_UNREADABLE = {
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
}


@contextmanager
def translated(path: Path, *, offset: int | None = None) -> Iterator[None]:
    """Raise SQLite's errors as Tidegate's, naming the file; `offset` goes with damage."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path, offset=offset) from error


def translate(error: sqlite3.Error, path: Path, *, offset: int | None = None) -> Exception:
    """The Tidegate error for an error of SQLite's.

    The log's statements are fixed and its parameters checked, so an error that speaks neither of
    space nor of locks can only come from the file: it is damage.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.ProgrammingError):
        return ValueError(f"the log `{path}` is closed")
    if code is None or code in _UNREADABLE:
        return DamageError(f"`{path}` is damaged: {error}", offset=offset)
    if code & 0xFF in _FULL:
        return StorageFullError(f"`{path}` cannot be written: {error}")
    if code & 0xFF in _LOCKED:
        return LockedError(f"`{path}` is in use by another process: {error}")
    return DamageError(f"`{path}` is damaged: {error}", offset=offset)
