"""Files as Event Hub Capture writes them, read as an outside reader would."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sink_rows import captured, event, opened, settings

from tidegate.errors import DamageError
from tidegate.eventlog.contract import EntryKind
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.records import Records
from tidegate.sinks import avro
from tidegate.sinks.capture import SCHEMA, CaptureFeed, CaptureLayout, enqueued
from tidegate.sinks.contract import Delivery
from tidegate.testing.sinks import RowsFeed


def written(folder: Path, rows: pa.Table, **more: Any) -> list[Path]:
    """The files of one delivery of all rows."""
    sink = opened(settings("blobs", **more), rows, folder)
    sink.write(Delivery(0, rows.num_rows, rows))
    return sorted(p for p in (folder / "blobs").rglob("*") if p.is_file())


def read(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return list(fastavro.reader(file))


def test_a_file_is_named_by_the_arrival_of_its_first_record_and_its_offset(tmp_path: Path) -> None:
    (path,) = written(tmp_path, captured(3))
    assert path.relative_to(tmp_path / "blobs").as_posix() == (
        "all-events/shop/store-events/0/2023/06/06/20/24/45_0000000000000000000.avro"
    )


def test_the_schema_is_that_of_event_hub_capture(tmp_path: Path) -> None:
    (path,) = written(tmp_path, captured(3))
    with path.open("rb") as file:
        reader = fastavro.reader(file)
        assert reader.metadata["avro.codec"] == "null"
        assert fastavro.parse_schema(reader.writer_schema) == fastavro.parse_schema(SCHEMA)


def test_a_record_holds_the_event_as_it_was_received(tmp_path: Path) -> None:
    (path,) = written(tmp_path, captured(3))
    assert read(path)[1] == {
        "SequenceNumber": 1,
        "Offset": "1",
        "EnqueuedTimeUtc": "6/6/2023 8:24:46 PM",
        "SystemProperties": {"x-opt-partition-key": "event-1"},
        "Properties": {"event_type": "sale_event", "priority_shipping": "False"},
        "Body": event(1)["record"],
    }


def test_properties_keep_numbers_and_leave_nulls_out(tmp_path: Path) -> None:
    rows = captured(3)
    layout = CaptureLayout(
        "all", columns=rows.column_names, id_column="id", namespace="n", event_hub="e",
        partitions=1, properties=["store_id", "discount", "price", "ts", "nowhere"],
    )  # fmt: skip
    ((_, content),) = layout.files(Delivery(0, 3, rows))
    (tmp_path / "one").write_bytes(content)
    assert [r["Properties"] for r in read(tmp_path / "one")][:2] == [
        {"discount": 0.0, "price": "0.00", "ts": "2023-06-06 20:24:45.754948"},
        {"store_id": 1, "discount": 1.0, "price": "0.25", "ts": "2023-06-06 20:24:46.754948"},
    ]


def test_an_event_is_always_in_the_same_partition(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", captured(60), partitions=4)
    parts = written(tmp_path / "part", captured(60).slice(30), partitions=4)

    def partitions(paths: list[Path]) -> dict[str, str]:
        return {
            r["SystemProperties"]["x-opt-partition-key"]: path.parts[-7]
            for path in paths
            for r in read(path)
        }

    assert set(partitions(whole).values()) == {"0", "1", "2", "3"}
    assert partitions(parts).items() <= partitions(whole).items()


def test_a_delivery_made_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first = [p.read_bytes() for p in written(tmp_path / "a", captured(20), partitions=2)]
    assert first == [p.read_bytes() for p in written(tmp_path / "b", captured(20), partitions=2)]


def test_a_file_of_many_blocks_is_read_whole(tmp_path: Path) -> None:
    (path,) = written(tmp_path, captured(3000))
    assert [r["SequenceNumber"] for r in read(path)] == list(range(3000))


def test_files_do_not_depend_on_the_pieces_in_which_rows_came(tmp_path: Path) -> None:
    rows = captured(5000)
    pieces = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 3500), rows.slice(3507)])
    whole = [p.read_bytes() for p in written(tmp_path / "a", rows, partitions=3)]
    assert whole == [p.read_bytes() for p in written(tmp_path / "b", pieces, partitions=3)]


def test_files_are_made_one_after_the_other(tmp_path: Path) -> None:
    """So that a delivery's files, together as large as its rows, are never all in memory."""
    layout = opened(settings("blobs", partitions=4), captured(1), tmp_path)._layout
    files = iter(layout.files(Delivery(0, 4000, captured(4000))))
    before = pa.total_allocated_bytes()
    sizes = [len(content) for _, content in files]
    assert len(sizes) == 4
    assert pa.total_allocated_bytes() <= before + min(sizes) // 2


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        (0, "1/1/1970 12:00:00 AM"),
        (43_200_000_000, "1/1/1970 12:00:00 PM"),
        (1_700_000_000_999_999, "11/14/2023 10:13:20 PM"),
    ],
)
def test_times_are_written_as_capture_writes_them(time: int, shown: str) -> None:
    assert enqueued([time]) == [shown]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_any_integer_is_encoded_as_avro_encodes_it(numbers: list[int]) -> None:
    content = avro.container('"long"', [avro.longs(np.array(numbers))], marker=bytes(16))
    assert list(fastavro.reader(_file(content))) == numbers


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_any_bytes_are_encoded_as_avro_encodes_them(values: list[bytes]) -> None:
    pieces = avro.strings(pa.array(values, pa.binary()))
    content = avro.container('"bytes"', [pieces], marker=bytes(16))
    assert list(fastavro.reader(_file(content))) == values


def _file(content: bytes) -> io.BytesIO:
    return io.BytesIO(content)


# The feed


def log_of(folder: Path, *blocks: list[bytes]) -> SqliteLog:
    log = SqliteLog.open(folder / "log.sqlite")
    for block in blocks:
        log.append(Records.of(block), source="test", ingest_time=0)
    return log


def feed_of(log: SqliteLog, offsets: list[int], end: int) -> CaptureFeed:
    rows = pa.table({"log_offset": pa.array(offsets, pa.int64())})
    return CaptureFeed(RowsFeed(rows, end=end), log)


def test_events_come_with_their_bytes_from_the_log(tmp_path: Path) -> None:
    log = log_of(tmp_path, [b"a", b"bad", b"c"], [b"d"], [b"e", b"f"])
    rows = feed_of(log, [0, 2, 3, 5], 6).read(0, until=6, rows_max=9).rows
    assert rows.column("record").to_pylist() == [b"a", b"c", b"d", b"f"]
    log.close()


def test_a_stretch_may_begin_amid_an_entry_and_skip_others(tmp_path: Path) -> None:
    log = log_of(tmp_path, [b"a", b"b"], [b"c"], [b"d", b"e"])
    rows = feed_of(log, [0, 1, 4], 5).read(1, until=5, rows_max=9).rows
    assert rows.column("record").to_pylist() == [b"b", b"e"]
    log.close()


def test_a_stretch_without_events_reads_nothing_from_the_log(tmp_path: Path) -> None:
    log = log_of(tmp_path, [b"a", b"b"])
    delivery = feed_of(log, [], 2).read(0, until=2, rows_max=9)
    assert (delivery.next_offset, delivery.rows.column("record").to_pylist()) == (2, [])
    log.close()


def test_events_beyond_the_end_of_the_log_are_damage(tmp_path: Path) -> None:
    log = log_of(tmp_path, [b"a"])
    feed = feed_of(log, [0, 1], 2)
    assert feed.end() == 1
    with pytest.raises(DamageError):
        feed.read(0, until=2, rows_max=9)
    log.close()


def test_control_records_are_passed_by(tmp_path: Path) -> None:
    log = log_of(tmp_path, [b"a"])
    log.append(Records.of([b"{}"]), source="project", ingest_time=0, kind=EntryKind.CONTROL)
    log.append(Records.of([b"b"]), source="test", ingest_time=0)
    rows = feed_of(log, [0, 2], 3).read(0, until=3, rows_max=9).rows
    assert rows.column("record").to_pylist() == [b"a", b"b"]
    log.close()
