"""Events given as columns: Arrow tables, data frames and lists of dicts, as a stream declares them.

What comes as columns is taken by its names; a column of another type is converted where no value
is lost by it. Lists of dicts are read as records are read at the door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.errors import InputError
from tidegate.program import Program
from tidegate.project.values import suggestion
from tidegate.records import Records
from tidegate.schema import Column, Schema

# An Arrow table or batch, a pandas or Polars frame (all that speaks Arrow's C interface), or rows.
Events: TypeAlias = Any


def declared_columns(events: Events, program: Program) -> pa.Table:
    """The declared columns of events, in the order in which they are given.

    `events` is an Arrow table or batch, a pandas or Polars frame, or a list of dicts. A column that
    may be missing is null where it is not there; other columns are left out.
    Raises: InputError naming the column or row and what was expected.
    """
    if isinstance(events, Sequence) and not isinstance(events, str | bytes):
        return _of_rows(events, program)
    if isinstance(events, pa.Table):
        table = events
    elif hasattr(events, "__arrow_c_stream__") or hasattr(events, "__arrow_c_array__"):
        table = pa.table(events)
    else:
        raise InputError(
            "events are given as an Arrow table or batch, a pandas or Polars frame, or a list of "
            f"dicts, not as {type(events).__name__}"
        )
    return conformed(table, program.schema)


def conformed(table: pa.Table, schema: Schema) -> pa.Table:
    """The declared columns of a table in their types.

    Raises: InputError naming the column, what it holds and what is declared.
    """
    pairs = zip(schema, schema.arrow, strict=True)
    columns = [_column(table, column, field) for column, field in pairs]
    return pa.Table.from_arrays(columns, schema=schema.arrow)


def _column(table: pa.Table, column: Column, field: pa.Field[Any]) -> pa.ChunkedArray[Any]:
    if column.name not in table.column_names:
        if column.nullable:
            return pa.chunked_array([pa.nulls(table.num_rows, field.type)])
        hint = suggestion(column.name, table.column_names)
        raise InputError(f"the events have no column `{column.name}`, {column} is expected; {hint}")
    values = _converted(table.column(column.name), column)
    if values.null_count and not column.nullable:
        row = pc.index(pc.is_null(values), True).as_py()
        raise InputError(f"row {row} has no `{column.name}`, which is declared as {column}")
    return values


def _converted(values: pa.ChunkedArray[Any], column: Column) -> pa.ChunkedArray[Any]:
    wanted = column.type.arrow
    if values.type.equals(wanted):
        return values
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    try:
        if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(values.type):
            # Arrow keeps the instant in UTC, whatever zone it is shown in.
            return values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(wanted)
        return values.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"column `{column.name}` holds {values.type} and is declared as {column}: {error}"
        ) from error


def _of_rows(rows: Sequence[Mapping[str, object]], program: Program) -> pa.Table:
    try:
        records = Records.of([msgspec.json.encode(row, enc_hook=str) for row in rows])
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise InputError(f"a row cannot be written as JSON: {error}") from error
    if not rows:
        return program.schema.arrow.empty_table()
    # The time of arrival only bounds how far ahead an event may be: what is given is taken.
    taken = program.intake.admit(records, ingest_time=2**62)
    if taken.dead:
        dead = taken.dead[0]
        raise InputError(f"row {dead.row} is no event: {dead.message} ({dead.reason.value})")
    return pa.Table.from_batches([taken.events.select(list(program.schema.names))])
