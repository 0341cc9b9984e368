"""What is torn or corrupted is reported with its offset, and never read as data."""

from __future__ import annotations

import random
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.errors import DamageError, InputError
from tidegate.eventlog import SqliteLog
from tidegate.eventlog.layout import APPLICATION_ID, FORMAT_VERSION
from tidegate.testing.eventlog import Described, add, described, read_all

_PAGE_BYTES = 32768
# Where the file's header says which format it is; a change there reads as another format.
_IDENTITY = {*range(60, 64)}


@dataclass(frozen=True)
class Stored:
    """A closed log file and the entries it holds."""

    path: Path
    entries: list[Described]

    @property
    def next_offset(self) -> int:
        return self.entries[-1][0] + len(self.entries[-1][5])

    def copy(self, *, change: Callable[[bytearray], None]) -> Path:
        content = bytearray(self.path.read_bytes())
        change(content)
        path = self.path.with_name("copy.sqlite")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A log of some 50 entries, from 10 bytes to 200 KB, the oldest trimmed."""
    path = tmp_path_factory.mktemp("stored") / "log.sqlite"
    chance = random.Random(1)
    with SqliteLog.open(path) as log:
        for i in range(55):
            block = chance.randbytes(200_000 if i % 12 == 6 else chance.randint(10, 3000))
            add(log, block, b"%d" % i, ingest_time=i)
        log.set_position("engine", 8)
        log.trim(before_time=100)
        entries = [described(e) for e in read_all(log)]
    return Stored(path, entries)


def check(path: Path, stored: Stored) -> int:
    """Every read gives the original or DamageError with its offset; returns how many did that."""
    try:
        log = SqliteLog.open(path)
    except DamageError as error:
        assert_has_offset(error)
        return len(stored.entries)
    with log:
        refused = 0
        for i, entry in enumerate(stored.entries):
            try:
                got = [described(e) for e in log.read(entry[0], bytes_max=5000)]
                assert got
                assert got == stored.entries[i : i + len(got)]
            except DamageError as error:
                assert_has_offset(error, offset_max=entry[0])
                refused += 1
        check_walk(log, stored)
        assert bool(list(log.verify())) >= bool(refused)
    return refused


def check_walk(log: SqliteLog, stored: Stored) -> None:
    """Walking the log, nobody comes to an end before the last entry."""
    try:
        assert [described(e) for e in read_all(log)] == stored.entries
    except DamageError as error:
        assert_has_offset(error)


def assert_has_offset(error: DamageError, *, offset_max: int = 1 << 62) -> None:
    assert error.offset is not None
    assert 0 <= error.offset <= offset_max


def test_the_file_as_stored_is_sound(stored: Stored) -> None:
    assert check(stored.copy(change=lambda content: None), stored) == 0


@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_changed_byte_anywhere_is_never_read_as_data(
    stored: Stored, place: float, bits: int
) -> None:
    def change(content: bytearray) -> None:
        content[int(place * len(content))] ^= bits

    _check_unless_identity(stored, change, int(place * stored.path.stat().st_size))


@pytest.mark.parametrize("bit", range(0, 8, 3))
def test_a_changed_bit_in_the_first_bytes_of_a_page_is_never_read_as_data(
    stored: Stored, bit: int
) -> None:
    # Here lie the file's header and the pages' tables of cells, on which all reading rests.
    pages = stored.path.stat().st_size // _PAGE_BYTES
    places = [*range(100), *(p * _PAGE_BYTES + i for p in range(min(pages, 8)) for i in range(16))]
    for place in places:

        def change(content: bytearray, place: int = place) -> None:
            content[place] ^= 1 << bit

        _check_unless_identity(stored, change, place)


def _check_unless_identity(stored: Stored, change: Callable[[bytearray], None], place: int) -> None:
    try:
        check(stored.copy(change=change), stored)
    except InputError:
        assert place in _IDENTITY


def test_a_payload_changed_in_the_middle_is_reported_at_its_entry(stored: Stored) -> None:
    entry = stored.entries[20]

    def change(content: bytearray) -> None:
        content[content.index(entry[5][0][:10]) + 5] ^= 1

    with SqliteLog.open(stored.copy(change=change)) as log:
        with pytest.raises(DamageError) as raised:
            log.read(entry[0] + 1)
        assert raised.value.offset == entry[0]
        assert [d.first_offset for d in log.verify()] == [entry[0]]


def test_what_lies_before_and_behind_damage_is_read(stored: Stored) -> None:
    damaged = stored.entries[20][0]
    path = stored.copy(change=lambda content: None)
    _execute(path, f"UPDATE entries SET payload = zeroblob(9) WHERE first_offset = {damaged}")
    with SqliteLog.open(path) as log:
        before = log.read(stored.entries[15][0])
        behind = log.read(stored.entries[21][0])
    assert [described(e) for e in before] == stored.entries[15:20]
    assert [described(e) for e in behind][:5] == stored.entries[21:26]


# Two rows change places, each whole in itself.
_SWAP = """
UPDATE entries SET first_offset = -first_offset WHERE first_offset IN (40, 42);
UPDATE entries SET first_offset = 82 + first_offset WHERE first_offset < 0;
"""
_MIDDLE = "first_offset = 40"


@pytest.mark.parametrize(
    "statement",
    [
        f"DELETE FROM entries WHERE {_MIDDLE}",
        f"UPDATE entries SET count = count + 1 WHERE {_MIDDLE}",
        f"UPDATE entries SET count = 0 WHERE {_MIDDLE}",
        f"UPDATE entries SET kind = 'control' WHERE {_MIDDLE}",
        f"UPDATE entries SET kind = 'other' WHERE {_MIDDLE}",
        f"UPDATE entries SET source = 'tesu' WHERE {_MIDDLE}",
        f"UPDATE entries SET ingest_time = ingest_time + 1 WHERE {_MIDDLE}",
        f"UPDATE entries SET bounds = CAST(bounds || x'00' AS BLOB) WHERE {_MIDDLE}",
        f"UPDATE entries SET payload = CAST(payload || x'00' AS BLOB) WHERE {_MIDDLE}",
        f"UPDATE entries SET checksum = checksum + 1 WHERE {_MIDDLE}",
        f"UPDATE entries SET first_offset = 41 WHERE {_MIDDLE}",
        f"UPDATE entries SET first_offset = 4000 WHERE {_MIDDLE}",
        _SWAP,
    ],
)
def test_a_row_that_is_missing_or_altered_is_reported_at_its_offset(
    stored: Stored, statement: str
) -> None:
    path = stored.copy(change=lambda content: None)
    _execute(path, statement)
    with SqliteLog.open(path) as log:
        for offset in (40, 41):
            with pytest.raises(DamageError) as raised:
                log.read(offset)
            assert raised.value.offset == 40
        assert next(log.verify()).first_offset == 40


@pytest.mark.parametrize("lost", [1, 5, 51])
def test_a_log_that_lost_its_last_rows_is_damaged_there(stored: Stored, lost: int) -> None:
    path = stored.copy(change=lambda content: None)
    start = stored.next_offset - 2 * lost
    _execute(path, f"DELETE FROM entries WHERE first_offset >= {start}")
    with SqliteLog.open(path) as log:
        assert log.next_offset == stored.next_offset
        for use in (lambda: log.read(start), lambda: add(log, b"x")):
            with pytest.raises(DamageError) as raised:
                use()
            assert raised.value.offset == start


def test_a_log_that_lost_its_first_rows_is_damaged_there(stored: Stored) -> None:
    path = stored.copy(change=lambda content: None)
    _execute(path, "DELETE FROM entries WHERE first_offset < 20")
    with SqliteLog.open(path) as log:
        with pytest.raises(DamageError) as raised:
            log.read(8)
        assert raised.value.offset == 8
        with pytest.raises(ValueError, match="not in the log"):
            log.read(7)


def test_nothing_is_appended_behind_a_damaged_last_entry(stored: Stored) -> None:
    last = stored.entries[-1][0]
    path = stored.copy(change=lambda content: None)
    _execute(path, f"UPDATE entries SET payload = x'00' WHERE first_offset = {last}")
    with SqliteLog.open(path) as log:
        with pytest.raises(DamageError) as raised:
            add(log, b"x")
        assert raised.value.offset == last


def test_a_log_damaged_in_the_middle_takes_appends(stored: Stored) -> None:
    path = stored.copy(change=lambda content: None)
    _execute(path, f"DELETE FROM entries WHERE {_MIDDLE}")
    with SqliteLog.open(path) as log:
        assert add(log, b"x") == stored.next_offset
        assert [list(e.records) for e in log.read(stored.next_offset)] == [[b"x"]]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE positions SET position = position + 1", "UPDATE span SET next_offset = 50"],
)
def test_damaged_positions_or_span_keep_trim_from_removing_anything(
    stored: Stored, statement: str
) -> None:
    path = stored.copy(change=lambda content: None)
    _execute(path, statement)
    with SqliteLog.open(path) as log:
        with pytest.raises(DamageError):
            log.trim(before_time=100)
        assert [described(e) for e in read_all(log)] == stored.entries
        assert len(list(log.verify())) == 1


@pytest.mark.parametrize("part", [0.0001, 0.02, 0.3, 0.5, 0.77, 0.9, 0.9999])
def test_a_file_cut_short_gives_what_is_whole_and_reports_the_rest(
    stored: Stored, part: float
) -> None:
    def change(content: bytearray) -> None:
        del content[int(len(content) * part) :]

    path = stored.copy(change=change)
    try:
        refused = check(path, stored)
        assert refused > 0 or part > 0.99  # the last page may hold nothing
    except InputError:
        assert path.stat().st_size < 72  # not even a header is left


def test_much_of_a_file_cut_short_can_still_be_read(stored: Stored) -> None:
    def change(content: bytearray) -> None:
        del content[-_PAGE_BYTES:]

    assert check(stored.copy(change=change), stored) < len(stored.entries) // 2


@pytest.mark.parametrize("folded", [0, 4])
def test_a_torn_wal_leaves_the_commits_that_were_complete(tmp_path: Path, folded: int) -> None:
    path = tmp_path / "log.sqlite"
    with SqliteLog.open(path) as log:
        for i in range(folded):
            add(log, b"%d" % i)
    with SqliteLog.open(path) as log:
        for i in range(folded, 12):
            add(log, bytes(40_000 if i == 7 else 10), b"%d" % i)
        entries = [described(e) for e in read_all(log)]
        file, wal = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    chance = random.Random(2)
    for cut in [0, 31, 32, 56, len(wal), *(chance.randrange(len(wal)) for _ in range(40))]:
        torn = tmp_path / f"torn-{cut}.sqlite"
        torn.write_bytes(file)
        Path(f"{torn}-wal").write_bytes(wal[:cut])
        whole = entries[: folded + sum(1 for size in _frames(wal[:cut]) if size)]
        with SqliteLog.open(torn) as log:
            assert [described(e) for e in read_all(log)] == whole
            following = whole[-1][0] + len(whole[-1][5]) if whole else 0
            assert add(log, b"after") == following
            assert list(log.verify()) == []


def _with_wal(folder: Path, file: bytes, wal: bytes) -> Path:
    path = folder / "copy.sqlite"
    for suffix, content in (("", file), ("-wal", wal), ("-shm", b""), ("-wal-damaged", b"")):
        Path(f"{path}{suffix}").write_bytes(content)
    Path(f"{path}-shm").unlink()
    return path


@pytest.mark.parametrize("folded", [0, 4])
def test_a_wal_damaged_before_its_last_commit_is_reported_and_kept(
    tmp_path: Path, folded: int
) -> None:
    original = tmp_path / "log.sqlite"
    with SqliteLog.open(original) as log:
        for i in range(folded):
            add(log, b"%d" % i)
    with SqliteLog.open(original) as log:
        for i in range(folded, 12):
            add(log, bytes(40_000 if i == 7 else 10), b"%d" % i)
        entries = [described(e) for e in read_all(log)]
        file, wal = original.read_bytes(), Path(f"{original}-wal").read_bytes()
    chance = random.Random(3)
    frame = 24 + _PAGE_BYTES
    last_commit = 32 + (len(_frames(wal)) - 1) * frame
    for at in [0, 9, 17, 25, *(chance.randrange(32, last_commit) for _ in range(25))]:
        spoilt = bytearray(wal)
        spoilt[at] ^= 4
        path = _with_wal(tmp_path, file, bytes(spoilt))
        frames_before = max(0, (at - 32) // frame)
        whole = entries[: folded + sum(1 for size in _frames(wal)[:frames_before] if size)]
        following = whole[-1][0] + len(whole[-1][5]) if whole else 0
        for _ in range(2):  # it is still known after opening again
            with SqliteLog.open(path) as log:
                assert log.next_offset > following
                for use in (lambda: log.read(following), lambda: add(log, b"x")):  # noqa: B023
                    with pytest.raises(DamageError) as raised:
                        use()
                    assert raised.value.offset == following
                assert [d.first_offset for d in log.verify()] == [following]
                if whole:
                    assert [described(e) for e in log.read(0)] == whole
        assert Path(f"{path}-wal-damaged").read_bytes() == bytes(spoilt)


def _frames(wal: bytes) -> list[int]:
    """For each whole frame of the WAL's present round, the size it commits, 0 inside a commit."""
    starts = range(32, len(wal) - 24 - _PAGE_BYTES + 1, 24 + _PAGE_BYTES)
    heads = [struct.unpack_from(">II8s", wal, at) for at in starts]
    return [size for _, size, salt in heads if salt == wal[16:24]]


@pytest.mark.parametrize("content", [b"hello, this is not a log", b"PK\x03\x04" * 100])
def test_a_file_that_is_no_log_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"notes.txt.* begins with") as raised:
        SqliteLog.open(path)
    assert repr(content[:16]) in str(raised.value)
    assert path.read_bytes() == content


def test_another_sqlite_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    _execute(path, "CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="SQLite database with 1 tables"):
        SqliteLog.open(path)
    assert path.read_bytes() == before


def test_a_newer_format_is_refused_naming_both_versions(stored: Stored) -> None:
    path = stored.copy(change=lambda content: None)
    _execute(path, f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    with pytest.raises(InputError, match=rf"version {FORMAT_VERSION + 1};.* {FORMAT_VERSION}"):
        SqliteLog.open(path)


def test_a_missing_folder_and_a_folder_in_place_of_the_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        SqliteLog.open(tmp_path / "none" / "log.sqlite")
    with pytest.raises(InputError, match="is a folder"):
        SqliteLog.open(tmp_path)


def test_an_empty_file_becomes_a_log(tmp_path: Path) -> None:
    # Creation cut short at its very beginning leaves one.
    path = tmp_path / "log.sqlite"
    path.touch()
    with SqliteLog.open(path) as log:
        assert add(log, b"a") == 0


def test_the_file_says_what_it_is(stored: Stored) -> None:
    with closing(sqlite3.connect(stored.path)) as conn:
        assert conn.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert conn.execute("PRAGMA page_size").fetchone() == (_PAGE_BYTES,)


def _execute(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(script)
