"""One decision for each event of a batch, from the rules that it hit."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.decisions.decided import (
    DecisionRows,
    Decisions,
    FewDecisions,
    Hit,
    Stamp,
    listed,
)
from tidegate.decisions.whose import FEW, Whose
from tidegate.rules.ruleset import Action, Hits, Mode
from tidegate.tables import DECISIONS

# Actions by severity: a decision takes the highest among its live hits.
SEVERITY = (Action.APPROVE, Action.REVIEW, Action.BLOCK)
_RANK = {action: rank for rank, action in enumerate(SEVERITY)}
_NAMES = [a.value for a in SEVERITY]


def decide(whose: Whose, hits: Sequence[Hits], *, version: str, decided_at: int) -> Decisions:
    """The decisions on events; `hits` count their rows.

    `decided_at` is UTC microseconds. Shadow rules are listed and change nothing.
    """
    n, found = len(whose), ranks(hits, len(whose))
    if n <= FEW and sum(len(h.rows) for h in hits) <= FEW:
        actions = [_NAMES[rank] for rank in found.tolist()]
        return FewDecisions(whose, actions, _told(hits), [Stamp(n, version, decided_at)])
    columns = [
        whose.ids,
        whose.times,
        pa.array(_NAMES).take(pa.array(found, pa.int8())),
        pa.nulls(n, pa.float64()),
        _listed(hits, n),
        pa.repeat(pa.scalar(version), n),
        whose.offsets,
        pa.repeat(pa.scalar(decided_at, pa.timestamp("us")), n),
    ]
    return DecisionRows(pa.RecordBatch.from_arrays(columns, schema=DECISIONS))


def ranks(hits: Sequence[Hits], n: int) -> npt.NDArray[np.int8]:
    """The rank in `SEVERITY` of the action on each of `n` rows."""
    found = np.zeros(n, dtype=np.int8)
    live = [h for h in hits if h.rule.mode is Mode.LIVE]
    asked = [h for h in live if h.action is not Action.ALLOW]
    if asked:
        wanted = np.repeat([_RANK[h.action] for h in asked], [len(h.rows) for h in asked])
        np.maximum.at(found, np.concatenate([h.rows for h in asked]), wanted.astype(np.int8))
    for hit in live:
        if hit.action is Action.ALLOW:
            found[hit.rows] = 0
    return found


def _told(hits: Sequence[Hits]) -> list[Hit]:
    """The hits one by one, by row; those of a row stay in the order in which they are given."""
    each = []
    for hit in hits:
        who = hit.rule.name, hit.action.value, hit.rule.mode.value
        rows = zip(hit.rows.tolist(), hit.reasons, strict=True)
        each += [Hit(row, *who, reason) for row, reason in rows]
    return sorted(each, key=attrgetter("row"))


def _listed(hits: Sequence[Hits], n: int) -> pa.ListArray[Any]:
    """Per row the list of its hits, in the order in which they are given."""
    rows = np.concatenate([h.rows for h in hits]) if hits else np.empty(0, dtype=np.int64)
    order = np.argsort(rows, kind="stable")
    places = pa.array(order, pa.int64())
    counts = [len(h.rows) for h in hits]
    which = pa.array(np.repeat(np.arange(len(hits)), counts), pa.int64()).take(places)
    fields = [
        pa.array([h.rule.name for h in hits], pa.string()).take(which),
        pa.array([h.action.value for h in hits], pa.string()).take(which),
        pa.array([h.rule.mode.value for h in hits], pa.string()).take(which),
        pa.array([r for h in hits for r in h.reasons], pa.string()).take(places),
    ]
    return listed(fields, rows, n)
