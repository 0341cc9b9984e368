"""Files stay few and folders small over any number of commits, and nothing is lost by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from warehouse_rows import held, opened, outcome, unchanged, write_all

from tidegate.warehouse import Warehouse, parquet, tables
from tidegate.warehouse.layout import Layout, fitted
from tidegate.warehouse.table import Table

SECOND = 1_000_000


class MovedClock:
    """The machine's time, plus what a test adds."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def now(self) -> int:
        return time.time_ns() // 1_000 + self.ahead_us


def file_count(root: Path, table: str) -> int:
    return sum(1 for f in (root / table).rglob("*") if f.is_file())


def test_files_and_folders_stay_bounded_over_hundreds_of_commits(tmp_path: Path) -> None:
    clock = MovedClock()
    warehouse = opened(tmp_path, clock=clock, compact_after=10, vacuum_after=60 * SECOND)
    most = most_active = 0
    for first in range(0, 400, 2):
        warehouse.write([outcome(first, first + 2)])
        clock.ahead_us += 60 * SECOND
        if first % 20 == 0:
            warehouse.maintain()
            most = max(most, file_count(tmp_path, "decisions"))
            most_active = max(most_active, *(t.files for t in tables(tmp_path)))
    # 200 commits on 17 dates: a file for each date, a few not merged yet, and what was replaced.
    assert most_active < 17 + 40
    assert most < 220
    assert unchanged(held(warehouse), 400)


def test_compaction_leaves_few_files_and_the_same_rows(tmp_path: Path) -> None:
    warehouse = opened(tmp_path, compact_after=10)
    write_all(warehouse, range(0, 61, 1))
    before = {t.name: t.files for t in tables(tmp_path)}
    merges: list[int] = []

    @contextmanager
    def merging() -> Iterator[None]:
        yield
        merges.append(sum(t.files for t in tables(tmp_path)))

    warehouse.maintain(merging=merging)
    # One around each merge, after which the fewer files are those that count.
    assert len(merges) > 2
    assert merges == sorted(merges, reverse=True)
    after = {t.name: t.files for t in tables(tmp_path)}
    assert after["events"] < before["events"] / 3
    assert unchanged(held(warehouse, rows_max=9), 60)


BLOB_FIELDS: list[pa.Field[Any]] = [
    pa.field("at", pa.timestamp("us")),
    pa.field("blob", pa.binary()),
    pa.field("log_offset", pa.int64()),
]
BLOBS = Layout("blobs", pa.schema(BLOB_FIELDS), "at", "at_date")


def blobs(first: int, count: int) -> pa.RecordBatch:
    """Rows of one date with a kilobyte each that cannot be packed smaller."""
    noise = np.random.default_rng(first).bytes(1_000 * count)
    pieces = [noise[i : i + 1_000] for i in range(0, len(noise), 1_000)]
    columns: dict[str, Any] = {
        "at": np.zeros(count, "datetime64[us]"),
        "blob": pa.array(pieces, pa.binary()),
        "log_offset": np.arange(first, first + count),
    }
    return pa.RecordBatch.from_pydict(columns, schema=BLOBS.rows)


def test_merging_holds_one_group_of_rows_whatever_the_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table.create(tmp_path, BLOBS, offset=0, retention_us=SECOND)
    for first in range(0, 100_000, 20_000):
        table.append([blobs(first, 20_000)], next_offset=first + 20_000)
    held = []

    def watched(part: pa.Table, schema: pa.Schema) -> pa.Table:
        held.append(pa.total_allocated_bytes() - before)
        return fitted(part, schema)

    monkeypatch.setattr(parquet, "fitted", watched)
    before = pa.total_allocated_bytes()
    table.compact(partitions=["1970-01-01"], bytes_target=1 << 30)
    (merged,) = table.files()
    assert merged.rows == 100_000
    # A group has 16,384 rows; what is read of a file at a time comes on top.
    assert len(held) > 10
    assert max(held) < 50 << 20


def test_a_file_that_is_large_enough_is_not_written_again(tmp_path: Path) -> None:
    table = Table.create(tmp_path, BLOBS, offset=0, retention_us=SECOND)
    for first, count in ((0, 10), (10, 100), (110, 10), (120, 10)):
        table.append([blobs(first, count)], next_offset=first + count)
    large = max(table.files(), key=lambda f: f.bytes)
    table.compact(partitions=["1970-01-01"], bytes_target=2 * large.bytes)
    assert large in table.files()
    assert sorted(f.rows for f in table.files()) == [30, 100]
    table.compact(partitions=["1970-01-01"], bytes_target=2 * large.bytes + 2)
    assert [f.rows for f in table.files()] == [130]


def test_compaction_keeps_what_each_table_knows_of_its_offset(tmp_path: Path) -> None:
    warehouse = opened(tmp_path, compact_after=10)
    write_all(warehouse, range(0, 41, 1))
    warehouse.maintain()
    offset = DeltaTable(str(tmp_path / "events")).transaction_version("tidegate")
    assert offset == 40
    again = opened(tmp_path)
    again.write([outcome(30, 50)])
    assert unchanged(held(again), 50)


def test_upkeep_beside_a_busy_writer_loses_nothing(tmp_path: Path) -> None:
    warehouse = opened(tmp_path, compact_after=8, vacuum_after=0)
    done = threading.Event()
    failed: list[BaseException] = []

    def upkeep() -> None:
        try:
            while not done.is_set():
                warehouse.maintain()
        except BaseException as error:  # noqa: BLE001 - the edge of a thread
            failed.append(error)

    beside = threading.Thread(target=upkeep)
    beside.start()
    write_all(warehouse, range(0, 300, 3))
    done.set()
    beside.join()
    assert not failed
    assert unchanged(held(warehouse), 297)
    again = opened(tmp_path)
    again.write([outcome(again.position, 300)])
    assert unchanged(held(again), 300)


def test_replaced_files_are_kept_until_vacuum_after(tmp_path: Path) -> None:
    clock = MovedClock()
    warehouse = opened(tmp_path, clock=clock, compact_after=10, vacuum_after=60 * SECOND)
    write_all(warehouse, range(0, 41, 1))
    warehouse.maintain()
    kept = parquet_files(tmp_path)
    clock.ahead_us += 59 * SECOND
    warehouse.maintain()
    assert parquet_files(tmp_path) == kept
    clock.ahead_us += 2 * SECOND
    warehouse.maintain()
    assert len(parquet_files(tmp_path)) == sum(t.files for t in tables(tmp_path))
    assert unchanged(held(warehouse), 40)


def parquet_files(root: Path) -> set[Path]:
    return set(root.glob("*/*=*/*.parquet"))


def test_what_another_program_compacted_is_left_alone(tmp_path: Path) -> None:
    clock = MovedClock()
    warehouse = opened(tmp_path, clock=clock, vacuum_after=SECOND)
    write_all(warehouse, range(20))
    DeltaTable(str(tmp_path / "events")).optimize.compact()
    for _ in range(2):
        warehouse.maintain()
        clock.ahead_us += 2 * SECOND
    assert unchanged(held(warehouse), 19)


def test_a_file_that_a_killed_writer_left_is_deleted_in_time(tmp_path: Path) -> None:
    clock = MovedClock()
    warehouse = opened(tmp_path, clock=clock, vacuum_after=SECOND)
    write_all(warehouse, [0, 5])
    orphan = next((tmp_path / "events").glob("event_date=*")) / "part-of-nothing.parquet"
    orphan.write_bytes(b"PAR1")
    warehouse.maintain()
    assert orphan.exists()
    clock.ahead_us += 2 * SECOND
    warehouse.maintain()
    assert not orphan.exists()


def test_tables_without_rows_do_not_hold_back_what_may_leave_the_log(tmp_path: Path) -> None:
    clock = MovedClock()
    warehouse = opened(tmp_path, clock=clock)
    warehouse.write([outcome(0, 3)])
    assert warehouse.durable_position == 0
    warehouse.maintain()
    assert warehouse.durable_position == 3


def test_upkeep_of_an_idle_warehouse_commits_nothing(tmp_path: Path) -> None:
    clock = MovedClock()
    warehouse = opened(tmp_path, clock=clock)
    write_all(warehouse, [0, 9])
    warehouse.maintain()
    before = file_count(tmp_path, "events")
    for _ in range(5):
        clock.ahead_us += 3_600 * SECOND
        warehouse.maintain()
    assert file_count(tmp_path, "events") <= before


def test_the_delta_log_is_swept_and_the_table_still_opens(tmp_path: Path) -> None:
    commits = 120
    clock = MovedClock()
    warehouse: Warehouse = opened(tmp_path, clock=clock, vacuum_after=60 * SECOND)
    write_all(warehouse, range(commits + 1))
    clock.ahead_us += 120 * SECOND
    warehouse.maintain()
    assert len(list((tmp_path / "decisions/_delta_log").glob("*.json"))) < commits
    warehouse.close()
    assert unchanged(held(opened(tmp_path)), commits)
