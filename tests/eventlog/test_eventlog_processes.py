"""The log shared between processes, and what is left of it when one is killed."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tidegate.errors import LockedError
from tidegate.eventlog import SqliteLog
from tidegate.eventlog.layout import LOCK_SECONDS_MAX
from tidegate.testing.eventlog import add, read_all
from waiting import PATIENCE_SECONDS

_PRELUDE = """
import sys, threading
from pathlib import Path
from tidegate.eventlog import SqliteLog
from tidegate.testing.eventlog import add
log = SqliteLog.open(Path(sys.argv[1]))
"""
# Appends from several threads and says on stdout what was acknowledged, until it is killed.
_WRITER = (
    _PRELUDE
    + """
lock = threading.Lock()
def work(name):
    for i in range(int(sys.argv[3])):
        record = f"{sys.argv[2]}-{name}-{i}"
        offset = add(log, record.encode(), bytes(i % 50 * 100))
        with lock:
            sys.stdout.write(f"{offset} {record}\\n")
            sys.stdout.flush()
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
log.close()
"""
)
_FOLLOWER = (
    _PRELUDE
    + """
print("ready", flush=True)
offset = 0
while offset < int(sys.argv[2]) and log.follow(offset, timeout_seconds=30):
    for entry in log.read(offset):
        print(entry.first_offset, entry.records[0].decode(), flush=True)
        offset = entry.next_offset
log.close()
"""
)
# Opens each new log of a folder as soon as its file is there, and says how long the longest took.
_OPENER = """
import sys, time
from pathlib import Path
from tidegate.eventlog import SqliteLog
print("ready", flush=True)
longest = 0.0
for number in range(int(sys.argv[2])):
    path = Path(sys.argv[1]) / f"{number}.sqlite"
    while not (path.exists() and path.stat().st_size):
        pass
    began = time.monotonic()
    SqliteLog.open(path).close()
    longest = max(longest, time.monotonic() - began)
print(longest)
"""


@contextmanager
def process(script: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *map(str, args)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def lines(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    return iter(child.stdout)


def pairs(said: list[str]) -> list[tuple[int, str]]:
    """Offset and record of each whole line."""
    return [(int(a), b) for a, b in (x.split() for x in said if x.endswith("\n"))]


def stored(log: SqliteLog) -> list[tuple[int, str]]:
    return [(e.first_offset, e.records[0].decode()) for e in read_all(log)]


@pytest.mark.parametrize("seed", range(4))
def test_what_a_killed_writer_had_acknowledged_is_there(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "log.sqlite"
    acknowledged: list[tuple[int, str]] = []
    for round_ in range(2):
        with process(_WRITER, path, round_, 1_000_000) as child:
            said = list(itertools.islice(lines(child), random.Random(seed).randrange(1, 800)))
            child.send_signal(signal.SIGKILL)
            acknowledged += pairs([*said, *lines(child)])
        with SqliteLog.open(path) as log:
            kept = stored(log)
            assert set(acknowledged) <= set(kept)
            assert [offset for offset, _ in kept] == list(range(0, 2 * len(kept), 2))
            assert list(log.verify()) == []
            assert add(log, b"after", b"") == 2 * len(kept)


def test_processes_that_append_at_once_share_one_sequence(tmp_path: Path) -> None:
    # They also create the log at once.
    path = tmp_path / "log.sqlite"
    with (
        process(_WRITER, path, "a", 50) as a,
        process(_WRITER, path, "b", 50) as b,
        process(_WRITER, path, "c", 50) as c,
    ):
        acknowledged = [pair for child in (a, b, c) for pair in pairs(list(lines(child)))]
        assert [child.wait(PATIENCE_SECONDS) for child in (a, b, c)] == [0, 0, 0]
    with SqliteLog.open(path) as log:
        assert stored(log) == sorted(acknowledged)
        assert [offset for offset, _ in stored(log)] == list(range(0, 1200, 2))


def test_processes_that_open_a_new_log_at_once_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Each looks how far the WAL goes while it keeps others from writing; one folds it away."""
    count = 60
    with process(_OPENER, tmp_path, count) as one, process(_OPENER, tmp_path, count) as other:
        assert [next(lines(child)) for child in (one, other)] == ["ready\n"] * 2
        for number in range(count):
            SqliteLog.open(tmp_path / f"{number}.sqlite").close()
        longest = [float(next(lines(child))) for child in (one, other)]
    assert max(longest) < LOCK_SECONDS_MAX / 3  # an unlucky one waited for all of it


def test_a_reader_in_another_process_follows(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with SqliteLog.open(path) as log, process(_FOLLOWER, path, 20) as child:
        said = lines(child)
        assert next(said) == "ready\n"
        waits = []
        for i in range(20):
            add(log, b"r%d" % i)
            appended = time.monotonic()
            assert next(said) == f"{i} r{i}\n"
            waits.append(time.monotonic() - appended)
        assert sorted(waits)[10] < 10  # polls every 20 ms, though it may wait for 30 seconds


def test_the_log_is_read_while_its_writer_lies_killed(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with process(_WRITER, path, "w", 1_000_000) as child:
        said = lines(child)
        next(said)
        with SqliteLog.open(path) as log:
            child.kill()
            acknowledged = pairs(list(said))
            assert set(acknowledged) <= set(stored(log))


# Holds the lock of whoever folds the WAL, byte 121 of the index (sqlite.org/walformat.html, 2.3.2).
_FOLDING = """
import fcntl, sys
with open(sys.argv[1] + "-shm", "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1, 121)
    print("folding", flush=True)
    sys.stdin.read()
"""


def test_a_log_is_opened_while_another_process_folds_its_wal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many frames the WAL has is not told meanwhile; it waits, and gives up in the end."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.open(path) as log, ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            add(log, b"a")
        command = [sys.executable, "-c", _FOLDING, str(path)]
        folding = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert folding.stdin is not None
        assert folding.stdout is not None
        assert folding.stdout.readline() == b"folding\n"
        with monkeypatch.context() as patched:
            patched.setattr("tidegate.eventlog.layout.LOCK_SECONDS_MAX", 0.1)
            with pytest.raises(LockedError, match="its WAL is being folded"):
                SqliteLog.open(path)
        opening = pool.submit(SqliteLog.open, path)
        time.sleep(0.1)
        assert not opening.done()
        folding.stdin.close()
        with opening.result(PATIENCE_SECONDS) as other:
            assert len(read_all(other)) == 3
            assert list(other.verify()) == []
        assert folding.wait(PATIENCE_SECONDS) == 0
        folding.stdout.close()


@pytest.mark.parametrize("event", ["append", "close"])
def test_followers_of_this_process_are_woken_without_a_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    monkeypatch.setattr("tidegate.eventlog.sqlite._POLL_SECONDS", 600)
    with SqliteLog.open(tmp_path / "log.sqlite") as log, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(log.follow, 0, timeout_seconds=600)
        time.sleep(0.05)
        if event == "append":
            add(log, b"a")
        else:
            log.close()
        assert waiting.result(PATIENCE_SECONDS) is (event == "append")
