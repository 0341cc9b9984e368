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
_LOOKED_AT = 8_192  # decisions at a time; each has an offset of its own
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

        Few events may be of interest. Still no more than `rows_max` decisions are looked at, or a
        few thousand, so that a sink that holds back can rest in between.
        """
        found: list[pa.Table] = []
        reached, looked_at, room = offset, 0, rows_max
        while not found or (reached < until and room > 0 and looked_at < rows_max):
            decisions = self._decisions.read(reached, until=until, rows_max=_LOOKED_AT)
            wanted, reached = self._wanted(decisions, room)
            found.append(self._with_events(wanted, decisions.first_offset))
            looked_at, room = looked_at + _LOOKED_AT, room - wanted.num_rows
        return Delivery(offset, reached, pa.concat_tables(found))

    def _wanted(self, decisions: Delivery, room: int) -> tuple[pa.Table, int]:
        """At most so many of the decisions that are of interest, and the offset they go up to."""
        rows = decisions.rows.filter(
            pc.is_in(decisions.rows.column("action"), value_set=self._actions)
        )
        if rows.num_rows <= room:
            return rows, decisions.next_offset
        return rows.slice(0, room), rows.column("log_offset")[room].as_py()

    def _with_events(self, wanted: pa.Table, first: int) -> pa.Table:
        offsets = wanted.column("log_offset").to_numpy()
        first, until = (offsets[0], offsets[-1] + 1) if len(offsets) else (first, first)
        events = self._events.read(int(first), until=int(until), rows_max=_ALL_ROWS).rows
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
