"""The plan of a `features.sql`: what is kept for each entity, and what is computed from it.

`compile.py` makes a plan from SQL, `entity.py` runs the part of one entity, `state.py` all of it.
Times are UTC microseconds, spans of time microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tidegate.schema import ColumnType

# Among the values of an entity that labels change: the log offset, which tells its rows apart.
LOG_OFFSET = "log_offset"


class Aggregate(StrEnum):
    """What a call computes over its frame.

    SUM and AVG take bigint, double and decimal; the variances take them as doubles. A SUM keeps the
    type of its argument, AVG and the variances give a double. MIN and MAX take numbers, booleans
    and timestamps, with NaN as the greatest double. FIRST and LAST are values of the frame's rows,
    null ones too. LAG is a row's value, wherever the frame ends; LAG_EXISTS says whether there is
    such a row. BOOL_AND and BOOL_OR take booleans.
    """

    COUNT = "count"
    COUNT_DISTINCT = "count_distinct"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    VAR_POP = "var_pop"
    VAR_SAMP = "var_samp"
    STDDEV_POP = "stddev_pop"
    STDDEV_SAMP = "stddev_samp"
    BOOL_AND = "bool_and"
    BOOL_OR = "bool_or"
    FIRST = "first_value"
    LAST = "last_value"
    LAG = "lag"
    LAG_EXISTS = "lag_exists"


@dataclass(frozen=True, slots=True)
class Frame:
    """Which rows of its entity a call sees from an event at time t.

    `rows` False: those with event time in [t - start, t - end], both ends included. `rows` True:
    those from `start` to `end` rows before the event's own place in event-time order (0 is the
    event itself; among equal times the later in the log is the later), as far back as
    `EntityPlan.look_back`. `exclude_current` takes the event itself out.
    """

    rows: bool
    start: int
    end: int
    exclude_current: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One aggregate over one frame; numbers are places in the lists of the `EntityPlan`.

    `argument` is None for `count(*)` and LAG_EXISTS. `filter` is the condition that rows must meet.
    `offset` counts rows back for LAG and LAG_EXISTS, whose frame is None.
    """

    aggregate: Aggregate
    argument: int | None
    type: ColumnType
    frame: int | None
    filter: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class EntityPlan:
    """All calls with one PARTITION BY, in one layer.

    `keys`, `values` and `filters` name columns of the batch that goes in (declared ones or hidden
    ones that expressions were evaluated to); `key_types` and `value_types` are theirs. A null is a
    key like any other. `lateness` is how far behind the newest event time of the stream an event
    may lie and still see all of its frame; `look_back` bounds ROWS frames and LAG in time.

    What an event sees ends at its *horizon*: no row with event time before
    `newest - (reach + lateness)` is seen by it, where `newest` is the newest event time of the
    stream up to and with the event, and `reach` the span of the widest frame. An event that is
    itself before its horizon sees itself alone, and no other sees it.
    """

    keys: tuple[str, ...]
    key_types: tuple[ColumnType, ...]
    values: tuple[str, ...]
    value_types: tuple[ColumnType, ...]
    filters: tuple[str, ...]
    frames: tuple[Frame, ...]
    calls: tuple[Call, ...]
    lateness: int
    look_back: int

    @property
    def reach(self) -> int:
        """How far behind an event's own time any of its frames begins."""
        spans = [f.start for f in self.frames if not f.rows]
        by_rows = any(f.rows for f in self.frames) or any(c.frame is None for c in self.calls)
        return max([*spans, self.look_back if by_rows else 0], default=0)
