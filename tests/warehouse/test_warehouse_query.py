"""SQL over the tables, from any process, that can read the tables and touch nothing else."""

from __future__ import annotations

import builtins
import subprocess
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from warehouse_rows import SCHEMA, expected, opened, outcome, plain, write_all

from tidegate.errors import InputError, QueryError
from tidegate.schema import Schema
from tidegate.tables import CONTROL_TABLES
from tidegate.warehouse import query, tables
from waiting import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables with a few hundred rows in several files."""
    folder = tmp_path_factory.mktemp("queried")
    warehouse = opened(folder)
    write_all(warehouse, [0, 50, 60, 200])
    return folder


def answer(root: Path, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in query(root, sql).arrow().to_pylist()]


@pytest.mark.parametrize("table", ["events", "decisions", "dead_letters", "rush", "late_rows"])
def test_a_table_is_read_as_it_was_written(root: Path, table: str) -> None:
    names = ", ".join(f'"{name}"' for name in expected(0, 200)[table][0])
    rows = query(root, f"SELECT {names} FROM {table} ORDER BY log_offset").arrow()
    assert sorted(map(str, plain(rows))) == sorted(map(str, expected(0, 200)[table]))


def test_times_are_utc_without_a_zone_and_decimals_exact(root: Path) -> None:
    row = answer(root, "SELECT ts, typeof(ts), sum(price) OVER () FROM events ORDER BY ts LIMIT 1")
    total = sum((r["price"] for r in expected(0, 200)["events"]), Decimal(0))
    assert row == [(datetime(2023, 11, 14, 22, 13, 20), "TIMESTAMP", total)]  # noqa: DTZ001


def test_the_date_partitions_are_columns(root: Path) -> None:
    sql = "SELECT min(event_date) FROM decisions WHERE event_date > DATE '2023-11-15'"
    assert answer(root, sql) == [(date(2023, 11, 16),)]


def test_names_are_found_without_regard_to_case_and_in_joins(root: Path) -> None:
    sql = "SELECT count(*) FROM Events e JOIN DECISIONS d ON d.event_id = e.id"
    assert answer(root, sql) == [(len(expected(0, 200)["events"]),)]


def test_lists_of_structs_can_be_taken_apart(root: Path) -> None:
    sql = "SELECT DISTINCT rules[1].name, rules[1].mode FROM decisions WHERE len(rules) > 0"
    assert answer(root, sql) == [("r", "live")]


def test_empty_tables_have_their_columns(tmp_path: Path) -> None:
    opened(tmp_path)
    result = query(tmp_path, "SELECT * FROM rush").arrow()
    assert result.num_rows == 0
    assert result.schema.field("window_start").type == pa.timestamp("us")


def test_rows_older_than_a_column_are_null_in_it(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write([outcome(0, 3)])
    first.close()
    wider = Schema.of(
        [*((c.name, str(c)) for c in SCHEMA), ("seen", "timestamp?")], id="id", event_time="ts"
    )
    second = opened(tmp_path, schema=wider)
    assert answer(tmp_path, "SELECT DISTINCT seen, typeof(seen) FROM events") == [
        (None, "TIMESTAMP")
    ]
    second.write([outcome(3, 10)])
    sql = "SELECT count(*), count(seen) FROM events"
    assert answer(tmp_path, sql) == [(len(expected(0, 10)["events"]), 0)]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY events TO 'out.csv'",
        "WITH x AS (COPY (SELECT 1) TO 'out.csv') SELECT 1",
        "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''out.csv'') SELECT 1')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'http://127.0.0.1:9/x.parquet'",
        "FROM read_parquet('{root}/events/*/*.parquet')",
        "SELECT * FROM glob('*')",
        "ATTACH 'other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW events",
        "DELETE FROM events",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_nothing_but_the_tables_can_be_read_and_nothing_written(
    root: Path, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QueryError):
        query(root, sql.format(root=root)).arrow()
    assert list(tmp_path.iterdir()) == []


def test_python_names_around_the_call_are_not_tables(root: Path) -> None:
    secrets = pa.table({"a": [1]})
    with pytest.raises(QueryError, match="secrets does not exist"):
        query(root, "SELECT * FROM secrets")
    assert secrets.num_rows == 1


def test_a_mistake_is_shown_with_a_caret(root: Path) -> None:
    with pytest.raises(QueryError) as caught:
        query(root, "SELECT store, FROM WHERE events")
    assert "\n" in str(caught.value)
    assert "^" in str(caught.value)


def test_an_unknown_table_brings_the_names_that_there_are(root: Path) -> None:
    with pytest.raises(QueryError, match=r"The tables are `answers`, `audit`, `dead_letters`"):
        query(root, "SELECT * FROM evnts")


def test_an_error_in_a_late_row_comes_out_as_a_query_error(root: Path) -> None:
    result = "SELECT CAST(id AS BIGINT) FROM events"
    with pytest.raises(QueryError, match="Could not convert string 'e"):
        query(root, result).arrow()


def test_a_query_that_needs_too_much_memory_is_refused(root: Path) -> None:
    sql = "SELECT count(DISTINCT a) FROM (SELECT hash(range) AS a FROM range(30000000))"
    with pytest.raises(QueryError, match=r"(?i)memory"):
        query(root, sql, memory_bytes=10 << 20, threads=1).arrow()


def test_results_come_in_all_three_forms(root: Path) -> None:
    sql = "SELECT id, price FROM events ORDER BY log_offset LIMIT 3"
    arrow = query(root, sql).arrow()
    assert query(root, sql).polars().rows() == [tuple(r.values()) for r in arrow.to_pylist()]
    assert query(root, sql).pandas()["id"].tolist() == arrow.column("id").to_pylist()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_missing_library_is_named_with_how_to_get_it(
    root: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refusing(name: str, *rest: object) -> object:
        if name == library:
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(InputError, match="pip install"):
        getattr(query(root, "SELECT 1"), library)()


def test_tables_are_listed_with_rows_files_and_bytes(root: Path) -> None:
    found = {t.name: t for t in tables(root)}
    assert found["events"].rows == len(expected(0, 200)["events"])
    assert found["events"].files >= 3
    assert found["events"].bytes > 1_000
    assert sorted(found) == sorted({*expected(0, 0), *CONTROL_TABLES})


def test_a_folder_without_tables_has_none(tmp_path: Path) -> None:
    assert tables(tmp_path) == []


def test_another_process_reads_while_this_one_writes(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    warehouse.write([outcome(0, 50)])
    script = (
        "import sys; from pathlib import Path; from tidegate.warehouse import query\n"
        "print(query(Path(sys.argv[1]), 'SELECT count(*) AS n FROM events').arrow())"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True
    )
    write_all(warehouse, range(50, 80))
    out, _ = reader.communicate(timeout=2 * PATIENCE_SECONDS)
    assert reader.returncode == 0
    assert "n: int64" in out


@pytest.mark.parametrize(
    "join", ["JOIN decisions USING (log_offset)", "NATURAL JOIN (SELECT log_offset FROM decisions)"]
)
def test_tables_are_joined_by_the_columns_that_they_share(tmp_path: Path, join: str) -> None:
    warehouse = opened(tmp_path)
    warehouse.write([outcome(0, 20)])
    found = query(tmp_path, f"SELECT count(*) AS n FROM events {join}").arrow().to_pylist()
    assert found == [{"n": len(expected(0, 20)["decisions"])}]
