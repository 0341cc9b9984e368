"""Rows reach the tables exactly once, however the stream is cut or replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from warehouse_rows import (
    FEATURES,
    SCHEMA,
    WINDOWS,
    expected,
    held,
    held_by,
    opened,
    outcome,
    unchanged,
    write_all,
)

from tidegate.errors import InputError
from tidegate.outcome import Outcome
from tidegate.schema import Schema
from tidegate.warehouse import Warehouse, checkpoint, parquet


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    with_rows = opened(tmp_path)
    with_rows.write([outcome(0, 40), outcome(40, 60)])
    assert held(with_rows) == expected(0, 60)


@given(dates=st.lists(st.integers(0, 3), min_size=1, max_size=40), cut=st.integers(0, 40))
def test_rows_are_parted_by_their_date_and_keep_their_order(dates: list[int], cut: int) -> None:
    table = pa.table(
        {"day": pa.array(dates, pa.int32()).cast(pa.date32()), "at": range(len(dates))}
    )
    rows = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    parts = [(day.day - 1, part.to_pydict()) for day, part in parquet._by_date(rows, "day")]
    assert parts == [
        (day, {"at": [at for at, held in enumerate(dates) if held == day]})
        for day in sorted(set(dates))
    ]


def test_rows_of_two_dates_are_not_copied_but_around_the_change() -> None:
    dates = [0] * 50_000 + [1, 0, 1, 0] + [1] * 50_000
    table = pa.table(
        {"day": pa.array(dates, pa.int32()).cast(pa.date32()), "at": range(len(dates))}
    )
    before = pa.total_allocated_bytes()
    parts = [part for _, part in parquet._by_date(table, "day")]
    assert pa.total_allocated_bytes() - before < table.nbytes // 10
    assert [part.num_rows for part in parts] == [50_002, 50_002]


def test_position_is_the_end_of_the_last_write(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 3, 20])
    assert warehouse.position == 20


def test_a_stretch_written_twice_is_held_once(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 10, 20])
    warehouse.write([outcome(5, 30)])
    assert unchanged(held(warehouse), 30)


def test_a_gap_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    with pytest.raises(ValueError, match="left out"):
        warehouse.write([outcome(5, 9)])
    with pytest.raises(ValueError, match="must join"):
        warehouse.write([outcome(0, 3), outcome(4, 9)])
    assert unchanged(held(warehouse), 0)


def test_rows_of_an_unknown_window_query_are_refused(tmp_path: Path) -> None:
    warehouse = opened(tmp_path, windows={})
    with pytest.raises(ValueError, match="`rush`"):
        warehouse.write([outcome(0, 10)])


def test_an_orderly_close_leaves_nothing_to_replay(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 3, 4])
    warehouse.close()
    warehouse.close()
    assert opened(tmp_path).position == 4


def test_without_a_close_position_is_that_of_the_table_most_behind(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 30])
    warehouse.sync()
    warehouse.write([outcome(30, 32)])  # 31 is a dead letter: three tables have no row
    again = opened(tmp_path)
    assert again.position == 30
    again.write([outcome(30, 40)])
    assert unchanged(held(again), 40)


def test_a_table_ahead_of_the_others_skips_what_it_holds(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 10])
    warehouse.close()
    ahead = opened(tmp_path)
    ahead._tables["events"].append([outcome(10, 20).events], next_offset=20)
    again = opened(tmp_path)
    assert again.position == 10
    again.write([outcome(8, 25)])
    assert unchanged(held(again), 25)


def test_a_window_query_added_later_starts_at_the_position_then(tmp_path: Path) -> None:
    before = opened(tmp_path, windows={})
    before.write([outcome_without_windows(0, 50)])
    before.close()
    after = opened(tmp_path)
    after.write([outcome(40, 70)])
    assert after.position == 70
    assert held(after)["rush"] == expected(50, 70)["rush"]
    assert held(after)["events"] == expected(0, 70)["events"]


def outcome_without_windows(first: int, until: int) -> Outcome:
    return replace(outcome(first, until), windows={})


def test_a_window_query_that_returns_is_not_asked_for_what_passed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    write_all(first, [0, 10])
    first.close()
    without = opened(tmp_path, windows={})
    without.write([outcome_without_windows(10, 30)])
    without.close()
    again = opened(tmp_path)
    assert again.position == 30
    again.write([outcome(30, 45)])
    assert held(again)["rush"] == expected(0, 10)["rush"] + expected(30, 45)["rush"]


def test_a_feature_added_later_is_null_in_older_rows_and_one_taken_away_stays(
    tmp_path: Path,
) -> None:
    before = opened(tmp_path, features=FEATURES.remove(1))
    before.write([outcome(0, 10)])  # what the table has no column for is left out
    before.close()
    after = opened(tmp_path, features=FEATURES.remove(0))
    after.write([outcome(10, 20)])
    found = held(after)["features"]
    assert [row["spent"] for row in found] == [row["spent"] for row in wanted(0, 20)]
    assert [row["seen"] for row in found] == [None] * len(wanted(0, 10)) + [
        row["seen"] for row in wanted(10, 20)
    ]


def wanted(first: int, until: int) -> list[dict[str, Any]]:
    return expected(first, until)["features"]


def test_a_table_of_features_is_kept_where_no_version_has_any_more(tmp_path: Path) -> None:
    """What the version before decides after a restart still has its place there."""
    before = opened(tmp_path)
    before.write([outcome(0, 10)])
    before.close()
    after = opened(tmp_path, features=None)
    after.write([outcome(10, 15), replace(outcome(15, 20), featured=None)])
    assert after.position == 20
    assert held_by(after, "features") == wanted(0, 15)


def test_a_feature_that_changes_its_type_is_refused_with_both_types(tmp_path: Path) -> None:
    opened(tmp_path).close()
    other = pa.schema([pa.field("seen", pa.float64())])
    with pytest.raises(InputError, match=r"`features`.*`seen` is declared as double.*bigint"):
        opened(tmp_path, features=other)


@given(
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    replays=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=4),
)
@settings(max_examples=15)
def test_any_cut_and_any_replay_give_the_same_tables(
    cuts: list[int], replays: list[tuple[int, bool]]
) -> None:
    """Stretches of any length, a crash (no close) or a sync after each, replay from any depth."""
    with TemporaryDirectory() as folder:
        root, end = Path(folder), 0
        for length, (back, orderly) in zip(cuts, [*replays, *[(0, True)] * 9], strict=False):
            warehouse = opened(root)
            first = max(warehouse.position - back, 0)
            end = max(end, first + length)
            warehouse.write(
                [outcome(first, first + length // 2), outcome(first + length // 2, end)]
            )
            if orderly:
                warehouse.sync()
        found = opened(root)
        found.write([outcome(found.position, end)] if found.position < end else [])
        assert unchanged(held(found, rows_max=7), end)


def test_a_lost_note_makes_the_replay_longer_and_nothing_else(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 30])
    warehouse.maintain()
    warehouse.write([outcome(30, 34)])
    warehouse.close()
    (tmp_path / "position.json").unlink()
    again = opened(tmp_path)
    assert again.position == warehouse.durable_position == 30
    again.write([outcome(30, 34)])
    assert unchanged(held(again), 34)


@pytest.mark.parametrize("torn", [b"", b"00000000 {}", b"not a note"])
def test_a_torn_note_counts_as_none(tmp_path: Path, torn: bytes) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 12])
    warehouse.maintain()
    (tmp_path / "position.json").write_bytes(torn)
    assert checkpoint.read(tmp_path) is None
    assert opened(tmp_path).position == 12


def test_times_are_stored_as_utc_and_dates_are_partitions(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    warehouse.write([outcome(0, 40)])
    table = DeltaTable(str(tmp_path / "events"))
    assert table.metadata().partition_columns == ["event_date"]
    assert table.schema().to_arrow().field("ts").type == pa.timestamp("us", "UTC")
    assert {p["event_date"] for p in table.partitions()} == {
        "2023-11-14",
        "2023-11-15",
        "2023-11-16",
    }


def test_a_new_column_is_null_in_older_rows(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    warehouse.write([outcome(0, 10)])
    warehouse.close()
    wider = with_columns(("note", "text"), ("count", "bigint?"))
    again = opened(tmp_path, schema=wider)
    older = held(again)["events"]
    assert [row["note"] for row in older] == [None] * len(older)
    again.write([outcome(10, 20)])
    assert [row["id"] for row in held(again)["events"]] == [
        r["id"] for r in expected(0, 20)["events"]
    ]


def with_columns(*added: tuple[str, str], without: str = "") -> Schema:
    kept = [(c.name, str(c)) for c in SCHEMA if c.name != without]
    return Schema.of([*kept, *added], id="id", event_time="ts")


def test_a_changed_type_is_refused_with_both_types(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(
        InputError, match=r"`events`.*`price` is declared as double.*decimal\(10,2\)"
    ):
        opened(tmp_path, schema=with_columns(("price", "double?"), without="price"))


def test_a_required_column_may_go_once_it_was_declared_nullable(tmp_path: Path) -> None:
    required = with_columns(("code", "text"))
    opened(tmp_path, schema=required).close()
    with pytest.raises(
        InputError, match=r"`code` is no longer declared.*text, not nullable.*`text\?`"
    ):
        opened(tmp_path)
    opened(tmp_path, schema=with_columns(("code", "text?"))).close()
    again = opened(tmp_path)
    again.write([outcome(0, 5)])
    assert [row["code"] for row in held(again)["events"]] == [None] * len(expected(0, 5)["events"])


def test_names_that_differ_by_case_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`Id`"):
        opened(tmp_path, schema=with_columns(("Id", "text?")))


def test_a_window_query_cannot_take_the_name_of_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`decisions`"):
        opened(tmp_path, windows={"decisions": WINDOWS["rush"]})


def test_thousands_of_rows_in_one_write_come_back_whole(tmp_path: Path) -> None:
    warehouse: Warehouse = opened(tmp_path)
    warehouse.write([outcome(0, 3_000)])
    assert unchanged(held(warehouse, rows_max=500), 3_000)
