"""How far each sink is and what it is about to deliver, kept in a small SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import DamageError, LockedError, StorageFullError
from tidegate.wal import write_ahead

_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sinks (
    name TEXT PRIMARY KEY,
    next_offset INTEGER NOT NULL,
    planned INTEGER
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Position:
    """A sink has delivered what lies before `offset`.

    `planned` is the end of a delivery from `offset` on that was begun and may be outside already,
    whole or in part; None when there is none.
    """

    offset: int
    planned: int | None = None


class Ledger:
    """The positions of all sinks; every change is durable when the call returns.

    May be used from several threads. A change names the state that it starts from, so that a
    straggler (a thread left behind while the outside hung) cannot move a sink back.
    Raises, from every method: StorageFullError; DamageError if the file is no ledger; LockedError
    if someone else moved the sink or keeps the file locked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._storage():
            self._database = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            write_ahead(self._database, _BUSY_SECONDS)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(_SCHEMA)

    def open(self, name: str, *, start: int = 0) -> Position:
        """Where the sink is; one that is new begins at `start`."""
        self._run("INSERT OR IGNORE INTO sinks (name, next_offset) VALUES (?, ?)", name, start)
        with self._storage():
            row = self._database.execute(
                "SELECT next_offset, planned FROM sinks WHERE name = ?", (name,)
            ).fetchone()
        return Position(*row)

    def plan(self, name: str, *, first: int, until: int) -> None:
        """Write down that rows from `first` to before `until` are about to be delivered."""
        self._change(
            name,
            "UPDATE sinks SET planned = ? WHERE name = ? AND next_offset = ? AND planned IS NULL",
            (until, name, first),
        )

    def deliver(self, name: str, *, first: int, until: int) -> None:
        """Write down that the planned delivery is safe on the other side."""
        self._change(
            name,
            "UPDATE sinks SET next_offset = planned, planned = NULL"
            " WHERE name = ? AND next_offset = ? AND planned = ?",
            (name, first, until),
        )

    def skip(self, name: str, *, first: int, until: int) -> None:
        """Write down that there is nothing to deliver from `first` to before `until`."""
        self._change(
            name,
            "UPDATE sinks SET next_offset = ? WHERE name = ? AND next_offset = ?"
            " AND planned IS NULL",
            (until, name, first),
        )

    def positions(self) -> dict[str, Position]:
        """Where every sink is, by name."""
        with self._storage():
            rows = self._database.execute("SELECT name, next_offset, planned FROM sinks").fetchall()
        return {name: Position(offset, planned) for name, offset, planned in rows}

    def forget(self, name: str) -> None:
        """Remove a sink that is gone for good; one of that name would start anew."""
        self._run("DELETE FROM sinks WHERE name = ?", name)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        with self._lock:
            self._database.close()

    def _change(self, name: str, statement: str, values: tuple[object, ...]) -> None:
        if self._run(statement, *values) == 0:
            raise LockedError(f"sink `{name}` was moved by someone else")

    def _run(self, statement: str, *values: object) -> int:
        with self._storage():
            return self._database.execute(statement, values).rowcount

    @contextmanager
    def _storage(self) -> Iterator[None]:
        """One caller at a time, and SQLite's errors as ours."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    raise LockedError(f"{self._path.name} is locked: {error}") from error
                raise StorageFullError(f"cannot write {self._path.name}: {error}") from error
            except sqlite3.ProgrammingError as error:
                raise LockedError(f"{self._path.name} is closed") from error
            except sqlite3.DatabaseError as error:
                raise DamageError(f"{self._path.name} is damaged: {error}") from error
