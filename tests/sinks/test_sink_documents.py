"""JSON files: window rows by window end, decided events by type and day."""

from __future__ import annotations

import datetime as dt
import json
import sys
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sink_rows import FRAUD_PATH, WINDOW_PATH, captured, decisions, opened, settings, window_rows

from tidegate.errors import DamageError
from tidegate.sinks import decided
from tidegate.sinks import documents as documents_module
from tidegate.sinks.contract import Delivery
from tidegate.sinks.decided import DecidedFeed
from tidegate.testing.sinks import RowsFeed


def written(folder: Path, rows: pa.Table, *, path: str, form: str) -> dict[str, str]:
    """The files of one delivery of all rows: their text by their path."""
    until = int(rows.column("log_offset").to_numpy().max()) + 1
    opened(settings("blobs", path=path, form=form), rows, folder).write(Delivery(0, until, rows))
    root = folder / "blobs"
    return {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}


def decided_feed(count: int, *actions: str) -> DecidedFeed:
    events = RowsFeed(captured(count).drop_columns(["record"]), end=count)
    return DecidedFeed(events, RowsFeed(decisions(count), end=count), actions=actions)


def documents(rows: pa.Table, folder: Path) -> list[Any]:
    (text,) = written(folder, rows, path="all", form="json").values()
    found: list[Any] = json.loads(text)
    return found


def _ending(rows: pa.Table, offset: int) -> pa.Table:
    at = rows.schema.get_field_index("log_offset")
    return rows.set_column(at, rows.schema.field(at), pa.array([offset] * rows.num_rows))


def test_files_are_made_one_after_the_other(tmp_path: Path) -> None:
    """So that what a delivery is spelled as, larger than its rows, is never whole in memory."""
    layout = opened(settings("blobs", path=WINDOW_PATH, form="json"), window_rows(1), tmp_path)
    rows = window_rows(1)
    ids = pa.array([["x" * 1000] * 20] * 2)
    rows = rows.set_column(1, rows.schema.field(1), ids)
    many = pa.concat_tables([_ending(rows, offset) for offset in range(500)])
    tracemalloc.start()
    try:
        size = sum(len(content) for _, content in layout._layout.files(Delivery(0, 500, many)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size / 4


# Window rows


def test_window_rows_lie_in_the_folder_of_their_window_end(tmp_path: Path) -> None:
    files = written(tmp_path, window_rows(2), path=WINDOW_PATH, form="json")
    assert set(files) == {
        "suspicious-events/2023-06-07/10-10/0000000000000000007.json",
        "suspicious-events/2023-06-07/10-15/0000000000000000107.json",
    }


def test_window_rows_are_an_array_of_the_querys_own_columns(tmp_path: Path) -> None:
    (text,) = written(tmp_path, window_rows(1), path=WINDOW_PATH, form="json").values()
    end = "2023-06-07T10:10:00.0000000Z"
    assert json.loads(text) == [
        {"store_id": 6, "ids": ["a0", "b0"], "total": 12.5, "WindowEnd": end},
        {"store_id": None, "ids": ["c0"], "total": None, "WindowEnd": end},
    ]


def test_window_rows_that_each_get_a_file_are_numbered(tmp_path: Path) -> None:
    files = written(tmp_path, window_rows(1), path="all", form="event")
    assert sorted(files) == [
        "all/1686132600000000_0000000000000000007-1.json",
        "all/1686132600000000_0000000000000000007.json",
    ]


def test_wide_rows_become_objects_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pa.concat_tables([window_rows(1)] * 100)
    ids = [[f"{place:07}-{number:032}" for number in range(500)] for place in range(200)]
    rows = rows.set_column(1, "ids", pa.array(ids))
    encoder, blocks = documents_module._ENCODER, list[int]()

    class Watching:
        def encode(self, row: dict[str, Any]) -> bytes:
            blocks.append(sys.getallocatedblocks())
            return encoder.encode(row)

    monkeypatch.setattr(documents_module, "_ENCODER", Watching())
    before = sys.getallocatedblocks()
    assert [row["ids"] for row in documents(rows, tmp_path)] == ids
    # All together they are a hundred thousand and more.
    assert max(blocks) - before < 20_000


# Decided events


def test_a_decided_event_is_a_file_by_type_and_day(tmp_path: Path) -> None:
    rows = decided_feed(3, "review").read(0, until=3, rows_max=9).rows
    files = written(tmp_path, rows, path=FRAUD_PATH, form="event")
    assert list(files) == [
        "fraud-events/event_type=sale_event/dt=2023_06_06/1686083086754948_0000000000000000001.json"
    ]


def test_a_decided_event_has_its_columns_and_its_decision(tmp_path: Path) -> None:
    rows = decided_feed(3, "review").read(0, until=3, rows_max=9).rows
    (text,) = written(tmp_path, rows, path=FRAUD_PATH, form="event").values()
    document = json.loads(text)
    assert document["decision"] == {
        "action": "review",
        "rules": [
            {"name": "rush", "action": "review", "mode": "live", "reason": "Discount of 60 %"}
        ],
        "score": None,
        "version": "v1",
    }
    assert (document["id"], document["log_offset"]) == ("event-1", 1)
    assert document["ts"] == "2023-06-06T20:24:46.7549480Z"


def test_a_null_in_the_path_is_hives_default_partition(tmp_path: Path) -> None:
    rows = decided_feed(1, "approve").read(0, until=1, rows_max=9).rows
    (path,) = written(tmp_path, rows, path="t={event_type}", form="ndjson")
    assert path.startswith("t=__HIVE_DEFAULT_PARTITION__/")


def test_lines_and_arrays_hold_the_same_documents(tmp_path: Path) -> None:
    rows = decided_feed(30, "review", "block").read(0, until=30, rows_max=99).rows
    (lines,) = written(tmp_path / "a", rows, path="all", form="ndjson").values()
    (array,) = written(tmp_path / "b", rows, path="all", form="json").values()
    assert [json.loads(line) for line in lines.splitlines()] == json.loads(array)


# Values


def test_decimals_and_big_integers_are_exact(tmp_path: Path) -> None:
    rows = captured(1).select(["log_offset", "ingest_time"])
    rows = rows.append_column("d", pa.array([Decimal("9999999999999999.99")]))
    rows = rows.append_column("i", pa.array([2**63 - 1]))
    (text,) = written(tmp_path, rows, path="all", form="ndjson").values()
    document = json.loads(text, parse_float=Decimal)
    assert (document["d"], document["i"]) == (Decimal("9999999999999999.99"), 2**63 - 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_null(tmp_path: Path, value: float) -> None:
    rows = captured(1).select(["log_offset", "ingest_time"])
    rows = rows.append_column("x", pa.array([value])).append_column("xs", pa.array([[value, 1.0]]))
    (document,) = documents(rows, tmp_path)
    assert (document["x"], document["xs"]) == (None, [None, 1.0])


def test_times_inside_lists_and_structs_are_spelled_alike(tmp_path: Path) -> None:
    time = dt.datetime(2023, 6, 7, 10, 10)  # noqa: DTZ001 - UTC without a zone
    instant = pa.timestamp("us")
    nested = pa.struct([pa.field("at", instant), pa.field("n", pa.int64())])
    rows = captured(4).select(["log_offset", "ingest_time"])
    lists = pa.array([None, [time, None], [], [time]], pa.list_(instant))
    structs = pa.array([None, {"at": time, "n": 1}, {"at": None, "n": None}, None], nested)
    rows = rows.append_column("times", lists).append_column("one", structs)
    found = documents(rows.slice(1), tmp_path)
    shown = "2023-06-07T10:10:00.0000000Z"
    assert [d["times"] for d in found] == [[shown, None], [], [shown]]
    assert [d["one"] for d in found] == [{"at": shown, "n": 1}, {"at": None, "n": None}, None]


# The feed


def test_only_decisions_with_a_wanted_action_are_fed() -> None:
    rows = decided_feed(9, "block").read(0, until=9, rows_max=99).rows
    assert rows.column("log_offset").to_pylist() == [2, 5, 8]


def test_reading_goes_on_until_enough_rows_are_found() -> None:
    delivery = decided_feed(90, "block").read(0, until=90, rows_max=10)
    assert 10 <= delivery.rows.num_rows < 20
    assert delivery.next_offset < 90


def test_a_stretch_without_wanted_decisions_is_empty_but_typed() -> None:
    delivery = decided_feed(9, "escalate").read(2, until=9, rows_max=3)
    assert (delivery.first_offset, delivery.next_offset, delivery.rows.num_rows) == (2, 9, 0)
    assert "decision" in delivery.rows.column_names


@pytest.mark.parametrize("rows_max", [1, 2, 5, 100])
def test_decided_events_come_in_any_number_at_a_time(
    rows_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decided, "_LOOKED_AT", 4)
    feed = decided_feed(90, "review", "block")
    offset, found = 0, []
    while offset < 90:
        delivery = feed.read(offset, until=90, rows_max=rows_max)
        assert delivery.rows.num_rows <= rows_max
        # A reading ends although few were found, so that a sink can rest.
        assert delivery.next_offset <= offset + rows_max + 4
        found.append(delivery.rows)
        offset = delivery.next_offset
    whole = decided_feed(90, "review", "block").read(0, until=90, rows_max=1 << 62).rows
    assert pa.concat_tables(found).to_pylist() == whole.to_pylist()
    assert whole.num_rows > 20


def test_a_decision_without_its_event_is_damage() -> None:
    events = RowsFeed(captured(9).drop_columns(["record"]).slice(0, 4), end=9)
    feed = DecidedFeed(events, RowsFeed(decisions(9), end=9), actions=("block",))
    with pytest.raises(DamageError, match="offset 5 has no event"):
        feed.read(0, until=9, rows_max=99)


def test_a_column_of_the_stream_keeps_its_name_beside_the_decision() -> None:
    events = captured(3).append_column("decision", pa.array(["mine"] * 3))
    feed = DecidedFeed(RowsFeed(events, end=3), RowsFeed(decisions(3), end=3), actions=("review",))
    rows = feed.read(0, until=3, rows_max=9).rows
    assert rows.column("decision").to_pylist() == ["mine"]
    ours: list[Any] = rows.column("tidegate_decision").to_pylist()
    assert [decision["action"] for decision in ours] == ["review"]
