"""What a statement from outside may name: the tables, harmless functions, and nothing of DuckDB's.

DuckDB's own parser takes the statement apart, so that nothing can be read one way here and another
way there. What is not known to be harmless is refused: kinds of nodes and functions that give rows
by a list of those allowed, other functions by a list of those that tell of the process, wait, or
trust the bytes they are given.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from tidegate.errors import QueryError

_NODES = frozenset(
    {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
    | {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY"}
    | {"EMPTY_FROM", "PIVOT", "SHOW_REF", "ORDER_MODIFIER", "LIMIT_MODIFIER"}
    | {"LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"}
    | {"ORDER_DEFAULT", "ASCENDING", "DESCENDING", "INVALID"}
)
_ROW_FUNCTIONS = frozenset(
    {"range", "generate_series", "unnest", "json_each", "json_tree", "repeat", "repeat_row"}
    | {"regexp_split_to_table", "generate_subscripts"}
)
_REFUSED = frozenset(
    {"current_setting", "getvariable", "getenv", "current_query", "in_search_path"}
    | {"nextval", "currval", "setval", "write_log", "parse_duckdb_log_message"}
    | {"sleep_ms", "pg_sleep", "query", "query_table", "version"}
    | {"json_serialize_plan", "json_execute_serialized_sql"}
    | {"to_aggregate_state", "finalize", "combine"}
    | {"col_description", "obj_description", "shobj_description"}
)
_REFUSED_BEGINNINGS = ("__internal", "duckdb_", "pragma_", "pg_get_", "inet_", "tidegate_")
_OWN_SCHEMAS = frozenset({"", "main"})
_OWN_CATALOGS = frozenset({"", "memory"})
_SHOWN = frozenset({"DESCRIBE", "SUMMARY"})


def named_tables(
    connection: duckdb.DuckDBPyConnection, sql: str, *, known: Collection[str]
) -> set[str]:
    """The names in lower case of the tables that the statement reads, out of those `known`.

    `sql` is one statement that parses. Raises: QueryError where it names anything else.
    """
    tree = _tree(connection, sql)
    defined = {key.lower() for key in _defined(tree)}
    if taken := sorted(defined & _system_names(connection)):
        raise QueryError(f"`{taken[0]}` is a name of DuckDB's own: give it another name in WITH")
    names = set()
    for place, node in _nodes(tree, ""):
        _check_kind(node)
        if "function_name" in node:
            _check_function(node["function_name"].lower(), gives_rows=place == "function")
        if node["type"] == "BASE_TABLE":
            names.add(_table(node))
    tables = {name.lower() for name in known}
    if unknown := sorted(names - defined - tables):
        raise QueryError(f"there is no table `{unknown[0]}`; the tables are {_listed(known)}")
    return names & tables


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "yet to come"


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    row = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    found = json.loads(row[0]) if row else {"error": True, "error_message": "it cannot be read"}
    if found["error"]:
        raise QueryError(f"this statement is not taken: {found['error_message']}")
    return found["statements"]


def _nodes(tree: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All nodes, each with the name of the field that it stands in."""
    waiting = [(place, tree)]
    while waiting:  # no recursion: the depth is the sender's choice
        place, part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("type"), str):
                yield place, part
            waiting += part.items()
        elif isinstance(part, list):
            waiting += [(place, item) for item in part]


def _defined(tree: Any) -> Iterator[str]:
    """The names that WITH gives."""
    for _, node in _nodes(tree, ""):
        for entry in node.get("cte_map", {}).get("map", ()):
            yield entry["key"]


def _system_names(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Views that are found by their bare name."""
    found = connection.execute(
        "SELECT lower(view_name) FROM duckdb_views() "
        "WHERE internal AND schema_name <> 'information_schema'"
    )
    return {name for (name,) in found.fetchall()}


def _check_kind(node: dict[str, Any]) -> None:
    kind = node["type"]
    if "class" not in node and kind not in _NODES:
        shown = kind.removesuffix("_QUERY_NODE").removesuffix("_NODE").replace("_", " ")
        raise QueryError(f"only SELECT can be run here, not {shown}")
    if kind == "SHOW_REF" and node.get("show_type") not in _SHOWN:
        raise QueryError("SHOW is not taken: DESCRIBE shows the columns of a table")


def _check_function(name: str, *, gives_rows: bool) -> None:
    if gives_rows and name not in _ROW_FUNCTIONS:
        raise QueryError(f"the table function `{name}` is not taken here")
    if name in _REFUSED or name.startswith(_REFUSED_BEGINNINGS):
        raise QueryError(f"the function `{name}` is not taken here")


def _table(node: dict[str, Any]) -> str:
    name = node["table_name"]
    catalog, schema = (node.get(k, "").lower() for k in ("catalog_name", "schema_name"))
    if catalog not in _OWN_CATALOGS or schema not in _OWN_SCHEMAS:
        full = ".".join(part for part in (catalog, schema, name) if part)
        raise QueryError(f"`{full}` cannot be read here: name a table of the project alone")
    return str(name).lower()
