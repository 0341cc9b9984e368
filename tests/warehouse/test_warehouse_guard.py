"""What a guarded statement may name."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from tidegate.errors import QueryError
from tidegate.warehouse.guard import named_tables

KNOWN = ("events", "decisions", "features")


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    yield connection
    connection.close()


TAKEN = {
    "FROM events JOIN decisions USING (log_offset)": {"events", "decisions"},
    'SELECT * FROM "Events" AS e, main.features, memory.main.decisions': set(KNOWN),
    "SELECT (SELECT max(score) FROM decisions) FROM range(3)": {"decisions"},
    "WITH events AS (SELECT 1) SELECT * FROM events": {"events"},
    "WITH RECURSIVE n AS (SELECT 1 AS i UNION SELECT i + 1 FROM n) SELECT * FROM n": set(),
    "WITH tables AS (SELECT 1) SELECT * FROM tables": set(),
    "SELECT sum(a) OVER (PARTITION BY b ORDER BY c RANGE BETWEEN INTERVAL 3 DAY PRECEDING AND "
    "CURRENT ROW EXCLUDE TIES) FROM events QUALIFY row_number() OVER () = 1": {"events"},
    "SELECT u.x FROM events, unnest(rules) AS u(x) WHERE a BETWEEN 1 AND 2": {"events"},
    "PIVOT events ON kind IN ('a', 'b') USING sum(amount)": {"events"},
    "FROM (DESCRIBE events)": {"events"},
    "SUMMARIZE decisions": {"decisions"},
    "SELECT 1 UNION ALL BY NAME SELECT a FROM features LIMIT 10%": {"features"},
    "SELECT extra->>'a', rules[1].name, x.f(1), count(*) FILTER (WHERE b) FROM events": {"events"},
    "SELECT * FROM (VALUES ($1), (?2)) AS v(a)".replace("?2", "$2"): set(),
    "SELECT a, count(*) FROM events GROUP BY GROUPING SETS ((a), ()) HAVING count(*) > 1": {
        "events"
    },
    "SELECT list_transform(l, lambda x: x + 1), {'a': 1}, map {'k': 2} FROM events": {"events"},
    "FROM events ASOF JOIN decisions ON events.a >= decisions.b": {"events", "decisions"},
}


@pytest.mark.parametrize("sql", TAKEN)
def test_what_can_only_read_tables_is_taken(
    connection: duckdb.DuckDBPyConnection, sql: str
) -> None:
    assert named_tables(connection, sql, known=KNOWN) == TAKEN[sql]


REFUSED = [
    "WITH x AS (COPY (SELECT 1) TO 'out.csv') SELECT 1",
    "WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO events VALUES (1) RETURNING *) SELECT 1",
    "WITH x AS (UPDATE events SET a = 1 RETURNING *) SELECT 1",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SHOW DATABASES",
    "FROM information_schema.tables",
    "FROM pg_catalog.pg_tables",
    "FROM system.main.duckdb_views",
    "FROM sqlite_master",
    "FROM duckdb_settings()",
    "FROM duckdb_secrets()",
    "FROM events, LATERAL (FROM pragma_version())",
    "SELECT (SELECT value FROM duckdb_settings() LIMIT 1)",
    "WITH a AS (WITH duckdb_tables AS (SELECT 1) FROM duckdb_tables) FROM duckdb_tables",
    "SELECT current_setting('home_directory')",
    "SELECT a FROM events WHERE b = getvariable('c')",
    "SELECT a FROM events ORDER BY current_setting('threads')",
    "SELECT max(a) FILTER (WHERE sleep_ms(1) IS NULL) FROM events",
    "SELECT list_transform([1], lambda x: sleep_ms(x))",
    "SELECT 'a'.current_setting()",
    "SELECT pg_get_viewdef(1)",
    "SELECT tidegate_hash('4711')",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_reaches_further_is_refused(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    with pytest.raises(QueryError):
        named_tables(connection, sql, known=KNOWN)


def table_functions() -> list[str]:
    connection = duckdb.connect()
    found = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() "
        "WHERE function_type IN ('table', 'table_macro', 'pragma')"
    ).fetchall()
    connection.close()
    harmless = {"range", "generate_series", "unnest", "json_each", "json_tree", "repeat"}
    return sorted({name for (name,) in found} - harmless - {"repeat_row", "regexp_split_to_table"})


@pytest.mark.parametrize("name", table_functions())
def test_every_other_table_function_that_the_library_has_is_refused(
    connection: duckdb.DuckDBPyConnection, name: str
) -> None:
    with pytest.raises(QueryError, match="not taken"):
        named_tables(connection, f"SELECT * FROM {name}(1)", known=KNOWN)
