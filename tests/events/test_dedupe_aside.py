"""A full table that is set aside while its run is written."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tidegate.errors import StorageFullError
from tidegate.events.held import run_names
from tidegate.events.runs import Run, write_run

from .ids import Stream, plain, twin


def test_the_table_that_is_made_ready_counts_as_memory(tmp_path: Path) -> None:
    stream = Stream(plain([str(i) for i in range(30)]), tmp_path, horizon=10)
    found = stream.open(table_ids=20)
    one = found._table.bytes_held
    before = found.bytes_held
    stream.feed(found, 0, 10)
    assert found.bytes_held == before
    stream.feed(found, 10, 11)  # more than half
    assert found.bytes_held == before + one
    found.close()


def test_a_run_that_cannot_be_written_is_told_of_by_a_snapshot(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    stream = Stream(plain([str(i) for i in range(30)]), inner, horizon=10)
    found = stream.open(table_ids=20)
    inner.rmdir()
    assert stream.feed(found, 0, 30) == [-1] * 30
    with pytest.raises(StorageFullError):
        found.snapshot()
    inner.mkdir()
    kept = found.snapshot()
    assert [p.suffix for p in inner.iterdir()] == [".run"]
    assert run_names(kept) == {p.name for p in inner.iterdir()}
    assert found.ids_held == 30


def test_ids_are_found_in_a_table_whose_run_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()

    def held_up(*args: Any, **kwargs: Any) -> Run:
        assert may_write.wait(30.0)
        return write_run(*args, **kwargs)

    monkeypatch.setattr("tidegate.events.aside.write_run", held_up)
    # The table is full in the middle of a batch that repeats ids of it before and after that.
    ids = [str(i) for i in (*range(12), *range(4), *range(12, 20), *range(0, 20, 3))]
    stream = Stream(plain(ids), tmp_path, horizon=10)
    found = stream.open(table_ids=16)
    expected = twin(stream.records, horizon=10)
    assert stream.feed(found, 0, 8) == expected[:8]
    assert stream.feed(found, 8, 26) == expected[8:26]
    assert stream.feed(found, 26, 31) == expected[26:]
    asked = pa.array(["0", "15", "19", "new"], pa.string())
    assert found.find(asked, ingest_time=0).tolist() == [0, 19, 23, -1]
    assert (found.ids_held, list(tmp_path.glob("*.run"))) == (20, [])
    with ThreadPoolExecutor(1) as threads:
        snapshot = threads.submit(found.snapshot)
        time.sleep(0.05)
        assert not snapshot.done()
        may_write.set()
        [name] = run_names(snapshot.result(30.0))
    assert [p.name for p in tmp_path.glob("*.run")] == [name]
    assert found.find(asked, ingest_time=0).tolist() == [0, 19, 23, -1]
    found.close()


def test_what_is_set_aside_last_is_waited_for_before_more_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def slowly(*args: Any, **kwargs: Any) -> Run:
        time.sleep(0.02)
        run = write_run(*args, **kwargs)
        written.append(run.first_offset)
        return run

    monkeypatch.setattr("tidegate.events.aside.write_run", slowly)
    stream = Stream(plain([str(i) for i in range(50)]), tmp_path, horizon=10)
    found = stream.open(table_ids=10)
    assert stream.feed(found, 0, 50) == [-1] * 50
    assert written[:4] == [0, 10, 20, 30]
    found.close()  # which waits for the last one
    assert written == [0, 10, 20, 30, 40]
    assert len(list(tmp_path.glob("*.run"))) == 5
