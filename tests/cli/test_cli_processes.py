"""Commands beside a running server, killed, interrupted, and where they cannot write."""

import csv
import gzip
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import tidegate
from end_to_end.shop import Server, free_port, make
from tidegate.datafolder import DataFolder
from waiting import PATIENCE_SECONDS

from .command import Run, command, generate, process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(make(tmp_path_factory.mktemp("beside") / "shop"), port=free_port())
    server.start()
    yield server
    server.abandon()


def formats(folder: Path, *, seed: int) -> dict[str, Path]:
    """The same 200 events as files of every format."""
    plain = generate(folder / "e.ndjson", count=200, seed=seed)
    rows = [json.loads(line) for line in plain.read_bytes().splitlines()]
    files = {name: folder / f"e.{name}" for name in ("json", "csv", "parquet", "ndjson.gz")}
    files["json"].write_text(json.dumps(rows))
    names = {name: None for row in rows for name in row}
    with files["csv"].open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names])
        writer.writeheader()
        writer.writerows(rows)
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(files["parquet"])
    files["ndjson.gz"].write_bytes(gzip.compress(plain.read_bytes()))
    return {"ndjson": plain, **files}


def ingest_each(run: Run, shop: Path, files: dict[str, Path]) -> None:
    """The first file brings the events; each other must hold the very same."""
    first, *others = files.values()
    assert run("ingest", shop, first).text.startswith("200 records taken: 200 events")
    for file in others:
        taken = run("ingest", shop, file)
        assert taken.text == "200 records taken: 0 events, 0 dead letters, 200 duplicates\n", file


def test_ingest_takes_every_format_without_a_server(run: Run, empty: Path, tmp_path: Path) -> None:
    ingest_each(run, empty, formats(tmp_path, seed=1))


def test_ingest_takes_every_format_beside_a_server(
    run: Run, server: Server, tmp_path: Path
) -> None:
    ingest_each(run, server.folder, formats(tmp_path, seed=2))
    assert server.get("/readyz")[0] == 200


def test_generate_sends_to_a_server(run: Run, server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/v1/events"
    sent = run("generate", "store", "--count", 1_000, "--seed", 5, "--unreadable", 0.1, "--to", url)
    assert sent.code == 0
    assert " accepted, " in sent.err
    refused = run("generate", "store", "--count", 10, "--to", f"{url}/nowhere")
    assert refused.code == 1
    assert "answered 404" in refused.err


def test_reconcile_finds_nothing_beside_a_server_under_load(run: Run, server: Server) -> None:
    """The tables and the sinks move while it looks."""
    url, stop = f"http://127.0.0.1:{server.port}/v1/events", threading.Event()

    def load() -> None:
        from tidegate.cli.generate import post
        from tidegate.testing import store

        batches = store.generate_batches(
            1_000_000,
            seed=99,
            start_time_us=1_686_100_000_000_000,
            batch_records=100,
            unreadable_share=0.02,
            duplicate_share=0.02,
        )
        for batch in batches:
            if stop.is_set():
                return
            next(post([batch], url=url))
            time.sleep(0.02)

    sender = threading.Thread(target=load)
    sender.start()
    try:
        answers = []
        for _ in range(4):
            answers.append(run("reconcile", server.folder))
            time.sleep(0.1)
    finally:
        stop.set()
        sender.join()
    assert [a.code for a in answers] == [0] * 4, "".join(a.text for a in answers if a.code)
    assert len({a.text.splitlines()[-1] for a in answers}) > 1, "nothing moved"


def test_a_second_server_of_a_project_is_told_who_has_it(server: Server) -> None:
    answer = process("run", server.folder, "--port", free_port())
    assert answer.code == 1
    assert f"http://127.0.0.1:{server.port}" in answer.err
    assert "Traceback" not in answer.err


def test_a_port_in_use_is_told(empty: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = process("run", empty, "--port", taken.getsockname()[1])
    assert answer.code == 1
    assert "in use" in answer.err.lower()
    assert "Traceback" not in answer.err


def test_an_ingest_that_is_killed_and_run_again_doubles_nothing(empty: Path) -> None:
    file = generate(empty.parent / "day.ndjson", count=30_000, repeated=0.01)
    for rows in (1, 10_000):
        with subprocess.Popen(command("ingest", empty, file), stdout=subprocess.PIPE) as ingest:
            wait_for_log(empty, rows)
            ingest.send_signal(signal.SIGKILL)
    done = process("ingest", empty, file)
    assert done.code == 0, done.err
    shop = tidegate.open(empty)
    counts = shop.query("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM events").arrow()
    ids = {json.loads(line)["id"] for line in file.read_bytes().splitlines()}
    assert counts.to_pylist() == [{"n": len(ids), "ids": len(ids)}]
    assert shop.reconcile().equal


def wait_for_log(folder: Path, records: int) -> None:
    from tidegate.eventlog.sqlite import SqliteLog

    path = DataFolder(folder / "data").log
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_size:
            log = SqliteLog.open(path)
            reached = log.next_offset
            log.close()
            if reached >= records:
                return
        time.sleep(0.005)
    raise AssertionError("the log did not grow")


def test_what_a_server_left_undecided_is_decided_here(empty: Path, tmp_path: Path) -> None:
    """The other process is gone before it has decided: its part is done by ours."""
    from tidegate.ingest import taking
    from tidegate.project.project import load
    from tidegate.records import Records

    holder = DataFolder(empty / "data")
    holder.lock(purpose="somebody who never decides")
    with taking(load(empty)) as taker:
        assert taker.beside is not None
        assert "somebody who never decides" in taker.beside
        record = b'{"id": "a", "event_type": "x", "ts": "2023-06-06T20:00:00Z"}'
        (offsets,) = taker.take([(Records.of([record]), "file:x")])
        holder.unlock()
        assert taker.finish(timeout_seconds=PATIENCE_SECONDS)
    assert len(offsets) == 1
    assert tidegate.open(empty).query("SELECT id FROM events").arrow().num_rows == 1


def test_ctrl_c_ends_an_ingest_in_good_order(empty: Path) -> None:
    file = generate(empty.parent / "day.ndjson", count=40_000)
    with subprocess.Popen(
        command("ingest", empty, file), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ingest:
        wait_for_log(empty, 1)
        ingest.send_signal(signal.SIGINT)
        assert ingest.stderr is not None
        said = ingest.stderr.read().decode()
    assert "Traceback" not in said
    assert ingest.returncode in (0, 130)
    if ingest.returncode == 130:
        assert said.startswith("stopped")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(run: Run, empty: Path) -> None:
    empty.chmod(0o500)
    try:
        answer = run("ingest", empty, generate(empty.parent / "day.ndjson", count=5))
    finally:
        empty.chmod(0o700)
    assert answer.code == 3
    assert "Permission denied" in answer.err


def test_a_file_in_the_place_of_the_data_folder_is_told(run: Run, empty: Path) -> None:
    (empty / "data").write_text("in the way")
    answer = run("ingest", empty, generate(empty.parent / "day.ndjson", count=5))
    assert answer.code == 3
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
