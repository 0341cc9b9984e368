"""The backtest: pieces of history examined by several threads beside each other, and added up."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from tidegate.backtest import remarks
from tidegate.backtest.candidate import compared
from tidegate.backtest.check import Checked
from tidegate.backtest.history import OFFSET, Piece
from tidegate.backtest.result import (
    Backtested,
    days_table,
    rules_by_day_table,
    rules_table,
    total_table,
)
from tidegate.backtest.study import Part, Question, Study
from tidegate.backtest.tally import Tally
from tidegate.errors import RequestError
from tidegate.program import Program

CHANGED_MAX = 100_000
HITS_MAX = 10_000_000


def backtest(
    tables: Path,
    current: Program,
    candidate: Program,
    question: Question,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Backtested:
    """The candidate's rules beside the current ones over the stored events and features.

    `tables` is the folder of the tables. `progress` is told how many rows of how many are done.
    Raises: InputError without tables; RequestError for columns that are not there, features that
    are not stored, or more than `HITS_MAX` hits where they are asked for.
    """
    begun = time.monotonic()
    study, found = Study(tables, current, candidate, question), _Found()
    total = sum(piece.rows for piece in study.pieces)
    for piece, part in _examined(study, threads or os.cpu_count() or 1):
        found.add(part, rows=piece.rows)
        if progress is not None:
            progress(found.rows, total)
    return _result(study, found, tables, seconds=time.monotonic() - begun)


def _examined(study: Study, threads: int) -> Iterator[tuple[Piece, Part]]:
    """What was found in each piece, in order; a few more than there are threads are under way."""
    coming: deque[tuple[Piece, Future[Part]]] = deque()
    with ThreadPoolExecutor(threads, "backtest") as pool:
        try:
            for piece in study.pieces:
                coming.append((piece, pool.submit(study.examine, piece)))
                if len(coming) > 2 * threads:
                    before, future = coming.popleft()
                    yield before, future.result()
            while coming:
                before, future = coming.popleft()
                yield before, future.result()
        finally:
            for _, future in coming:
                future.cancel()


@dataclass(slots=True)
class _Found:
    """What was found so far."""

    rows: int = 0
    tally: Tally = field(default_factory=Tally)
    checked: Checked = field(default_factory=Checked)
    versions: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    without_features: int = 0
    changed: list[pa.Table] = field(default_factory=list)
    changed_events: int = 0
    hits: list[pa.Table] = field(default_factory=list)

    def add(self, part: Part, *, rows: int) -> None:
        """Take in what was found in a piece."""
        self.rows += rows
        self.tally.add(part.tally)
        self.checked += part.checked
        self.versions += part.versions
        self.lacking += part.lacking
        self.without_features += part.without_features
        kept = CHANGED_MAX - min(self.changed_events, CHANGED_MAX)
        self.changed.append(part.changed.slice(0, kept))
        self.changed_events += part.changed.num_rows
        if part.hits is not None:
            self.hits.append(part.hits)
        if sum(hits.num_rows for hits in self.hits) > HITS_MAX:
            message = f"more than {HITS_MAX} hits: ask for fewer days, or without hits"
            raise RequestError(message, code="too_many_hits")


def _result(study: Study, found: _Found, tables: Path, *, seconds: float) -> Backtested:
    tally, amounts, question = found.tally, study.amounts, study.question
    rules = compared(study.current.project.rules, study.candidate.project.rules)
    total = total_table(tally, amounts)
    events = total.column("events")[0].as_py()
    changed = pa.concat_tables([study.listing.changed_schema.empty_table(), *found.changed])
    hits = pa.concat_tables([study.listing.hits_schema.empty_table(), *found.hits])
    return Backtested(
        candidate=question.name,
        current_version=study.current.version,
        candidate_version=study.candidate.version,
        first=question.first,
        until=question.until,
        amount=amounts.name,
        labels=study.labels.origin,
        events=events,
        evaluated=events * len(study.candidate.rules.rules),
        seconds=seconds,
        remarks=tuple(_remarks(study, found, tables, total)),
        total=total,
        rules=rules_table(tally, rules, amounts),
        days=days_table(tally, amounts),
        rules_by_day=rules_by_day_table(tally, rules, amounts),
        changed=changed.sort_by(OFFSET),
        changed_events=found.changed_events,
        hits=hits.sort_by(OFFSET) if question.with_hits else None,
    )


def _remarks(study: Study, found: _Found, tables: Path, total: pa.Table) -> Iterator[str]:
    if not found.rows:
        yield "there are no events in these days"
        return
    (row,) = total.select(["unlabelled", "events"]).to_pylist()
    yield from remarks.of_labels(study, row["unlabelled"], row["events"])
    yield from remarks.of_features(found.lacking, found.without_features)
    yield from remarks.of_versions(study, tables, found.versions)
    yield from remarks.of_check(study, found.checked)
