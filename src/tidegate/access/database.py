"""The operational database: what people do, beside what the log says of events.

An SQLite file in the data folder. All statements are SQLAlchemy Core's, so that a PostgreSQL URL
can take its place.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Engine, MetaData, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from tidegate.errors import DamageError, StorageFullError, TidegateError, UnreachableError
from tidegate.wal import write_ahead

_BUSY_SECONDS = 5.0
_FULL = ("disk is full", "readonly database", "disk I/O error", "unable to open database")


def url_of(path: Path) -> URL:
    """The URL of an SQLite file."""
    return URL.create("sqlite", database=str(path))


def connect(url: URL, metadata: MetaData) -> Engine:
    """An engine for the database, its tables made where they are missing.

    An SQLite file is made readable for its owner alone.
    Raises: StorageFullError, UnreachableError, DamageError.
    """
    if url.get_backend_name() == "sqlite" and url.database is not None:
        _make_file(Path(url.database))
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _tune)
    with translated(url), engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
    return engine


def _make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _tune(connection: sqlite3.Connection, _record: object) -> None:
    """Settings of each SQLite connection."""
    connection.execute(f"PRAGMA busy_timeout = {round(_BUSY_SECONDS * 1000)}")
    write_ahead(connection, _BUSY_SECONDS)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """A block in which the database's errors come out as Tidegate's."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _translation(error, url) from error


def _translation(error: SQLAlchemyError, url: URL) -> TidegateError:
    where = url.render_as_string(hide_password=True)
    said = str(getattr(error, "orig", None) or error).partition("\n")[0]
    if any(words in said for words in _FULL):
        return StorageFullError(f"{where} cannot be written: {said}")
    if isinstance(error, DatabaseError) and not isinstance(error, OperationalError):
        return DamageError(f"{where} cannot be read: {said}")
    return UnreachableError(f"{where} does not answer: {said}")
