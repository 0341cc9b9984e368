"""What a window query compiles to, in both spellings, and how mistakes are shown."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from window_shop import MINUTE, SECOND, SHOP, compiled, events, run

from tidegate.errors import ProjectError
from tidegate.schema import Schema
from tidegate.sql.source import SourceText
from tidegate.windows import WindowQuery, compile_query

GOLDEN = Path(__file__).parent / "golden"
SEED = (GOLDEN / "suspicious_orders.sql").read_text()
CASES = [
    case.partition("\n----\n") for case in (GOLDEN / "problems.txt").read_text().split("\n====\n")
]


@pytest.mark.parametrize(("sql", "shown"), [(c[0], c[2].strip("\n")) for c in CASES])
def test_mistakes_are_shown_with_their_place_a_caret_and_a_hint(sql: str, shown: str) -> None:
    with pytest.raises(ProjectError) as caught:
        compiled(sql)
    assert str(caught.value) == shown


def test_the_stream_analytics_query_compiles_as_printed() -> None:
    query = compiled(SEED)
    assert query.outputs == ("fraud-detective-output-008",)
    assert (query.size, query.hop) == (5 * MINUTE, 5 * MINUTE)
    assert query.selected == ("store_id", "ids", "WindowEnd", "WindowStart")
    assert query.schema.names == [*query.selected, "window_start", "window_end", "log_offset"]
    used = {"id", "event_type", "store_id", "discount", "priority_shipping", "ts"}
    assert set(query.columns) == used


def test_a_query_repeated_for_several_outputs_is_one_query() -> None:
    query = compiled(f"{SEED}\n\n{SEED.replace('output-008', 'queue')}")
    assert query.outputs == ("fraud-detective-output-008", "fraud-detective-queue")
    assert query.fingerprint == compiled(SEED).fingerprint


@pytest.mark.parametrize(
    "window",
    [
        "HoppingWindow(minute, 5, 1)",
        "HoppingWindow(Duration(minute, 5), Hop(minute, 1))",
        "hoppingwindow(mi, 5, 1)",
        "HoppingWindow(second, 300, 60)",
    ],
)
def test_hopping_windows_are_read_in_each_form(window: str) -> None:
    query = compiled(f"SELECT COUNT(*) AS n FROM [in] i TIMESTAMP BY i.ts GROUP BY {window}")
    assert (query.size, query.hop, query.grid.includes_end) == (5 * MINUTE, MINUTE, True)


STANDARD_FORMS = [
    "FROM events GROUP BY store_id, HOP(ts, INTERVAL 1 MINUTE, INTERVAL 5 MINUTES)",
    "FROM events GROUP BY 1, HOP(event_time, INTERVAL '1' MINUTE, INTERVAL '300 seconds')",
    """FROM TABLE(HOP(TABLE events, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE))
    GROUP BY store_id, window_start, window_end""",
    """FROM HOP(events, ts, INTERVAL 1 MINUTE, INTERVAL 5 MINUTES)
    GROUP BY window_start, store_id, window_end""",
    "FROM Events AS e GROUP BY E.Store_Id, HOP(e.ts, INTERVAL 1 MINUTE, INTERVAL 5 MINUTES)",
]


@pytest.mark.parametrize("form", STANDARD_FORMS)
def test_standard_windows_are_read_in_each_form(form: str) -> None:
    query = compiled(f"SELECT store_id, window_end, count(*) AS n {form}")
    assert (query.size, query.hop, query.grid.includes_end) == (5 * MINUTE, MINUTE, False)
    assert query.selected == ("store_id", "window_end", "n")
    assert query.schema.names == ["store_id", "n", "window_start", "window_end", "log_offset"]


def test_an_offset_moves_the_bounds() -> None:
    window = "TumblingWindow(Duration(minute, 5), Offset(second, 10))"
    sql = f"SELECT COUNT(*) AS n FROM [in] GROUP BY {window}"
    (row,) = run(compiled(sql), events([{"ts": 20 * SECOND}])).rows.to_pylist()
    assert row["window_start"].second == row["window_end"].second == 10


@pytest.mark.parametrize(
    ("spelling", "includes_end"),
    [("TumblingWindow(minute, 5)", True), ("TUMBLE(ts, INTERVAL 5 MINUTES)", False)],
)
def test_the_bound_belongs_to_one_window_as_each_spelling_has_it(
    spelling: str, includes_end: bool
) -> None:
    sql = f"SELECT count(*) AS n FROM events GROUP BY {spelling}"
    (row,) = run(compiled(sql), events([{"ts": 10 * MINUTE}])).rows.to_pylist()
    assert row["window_end" if includes_end else "window_start"].minute == 10


def test_windows_before_1970_are_aligned_like_all_others() -> None:
    sql = "SELECT count(*) AS n FROM events GROUP BY TUMBLE(ts, INTERVAL 1 HOUR)"
    (row,) = run(compiled(sql), events([{"ts": -1}])).rows.to_pylist()
    assert str(row["window_start"]) == "1969-12-31 23:00:00"


def test_t_sql_habits_mean_what_they_mean_there() -> None:
    sql = """SELECT COUNT(*) AS n, IIF(SUM(qty) > 1, 'many', 'one') AS size_of,
             MAX(DATEADD(second, 1, System.Timestamp())) AS last_seen
             FROM [in] WHERE LEN(category) = 2 AND ISNULL(qty, 0) = 1 AND priority_shipping <> 0
             AND CAST(discount AS nvarchar(max)) = '1.5'
             GROUP BY TumblingWindow(minute, 5)"""
    good = {"ts": 1, "category": "ab", "qty": 1, "priority_shipping": True, "discount": 1.5}
    others = [
        {**good, "category": "a"},
        {**good, "qty": None},
        {**good, "priority_shipping": False},
    ]
    (row,) = run(compiled(sql), events([good, *others])).rows.to_pylist()
    assert (row["n"], row["size_of"], row["last_seen"].second) == (1, "one", 1)


def test_aliases_serve_in_group_by_having_and_later_columns() -> None:
    sql = """SELECT lower(category) AS kind, sum(qty) AS total, total * 2 AS twice FROM events
             GROUP BY kind, TUMBLE(ts, INTERVAL 5 MINUTES) HAVING total > 2 AND count(*) > 1"""
    rows = [{"ts": 0, "category": c, "qty": q} for c, q in product("Aab", (1, 2))]
    (a,) = [r for r in run(compiled(sql), events(rows)).rows.to_pylist() if r["kind"] == "a"]
    assert (a["total"], a["twice"]) == (6, 12)


def test_the_fingerprint_follows_the_meaning_and_not_the_layout() -> None:
    window = "TUMBLE(ts, INTERVAL 5 MINUTES)"
    sql = f"SELECT store_id, count(*) AS n FROM events GROUP BY store_id, {window}"
    same = sql.replace("store_id, count", "\n  STORE_ID as store_id,  COUNT")
    assert compiled(same).fingerprint == compiled(sql).fingerprint
    for old, new in [("5 MIN", "6 MIN"), ("count(*)", "count(qty)"), ("AS n", "AS m")]:
        assert compiled(sql.replace(old, new)).fingerprint != compiled(sql).fingerprint


def test_the_fingerprint_follows_the_types_of_the_columns_that_are_read() -> None:
    def of(store: str, qty: str) -> WindowQuery:
        columns = [("id", "text"), ("ts", "timestamp"), ("store_id", store), ("qty", qty)]
        schema = Schema.of(columns, id="id", event_time="ts")
        sql = "SELECT store_id FROM events GROUP BY store_id, TUMBLE(ts, INTERVAL 5 MINUTES)"
        return compile_query("q", SourceText(sql), schema, lateness=0)

    first = of("bigint", "bigint").fingerprint
    assert of("bigint", "text").fingerprint == first
    assert of("text", "bigint").fingerprint != first


@pytest.mark.parametrize(
    "text", ["(" * 5_000, "SELECT " + "(" * 900, "SELECT " + "1+" * 2_000 + "1", "", ";"]
)
def test_no_text_is_too_odd_to_be_refused_in_words(text: str) -> None:
    with pytest.raises(ProjectError):
        compile_query("q", SourceText(text), SHOP, lateness=0)
