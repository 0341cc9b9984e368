"""Scalar SQL expressions, compiled once and evaluated on batches of columns.

This module is the whole surface of the package for rules, window queries and features: text and
scope in, columns out. What evaluates them (Polars today) is known only behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlglot import expressions as exp

from tidegate.schema import ColumnType, Schema
from tidegate.sql.source import SourceText


@dataclass(frozen=True)
class Scope:
    """The names an expression may use: columns with their types, and aliases of columns.

    Names match without regard to case, as in SQL, unless quoted.
    """

    columns: Mapping[str, ColumnType]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, schema: Schema) -> Scope:
        """The scope of a stream: its columns, and `event_id`/`event_time` for its id and time."""
        named = {"event_id": schema.id, "event_time": schema.event_time}
        aliases = {alias: name for alias, name in named.items() if alias not in schema.by_name}
        return cls({c.name: c.type for c in schema}, aliases)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One value per row of the batch, and the rows whose value could not be computed.

    `errors` maps a row to why (`integer overflow in `a * b``); the value there is null.
    """

    values: pa.Array
    errors: Mapping[int, str]
