"""Many open a new SQLite file at once, and none of them is turned away."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidegate.wal import write_ahead


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
