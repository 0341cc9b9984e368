"""Statements written for other systems, in DuckDB's SQL.

sqlglot reads the dialect and writes DuckDB's. Catalogs, datasets and schemas before the name of a
table that is there are dropped, since here all tables lie in one place.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tidegate.errors import QueryError

DUCKDB = "duckdb"
DIALECTS = (DUCKDB, "bigquery", "athena", "trino", "tsql", "snowflake", "spark")


@dataclass(frozen=True, slots=True)
class Translated:
    """A statement in DuckDB's SQL; `notes` say what was read otherwise than it was written."""

    sql: str
    notes: tuple[str, ...] = ()


def translate(sql: str, dialect: str, *, tables: Collection[str]) -> Translated:
    """One query of another dialect in DuckDB's SQL; `tables` are those there are.

    A string that the text leaves open is closed at its end, and a note says so: as printed and
    copied, statements lose quotes, and only one reading is possible.
    Raises: QueryError for a dialect that is not known, for what is no query, and for what DuckDB
    has no words for.
    """
    if dialect not in DIALECTS:
        known = ", ".join(f"`{name}`" for name in DIALECTS)
        raise QueryError(f"unknown dialect `{dialect[:40]}`; the dialects are {known}")
    if dialect == DUCKDB:
        return Translated(sql)
    closed, notes = _closed(sql, dialect)
    return Translated(_written(closed, dialect, tables), notes)


def _closed(sql: str, dialect: str) -> tuple[str, tuple[str, ...]]:
    """The text with its last string closed, if that is all it takes to read it."""
    if _has_words(sql, dialect):
        return sql, ()
    mended = sql.rstrip().rstrip(";").rstrip() + "'"
    if not _has_words(mended, dialect):
        return sql, ()
    string = mended[mended[:-1].rindex("'") :]
    shown = string if len(string) <= 80 else string[:40] + "…" + string[-40:]
    return mended, (f"the last string was not closed; it was read as {shown}",)


def _has_words(sql: str, dialect: str) -> bool:
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        sqlglot.tokenize(sql, read=dialect)
    except SqlglotError:
        return False
    return True


def _written(sql: str, dialect: str, tables: Collection[str]) -> str:
    import sqlglot  # not fast to import, and only other dialects need it
    from sqlglot import ErrorLevel, exp
    from sqlglot.errors import SqlglotError

    try:
        found = [tree for tree in sqlglot.parse(sql, read=dialect) if tree is not None]
        if len(found) != 1:
            raise QueryError(f"one SELECT is expected, {len(found)} statements were given")
        if not isinstance(found[0], exp.Query):
            raise QueryError(f"only SELECT can be run here, not {found[0].key.upper()}")
        known = {name.lower() for name in tables}
        for table in found[0].find_all(exp.Table):
            if table.name.lower() in known:
                table.set("db", None)
                table.set("catalog", None)
        return found[0].sql(dialect=DUCKDB, unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        raise QueryError(f"this is not read as {dialect}'s SQL: {_plain(error)}") from error
    except RecursionError as error:
        raise QueryError("the statement is nested too deeply") from error


def _plain(error: Exception) -> str:
    """The message without the codes by which a terminal underlines."""
    return str(error).replace("\x1b[4m", "").replace("\x1b[0m", "").strip()
