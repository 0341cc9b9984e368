"""Queries written for other systems, run over tables of the shapes that they were written for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from warehouse_rows import opened, outcome

from tidegate.errors import QueryError
from tidegate.tables import WINDOW_COLUMNS
from tidegate.warehouse import query
from tidegate.warehouse.dialects import DIALECTS, translate

ATHENA = """
SELECT
    rft.transaction_id,
    rft.sender_bank_account,
    rft.receiver_bank_account,
    rft.amount,
    rft.status,
    rft.evaluation,
    rft.transfer_date,
    rft.sender_bank,
    rft.source_process,
    sender.name AS sender_name,
    sender.address AS sender_address,
    sender.email AS sender_email,
    receiver.name AS receiver_name,
    receiver.address AS receiver_address,
    receiver.email AS receiver_email
FROM
    raw_fraudulent_transactions_result rft
LEFT JOIN raw_users sender
    ON rft.sender_id = sender.id
LEFT JOIN raw_users receiver
    ON rft.receiver_id = receiver.id;
"""
# As it was printed: the last string has lost its closing quote.
BIGQUERY = """
SELECT
  paymentRequestId,
  (
  SELECT
    f.value
  FROM
    UNNEST(featureVector) AS f
  WHERE
    f.name=singal_id1) AS singalId1
FROM
  `table-name1`
WHERE modelName='model-name1;
"""
USER = ("id", "name", "address", "email")
TRANSACTION = (
    *("transaction_id", "sender_bank_account", "sender_id", "receiver_bank_account"),
    *("receiver_id", "amount", "status", "evaluation", "transfer_date", "sender_bank"),
    "source_process",
)
FEATURE = pa.struct([("name", pa.string()), ("value", pa.string()), ("type", pa.string())])
KINDS: dict[str, pa.DataType] = {
    "paymentRequestId": pa.int64(),
    "modelName": pa.string(),
    "featureVector": pa.list_(FEATURE),
    "singal_id1": pa.string(),
}
SCORED = pa.schema(KINDS)


def texts(names: Sequence[str]) -> pa.Schema:
    kinds = {"amount": pa.float64()}
    return pa.schema([pa.field(name, kinds.get(name, pa.string())) for name in names])


SHAPES = {
    "raw_users": texts(USER),
    "raw_fraudulent_transactions_result": texts(TRANSACTION),
    "table-name1": SCORED,
}


def written(folder: Path, rows: Mapping[str, Sequence[tuple[Any, ...]]]) -> None:
    """A warehouse with tables of the shapes, holding these rows."""
    shapes = {name: pa.schema([*shape, *WINDOW_COLUMNS]) for name, shape in SHAPES.items()}
    warehouse = opened(folder, windows=shapes)
    windows = {
        name: pa.RecordBatch.from_pylist(
            [dict(zip(shape.names, (*row, 0, 0, 0), strict=True)) for row in rows[name]],
            schema=shape,
        )
        for name, shape in shapes.items()
    }
    warehouse.write([replace(outcome(0, 1), windows=windows)])
    warehouse.close()


def features(value: str) -> list[dict[str, str]]:
    return [
        {"name": "other", "value": "0", "type": "int"},
        {"name": "velocity", "value": value, "type": "int"},
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    rest = (812.5, "done", "fraudulent", "2025-03-01", "A", "ksql")
    rows: dict[str, list[tuple[Any, ...]]] = {
        "raw_users": [(f"u{i}", f"name {i}", f"street {i}", f"{i}@example.org") for i in (1, 2)],
        "raw_fraudulent_transactions_result": [
            ("t1", "a1", "u1", "a2", "u2", *rest),
            ("t2", "a2", "u2", "a9", "u9", *rest),
        ],
        "table-name1": [
            (543123, "model-name1", features("23"), "velocity"),
            (543124, "model-name1", features("4"), "velocity"),
            (543125, "model-name1", features("32"), "velocity"),
            (543126, "another", features("5"), "velocity"),
        ],
    }
    written(folder, rows)
    return folder


def answer(root: Path, sql: str, dialect: str, **how: Any) -> list[tuple[Any, ...]]:
    found = query(root, sql, dialect=dialect, guarded=True, **how).arrow()
    return [tuple(row.values()) for row in found.to_pylist()]


def test_the_published_athena_join_runs_as_it_stands(root: Path) -> None:
    rows = sorted(answer(root, ATHENA, "athena"))
    rest = (812.5, "done", "fraudulent", "2025-03-01", "A", "ksql")
    first, second = ((f"name {i}", f"street {i}", f"{i}@example.org") for i in (1, 2))
    assert rows == [
        ("t1", "a1", "a2", *rest, *first, *second),
        ("t2", "a2", "a9", *rest, *second, None, None, None),
    ]


def test_the_published_bigquery_unnest_runs_as_it_stands_and_says_what_was_mended(
    root: Path,
) -> None:
    found = query(root, BIGQUERY, dialect="bigquery", guarded=True)
    assert found.notes == ("the last string was not closed; it was read as 'model-name1'",)
    rows = sorted(found.arrow().to_pylist(), key=lambda row: row["paymentRequestId"])
    assert [tuple(r.values()) for r in rows] == [(543123, "23"), (543124, "4"), (543125, "32")]


def test_the_same_query_with_its_quotes_needs_no_mending(root: Path) -> None:
    sql = BIGQUERY.replace("name1;", "name1';").replace("singal_id1", "'velocity'")
    found = query(root, sql, dialect="bigquery", guarded=True)
    assert found.notes == ()
    assert found.arrow().num_rows == 3


def test_datasets_before_a_name_are_dropped_and_named_parameters_are_bound(root: Path) -> None:
    sql = """
    SELECT u.name FROM `project.ops.raw_users` AS u
    WHERE u.id IN UNNEST(@ids) AND u.name = @name
    """
    given = {"ids": ["u1", "u2"], "name": "name 2"}
    assert answer(root, sql, "bigquery", parameters=given) == [("name 2",)]


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("duckdb", "SELECT name FROM raw_users ORDER BY id DESC LIMIT 1"),
        ("bigquery", "SELECT name FROM `raw_users` ORDER BY id DESC LIMIT 1"),
        ("athena", 'SELECT name FROM "awsdatacatalog"."lake"."raw_users" ORDER BY id DESC LIMIT 1'),
        ("trino", "SELECT max_by(name, id) FROM hive.lake.raw_users"),
        ("tsql", "SELECT TOP 1 [name] FROM [dbo].[raw_users] ORDER BY [id] DESC"),
        ("snowflake", "SELECT name FROM raw_users QUALIFY row_number() OVER (ORDER BY id DESC)=1"),
        ("spark", "SELECT name FROM lake.raw_users ORDER BY id DESC LIMIT 1"),
    ],
)
def test_each_dialect_asks_the_same_question_in_its_own_words(
    root: Path, dialect: str, sql: str
) -> None:
    assert answer(root, sql, dialect) == [("name 2",)]


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d != "duckdb"])
@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE raw_users",
        "CREATE TABLE x AS SELECT 1 AS a",
        "SELECT 1; SELECT 2",
        "",
        "SELECT FROM WHERE ((",
        "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    ],
    ids=["drop", "create", "two", "none", "no SQL", "deep"],
)
def test_what_is_no_query_is_refused_in_every_dialect(dialect: str, sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        translate(sql, dialect, tables=["raw_users"])
    assert "\x1b" not in str(caught.value)


def test_an_unknown_dialect_brings_the_names_of_those_there_are() -> None:
    with pytest.raises(QueryError, match=r"unknown dialect `oracle`.*`bigquery`.*`spark`"):
        translate("SELECT 1", "oracle", tables=[])


def test_a_name_that_is_no_table_of_ours_keeps_what_stands_before_it(root: Path) -> None:
    with pytest.raises(QueryError, match=r"`information_schema.tables` cannot be read"):
        answer(root, "SELECT * FROM information_schema.tables", "snowflake")
