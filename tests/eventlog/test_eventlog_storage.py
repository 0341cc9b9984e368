"""A full or read-only disk fails appends, keeps what is there, and heals without a restart."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest

from tidegate.errors import DamageError, LockedError, StorageFullError
from tidegate.eventlog import SqliteLog
from tidegate.eventlog.faults import translate
from tidegate.testing.eventlog import add, described, read_all
from waiting import PATIENCE_SECONDS

_NOISE = random.Random(1).randbytes(200_000)  # it must not shrink when compressed
_BLOCK = _NOISE


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond the limit, as on a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog.open(tmp_path / "log.sqlite") as opened:
        yield opened


def fill(log: SqliteLog) -> int:
    """Append until the disk is full; returns how many appends were acknowledged."""
    for acknowledged in range(1000):
        try:
            assert add(log, _BLOCK, b"%d" % acknowledged) == 2 * acknowledged
        except StorageFullError:
            return acknowledged
    raise AssertionError("the disk never filled up")


def test_a_full_disk_fails_the_append_and_keeps_what_was_acknowledged(log: SqliteLog) -> None:
    with file_size_limit(1 << 20):
        acknowledged = fill(log)
        assert acknowledged > 0
        assert len(read_all(log)) == acknowledged
        assert log.next_offset == 2 * acknowledged


def test_appends_go_on_without_a_gap_as_soon_as_there_is_room(log: SqliteLog) -> None:
    with file_size_limit(1 << 20):
        acknowledged = fill(log)
    assert add(log, b"a", b"b") == 2 * acknowledged
    assert add(log, b"c") == 2 * acknowledged + 2
    assert list(log.verify()) == []
    assert read_all(log)[-1].next_offset == log.next_offset


def test_of_many_threads_on_a_full_disk_only_the_acknowledged_are_stored(log: SqliteLog) -> None:
    def work(name: int) -> list[bytes]:
        acknowledged = []
        for i in range(10):
            with suppress(StorageFullError):
                record = b"%d-%d" % (name, i)
                add(log, record, _NOISE[:50_000])
                acknowledged.append(record)
        return acknowledged

    with file_size_limit(1 << 20), ThreadPoolExecutor(6) as pool:
        acknowledged = [record for records in pool.map(work, range(6)) for record in records]
    assert 0 < len(acknowledged) < 60
    assert sorted(entry.records[0] for entry in read_all(log)) == sorted(acknowledged)


def test_what_was_acknowledged_survives_a_restart_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with file_size_limit(1 << 20):
        with SqliteLog.open(path) as log:
            acknowledged = fill(log)
            before = [described(e) for e in read_all(log)]
        with SqliteLog.open(path) as log:
            assert [described(e) for e in read_all(log)] == before
            assert log.next_offset == 2 * acknowledged


def test_a_disk_too_full_to_fold_the_wal_does_not_fail_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.eventlog.sqlite.CHECKPOINT_BYTES", 1)
    # The file may not grow beyond this, while the WAL has room for as much again.
    with file_size_limit(4 << 20), SqliteLog.open(tmp_path / "log.sqlite") as log:
        acknowledged = fill(log)
        assert acknowledged * len(_BLOCK) > 5 << 20
        assert len(read_all(log)) == acknowledged


@pytest.fixture
def small_disk(tmp_path: Path, missing: Callable[[str], NoReturn]) -> Iterator[Path]:
    """A real file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        missing("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_file_system_heals_when_something_else_is_deleted(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with SqliteLog.open(small_disk / "log.sqlite") as log:
        acknowledged = fill(log)
        assert acknowledged > 0
        ballast.unlink()
        assert add(log, b"a", b"b") == 2 * acknowledged
        assert len(read_all(log)) == acknowledged + 1
        assert list(log.verify()) == []


_READ_ONLY = """
import os, sys
from pathlib import Path
from tidegate.errors import StorageFullError
from tidegate.eventlog import SqliteLog
from tidegate.testing.eventlog import add, read_all
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anything
with SqliteLog.open(Path(sys.argv[1])) as log:
    print(len(read_all(log)))
    try:
        add(log, b"x")
    except StorageFullError as error:
        print(error)
"""


def test_a_read_only_file_is_read_and_takes_no_appends() -> None:
    # Not below the folder of the test: only its owner may enter that one.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.sqlite"
        with SqliteLog.open(path) as log:
            add(log, b"a")
        path.chmod(0o444)
        Path(folder).chmod(0o777)
        lines = _run(_READ_ONLY, path).splitlines()
        assert lines[0] == "1"
        assert "cannot be written: attempt to write a readonly database" in lines[1]


def _run(script: str, *args: object) -> str:
    command = [sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    return done.stdout


def _error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["FULL", "IOERR", "IOERR_WRITE", "IOERR_FSYNC", "READONLY", "CANTOPEN"], StorageFullError),
        (["READONLY_DBMOVED", "CANTOPEN_ISDIR", "PERM", "IOERR_SHMSIZE"], StorageFullError),
        (["BUSY", "BUSY_SNAPSHOT", "BUSY_RECOVERY", "LOCKED", "PROTOCOL"], LockedError),
        (["CORRUPT", "CORRUPT_INDEX", "NOTADB", "ERROR", "CONSTRAINT", "TOOBIG"], DamageError),
        (["IOERR_READ", "IOERR_SHORT_READ", "MISMATCH", "FORMAT", "SCHEMA"], DamageError),
    ],
)
def test_each_error_of_sqlite_becomes_one_of_ours(
    codes: list[str], expected: type[Exception]
) -> None:
    for name in codes:
        error = translate(_error(getattr(sqlite3, f"SQLITE_{name}")), Path("l"), offset=7)
        assert type(error) is expected, name
        assert "what SQLite says" in str(error)


def test_no_error_code_of_sqlite_is_without_a_counterpart() -> None:
    names = [n for n in dir(sqlite3) if n.startswith("SQLITE_")]
    for name in names:
        code = getattr(sqlite3, name)
        if isinstance(code, int):
            assert isinstance(
                translate(_error(code), Path("l")), StorageFullError | LockedError | DamageError
            )


def test_damage_carries_the_offset_it_was_found_at() -> None:
    error = translate(_error(sqlite3.SQLITE_CORRUPT), Path("l"), offset=7)
    assert isinstance(error, DamageError)
    assert error.offset == 7
