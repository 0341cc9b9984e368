"""Events together with what was decided about them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.errors import DamageError
from tidegate.sinks.contract import Delivery, Feed

_ALL_ROWS = 1 << 62
_PARTS = ("action", "rules", "score", "version")


class DecidedFeed:
    """A feed of the events whose decision has one of `actions`, with all columns of the event.

    Added are `decided_at` and `decision`, a struct of action, rules, score and version. Where the
    stream itself has a column of such a name, `tidegate_` goes before ours.
    """

    def __init__(self, events: Feed, decisions: Feed, *, actions: Collection[str]) -> None:
        self._events = events
        self._decisions = decisions
        self._actions = pa.array(sorted(actions), pa.string())

    def end(self) -> int:
        """The offset below which every row is there to be read."""
        return min(self._events.end(), self._decisions.end())

    def read(self, offset: int, *, until: int, rows_max: int) -> Delivery:
        """Rows at `offset <= log_offset < until`; see `Feed`. Raises: DamageError.

        Few events may be of interest, so decisions are read on until enough are.
        """
        found: list[pa.Table] = []
        reached = offset
        while reached < until or not found:
            decisions = self._decisions.read(reached, until=until, rows_max=rows_max)
            found.append(self._with_events(decisions))
            reached = decisions.next_offset
            if sum(t.num_rows for t in found) >= rows_max:
                break
        return Delivery(offset, reached, pa.concat_tables(found))

    def _with_events(self, decisions: Delivery) -> pa.Table:
        wanted = decisions.rows.filter(
            pc.is_in(decisions.rows.column("action"), value_set=self._actions)
        )
        first, until = decisions.first_offset, decisions.next_offset
        if not wanted.num_rows:
            until = first
        events = self._events.read(first, until=until, rows_max=_ALL_ROWS).rows
        return _joined(events, wanted)


def _joined(events: pa.Table, decisions: pa.Table) -> pa.Table:
    """The events at the offsets of the decisions, both ascending."""
    offsets = decisions.column("log_offset").to_numpy()
    have = events.column("log_offset").to_numpy()
    places = np.searchsorted(have, offsets)
    lost = np.flatnonzero(np.append(have, -1)[np.minimum(places, len(have))] != offsets)
    if len(lost):
        at = int(offsets[lost[0]])
        raise DamageError(f"the decision at offset {at} has no event", offset=at)
    rows = events.take(places)
    rows = rows.append_column(_free(rows, "decided_at"), decisions.column("decided_at"))
    return rows.append_column(_free(rows, "decision"), _decision(decisions))


def _decision(decisions: pa.Table) -> pa.StructArray:
    parts: list[Any] = [decisions.column(name).combine_chunks() for name in _PARTS]
    return pa.StructArray.from_arrays(parts, names=list(_PARTS))


def _free(rows: pa.Table, name: str) -> str:
    return f"tidegate_{name}" if name in rows.column_names else name
