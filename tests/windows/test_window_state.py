"""How windows open, close, and miss what comes too late."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from window_shop import MINUTE, SECOND, compiled, events, run, watermarks

from tidegate.errors import DamageError
from tidegate.windows import WindowState

SEED = (Path(__file__).parent / "golden" / "suspicious_orders.sql").read_text()
TEN_PAST_TEN = int(datetime(2023, 6, 7, 10, 10, tzinfo=UTC).timestamp()) * SECOND
COUNT = (
    "SELECT store_id, count(*) AS n FROM events GROUP BY store_id, TUMBLE(ts, INTERVAL 10 SECONDS)"
)
HOPS = "SELECT count(*) AS n FROM events GROUP BY HOP(ts, INTERVAL 5 SECONDS, INTERVAL 10 SECONDS)"
SUSPICIOUS = {"discount": 60.0, "priority_shipping": True}


def seconds(micros: object) -> float:
    assert isinstance(micros, datetime)
    return micros.replace(tzinfo=UTC).timestamp()


def test_the_printed_query_answers_in_the_printed_shape() -> None:
    stream = [
        {"ts": TEN_PAST_TEN - 4 * MINUTE, "id": "b", "store_id": 6},
        {"ts": TEN_PAST_TEN, "id": "x", "store_id": None},
        {"ts": TEN_PAST_TEN - 3 * MINUTE, "id": "a", "store_id": 6},
        {"ts": TEN_PAST_TEN - 3 * MINUTE, "id": "c", "store_id": None},
        {"ts": TEN_PAST_TEN - MINUTE, "id": "mild", "store_id": 6, "discount": 50.0},
        {"ts": TEN_PAST_TEN - MINUTE, "id": "slow", "store_id": 6, "priority_shipping": False},
        {
            "ts": TEN_PAST_TEN - MINUTE,
            "id": "stock",
            "store_id": 6,
            "event_type": "inventory_event",
        },
    ]
    query = compiled(SEED, lateness=4 * MINUTE)
    found = run(query, events([{**SUSPICIOUS, **row} for row in stream])).rows
    bounds = {
        "WindowEnd": datetime(2023, 6, 7, 10, 10),  # noqa: DTZ001 - Arrow's times carry no zone
        "WindowStart": datetime(2023, 6, 7, 10, 5),  # noqa: DTZ001 - as above
    }
    assert found.select(list(query.selected)).to_pylist() == [
        {"store_id": 6, "ids": ["b", "a"], **bounds},
        {"store_id": None, "ids": ["x", "c"], **bounds},
    ]


@pytest.mark.parametrize(
    ("window", "closes_at"),
    [
        ("TUMBLE(ts, INTERVAL 10 SECONDS)", 10 * SECOND),
        ("TumblingWindow(second, 10)", 10 * SECOND + 1),
    ],
)
def test_a_window_closes_once_no_time_in_it_can_be_on_time(window: str, closes_at: int) -> None:
    state = WindowState(compiled(f"SELECT count(*) AS n FROM events GROUP BY {window}"))
    batch = events([{"ts": 5 * SECOND}])
    state.update(batch, watermarks=watermarks(batch, lateness=0))
    assert state.advance(closes_at - 1, log_offset=1).rows.num_rows == 0
    assert state.advance(closes_at, log_offset=2).rows.to_pylist()[0]["log_offset"] == 2
    assert state.advance(closes_at + 1, log_offset=3).rows.num_rows == 0


def test_a_row_carries_the_offset_of_the_event_that_closed_its_window() -> None:
    stream = events([{"ts": 1}, {"ts": 9}, {"ts": 10 * SECOND}, {"ts": 11 * SECOND}], first=40)
    first = run(compiled(COUNT), stream).rows.to_pylist()[0]
    assert (first["n"], first["log_offset"]) == (2, 42)


def test_an_event_behind_the_closing_event_of_its_own_batch_is_late() -> None:
    found = run(compiled(COUNT), events([{"ts": 1}, {"ts": 10 * SECOND}, {"ts": 2}]))
    assert [r["n"] for r in found.rows.to_pylist()] == [1, 1]
    (late,) = found.late.to_pylist()
    assert (late["window_query"], late["event_id"], late["log_offset"]) == ("q", "e2", 2)
    shown = [seconds(late[k]) for k in ("window_start", "window_end", "watermark")]
    assert shown == [0, 10, 10]


def test_with_hopping_windows_an_event_may_miss_one_and_make_the_other() -> None:
    found = run(compiled(HOPS), events([{"ts": 10 * SECOND}, {"ts": 7 * SECOND}]))
    assert [seconds(r["window_end"]) for r in found.late.to_pylist()] == [10]
    assert [(r["n"], seconds(r["window_end"])) for r in found.rows.to_pylist()] == [
        (2, 15),
        (1, 20),
    ]


def test_only_events_that_the_query_asks_for_count_as_late() -> None:
    query = compiled(COUNT.replace("GROUP", "WHERE discount > 50 GROUP"))
    behind = [{"ts": 2, "discount": d} for d in (1.0, None, 60.0)]
    stream = events([{"ts": 10 * SECOND, "discount": None}, *behind])
    assert [r["event_id"] for r in run(query, stream).late.to_pylist()] == ["e3"]


def test_events_as_late_as_allowed_are_in_time() -> None:
    stream = events([{"ts": 19 * SECOND}, {"ts": 9 * SECOND}])
    assert run(compiled(COUNT, lateness=10 * SECOND), stream).late.num_rows == 0


def test_time_that_passes_without_events_closes_windows_and_makes_later_events_late() -> None:
    state = WindowState(compiled(COUNT))
    batch = events([{"ts": 1}])
    state.update(batch, watermarks=watermarks(batch, lateness=0))
    assert state.advance(10 * SECOND, log_offset=7).rows.to_pylist()[0]["log_offset"] == 7
    late = events([{"ts": 2}], first=8)
    closed = state.update(late, watermarks=np.array([10 * SECOND], dtype=np.int64))
    assert (closed.rows.num_rows, closed.late.num_rows) == (0, 1)


def test_windows_without_events_emit_nothing() -> None:
    found = run(compiled(COUNT), events([{"ts": 0}, {"ts": 3600 * SECOND}]))
    assert [seconds(r["window_start"]) for r in found.rows.to_pylist()] == [0, 3600]


def test_a_long_silence_costs_no_time_for_the_windows_in_between() -> None:
    stream = events([{"ts": -(2**50)}, {"ts": 2**50}])
    query = compiled(COUNT.replace("INTERVAL 10 SECONDS", "INTERVAL 1 MILLISECOND"))
    assert run(query, stream).rows.num_rows == 2


def test_a_null_key_is_a_group_and_so_is_nan() -> None:
    nan = float("nan")
    sql = COUNT.replace("store_id", "discount")
    keys = [None, nan, 0.0, -0.0, None, nan]
    found = run(compiled(sql), events([{"ts": 1, "discount": k} for k in keys])).rows
    assert found.column("n").to_pylist() == [2, 2, 2]


def test_groups_of_a_window_come_in_the_order_of_their_first_event() -> None:
    stream = [{"ts": t, "store_id": s} for t, s in [(5, 3), (2, 1), (4, 3), (1, 2)]]
    found = run(compiled(COUNT, lateness=SECOND), events(stream)).rows
    assert found.column("store_id").to_pylist() == [3, 1, 2]


def test_an_event_whose_expression_fails_is_left_out_and_told() -> None:
    sql = "SELECT sum(qty + 1) AS s FROM events GROUP BY TUMBLE(ts, INTERVAL 10 SECONDS)"
    found = run(compiled(sql), events([{"ts": 1, "qty": 2**63 - 1}, {"ts": 2, "qty": 1}]))
    assert found.rows.column("s").to_pylist() == [2]
    ((offset, message),) = found.errors
    assert offset == 0
    assert "overflow" in message or "qty + 1" in message


def test_a_sum_beyond_a_bigint_is_null_and_told_at_the_closing_offset() -> None:
    sql = "SELECT sum(qty) AS s, count(*) AS n FROM events GROUP BY TUMBLE(ts, INTERVAL 10 SECONDS)"
    found = run(compiled(sql), events([{"ts": 1, "qty": 2**62}, {"ts": 2, "qty": 2**62}]))
    assert found.rows.select(["s", "n"]).to_pylist() == [{"s": None, "n": 2}]
    assert found.errors == [(2, "sum does not fit a bigint in `sum(qty)`")]


def test_sums_pass_beyond_a_bigint_on_their_way_without_harm() -> None:
    sql = "SELECT sum(qty) AS s FROM events GROUP BY TUMBLE(ts, INTERVAL 10 SECONDS)"
    values = [2**63 - 1, 2**63 - 1, -(2**63), -(2**63) + 5]
    found = run(compiled(sql), events([{"ts": 1, "qty": v} for v in values]))
    assert found.rows.column("s").to_pylist() == [3]


def test_the_order_of_events_does_not_move_a_bit_of_a_sum_of_doubles() -> None:
    sql = "SELECT sum(discount) AS s FROM events GROUP BY TUMBLE(ts, INTERVAL 10 SECONDS)"
    values = [1e16, 1.0, -1e16, 1e-3]
    sums = {
        run(compiled(sql), events([{"ts": 1, "discount": v} for v in order])).rows["s"][0].as_py()
        for order in (values, values[::-1])
    }
    assert sums == {1.001}


def test_counts_of_what_is_held_follow_the_open_windows() -> None:
    state = WindowState(compiled(HOPS))
    batch = events([{"ts": t * SECOND} for t in (1, 2, 7, 101)])
    state.update(batch, watermarks=np.full(4, -100 * SECOND))
    # [-5,5) [0,10) [5,15), and [95,105) [100,110)
    assert (state.rows_held, state.open_windows) == (4, 5)
    assert state.bytes_held > 0
    state.advance(10 * SECOND, log_offset=4)
    assert (state.rows_held, state.open_windows) == (2, 3)


def test_many_small_batches_are_joined() -> None:
    state = WindowState(compiled(COUNT))
    for offset in range(1_000):
        batch = events([{"ts": 1}], first=offset)
        state.update(batch, watermarks=np.array([0], dtype=np.int64))
    assert state.rows_held == 1_000
    assert len(state._pieces) < 100
    assert state.advance(2**60, log_offset=1_000).rows.column("n").to_pylist() == [1_000]


def test_a_state_is_not_restored_for_another_query() -> None:
    state = WindowState(compiled(COUNT))
    with pytest.raises(DamageError, match="not one of window query `q`"):
        WindowState.restore(compiled(HOPS), state.snapshot())


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_state_is_refused(damage: bytes | None) -> None:
    query = compiled(COUNT)
    data = WindowState(query).snapshot()[:40] if damage is None else damage
    with pytest.raises(DamageError):
        WindowState.restore(query, data)


def test_what_is_held_is_bounded_by_groups_where_no_aggregate_needs_each_row() -> None:
    state = WindowState(compiled(COUNT))
    rows = [{"ts": 1 + i, "store_id": i % 3} for i in range(2_000)]
    held = []
    for offset in range(0, 400_000, 2_000):
        batch = events(rows[:1], first=offset) if offset else events(rows)
        big = pa.concat_batches([batch] * (1 if offset else 100))  # type: ignore[attr-defined]
        state.update(big, watermarks=np.zeros(big.num_rows, dtype=np.int64))
        held.append(state.rows_held)
    assert held[0] == 200_000
    assert max(held[1:]) < 300
    found = state.advance(2**60, log_offset=1_000_000).rows
    assert found.column("n").to_numpy().sum() == 200_000 + 199
