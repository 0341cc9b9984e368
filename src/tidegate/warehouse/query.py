"""SQL over the tables, in DuckDB, from any process while the server writes.

The query sees the tables as of when it began. It can read them and nothing else: no other file, no
network, no setting, and it can write nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
from deltalake import DeltaTable
from duckdb.func import FunctionNullHandling, PythonUDFType
from duckdb.sqltypes import DuckDBPyType

from tidegate.errors import InputError, QueryError
from tidegate.hiding import Hiding
from tidegate.pseudonyms import pseudonyms
from tidegate.warehouse.dialects import DUCKDB, translate
from tidegate.warehouse.faults import storage
from tidegate.warehouse.guard import named_tables
from tidegate.warehouse.layout import shown_type
from tidegate.warehouse.parquet import DataFile
from tidegate.warehouse.table import active_files, stored_schema
from tidegate.warehouse.views import UNSHOWN, VIEWS, behind, views_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Parameters: TypeAlias = Mapping[str, object] | Sequence[object]

_TYPE = duckdb.StatementType
_PARAMETER = re.compile(r"\$\w+")
_NONE = "/"  # no table is called so
_BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class TableInfo:
    """One table as it stands: its rows, its active files and their size in bytes."""

    name: str
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot:
    schema: pa.Schema  # as stored
    files: list[DataFile]
    date: str  # the name of the partition column

    def dataset(self) -> ds.Dataset:
        """The rows as Arrow reads them; columns that older files lack are null."""
        # The files are read by Arrow, not by DuckDB, and DuckDB is given no access to any file:
        # leave to read a file would be leave to write it (`WITH x AS (COPY … TO …) SELECT …`).
        local, parquet = fs.LocalFileSystem(), ds.ParquetFileFormat()
        fragments = [
            parquet.make_fragment(
                str(file.path),
                filesystem=local,
                partition_expression=ds.field(self.date) == date.fromisoformat(file.date),
            )
            for file in self.files
        ]
        return ds.FileSystemDataset(fragments, self.schema, parquet, local)


class QueryResult:
    """The rows of a query; the whole in one of three forms, or batch by batch.

    Times are UTC microseconds without a zone, decimals exact.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        relation: duckdb.DuckDBPyRelation,
        *,
        batch_rows: int = _BATCH_ROWS,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._connection = connection  # kept open until the last batch
        self.types = tuple(map(str, relation.types))  # of the columns, as DuckDB calls them
        self.notes = notes  # what of the statement was read otherwise than it was written
        self._reader = relation.to_arrow_reader(batch_rows)
        self._rows: pa.Table | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns of the result."""
        return cast("pa.Schema", self._reader.schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as they are computed, once; results larger than memory pass through."""
        with _said_plainly():
            yield from self._reader

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        if self._rows is None:
            self._rows = pa.Table.from_batches(list(self.batches()), schema=self.schema)
        return self._rows

    def pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame. Raises: InputError if pandas is not installed."""
        try:
            import pandas as pd  # noqa: F401 - an extra; slow to import
        except ImportError as error:
            raise InputError(
                "pandas is not installed: run `pip install 'tidegate[pandas]'`"
            ) from error
        return self.arrow().to_pandas()

    def polars(self) -> pl.DataFrame:
        """The rows as a Polars frame. Raises: InputError if Polars is not installed."""
        try:
            import polars as pl
        except ImportError as error:
            raise InputError("polars is not installed: run `pip install polars`") from error
        return cast("pl.DataFrame", pl.from_arrow(self.arrow()))


def query(
    root: Path,
    sql: str,
    *,
    parameters: Parameters | None = None,
    dialect: str = DUCKDB,
    threads: int | None = None,
    memory_bytes: int = 1 << 30,
    batch_rows: int = _BATCH_ROWS,
    guarded: bool = False,
    hiding: Hiding | None = None,
) -> QueryResult:
    """The result of one SELECT over the tables in folder `root`.

    `parameters` are the values of `$name` in it, or of `?` in their order. `dialect` is the SQL
    that it is written in, one of `DIALECTS`. `threads` is DuckDB's own choice where None. What is
    `guarded` can name the tables and harmless functions alone; see `guard`. With `hiding` the
    statement sees pseudonyms in the place of marked values, whatever it does with them.
    Raises: QueryError with DuckDB's message.
    """
    known = [log.parent.name for log in _logs(root)]
    views = views_of(known)
    known += views
    read = translate(sql, dialect, tables=known)
    with _said_plainly():
        connection = _connection(threads, memory_bytes)
        _refuse_all_but_select(read.sql, explained=not guarded)
        if guarded:
            names = named_tables(connection, read.sql, known=known) or {_NONE}
        else:
            # DuckDB names the tables of a statement only where no parameter is left open.
            closed = _PARAMETER.sub("NULL", read.sql) if parameters else read.sql
            names = _named(connection, closed.replace("?", "NULL") if parameters else closed)
        for name, snapshot in _snapshots(root, behind(names, views)).items():
            _show(connection, name, snapshot, hiding)
        for view in views:
            if not names or view in names:
                connection.sql(VIEWS[view].sql).create_view(view)
        connection.execute("SET lock_configuration = true")
        try:
            relation = connection.sql(read.sql, params=parameters)
            return QueryResult(connection, relation, batch_rows=batch_rows, notes=read.notes)
        except duckdb.CatalogException as error:
            listed = ", ".join(f"`{name}`" for name in known)
            raise QueryError(f"{_plain(error)}\nThe tables are {listed}") from error


def tables(root: Path) -> list[TableInfo]:
    """The tables in folder `root`, by name."""
    return [
        TableInfo(name, sum(f.rows for f in s.files), len(s.files), sum(f.bytes for f in s.files))
        for name, s in _snapshots(root, set()).items()
    ]


def _connection(threads: int | None, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    settings = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
        "TimeZone": "'UTC'",
        "temp_directory": "''",  # a query that needs more than its memory fails; it never spills
        "enable_external_access": "false",
        "memory_limit": f"'{memory_bytes}B'",
    }
    if threads is not None:
        settings["threads"] = str(threads)
    for name, value in settings.items():
        connection.execute(f"SET {name} = {value}")
    return connection


def _refuse_all_but_select(sql: str, *, explained: bool) -> None:
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"one SELECT is expected, {len(statements)} statements were given")
    kind = statements[0].type
    if kind is not _TYPE.SELECT and not (explained and kind is _TYPE.EXPLAIN):
        raise QueryError(f"only SELECT can be run here, not {kind.name}")


def _named(connection: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """The tables that a statement names, in lower case; none where that cannot be told."""
    try:
        return {name.lower() for name in connection.get_table_names(sql)}
    except duckdb.BinderException:
        return set()  # to join by USING, the columns would have to be known already


def _snapshots(root: Path, names: set[str]) -> dict[str, _Snapshot]:
    """The named tables (in lower case), or all where none is named: taken one after the other."""
    found = {}
    for log in _logs(root):
        name = log.parent.name
        if not names or name.lower() in names:
            with storage(f"reading table `{name}`"):
                found[name] = _snapshot(log.parent)
    return found


def _logs(root: Path) -> list[Path]:
    return sorted(root.absolute().glob("*/_delta_log"))


def _snapshot(path: Path) -> _Snapshot:
    handle = DeltaTable(str(path))
    (partition,) = handle.metadata().partition_columns
    return _Snapshot(stored_schema(handle), active_files(handle, path), partition)


def _show(
    connection: duckdb.DuckDBPyConnection, name: str, snapshot: _Snapshot, hiding: Hiding | None
) -> None:
    """Make the table known to the connection, with times in UTC without a zone."""
    seen = [f for f in snapshot.schema if f.name not in UNSHOWN.get(name, ())]
    columns = [_shown(connection, f) for f in seen]
    if hiding is not None:
        marked = hiding.columns(name)
        for place, each in enumerate(seen):
            if each.name in marked:
                columns[place] = _hidden(connection, each, key=hiding.key)
    stored = connection.from_arrow(snapshot.dataset())
    stored.project(", ".join(columns)).create_view(name)


def _shown(connection: duckdb.DuckDBPyConnection, column: pa.Field[Any]) -> str:
    if shown_type(column.type) == column.type:
        return _name(column.name)
    kind = _shown_sql(connection, column.type)
    return f"CAST({_name(column.name)} AS {kind}) AS {_name(column.name)}"


def _hidden(connection: duckdb.DuckDBPyConnection, column: pa.Field[Any], *, key: bytes) -> str:
    """The column as its pseudonyms, by a function that a guarded statement cannot name."""
    kind = shown_type(column.type)
    function = f"tidegate_hidden_{next(_NUMBERS)}"
    connection.create_function(
        function,
        # DuckDB would evaluate the annotations of a function, and those of Arrow are for mypy.
        lambda values: pseudonyms(pa.concat_arrays(values.chunks), key),
        [_kind(connection, kind)],
        _kind(connection, pseudonyms(pa.array([], kind), key).type),
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
    )
    value = f"CAST({_name(column.name)} AS {_shown_sql(connection, column.type)})"
    return f"{function}({value}) AS {_name(column.name)}"


def _kind(connection: duckdb.DuckDBPyConnection, kind: pa.DataType) -> DuckDBPyType:
    return connection.from_arrow(pa.table({"c": pa.array([], kind)})).types[0]


_NUMBERS = count()


def _shown_sql(connection: duckdb.DuckDBPyConnection, kind: pa.DataType) -> str:
    """The DuckDB type in which a stored type that holds times is shown."""
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP"
    empty = connection.from_arrow(pa.table({"c": pa.array([], shown_type(kind))}))
    return str(empty.types[0])


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _said_plainly() -> Iterator[None]:
    """A block in which DuckDB's errors come out as QueryError, with its message and caret."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        raise QueryError(_plain(error)) from error


def _plain(error: Exception) -> str:
    return str(error).partition("\nStack Trace")[0].rstrip()
