"""Neither the WAL nor the file grows without bound, and positions cost no commits."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tidegate.errors import DamageError
from tidegate.eventlog import SqliteLog
from tidegate.testing.eventlog import add, described, read_all
from waiting import until

_NOISE = random.Random(1).randbytes(200_000)  # it must not shrink when compressed
_MB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def wal_bytes(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


@pytest.fixture
def _small_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.eventlog.sqlite.CHECKPOINT_BYTES", _MB)
    monkeypatch.setattr("tidegate.eventlog.sqlite.WAL_BYTES_MAX", 4 * _MB)


@pytest.mark.usefixtures("_small_wal")
def test_the_wal_stays_small_under_steady_load(path: Path) -> None:
    with SqliteLog.open(path) as log:
        for i in range(200):
            add(log, _NOISE[:100_000], b"%d" % i)
            log.read(2 * i)
        assert wal_bytes(path) < 3 * _MB
        assert len(read_all(log)) == 200


@pytest.mark.usefixtures("_small_wal")
def test_a_reader_that_holds_the_wal_back_delays_appends_but_fails_none(path: Path) -> None:
    with SqliteLog.open(path) as log, closing(sqlite3.connect(path)) as reader:
        add(log, b"a")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        for _ in range(60):
            add(log, _NOISE[:100_000])
        assert wal_bytes(path) > 4 * _MB
        reader.execute("COMMIT")
        for _ in range(30):
            add(log, _NOISE[:100_000])
        size = wal_bytes(path)
        for _ in range(60):
            add(log, _NOISE[:100_000])
        assert wal_bytes(path) <= size


@pytest.fixture
def _quick_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.eventlog.sqlite._UPKEEP_SECONDS", 0.02)


@pytest.mark.usefixtures("_quick_upkeep")
def test_the_wal_is_emptied_when_writes_pause_for_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.eventlog.sqlite._WAL_KEPT_SECONDS", 0.1)
    with SqliteLog.open(path) as log:
        add(log, _NOISE[:100_000])
        until(lambda: wal_bytes(path) == 0)
        add(log, b"again")
        until(lambda: wal_bytes(path) == 0)
        assert len(read_all(log)) == 2


@pytest.mark.usefixtures("_quick_upkeep")
def test_the_wal_is_folded_when_writes_pause_and_then_written_over(path: Path) -> None:
    with SqliteLog.open(path) as log:
        for _ in range(5):
            add(log, _NOISE[:100_000])
        until(lambda: log._wal_bytes == 0)
        copy = path.with_name("copy.sqlite")
        shutil.copy(path, copy)  # without its WAL
        with SqliteLog.open(copy) as copied:
            assert len(read_all(copied)) == 5
        size = wal_bytes(path)
        assert size > 0
        for _ in range(4):
            add(log, _NOISE[:100_000])
        assert wal_bytes(path) == size
        assert len(read_all(log)) == 9


def test_a_closed_log_is_one_file(path: Path) -> None:
    with SqliteLog.open(path) as log:
        add(log, b"a")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_trimmed_space_is_used_again(path: Path) -> None:
    sizes = []
    with SqliteLog.open(path) as log:
        for round_ in range(12):
            for _ in range(20):
                add(log, _NOISE, ingest_time=round_)
            log.set_position("engine", log.next_offset)
            log.trim(before_time=round_)  # keeps the last round
            log._tidy(), log._tidy()
            sizes.append(path.stat().st_size)
    assert max(sizes[2:]) <= sizes[1] + _MB
    assert sizes[-1] < 12 * _MB


def test_a_file_mostly_free_shrinks(path: Path) -> None:
    with SqliteLog.open(path) as log:
        for i in range(300):
            add(log, _NOISE, ingest_time=i)
        kept = [described(e) for e in log.read(290)]
        log.set_position("engine", 300)
        assert log.trim(before_time=290) == 290
        assert [described(e) for e in read_all(log)] == kept
    assert path.stat().st_size < 20 * _MB


def test_setting_positions_writes_nothing_until_later(path: Path) -> None:
    with SqliteLog.open(path) as log:
        for _ in range(100):
            add(log, b"x")
        log.set_position("engine", 0)
        before = wal_bytes(path)
        for offset in range(1, 101):
            log.set_position("engine", offset)
        assert wal_bytes(path) == before
        assert log.positions() == {"engine": 100}
        assert _stored_positions(path) == {"engine": 0}


def test_positions_become_durable_within_about_a_second(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.eventlog.sqlite._UPKEEP_SECONDS", 0.02)
    with SqliteLog.open(path) as log:
        add(log, b"x")
        log.set_position("engine", 0)
        log.set_position("engine", 1)
        until(lambda: _stored_positions(path) == {"engine": 1})


def test_trim_makes_positions_durable_with_what_it_removes(path: Path) -> None:
    with SqliteLog.open(path) as log:
        add(log, b"x")
        log.set_position("engine", 0)
        log.set_position("engine", 1)
        assert log.trim(before_time=1) == 1
        assert _stored_positions(path) == {"engine": 1}


def test_trim_heeds_consumers_of_other_processes(path: Path) -> None:
    with SqliteLog.open(path) as log, SqliteLog.open(path) as other:
        for _ in range(3):
            add(log, b"x")
        log.set_position("engine", 3)
        other.set_position("sink", 1)
        other.set_position("sink", 2)  # not durable yet, so it does not count yet
        assert log.trim(before_time=1) == 1


def test_a_consumer_forgotten_elsewhere_stays_forgotten(path: Path) -> None:
    with SqliteLog.open(path) as log, SqliteLog.open(path) as other:
        add(log, b"x")
        other.set_position("sink", 0)
        log.forget("sink")
        other.set_position("sink", 1)
        other.close()
        assert log.positions() == {}


def test_each_commit_is_synced_to_the_disk(path: Path) -> None:
    # No test can cut the power; this is the setting that answers for it.
    with SqliteLog.open(path) as log, log._writing() as conn:
        assert conn.execute("PRAGMA synchronous").fetchone() == (2,)
        assert conn.execute("PRAGMA journal_mode").fetchone() == (b"wal",)


def test_a_damaged_position_is_healed_by_forgetting_its_consumer(path: Path) -> None:
    with SqliteLog.open(path) as log:
        add(log, b"x")
        log.set_position("engine", 0)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE positions SET position = 1")
    with SqliteLog.open(path) as log:
        with pytest.raises(DamageError, match="engine"):
            log.positions()
        log.forget("engine")
        log.set_position("engine", 1)
        assert log.positions() == {"engine": 1}


def test_a_position_written_late_does_not_take_a_consumer_back(path: Path) -> None:
    with SqliteLog.open(path) as log:
        for _ in range(3):
            add(log, b"x")
        log.set_position("engine", 0)
        with SqliteLog.open(path) as other:
            log.set_position("engine", 1)  # written when it closes, after the other one's
            other.set_position("engine", 3)
    assert _stored_positions(path) == {"engine": 3}


def _stored_positions(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as conn:
        return dict(conn.execute("SELECT consumer, position FROM positions"))
