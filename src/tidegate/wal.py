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


def fold(connection: sqlite3.Connection, seconds: float) -> bool:
    """Fold the WAL into the file while others may write; False if that cannot be in `seconds`.

    A checkpoint that waits for a writer keeps all others from theirs meanwhile, and that writer may
    be waiting for one. So this one does not wait, but is tried again. The connection's own
    `busy_timeout` is `seconds` afterwards.
    """
    give_up = time.monotonic() + seconds
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            _, frames, folded = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if frames == folded >= 0:  # -1: somebody else is at it
                return True
            if time.monotonic() > give_up:
                return False
            time.sleep(_TRY_SECONDS)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
