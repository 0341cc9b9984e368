"""`POST /v1/query`: rows in three forms, and statements that must be refused or bounded."""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pyarrow as pa
import pytest

from tidegate.service.query.description import QueryRows
from waiting import until

from .process import ServerProcess, end, event, is_error, launch

SETTINGS = """
[query]
timeout = "1 minute"
memory_bytes_max = "128 MiB"
rows_max = 1000
result_bytes_max = "1 MiB"
waiting_max = 2
"""
HASTY = SETTINGS.replace("1 minute", "1 second")
TIMEOUT_SECONDS = 60.0
SECRET = "not-for-queries-" + uuid4().hex


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with narrow limits, four events in its tables, and a secret in its environment."""
    os.environ["TIDEGATE_TEST_SECRET"] = SECRET
    running = launch(tmp_path_factory.mktemp("asked"), settings=SETTINGS)
    del os.environ["TIDEGATE_TEST_SECRET"]
    with running.client() as client:
        lines = [event(f"e{i}", discount=50 + i, event_type="sale, 'ü'") for i in range(4)]
        client.post("/v1/events", content=b"\n".join(lines), headers={"content-type": "text/plain"})
        until(lambda: rows(client, "SELECT count(*) FROM decisions") == [[4]])
    yield running
    end(running)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server that lets no query take longer than a second."""
    running = launch(tmp_path_factory.mktemp("hasty"), settings=HASTY)
    with running.client() as client:
        yield client
    end(running)


def ask(client: httpx.Client, sql: str, **more: Any) -> httpx.Response:
    return client.post("/v1/query", json={"sql": sql, **more})


def rows(client: httpx.Client, sql: str, **more: Any) -> list[list[Any]]:
    answer = ask(client, sql, **more)
    assert answer.status_code == 200, answer.text
    found: list[list[Any]] = answer.json()["rows"]
    return found


# -- answers -----------------------------------------------------------------------------------


def test_the_answer_has_columns_rows_and_whether_there_are_more(client: httpx.Client) -> None:
    answer = ask(client, "SELECT id, discount, ts FROM events ORDER BY id", limit=2)
    found = answer.json()
    assert found.pop("elapsed_ms") > 0
    assert found == {
        "columns": [
            {"name": "id", "type": "VARCHAR"},
            {"name": "discount", "type": "DOUBLE"},
            {"name": "ts", "type": "TIMESTAMP"},
        ],
        "rows": [["e0", 50.0, "2026-01-01T00:00:00"], ["e1", 51.0, "2026-01-01T00:00:00"]],
        "row_count": 2,
        "truncated": True,
    }
    assert answer.headers["x-row-count"] == "2"
    assert answer.headers["x-truncated"] == "true"
    assert msgspec.json.decode(answer.content, type=QueryRows).row_count == 2


def test_a_whole_answer_is_not_said_to_be_cut_off(client: httpx.Client) -> None:
    assert ask(client, "SELECT id FROM events WHERE id < 'f'", limit=4).json()["truncated"] is False
    assert ask(client, "SELECT id FROM events WHERE false").json()["rows"] == []
    assert ask(client, "SELECT id FROM events", limit=0).json()["truncated"] is True


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("1.10::decimal(38,10)", "1.1000000000"),
        ("123456789012345678901234567890::hugeint", "123456789012345678901234567890"),
        ("'NaN'::double", "null"),
        ("DATE '2026-02-03'", '"2026-02-03"'),
        ("TIMESTAMP '2026-02-03 04:05:06.789'", '"2026-02-03T04:05:06.789000"'),
        ("[1, NULL]", "[1,null]"),
        ("{'a': 'ü'}", '{"a":"ü"}'),
        ("'\\x00\\xFF'::blob", '"AP8="'),
        ("NULL", "null"),
        ("chr(10) || '\"'", '"\\n\\""'),
    ],
)
def test_values_come_exactly(client: httpx.Client, sql: str, shown: str) -> None:
    assert f'"rows":[[{shown}]]' in ask(client, f"SELECT {sql}").text


def test_csv_and_arrow_come_by_the_accept_header_or_by_the_body(client: httpx.Client) -> None:
    sql = "SELECT event_type, discount FROM events ORDER BY id LIMIT 1"
    text = client.post("/v1/query", json={"sql": sql}, headers={"accept": "text/csv"})
    assert text.headers["content-type"] == "text/csv; charset=utf-8"
    assert text.text == "event_type,discount\r\n\"sale, 'ü'\",50.0\r\n"
    arrow = ask(client, sql, format="arrow")
    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all()
    assert table.to_pylist() == [{"event_type": "sale, 'ü'", "discount": 50.0}]
    assert arrow.headers["x-row-count"] == "1"


def test_a_form_that_there_is_not_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/query", json={"sql": "SELECT 1"}, headers={"accept": "image/png"})
    assert is_error(answer, 406, "not_acceptable")


def test_parameters_are_bound_by_name_and_by_place(client: httpx.Client) -> None:
    by_name = "SELECT id FROM events WHERE discount > $least AND id IN (SELECT unnest($ids))"
    given = {"least": 50.5, "ids": ["e0", "e1"]}
    assert rows(client, by_name, parameters=given) == [["e1"]]
    assert rows(client, "SELECT ?, ?", parameters=[None, "'; DROP TABLE x"]) == [
        [None, "'; DROP TABLE x"]
    ]
    missing = ask(client, "SELECT $a, $b", parameters={"a": 1})
    assert is_error(missing, 400, "bad_query")


def test_another_dialect_is_read_as_what_it_is(client: httpx.Client) -> None:
    sql = "SELECT id FROM `project.ops.events` WHERE id IN UNNEST(@ids) ORDER BY id LIMIT 1"
    assert rows(client, sql, dialect="bigquery", parameters={"ids": ["e3", "e2"]}) == [["e2"]]
    assert rows(
        client,
        "SELECT TOP 1 [id] FROM [dbo].[events] WHERE [id] < 'f' ORDER BY [id] DESC",
        dialect="tsql",
    ) == [["e3"]]


def test_what_was_mended_is_said_in_a_note(client: httpx.Client) -> None:
    sql = "SELECT id FROM `events` WHERE id='e1;"
    found = ask(client, sql, dialect="bigquery").json()
    assert found["rows"] == [["e1"]]
    assert found["notes"] == ["the last string was not closed; it was read as 'e1'"]


def test_a_mistake_comes_with_the_words_of_the_database_and_a_caret(client: httpx.Client) -> None:
    answer = ask(client, "SELECT discont FROM events")
    assert is_error(answer, 400, "bad_query")
    message = answer.json()["error"]["message"]
    assert '"discont" not found' in message
    parsed = ask(client, "SELECT id FROM events WHERE").json()["error"]["message"]
    assert "^" in parsed
    unknown = ask(client, "SELECT * FROM evnts").json()["error"]["message"]
    assert "there is no table `evnts`" in unknown
    assert "`decisions`" in unknown


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"SELECT 1",
        b"[]",
        b"{}",
        b'{"sql": 1}',
        b'{"sql": "SELECT 1", "dialect": "oracle"}',
        b'{"sql": "SELECT 1", "format": "xlsx"}',
        b'{"sql": "SELECT 1", "limit": -1}',
        b'{"sql": "SELECT 1", "limit": 1.5}',
        b'{"sql": "SELECT 1", "parameters": {"a": {"b": 1}}}',
        b'{"sql": "SELECT 1", "timeout": 1}',
        b'{"sql": "SELECT 1"',
        b'\xff\xfe{"sql": "SELECT 1"}',
    ],
)
def test_a_body_that_is_no_question_is_refused(client: httpx.Client, body: bytes) -> None:
    assert is_error(client.post("/v1/query", content=body), 400, "bad_request")


# -- statements that must be refused -------------------------------------------------------------

FORBIDDEN = [
    "",
    ";",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW events",
    "EXPLAIN SELECT * FROM events",
    "EXPLAIN ANALYZE SELECT 1",
    "INSERT INTO events VALUES (1)",
    "UPDATE events SET id = 'x'",
    "DELETE FROM events",
    "DROP VIEW events",
    "CREATE TABLE t AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "CREATE SECRET s (TYPE http)",
    "ALTER VIEW events RENAME TO x",
    "TRUNCATE events",
    "VACUUM",
    "CHECKPOINT",
    "BEGIN TRANSACTION",
    "USE memory",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "CALL pragma_version()",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "SET threads = 64",
    "SET enable_external_access = true",
    "RESET memory_limit",
    "SET VARIABLE a = 1",
    "INSTALL httpfs",
    "LOAD httpfs",
    "ATTACH '/tmp/other.db'",
    "DETACH memory",
    "COPY events TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet'",
    "COPY events FROM '/etc/passwd'",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '/etc'",
    "WITH x AS (COPY (SELECT 1) TO '{folder}/out.csv') SELECT 1",
    "WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('events')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('{folder}/tidegate.toml')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_json('{folder}/tidegate.toml')",
    "SELECT * FROM read_parquet('{folder}/data/tables/events/*/*.parquet')",
    "SELECT * FROM parquet_metadata('{folder}/data/tables/events/*/*.parquet')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/**')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{folder}/data/tables/events/*/*.parquet'",
    "SELECT * FROM 'https://127.0.0.1:1/x.csv'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    'FROM "/proc/self/environ"',
    "SELECT getenv('TIDEGATE_TEST_SECRET')",
    "SELECT current_setting('home_directory')",
    "SELECT current_setting('secret_directory')",
    "SELECT getvariable('a')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM duckdb_views()",
    "SELECT sql FROM duckdb_views",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pg_catalog.pg_settings",
    "SELECT * FROM information_schema.views",
    "SELECT * FROM system.information_schema.tables",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT * FROM arrow_scan(140000000000000, 1, 1)",
    "SELECT * FROM pandas_scan(140000000000000)",
    "SELECT * FROM seq_scan(1)",
    "SELECT * FROM enable_logging()",
    "SELECT write_log('x')",
    "SELECT nextval('s')",
    "SHOW ALL TABLES",
    "SELECT finalize(x) FROM (SELECT 1 AS x)",
    "SELECT load_extension('/tmp/x.so')",
    "SELECT xp_cmdshell('id')",
    "SELECT * FROM events INTO OUTFILE '/tmp/x'",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "SELECT " + "+".join(["1"] * 20_000),
    "SELECT " + "NOT " * 15_000 + "true",
    "SELECT '" + "x" * 70_000 + "'",
]


@pytest.mark.parametrize("sql", FORBIDDEN, ids=lambda sql: sql[:60])
def test_a_statement_that_reaches_further_is_refused(
    client: httpx.Client, server: ServerProcess, sql: str
) -> None:
    before = set(server.folder.iterdir())
    answer = ask(client, sql.format(folder=server.folder) if "{folder}" in sql else sql)
    error = answer.json()["error"]
    assert is_error(answer, 400, "bad_query"), error
    assert set(server.folder.iterdir()) == before
    told = error["message"].replace(sql.format(folder=server.folder), "") if sql else ""
    assert SECRET not in told
    assert "root:" not in told


FOREIGN = [
    ("bigquery", "EXPORT DATA OPTIONS(uri='gs://x/*') AS SELECT 1"),
    ("bigquery", "SELECT * FROM EXTERNAL_QUERY('c', 'SELECT 1')"),
    ("bigquery", "SELECT * FROM `/etc/passwd`"),
    ("bigquery", "DECLARE x INT64; SELECT x"),
    ("tsql", "EXEC xp_cmdshell 'id'"),
    ("tsql", "SELECT * FROM OPENROWSET(BULK '/etc/passwd', SINGLE_CLOB) AS x"),
    ("tsql", "SELECT 1 INTO t"),
    ("snowflake", "SELECT * FROM @stage/file.csv"),
    ("snowflake", "COPY INTO @stage FROM events"),
    ("spark", "SELECT * FROM parquet.`/etc/passwd`"),
    ("spark", "SELECT * FROM csv.`/etc/passwd`"),
    ("spark", "SELECT java_method('java.lang.System', 'getenv', 'PATH')"),
    ("athena", "UNLOAD (SELECT 1) TO 's3://x/' WITH (format = 'PARQUET')"),
    ("trino", "SELECT * FROM TABLE(system.query(query => 'SELECT 1'))"),
    ("trino", "SELECT * FROM system.runtime.nodes"),
    ("athena", "SELECT * FROM read_text('/etc/passwd')"),
]


@pytest.mark.parametrize(("dialect", "sql"), FOREIGN)
def test_no_dialect_is_a_way_around(client: httpx.Client, dialect: str, sql: str) -> None:
    answer = ask(client, sql, dialect=dialect)
    assert is_error(answer, 400, "bad_query")
    assert "root:" not in answer.text


# -- statements that must be bounded --------------------------------------------------------------

GREEDY = [
    "SELECT repeat('x', 1000000000)",
    "SELECT lpad('x', 2000000000, 'y')",
    "SELECT repeat('x', 1000000) FROM range(65536)",
    "SELECT range(1000000000)",
    "SELECT list(range) FROM range(100000000)",
    "SELECT string_agg(range::text, ',') FROM range(100000000)",
    "SELECT count(DISTINCT hash(range)) FROM range(100000000)",
    "SELECT range FROM range(50000000) ORDER BY hash(range), range DESC OFFSET 40000000",
    "SELECT format('{:2000000000}', 1)",
    "SELECT to_json(range(30000000))",
    "SELECT count(*) FROM (SELECT range FROM range(40000000) UNION SELECT -range FROM range(9))",
]
ENDLESS = [
    "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
    "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t",
    "SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))",
    "SELECT max(regexp_matches(repeat('a', 20000) || range, '(.*a){12}b')) FROM range(100000)",
    "SELECT sum(hash(a.range, b.range)) FROM range(1000000) a, range(1000000) b",
]


@pytest.mark.parametrize("sql", GREEDY)
def test_a_query_that_wants_too_much_is_ended(hasty: httpx.Client, sql: str) -> None:
    error = ask(hasty, sql).json()["error"]
    assert error["code"] in ("out_of_memory", "query_timeout", "result_too_large")


@pytest.mark.parametrize("sql", ENDLESS)
def test_a_query_that_does_not_end_is_ended(hasty: httpx.Client, sql: str) -> None:
    assert is_error(ask(hasty, sql), 400, "query_timeout")


def test_many_rows_are_cut_off_and_one_row_that_is_too_large_is_refused(
    client: httpx.Client,
) -> None:
    many = ask(client, "SELECT range FROM range(1000000000)", limit=10_000_000).json()
    assert (many["row_count"], many["truncated"]) == (1000, True)
    for kind in ("json", "csv", "arrow"):
        wide = ask(client, "SELECT repeat('x', 100000) FROM range(1000)", format=kind)
        assert wide.headers["x-truncated"] == "true"
        assert int(wide.headers["x-row-count"]) <= 10
        assert len(wide.content) < 2 << 20
    huge = ask(client, "SELECT repeat('x', 3000000)")
    assert is_error(huge, 400, "result_too_large")


def test_queries_that_run_hold_up_neither_events_nor_memory(
    client: httpx.Client, server: ServerProcess
) -> None:
    before = server.resident_bytes
    busy = [socket_asking(server, ENDLESS[0]) for _ in range(2)]
    until(lambda: running(server) == 2)
    for _ in range(50):
        key = "f" + uuid4().hex
        assert client.post("/v1/events", content=event(key)).status_code == 202
    assert running(server) == 2  # they were not waited for
    for connection in busy:
        connection.close()
    until(lambda: running(server) == 0)
    assert server.resident_bytes - before < 200 << 20


def test_a_caller_that_goes_away_ends_its_query(
    client: httpx.Client, server: ServerProcess
) -> None:
    connection = socket_asking(server, ENDLESS[0])
    until(lambda: running(server) == 1)
    connection.close()
    until(lambda: running(server) == 0, "it ran on", seconds=TIMEOUT_SECONDS / 2)
    assert rows(client, "SELECT 1") == [[1]]


def running(server: ServerProcess) -> int:
    """How many queries run now."""
    with server.client() as client:
        found = re.search(r"^tidegate_queries_running (\S+)$", client.get("/metrics").text, re.M)
        assert found is not None
        return int(float(found[1]))


def test_beyond_those_that_wait_callers_are_told_to_come_back(
    client: httpx.Client, server: ServerProcess
) -> None:
    busy = [socket_asking(server, ENDLESS[0]) for _ in range(4)]
    until(lambda: all(map(server.has_read, busy)))
    answer = ask(client, "SELECT 1")
    assert is_error(answer, 429, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    for connection in busy:
        connection.close()
    until(lambda: ask(client, "SELECT 2").status_code != 429)
    assert rows(client, "SELECT 2") == [[2]]


def socket_asking(server: ServerProcess, sql: str) -> socket.socket:
    """A connection that has asked and does not listen."""
    connection = server.connect()
    body = msgspec.json.encode({"sql": sql})
    head = f"POST /v1/query HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_the_process_has_no_secrets_and_yields_to_the_decisions(
    client: httpx.Client, server: ServerProcess
) -> None:
    assert rows(client, "SELECT 1") == [[1]]
    workers = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if is_worker(path, server.process.pid)
    ]
    assert workers
    nice = min(19, os.getpriority(os.PRIO_PROCESS, server.process.pid) + 10)
    for pid in workers:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert SECRET.encode() not in environment
        assert os.getpriority(os.PRIO_PROCESS, pid) == nice
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert " ".join(limits.split("Max file size")[1].split()[:2]) == "0 0"


def is_worker(stat: Path, parent: int) -> bool:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1]) == parent
    except FileNotFoundError:  # it has ended meanwhile
        return False


def test_no_process_is_left_when_the_server_is_killed(tmp_path: Path) -> None:
    server = launch(tmp_path, settings=SETTINGS)
    with server.client() as client:
        assert rows(client, "SELECT 1") == [[1]]
        children = [
            path.parent
            for path in Path("/proc").glob("[0-9]*/stat")
            if is_worker(path, server.process.pid)
        ]
        assert children
    end(server)
    said = "a process for queries has outlived its server"
    until(lambda: not any(child.exists() for child in children), said)


def test_the_route_is_described_with_what_it_takes_and_gives(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    described = document["paths"]["/v1/query"]["post"]
    asked = described["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    name = asked.rpartition("/")[2]
    fields = document["components"]["schemas"][name]["properties"]
    assert set(fields) == {"sql", "dialect", "parameters", "limit", "format"}
    answers = described["responses"]["200"]["content"]
    assert set(answers) == {"application/json", "text/csv", "application/vnd.apache.arrow.stream"}
    assert "QueryRows" in document["components"]["schemas"]
    assert {"400", "406", "429", "503"} <= set(described["responses"])


PII = """
[query]
timeout = "1 minute"
"""


def test_marked_columns_come_as_pseudonyms_to_whoever_may_not_see_them(tmp_path: Path) -> None:
    folder = tmp_path / "marked"
    folder.mkdir()
    running = launch(folder, settings=PII, before=_MARKED)
    try:
        with running.client() as client:
            client.post("/v1/events", content=event("e1", event_type="4711"))
            until(lambda: rows(client, "SELECT event_type FROM events"))
            ((shown,),) = rows(client, "SELECT event_type FROM events")
            assert shown.startswith("pii:")
            assert rows(client, "SELECT 1 FROM events WHERE event_type = '4711'") == []
            both = "SELECT 1 FROM events WHERE event_type = $it"
            assert rows(client, both, parameters={"it": shown}) == [[1]]
            cast = ask(client, "SELECT CAST(event_type AS BIGINT) FROM events")
            assert is_error(cast, 400, "bad_query")
            assert "4711" not in cast.text
    finally:
        end(running)


# The column is marked when the project is read: the settings of these tests stand in one place.
_MARKED = """
text = (Path(sys.argv[1]) / "tidegate.toml").read_text()
marked = text.replace('event_type = "text?"', 'event_type = "text? pii"')
(Path(sys.argv[1]) / "tidegate.toml").write_text(marked)
"""
