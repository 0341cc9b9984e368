"""Clients write while the server is killed, starved of disk and cut off from its sinks."""

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pyarrow.parquet as pq
import pytest

from tidegate.program import Program
from tidegate.project.project import load
from waiting import until

from .shop import LONG_SECONDS, OTHER_FEATURES, Clients, Server, free_port, make, with_features
from .verdict import check

# More by option, for a long night: TIDEGATE_CRASH_ROUNDS=500 pytest -m crash
ROUNDS = int(os.environ.get("TIDEGATE_CRASH_ROUNDS", "25"))

Missing = Callable[[str], NoReturn]

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1_800 + 20 * ROUNDS)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(make(tmp_path / "shop"), port=free_port())
    yield server
    server.abandon()


def test_nothing_is_lost_or_doubled_when_the_server_is_killed(server: Server) -> None:
    """SIGKILL at random points, again and again, while clients post and never give up."""
    seed = random.randrange(1 << 30)  # pytest-randomly seeds this, and prints its seed
    chance, clients = random.Random(seed), Clients(server.port, seed=seed)
    clients.start()
    for _ in range(ROUNDS):
        server.start(wait=False)
        if chance.random() < 0.8:  # else it is killed while it starts, and replays
            server.wait_until_ready()
        time.sleep(chance.uniform(0.0, 0.8))
        server.kill()
    server.start()
    clients.wait_for(4_000)
    clients.stop()
    server.settle()
    assert server.stop() == 0, server.tail()
    assert clients.answers <= {202, 207, 422, 429, 503}
    check(server.folder, clients.acknowledged)


def test_features_are_exact_when_the_server_is_killed_and_they_are_changed(tmp_path: Path) -> None:
    """SIGKILL at random points, in the middle of rebuilds too, while clients never give up."""
    server = Server(with_features(make(tmp_path / "shop")), port=free_port())
    chance = random.Random(random.randrange(1 << 30))
    clients = Clients(server.port, seed=5)
    clients.start()
    try:
        for round_ in range(ROUNDS):
            if round_ == ROUNDS // 2:
                with_features(server.folder, OTHER_FEATURES)
            server.start(wait=False)
            if chance.random() < 0.8:
                server.wait_until_ready()
            time.sleep(chance.uniform(0.0, 0.8))
            server.kill()
        server.start()
        clients.wait_for(4_000)
        # On a slow machine none of the short lives may have been long enough for it.
        changed = Program.compile(load(server.folder)).version
        said = "the changed features have not taken over"
        until(lambda: deciding(server) == changed, said, seconds=LONG_SECONDS)
        clients.wait_for(len(clients.acknowledged) + 500)  # which they decide
        clients.stop()
        server.settle()
        assert server.stop() == 0, server.tail()
        check(server.folder, clients.acknowledged)
    finally:
        server.abandon()


def test_a_full_disk_refuses_and_recovers_without_a_restart(
    tmp_path: Path, missing: Missing
) -> None:
    """Nothing is acknowledged that is not kept; when there is room again, all goes on."""
    folder = make(tmp_path / "shop")
    with mounted(folder / "data", "size=96m", otherwise=missing) as disk:
        server = Server(folder, port=free_port())
        try:
            server.start()
            clients = Clients(server.port, seed=1)
            clients.start()
            clients.wait_for(2_000)
            filler = disk / "filler"
            fill(filler)
            until(lambda: 507 in clients.answers, "the full disk was never told")
            time.sleep(2.0)
            assert server.get("/healthz")[0] == 200
            filler.unlink()
            clients.wait_for(len(clients.acknowledged) + 2_000)
            clients.stop()
            server.settle()
            assert server.stop() == 0, server.tail()
            check(folder, clients.acknowledged)
        finally:
            server.abandon()


def test_a_read_only_sink_holds_up_nothing_and_catches_up(tmp_path: Path, missing: Missing) -> None:
    """Decisions go on, the failure is seen in the metrics, and no event is missing in the end."""
    folder = make(tmp_path / "shop")
    with mounted(folder / "data" / "objects", "size=64m,ro", otherwise=missing) as disk:
        server = Server(folder, port=free_port())
        try:
            server.start()
            clients = Clients(server.port, seed=2)
            clients.start()
            clients.wait_for(2_000)
            until(lambda: sink_failures(server) >= 3, "no sink has failed")
            before = len(clients.acknowledged)
            clients.wait_for(before + 2_000)
            remount(disk, "rw")
            clients.stop()
            until(lambda: sink_failures(server) == 0, "the sinks did not recover")
            server.settle()
            assert server.stop() == 0, server.tail()
            check(folder, clients.acknowledged)
        finally:
            server.abandon()


def test_a_commit_torn_by_a_crash_is_left_out_and_all_else_is_there(server: Server) -> None:
    """Bytes that a dying machine left behind the last commit of the log."""
    clients = Clients(server.port, seed=3)
    server.start()
    clients.start()
    clients.wait_for(2_000)
    server.kill()
    wal = server.folder / "data" / "log.sqlite-wal"
    with wal.open("ab") as file:
        file.write(wal.read_bytes()[-40_000:-7])  # half of a frame, and some that repeat
        file.write(random.randbytes(50_000))
    server.start()
    clients.wait_for(5_000)
    clients.stop()
    server.settle()
    assert server.stop() == 0, server.tail()
    check(server.folder, clients.acknowledged)


def test_a_log_damaged_at_its_end_is_reported_with_the_offset_and_never_read(
    server: Server,
) -> None:
    """What was acknowledged and is damaged cannot be had back: the server says where, and ends."""
    clients = Clients(server.port, seed=4)
    server.start()
    clients.start()
    clients.wait_for(1_000)
    clients.stop()
    assert server.stop() == 0, server.tail()
    data = server.folder / "data"
    damaged = damage_last_entry(data / "log.sqlite")
    shutil.rmtree(data / "tables")  # so that the log must be read again
    shutil.rmtree(data / "snapshots")
    server.start(wait=False)
    assert server.wait(seconds=LONG_SECONDS) == 1
    assert f"offset {damaged}" in server.tail(), server.tail()
    table = data / "tables" / "events"
    assert not table.exists() or max_offset(table) < damaged


def damage_last_entry(log: Path) -> int:
    """Change one byte of the log's last entry of events; the offset of its first record."""
    find = "SELECT max(first_offset) FROM entries WHERE kind = 'events'"
    with contextlib.closing(sqlite3.connect(log)) as database, database:
        offset = int(database.execute(find).fetchone()[0])
        with database.blobopen("entries", "payload", offset) as blob:
            byte = blob[0]
            blob[0] = byte ^ 1
    return offset


def max_offset(table: Path) -> int:
    """The highest log offset in the files of a table; -1 if it has no rows."""
    files = [pq.read_table(p, columns=["log_offset"]) for p in table.rglob("*.parquet")]
    return max((int(f["log_offset"].to_numpy().max()) for f in files if f.num_rows), default=-1)


def deciding(server: Server) -> str | None:
    """The version that decides now; None while the server does not say."""
    status, answer = server.get("/v1/versions")
    return json.loads(answer)["versions"][-1]["version"] if status == 200 else None


def fill(path: Path) -> None:
    """Fill a disk to the last byte."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096) == 4096:
            pass


def sink_failures(server: Server) -> int:
    """The most failures in a row that any sink has now."""
    text = server.get("/metrics")[1].decode()
    found = re.findall(r"^tidegate_sink_failures\w*\{[^}]*\} (\S+)$", text, re.MULTILINE)
    return max((int(float(n)) for n in found), default=-1)


@contextlib.contextmanager
def mounted(folder: Path, options: str, *, otherwise: Missing) -> Iterator[Path]:
    """A small disk in memory, mounted on a folder for a while."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        otherwise("mounting a tmpfs needs permission")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change how a small disk is mounted."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
