"""The file of the log: its tables, its marks of identity, and how connections to it are opened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidegate.errors import DamageError, InputError, StorageFullError
from tidegate.eventlog import state
from tidegate.eventlog.faults import translated
from tidegate.wal import fold, write_ahead

APPLICATION_ID = 0x54474C47  # "TGLG", in the file's header
FORMAT_VERSION = 1

# How long to wait for another process that writes.
LOCK_SECONDS_MAX = 30.0

# A WAL that readers made grow beyond this is cut back when it starts over.
_IDLE_WAL_BYTES_MAX = 128 << 20
_MAGIC = b"SQLite format 3\0"

# Large pages carry blobs of megabytes several times faster than SQLite's usual 4 KiB.
_BEFORE_TABLES = ("PRAGMA page_size = 32768", "PRAGMA auto_vacuum = INCREMENTAL")
_TABLES = f"""
CREATE TABLE entries (
    first_offset INTEGER PRIMARY KEY,
    count        INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    ingest_time  INTEGER NOT NULL,
    bounds       BLOB    NOT NULL,
    size         INTEGER NOT NULL,
    payload      BLOB    NOT NULL,
    checksum     INTEGER NOT NULL
);
CREATE TABLE span (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    first_offset INTEGER NOT NULL,
    next_offset  INTEGER NOT NULL,
    checksum     INTEGER NOT NULL
);
CREATE TABLE positions (
    consumer     TEXT    PRIMARY KEY,
    position     INTEGER NOT NULL,
    checksum     INTEGER NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
"""


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection that writes; the file and its tables are created if they are not there.

    Raises: InputError if the file is something else or of a newer format; DamageError;
    StorageFullError; LockedError.
    """
    if not path.parent.is_dir():
        raise InputError(f"the folder `{path.parent}` of the log `{path.name}` does not exist")
    if path.is_dir():
        raise InputError(f"the log `{path}` is a folder; it should be a file or not there yet")
    with translated(path, offset=0), _closed_on_error(_connect(path)) as conn:
        conn.text_factory = bytes
        _recognise(conn, path)
        _set_wal(conn)
        for setting in (
            "PRAGMA synchronous = FULL",
            # The log decides itself when to checkpoint; see `sqlite.py`.
            "PRAGMA wal_autocheckpoint = 0",
            "PRAGMA secure_delete = OFF",
            f"PRAGMA journal_size_limit = {_IDLE_WAL_BYTES_MAX}",
            "PRAGMA cache_size = -16384",
        ):
            conn.execute(setting)
        _create(conn, path)
    return conn


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads; as much of a damaged file as can be read."""
    with translated(path, offset=0), _closed_on_error(_connect(path)) as conn:
        conn.execute("PRAGMA query_only = ON")
        # Without it SQLite refuses every row of a file that was cut short, also those still there.
        # It allows writing the schema too, which `query_only` rules out.
        conn.execute("PRAGMA writable_schema = ON")
        conn.text_factory = bytes
        _recognise(conn, path)
    return conn


@contextmanager
def transaction(conn: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: committed at the end, rolled back on any error."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself; what went wrong is told by the first error.
        with suppress(sqlite3.Error):
            if conn.in_transaction:
                conn.execute("ROLLBACK")
        raise


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=LOCK_SECONDS_MAX, isolation_level=None, check_same_thread=False
    )


@contextmanager
def _closed_on_error(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield conn
    except BaseException:
        conn.close()
        raise


def _recognise(conn: sqlite3.Connection, path: Path) -> None:
    try:
        marks = [int(conn.execute(f"PRAGMA {p}").fetchone()[0]) for p in _MARKS]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_NOTADB:
            raise
        raise _not_a_database(path) from error
    application_id, version = marks
    tables = _tables(conn)
    if not (application_id or version or tables):
        return  # new, or its creation was cut short
    if application_id != APPLICATION_ID:
        raise _not_a_log(path, application_id, tables)
    if version != FORMAT_VERSION:
        raise InputError(
            f"`{path}` has format version {version}; this Tidegate reads version {FORMAT_VERSION}: "
            "use the Tidegate that wrote it, or a newer one"
        )


_MARKS = ("application_id", "user_version")


def _tables(conn: sqlite3.Connection) -> set[bytes]:
    rows = conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return {name for (name,) in rows}


def _not_a_log(path: Path, application_id: int, tables: set[bytes]) -> InputError | DamageError:
    if tables == {b"entries", b"span", b"positions"}:
        return DamageError(f"`{path}` is damaged: its application id is wrong", offset=0)
    return InputError(
        f"`{path}` is an SQLite database with {len(tables)} tables and application id "
        f"{application_id:#010x}, not a Tidegate event log ({APPLICATION_ID:#010x})"
    )


def _not_a_database(path: Path) -> InputError | DamageError:
    # Opening the file here is safe only because SQLite holds no locks on what it refused:
    # closing a file drops all POSIX locks that the process has on it.
    with path.open("rb") as file:
        head = file.read(72)
    if head[:16] == _MAGIC or head[68:72] == APPLICATION_ID.to_bytes(4, "big"):
        return DamageError(f"`{path}` is damaged: its header cannot be read", offset=0)
    return InputError(
        f"`{path}` is not a Tidegate event log: it begins with {head[:16]!r}, not with {_MAGIC!r}"
    )


def _set_wal(conn: sqlite3.Connection) -> None:
    if conn.execute("PRAGMA journal_mode").fetchone()[0] == b"wal":
        return
    for setting in _BEFORE_TABLES:
        conn.execute(setting)
    write_ahead(conn, LOCK_SECONDS_MAX)


def _create(conn: sqlite3.Connection, path: Path) -> None:
    if _tables(conn):
        return
    with transaction(conn):
        if _tables(conn):
            return  # another process was faster
        for statement in filter(str.strip, _TABLES.split(";")):
            conn.execute(statement)
        state.write_span(conn, state.Span(0, 0))
    # From here on the file says by itself what it is, even should its WAL get lost.
    fold(conn, LOCK_SECONDS_MAX)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # A new file survives the loss of power only once its folder does.
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageFullError(f"the folder `{folder}` cannot be made durable: {error}") from error
