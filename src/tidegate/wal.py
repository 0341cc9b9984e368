"""SQLite files that are written ahead: a WAL beside the file, so that readers hold up no writer."""

from __future__ import annotations

import sqlite3
import time

_TRY_SECONDS = 0.005


def write_ahead(connection: sqlite3.Connection, seconds: float) -> None:
    """Let the file have a WAL, once and for all who open it after this.

    Several may open a new file at once: SQLite gives up here without waiting, whatever
    `busy_timeout` says, since each would wait for the other. So we try again for `seconds`.
    Raises: sqlite3.Error, also if another connection still holds the file after that.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > give_up:
                raise
        time.sleep(_TRY_SECONDS)
