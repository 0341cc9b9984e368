"""The two sides that are compared: what the rules of each make of the same events."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.backtest.terms import ListTerms
from tidegate.decisions.decide import ranks
from tidegate.program import Program
from tidegate.rules.ruleset import Action, FailedFeature, Hits, Rows
from tidegate.sql.expression import Evaluated, ExpressionSet

Ranks = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What one side makes of a batch: its hits without reasons, and the rank of each action."""

    hits: list[Hits]
    ranks: Ranks


class Sides:
    """Both sides, evaluated together: what they share is computed once. Thread-safe.

    `tables` is the folder of the tables, among them that of the changes of lists.
    """

    def __init__(self, current: Program, candidate: Program, tables: Path) -> None:
        self.programs = (current, candidate)
        conditions = [c for p in self.programs for c in p.rules.conditions]
        trees = {c.tree: c for c in conditions}
        place = {tree: i for i, tree in enumerate(trees)}
        self._places = [[place[c.tree] for c in p.rules.conditions] for p in self.programs]
        self._expressions = list(trees.values())
        self._terms = ListTerms(tables, candidate, self._expressions)
        self.columns = self._terms.columns.union(*(c.columns for c in conditions), self._shared())
        self._local = threading.local()

    def judge(self, batch: pa.RecordBatch, failed: Mapping[str, Rows]) -> tuple[Judged, Judged]:
        """What the current and the candidate side make of a batch with (at least) `columns`.

        `failed` has the rows in which features could not be computed.
        """
        batch = self._terms.beside(batch)
        results = self._set().evaluate(batch) if self._expressions else []
        current, candidate = (
            self._judged(program, [results[i] for i in places], batch, failed)
            for program, places in zip(self.programs, self._places, strict=True)
        )
        return current, candidate

    def _shared(self) -> set[str]:
        """The columns by which rules are rolled out to a share of entities."""
        rules = (r for p in self.programs for r in p.rules.rules)
        return {r.rollout.column for r in rules if r.rollout is not None}

    def _set(self) -> ExpressionSet:
        """The expressions as this thread evaluates them: a set is for one thread at a time."""
        if not hasattr(self._local, "expressions"):
            self._local.expressions = ExpressionSet(self._expressions)
        expressions: ExpressionSet = self._local.expressions
        return expressions

    @staticmethod
    def _judged(
        program: Program,
        results: Sequence[Evaluated],
        batch: pa.RecordBatch,
        failed: Mapping[str, Rows],
    ) -> Judged:
        hits = [Hits(FailedFeature(name), Action.REVIEW, rows, []) for name, rows in failed.items()]
        hits += program.rules.hits(batch, results, with_reasons=False)
        return Judged(hits, ranks(hits, batch.num_rows))
