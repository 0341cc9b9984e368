"""Single events: those whose action differs, and those that each rule hit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.backtest.history import OFFSET
from tidegate.backtest.labels import NAMES, Codes
from tidegate.backtest.sides import Judged
from tidegate.decisions.decide import SEVERITY
from tidegate.rules.ruleset import Rows
from tidegate.schema import Schema

SIDES = ("current", "candidate")
_ACTIONS = pa.array([a.value for a in SEVERITY], pa.string())
_WHAT: list[pa.Field[Any]] = [pa.field("side", pa.string()), pa.field("rule", pa.string())]
_WHOSE: list[pa.Field[Any]] = [
    pa.field("event_id", pa.string()),
    pa.field("event_time", pa.timestamp("us")),
    pa.field(OFFSET, pa.int64()),
]


class Listing:
    """Lists events of a stream; `amount` names the column of their amounts, if any."""

    def __init__(self, schema: Schema, amount: str | None) -> None:
        self._columns = [schema.id, schema.event_time, OFFSET]
        self._amount = amount
        worth = pa.float64() if amount is None else schema.by_name[amount].type.arrow
        names = pa.list_(pa.string())
        fields: list[pa.Field[Any]] = [
            *_WHOSE,
            pa.field("label", pa.string()),
            pa.field("amount", worth),
            *(pa.field(side, pa.string()) for side in SIDES),
            *(pa.field(f"{side}_rules", names) for side in SIDES),
        ]
        self.changed_schema = pa.schema(fields)
        self.hits_schema = pa.schema([*_WHAT, *_WHOSE])

    def changed(self, events: pa.Table, known: Codes, sides: tuple[Judged, Judged]) -> pa.Table:
        """The events whose action differs: whose, label, amount, and of each side action and rules.

        `label` is null where it is unknown.
        """
        rows = np.flatnonzero(sides[0].ranks != sides[1].ranks)
        at = pa.array(rows, pa.int64())
        worth: Any = pa.nulls(len(rows), pa.float64())
        if self._amount is not None:
            worth = events.column(self._amount).take(at)
        columns = [*self._whose(events, rows), _words(NAMES, known[rows]), worth]
        columns += [_words(_ACTIONS, judged.ranks[rows]) for judged in sides]
        columns += [_listed(judged, rows) for judged in sides]
        return pa.Table.from_arrays(columns, schema=self.changed_schema)

    def hits(self, events: pa.Table, sides: tuple[Judged, Judged]) -> pa.Table:
        """Side, rule and event of each hit."""
        tables = [self.hits_schema.empty_table()]
        for side, judged in zip(SIDES, sides, strict=True):
            for hit in judged.hits:
                what = [pa.repeat(pa.scalar(v), len(hit.rows)) for v in (side, hit.rule.name)]
                columns = [*what, *self._whose(events, hit.rows)]
                tables.append(pa.Table.from_arrays(columns, schema=self.hits_schema))
        return pa.concat_tables(tables)

    def _whose(self, events: pa.Table, rows: Rows) -> list[Any]:
        taken = events.select(self._columns).take(pa.array(rows, pa.int64()))
        identity: Any = taken.column(0)
        return [identity.cast(pa.string()), taken.column(1), taken.column(2)]


def _words(names: Any, codes: npt.NDArray[np.int8]) -> pa.Array[Any]:
    found: pa.Array[Any] = names.take(pa.array(codes, pa.int8()))
    return found


def _listed(judged: Judged, rows: Rows) -> pa.Array[Any]:
    """For each of the rows, ascending, the names of the rules that hit it."""
    names: list[list[str]] = [[] for _ in rows]
    for hit in judged.hits:
        _, at, _ = np.intersect1d(rows, hit.rows, assume_unique=True, return_indices=True)
        for place in at.tolist():
            names[place].append(hit.rule.name)
    return pa.array(names, pa.list_(pa.string()))
