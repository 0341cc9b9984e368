"""What the engine has made of the log since the process began, counted for whoever watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from tidegate.outcome import Outcome


@dataclass(slots=True)
class Counters:
    """Running totals; written by the engine's thread, read by any."""

    events: int = 0
    late: int = 0
    decisions: Counter[str] = field(default_factory=Counter)  # by action
    dead: Counter[str] = field(default_factory=Counter)  # by reason
    duplicates: Counter[str] = field(default_factory=Counter)  # by source
    window_rows: Counter[str] = field(default_factory=Counter)  # by window query
    rules: Counter[tuple[str, str]] = field(default_factory=Counter)  # hits by rule and mode

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count what outcomes hold."""
        for outcome in outcomes:
            self.events += outcome.events.num_rows
            self.late += outcome.late_rows.num_rows
            _count(self.decisions, outcome.decisions, "action")
            _count_hits(self.rules, outcome.decisions)
            _count(self.dead, outcome.dead_letters, "reason")
            _count(self.duplicates, outcome.duplicates, "source")
            for name, rows in outcome.windows.items():
                self.window_rows[name] += rows.num_rows


def _count(totals: Counter[str], rows: pa.RecordBatch, column: str) -> None:
    if rows.num_rows:
        values, counts = (part.to_pylist() for part in pc.value_counts(rows[column]).flatten())
        totals.update({str(v): int(n or 0) for v, n in zip(values, counts, strict=True)})


def _count_hits(totals: Counter[tuple[str, str]], decisions: pa.RecordBatch) -> None:
    hits = cast("Any", decisions["rules"]).flatten()
    if len(hits):
        # Names have no line ends, so that one column can stand for both.
        both = pc.binary_join_element_wise(hits.field("name"), hits.field("mode"), "\n")
        values, counts = (part.to_pylist() for part in pc.value_counts(both).flatten())
        for value, count in zip(values, counts, strict=True):
            name, _, mode = str(value).partition("\n")
            totals[name, mode] += int(count or 0)
