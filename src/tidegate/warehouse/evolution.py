"""What a change of columns asks of an existing table: it follows, or the conflict is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Field

from tidegate.errors import InputError
from tidegate.warehouse.layout import Layout, shown_type


@dataclass(slots=True)
class Changes:
    """What an existing table needs before rows of a layout fit into it."""

    added: list[pa.Field[Any]] = field(default_factory=list)
    relaxed: list[str] = field(default_factory=list)


def changes(layout: Layout, stored: pa.Schema) -> Changes:
    """The columns to add to `stored` and those that may be missing from now on.

    A column that is required from now on stays nullable on disk, since older rows lack it.
    Raises: InputError naming table, column, both types and what to do.
    """
    found = Changes()
    have = {f.name.lower(): f for f in stored}
    for wanted in layout.stored:
        old = have.pop(wanted.name.lower(), None)
        if old is None:
            found.added.append(wanted.with_nullable(nullable=True))
            continue
        _refuse_other(layout.name, old, wanted)
        if wanted.nullable and not old.nullable:
            found.relaxed.append(old.name)
    for old in have.values():
        if not old.nullable:
            _refuse_removed(layout.name, old)
    return found


def apply(table: DeltaTable, needed: Changes) -> None:
    """Bring the table to where rows of the layout fit; one commit for each kind of change."""
    for name in needed.relaxed:
        table.alter.drop_column_not_null(name)
    if needed.added:
        table.alter.add_columns([Field.from_arrow(f) for f in needed.added])


def _refuse_other(table: str, old: pa.Field[Any], wanted: pa.Field[Any]) -> None:
    if old.name == wanted.name and _same(old.type, wanted.type):
        return
    raise InputError(
        f"table `{table}`: column `{wanted.name}` is declared as {written(wanted.type)}, but the "
        f"table holds `{old.name}` as {written(old.type)}; keep the old name and type, or give "
        "the new column a name of its own"
    )


def _refuse_removed(table: str, old: pa.Field[Any]) -> None:
    kind = written(old.type)
    raise InputError(
        f"table `{table}`: column `{old.name}` is no longer declared, but the table requires a "
        f"value in it ({kind}, not nullable); declare it as `{kind}?` and start once, "
        "then it can go"
    )


def _same(one: pa.DataType, other: pa.DataType) -> bool:
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _same(one.value_type, other.value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return [f.name for f in one] == [f.name for f in other] and all(
            _same(a.type, b.type) for a, b in zip(one, other, strict=True)
        )
    return bool(shown_type(one).equals(shown_type(other)))


def written(kind: pa.DataType) -> str:
    """The type as a user writes it.

    >>> written(pa.decimal128(10, 2)), written(pa.string()), written(pa.timestamp("us", "UTC"))
    ('decimal(10,2)', 'text', 'timestamp')
    """
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    return _WRITTEN.get(kind, str(kind))


_WRITTEN = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.bool_(): "boolean",
}
