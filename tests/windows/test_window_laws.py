"""Laws of window queries on random streams, held against a slow twin and against DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf, nan
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_shop import SECOND, compiled, events, run

AZURE_IDS = (
    "SELECT store_id, COLLECT(id) AS ids FROM [in] WHERE [discount] > 50 GROUP BY store_id, {}"
)
STANDARD_IDS = (
    "SELECT store_id, list(id) AS ids FROM events WHERE discount > 50 GROUP BY store_id, {}"
)
WINDOWS = [
    (AZURE_IDS.format("TumblingWindow(second, 10)"), 10, 10, True),
    (AZURE_IDS.format("HoppingWindow(second, 10, 5)"), 10, 5, True),
    (AZURE_IDS.format("HoppingWindow(second, 10, 4)"), 10, 4, True),
    (STANDARD_IDS.format("TUMBLE(ts, INTERVAL 10 SECONDS)"), 10, 10, False),
    (STANDARD_IDS.format("HOP(ts, INTERVAL 5 SECONDS, INTERVAL 10 SECONDS)"), 10, 5, False),
    (STANDARD_IDS.format("HOP(ts, INTERVAL 3 SECONDS, INTERVAL 10 SECONDS)"), 10, 3, False),
]

times = st.one_of(
    st.integers(-45, 45).map(lambda s: s * SECOND),
    st.integers(-45 * SECOND, 45 * SECOND),
)
rows = st.fixed_dictionaries(
    {
        "ts": times,
        "store_id": st.sampled_from([1, 2, None]),
        "discount": st.sampled_from([10.0, 60.0, 70.0, None]),
    }
)
cuts = st.lists(st.integers(0, 60), max_size=6)


@dataclass
class Twin:
    """The definition of a window query, event by event: slow and plain to see."""

    size: int
    hop: int
    includes_end: bool
    watermark: int = -(2**62)
    windows: dict[int, dict[Any, list[str]]] = field(default_factory=dict)
    emitted: list[dict[str, Any]] = field(default_factory=list)
    late: list[tuple[str, int, int]] = field(default_factory=list)

    def ends(self, time: int) -> Iterator[int]:
        """The ends of the windows that hold a time, found by trying."""
        aligned = time // self.hop * self.hop
        for k in range(-5 * self.hop, 5 * self.hop, self.hop):
            # `(start, end]` has its ends on the grid, `[start, end)` its starts.
            if self.includes_end:
                end = aligned + k
                if end - self.size < time <= end:
                    yield end
            elif aligned + k <= time < aligned + k + self.size:
                yield aligned + k + self.size

    def closed(self, end: int) -> bool:
        return self.watermark > end if self.includes_end else self.watermark >= end

    def pass_time(self, watermark: int, offset: int) -> None:
        self.watermark = max(self.watermark, watermark)
        for end in sorted(e for e in self.windows if self.closed(e)):
            for store, ids in self.windows.pop(end).items():
                self.emitted.append({"store_id": store, "ids": ids, "end": end, "offset": offset})

    def event(self, row: dict[str, Any], *, lateness: int, offset: int) -> None:
        self.pass_time(row["ts"] - lateness, offset)
        if row["discount"] is None or row["discount"] <= 50:
            return
        for end in self.ends(row["ts"]):
            if self.closed(end):
                self.late.append((f"e{offset}", end, self.watermark))
            else:
                self.windows.setdefault(end, {}).setdefault(row["store_id"], []).append(
                    f"e{offset}"
                )


def micros(column: pa.Array[Any]) -> list[int]:
    return [int(v) for v in column.view(pa.int64()).to_numpy()]


@pytest.mark.parametrize(("sql", "size", "hop", "includes_end"), WINDOWS)
@settings(max_examples=25)
@given(st.lists(rows, max_size=50), st.sampled_from([0, 3, 20]), cuts, st.sets(st.integers(0, 6)))
def test_windows_emit_and_miss_what_the_twin_does_however_the_stream_is_cut(
    sql: str,
    size: int,
    hop: int,
    includes_end: bool,
    stream: list[dict[str, Any]],
    lateness: int,
    cut: list[int],
    restore_at: set[int],
) -> None:
    twin = Twin(size * SECOND, hop * SECOND, includes_end)
    for offset, row in enumerate(stream):
        twin.event(row, lateness=lateness * SECOND, offset=offset)
    twin.pass_time(2**61, len(stream))

    query = compiled(sql, lateness=lateness * SECOND)
    found = run(query, events(stream), cuts=cut, restore_at=sorted(restore_at))

    ends, starts = (
        micros(found.rows.column("window_end")),
        micros(found.rows.column("window_start")),
    )
    assert [e - s for e, s in zip(ends, starts, strict=True)] == [size * SECOND] * len(ends)
    assert [
        {"store_id": r["store_id"], "ids": r["ids"], "end": end, "offset": r["log_offset"]}
        for r, end in zip(found.rows.to_pylist(), ends, strict=True)
    ] == twin.emitted
    late = found.late
    missed = zip(
        late.column("event_id").to_pylist(),
        micros(late.column("window_end")),
        micros(late.column("watermark")),
        strict=True,
    )
    assert list(missed) == twin.late


AGGREGATES = """
    store_id, category, count(*) AS n, count(qty) AS n_qty, sum(qty) AS s_qty, avg(qty) AS a_qty,
    min(discount) AS lo, max(discount) AS hi, sum(discount) AS s_disc, avg(discount) AS a_disc,
    stddev(discount) AS sd, var_pop(discount) AS vp, sum(price) AS s_price, avg(price) AS a_price,
    min(price) AS lo_price, max(category) AS hi_cat, count(DISTINCT discount) AS d_disc,
    sum(DISTINCT qty) AS ds_qty, list(qty) AS qtys, list(id) FILTER (WHERE qty > 0) AS ids,
    first(qty) AS f_qty, last(qty) AS l_qty, any_value(qty) AS v_qty,
    bool_and(priority_shipping) AS all_fast, bool_or(priority_shipping) AS any_fast,
    count_if(qty > 0) AS n_pos, count(*) FILTER (WHERE qty > 0) AS n_pos_too,
    sum(qty) FILTER (WHERE discount > 0) AS s_some, stddev_pop(qty) AS sp_qty,
    sum(qty) * 1.0 / count(*) AS share, max(qty) - min(qty) AS spread
"""
doubles = st.one_of(
    st.none(), st.sampled_from([0.0, -0.0, nan, inf, 1.5, -2.25]), st.floats(-1e6, 1e6, width=32)
)
full_rows = st.fixed_dictionaries(
    {
        "ts": times,
        "store_id": st.sampled_from([1, 2, None]),
        "category": st.sampled_from(["a", "é", "Z", "", None]),
        "discount": doubles,
        "qty": st.one_of(st.none(), st.integers(-(10**6), 10**6)),
        "price": st.one_of(st.none(), st.decimals(-(10**7), 10**7, places=2)),
        "priority_shipping": st.sampled_from([True, False, None]),
    }
)


def oracle(batch: pa.RecordBatch, *, select: str, size: int, hop: int, tail: str) -> list[Any]:
    """DuckDB's rows, windows found by arithmetic on microseconds since 1970."""
    starts = f"range(0, {size}, {hop})"
    grid = f"(epoch_us(ts) - (((epoch_us(ts) % {hop}) + {hop}) % {hop}))"
    sql = f"""
        WITH laid AS (
            SELECT e.*, {grid} - k AS ws FROM e, unnest({starts}) AS u(k)
            WHERE epoch_us(ts) < {grid} - k + {size}
        )
        SELECT {select}, ws + {size} AS we FROM (SELECT * FROM laid ORDER BY log_offset)
        {tail}
    """
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("e", pa.Table.from_batches([batch]))
        return connection.execute(sql).fetchall()


def plain(value: Any) -> Any:
    """A value that compares as wanted: NaN equals itself, sums of doubles only nearly."""
    if isinstance(value, float):
        return "nan" if value != value else pytest.approx(value, rel=1e-9, abs=1e-4)
    if isinstance(value, Decimal):
        return Decimal(value)
    return [plain(v) for v in value] if isinstance(value, list) else value


def by_group(found: list[Any]) -> list[Any]:
    return sorted(found, key=lambda r: (r[-1], repr(r[0]), repr(r[1])))


@pytest.mark.parametrize(("size", "hop"), [(10, 10), (10, 5), (10, 3)])
@settings(max_examples=30)
@given(stream=st.lists(full_rows, max_size=40), cut=cuts, in_order=st.booleans())
def test_results_equal_duckdb_s_group_by_on_streams_within_the_lateness(
    size: int, hop: int, stream: list[dict[str, Any]], cut: list[int], in_order: bool
) -> None:
    if in_order:
        stream = sorted(stream, key=lambda r: int(r["ts"]))
    window = f"HOP(ts, INTERVAL {hop} SECONDS, INTERVAL {size} SECONDS)"
    query = compiled(
        f"SELECT {AGGREGATES} FROM events GROUP BY store_id, category, {window}",
        lateness=90 * SECOND,
    )
    batch = events(stream)
    found = run(query, batch, cuts=cut)
    assert (found.late.num_rows, found.errors) == (0, [])

    expected = oracle(
        batch,
        select=AGGREGATES,
        size=size * SECOND,
        hop=hop * SECOND,
        tail="GROUP BY store_id, category, ws",
    )
    ends = micros(found.rows.column("window_end"))
    names = query.selected
    ours = [
        (*(r[n] for n in names), end) for r, end in zip(found.rows.to_pylist(), ends, strict=True)
    ]
    assert len(ours) == len(expected)
    for our, theirs in zip(by_group(ours), by_group(expected), strict=True):
        shown = [plain(v) for v in theirs]
        assert [("nan" if v != v else v) for v in our] == shown


@settings(max_examples=25)
@given(stream=st.lists(full_rows, max_size=40), cut=cuts)
def test_every_bit_is_the_same_however_the_stream_is_cut(
    stream: list[dict[str, Any]], cut: list[int]
) -> None:
    query = compiled(
        f"""SELECT {AGGREGATES} FROM events
        GROUP BY store_id, category, TUMBLE(ts, INTERVAL 10 SECONDS)""",
        lateness=5 * SECOND,
    )
    batch = events(stream)
    whole, pieces = run(query, batch), run(query, batch, cuts=cut, restore_at=[1, 3])
    assert bits(whole.rows) == bits(pieces.rows)
    assert bits(whole.late) == bits(pieces.late)
    assert whole.errors == pieces.errors


def bits(rows: pa.RecordBatch) -> list[str]:
    return [repr(r) for r in rows.to_pylist()]


FOLDING = """
    store_id, count(*) AS n, count(qty) AS n_qty, sum(qty) AS s_qty, avg(qty) AS a_qty,
    min(discount) AS lo, max(discount) AS hi, sum(price) AS s_price, avg(price) AS a_price,
    max(price) AS hi_price, min(category) AS lo_cat, count_if(qty > 0) AS n_pos,
    bool_and(priority_shipping) AS all_fast, sum(qty) FILTER (WHERE discount > 0) AS s_some,
    max(qty) FILTER (WHERE discount > 0) AS m_some
"""


@pytest.mark.parametrize("window", ["TUMBLE(ts, {size})", "HOP(ts, INTERVAL 3 SECONDS, {size})"])
@settings(max_examples=30)
@given(stream=st.lists(full_rows, max_size=40), cut=cuts)
def test_folding_what_is_held_changes_no_bit(
    window: str, stream: list[dict[str, Any]], cut: list[int]
) -> None:
    grouping = f"GROUP BY store_id, {window.format(size='INTERVAL 10 SECONDS')}"
    query = compiled(f"SELECT {FOLDING} FROM events {grouping}", lateness=5 * SECOND)
    # A list needs each row, so that nothing of this query folds.
    whole = compiled(f"SELECT {FOLDING}, list(id) AS l FROM events {grouping}", lateness=5 * SECOND)
    assert query.folding is not None
    assert whole.folding is None
    batch = events(stream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidegate.windows.state._FOLD_MIN", 0)
        folded = run(query, batch, cuts=cut, restore_at=[2])
    plainly = run(whole, batch)
    names = folded.rows.schema.names
    assert bits(folded.rows) == bits(plainly.rows.select(names))
    assert bits(folded.late) == bits(plainly.late)
