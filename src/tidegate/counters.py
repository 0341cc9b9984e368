"""What the engine has made of the log since the process began, counted for whoever watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from tidegate.batches import counted
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
            outcome.decided.count(self.decisions, self.rules)
            _count(self.dead, outcome.dead_letters, "reason")
            _count(self.duplicates, outcome.duplicates, "source")
            for name, rows in outcome.windows.items():
                self.window_rows[name] += rows.num_rows


def _count(totals: Counter[str], rows: pa.RecordBatch, column: str) -> None:
    if rows.num_rows:
        totals.update(counted(rows[column]))
