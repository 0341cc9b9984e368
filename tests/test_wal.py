"""Many open a new SQLite file at once: none is turned away, and none waits for the others."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidegate.wal import fold, write_ahead


def test_who_finds_the_file_held_tries_again_without_sqlites_own_wait(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        holder = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")

        def open_it() -> str:
            connection = sqlite3.connect(tmp_path / "new.sqlite", timeout=0.0)
            write_ahead(connection, 30.0)
            mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
            connection.close()
            return mode

        opening = pool.submit(open_it)
        time.sleep(0.1)
        assert not opening.done()
        holder.execute("COMMIT")
        assert opening.result(30.0) == "wal"
        holder.close()


def test_it_gives_up_on_a_file_that_is_held_for_ever(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    connection = sqlite3.connect(tmp_path / "new.sqlite", timeout=0.0)
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write_ahead(connection, 0.1)
    assert time.monotonic() - began >= 0.1
    connection.close()
    holder.close()


def test_any_other_fault_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "new.sqlite").write_bytes(b"nothing of the kind" * 100)
    connection = sqlite3.connect(tmp_path / "new.sqlite")
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        write_ahead(connection, 30.0)
    connection.close()


def _written(path: Path) -> sqlite3.Connection:
    """A connection to a file whose only table lies in its WAL."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    write_ahead(connection, 30.0)
    connection.execute("CREATE TABLE told (number INTEGER)")
    return connection


def test_the_wal_is_folded_while_another_writes_and_does_not_keep_it_from_its_own(
    tmp_path: Path,
) -> None:
    """Who opens a log holds it while it looks how far its WAL goes, which takes a checkpoint."""
    path = tmp_path / "new.sqlite"
    connection, other = _written(path), sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert fold(connection, 30.0)
    third = sqlite3.connect(path, isolation_level=None)
    assert third.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1] >= 0
    assert time.monotonic() - began < 10.0
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(path.read_bytes())  # without its WAL
    with sqlite3.connect(copy) as alone:
        assert alone.execute("SELECT name FROM sqlite_schema").fetchall() == [("told",)]
    alone.close()
    assert connection.execute("PRAGMA busy_timeout").fetchone()[0] == 30_000
    other.execute("COMMIT")
    for each in (third, other, connection):
        each.close()


def test_what_a_reader_still_needs_is_not_waited_for_beyond_the_time(tmp_path: Path) -> None:
    connection = _written(tmp_path / "new.sqlite")
    reader = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM told").fetchone()
    connection.execute("INSERT INTO told VALUES (1)")
    assert not fold(connection, 0.05)
    reader.execute("COMMIT")
    assert fold(connection, 30.0)
    reader.close()
    connection.close()
