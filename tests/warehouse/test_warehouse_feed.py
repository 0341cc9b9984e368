"""A feed gives the rows of a stretch in order, never part of an offset's rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warehouse_rows import SCHEMAS, expected, opened, outcome, plain, write_all

from tidegate.errors import InputError
from tidegate.warehouse import Warehouse, parquet
from tidegate.warehouse import feed as feeds


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Tables written in stretches of many lengths, part of them compacted."""
    warehouse = opened(tmp_path_factory.mktemp("filled"), compact_after=8)
    write_all(warehouse, [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 40, 41, 60])
    warehouse.maintain()
    write_all(warehouse, [60, 61, 62, 100])
    return warehouse


@given(
    table=st.sampled_from(sorted(SCHEMAS)),
    bounds=st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted),
    rows_max=st.integers(1, 30),
)
@settings(max_examples=60)
def test_any_stretch_comes_whole_in_order_and_about_as_long_as_asked(
    filled: Warehouse, table: str, bounds: list[int], rows_max: int
) -> None:
    first, until = bounds
    delivery = filled.feed(table).read(first, until=until, rows_max=rows_max)
    rows = plain(delivery.rows)
    assert delivery.first_offset == first
    assert first <= delivery.next_offset <= until
    assert rows == expected(first, delivery.next_offset)[table]
    # Progress is made, and only what was asked for cuts it short.
    assert delivery.next_offset > first or until == first
    assert len(rows) <= max(rows_max, 3)


def test_rows_have_the_types_that_travel_between_stages(filled: Warehouse) -> None:
    rows = filled.feed("decisions").read(0, until=10, rows_max=100).rows
    assert rows.schema.field("event_time").type == pa.timestamp("us")
    assert rows.schema.names == SCHEMAS["decisions"].names


def test_all_rows_of_an_offset_come_even_where_they_are_more_than_asked(
    filled: Warehouse,
) -> None:
    delivery = filled.feed("rush").read(16, until=22, rows_max=1)
    assert delivery.rows.column("log_offset").to_pylist() == [20, 20, 20]


def test_the_end_of_a_feed_is_the_position(filled: Warehouse) -> None:
    assert filled.feed("late_rows").end() == filled.position == 100


def test_reading_beyond_the_end_is_refused(filled: Warehouse) -> None:
    with pytest.raises(ValueError, match="cannot read to 101"):
        filled.feed("events").read(0, until=101, rows_max=10)


def test_a_recent_stretch_opens_only_the_files_that_hold_it(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, range(0, 200, 20))
    files = [f.path for f in warehouse._tables["events"].files() if f.offset_max < 160]
    for file in files:
        file.unlink()  # whoever opens one of them fails
    rows = warehouse.feed("events").read(165, until=180, rows_max=1_000).rows
    assert plain(rows) == expected(165, 180)["events"]


def test_a_file_swept_while_it_is_read_is_found_in_its_new_place(tmp_path: Path) -> None:
    warehouse = opened(tmp_path, compact_after=5, vacuum_after=0)
    write_all(warehouse, range(30))
    feed = warehouse.feed("events")
    files = warehouse._tables["events"].files()
    stale = (warehouse._tables["events"].version, files)
    warehouse.maintain()
    warehouse._tables["events"]._files = (warehouse._tables["events"].version, stale[1])
    assert not all(f.path.exists() for f in files)
    assert plain(feed.read(0, until=29, rows_max=100).rows) == expected(0, 29)["events"]


@pytest.mark.parametrize("threads", [True, False])
def test_a_large_file_is_read_by_its_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, threads: bool
) -> None:
    """Packed in groups of 8 rows, a stretch reads those that hold it and no others."""
    monkeypatch.setattr(feeds, "_WHOLE_ROWS", 10)
    monkeypatch.setattr(feeds, "_READ_ROWS", 3)
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 8)
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 70, 90, 140])
    found, offset = [], 0
    feed = warehouse.feed("decisions", threads=threads)
    while offset < 140:
        delivery = feed.read(offset, until=140, rows_max=3)
        found += plain(delivery.rows)
        offset = delivery.next_offset
    assert found == expected(0, 140)["decisions"]


def test_what_is_read_beside_the_decisions_holds_little_more_than_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_READ_ROWS", 8)
    warehouse = opened(tmp_path)
    warehouse.write([outcome(0, 800)])
    feed = warehouse.feed("decisions", threads=False)
    few, many = (feed.read(0, until=800, rows_max=n).rows for n in (8, 400))
    assert (few.num_rows, many.num_rows) == (8, 400)
    assert few.get_total_buffer_size() * 10 < many.get_total_buffer_size()


def test_rows_that_somebody_else_put_out_of_order_come_in_order(tmp_path: Path) -> None:
    """Another writer of Delta may have sorted a file by something else."""
    warehouse = opened(tmp_path)
    warehouse.write([outcome(0, 60)])
    for file in warehouse._tables["decisions"].files():
        rows = pq.read_table(file.path, partitioning=None)
        by_id = rows.sort_by("event_id")
        pq.write_table(by_id, file.path, row_group_size=7)
    feed, found, offset = warehouse.feed("decisions", threads=False), [], 0
    while offset < 60:
        delivery = feed.read(offset, until=60, rows_max=5)
        found += plain(delivery.rows)
        offset = delivery.next_offset
    assert found == expected(0, 60)["decisions"]


def test_only_the_columns_asked_for_are_given_as_far_as_there_are_any(filled: Warehouse) -> None:
    feed = filled.feed("events", columns=["store", "none_such"], threads=False)
    rows = plain(feed.read(0, until=60, rows_max=1_000).rows)
    wanted = [{k: r[k] for k in ("store", "log_offset")} for r in expected(0, 60)["events"]]
    assert rows == wanted


def test_a_table_is_read_by_a_process_that_does_not_write_it(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    warehouse.write([outcome(0, 30)])
    table = feeds.Written(tmp_path / "events")
    feed = feeds.TableFeed(table, table.end)
    assert plain(feed.read(0, until=feed.end(), rows_max=99).rows) == expected(0, 30)["events"]
    warehouse.write([outcome(30, 50)])
    table.refresh()
    assert plain(feed.read(30, until=feed.end(), rows_max=99).rows) == expected(30, 50)["events"]


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no table `nothing`"):
        feeds.Written(tmp_path / "nothing")
