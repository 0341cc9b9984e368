"""What the engine makes of a stretch of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from tidegate.batches import joined as one_batch
from tidegate.decisions import decided, featured
from tidegate.decisions.decided import Decisions
from tidegate.decisions.featured import Featured

_Part = TypeVar("_Part", pa.RecordBatch, Decisions, Featured)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All that follows from the records at offsets `first_offset <= o < next_offset`.

    Rows ascend by `log_offset`. A window row's `log_offset` is that of the record whose event time
    (or passing of time) closed the window; several rows may share one. `featured` is None under a
    version without features, else it has those of each event. `controls` has the rows of
    `CONTROL_TABLES`, those tables alone that have any.
    """

    first_offset: int
    next_offset: int
    events: pa.RecordBatch
    decided: Decisions
    dead_letters: pa.RecordBatch
    duplicates: pa.RecordBatch
    late_rows: pa.RecordBatch
    windows: Mapping[str, pa.RecordBatch]
    featured: Featured | None = None
    controls: Mapping[str, pa.RecordBatch] = field(default_factory=dict)

    @property
    def decisions(self) -> pa.RecordBatch:
        """The rows of their table."""
        return self.decided.rows

    @property
    def features(self) -> pa.RecordBatch | None:
        """The rows of their table; None under a version without features."""
        return None if self.featured is None else self.featured.rows

    def tables(self) -> dict[str, pa.RecordBatch]:
        """The rows by table name."""
        features = self.features
        return {
            **({} if features is None else {"features": features}),
            "events": self.events,
            "decisions": self.decisions,
            "dead_letters": self.dead_letters,
            "duplicates": self.duplicates,
            "late_rows": self.late_rows,
            **self.windows,
            **self.controls,
        }


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of several that follow each other, none of them of control records.

    Their tables have the same columns.
    """
    first, last = outcomes[0], outcomes[-1]
    features = [o.featured for o in outcomes if o.featured is not None]
    return Outcome(
        first.first_offset,
        last.next_offset,
        events=_concatenated([o.events for o in outcomes]),
        decided=decided.joined(_some([o.decided for o in outcomes])),
        dead_letters=_concatenated([o.dead_letters for o in outcomes]),
        duplicates=_concatenated([o.duplicates for o in outcomes]),
        late_rows=_concatenated([o.late_rows for o in outcomes]),
        windows={
            name: _concatenated([o.windows[name] for o in outcomes]) for name in first.windows
        },
        featured=featured.joined(_some(features)) if features else None,
    )


def _concatenated(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return one_batch(_some(batches), batches[0].schema)


def _some(parts: Sequence[_Part]) -> Sequence[_Part]:
    """Those that have rows; the first where none has."""
    return [part for part in parts if len(part)] or parts[:1]
