"""One decision for each event of a batch, from the rules that it hit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.outcome import DECISIONS, RULE_HIT
from tidegate.rules.ruleset import Action, Hits, Mode
from tidegate.schema import Schema

# Actions by severity: a decision takes the highest among its live hits.
SEVERITY = (Action.APPROVE, Action.REVIEW, Action.BLOCK)
_RANK = {action: rank for rank, action in enumerate(SEVERITY)}
_NAMES = pa.array([a.value for a in SEVERITY])


def decide(
    events: pa.RecordBatch, hits: Sequence[Hits], *, schema: Schema, version: str, decided_at: int
) -> pa.RecordBatch:
    """The decisions on `events`, row by row, as a batch of `DECISIONS`.

    `decided_at` is UTC microseconds. Shadow rules are listed and change nothing.
    """
    n = events.num_rows
    columns = [
        events[schema.id].cast(pa.string()),
        events[schema.event_time],
        _NAMES.take(pa.array(ranks(hits, n), pa.int8())),
        pa.nulls(n, pa.float64()),
        _listed(hits, n),
        pa.repeat(pa.scalar(version), n),
        events["log_offset"],
        pa.repeat(pa.scalar(decided_at, pa.timestamp("us")), n),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DECISIONS)


def ranks(hits: Sequence[Hits], n: int) -> npt.NDArray[np.int8]:
    """The rank in `SEVERITY` of the action on each of `n` rows."""
    found, allowed = np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.bool_)
    for hit in hits:
        if hit.rule.mode is not Mode.LIVE:
            continue
        if hit.action is Action.ALLOW:
            allowed[hit.rows] = True
        else:
            found[hit.rows] = np.maximum(found[hit.rows], _RANK[hit.action])
    found[allowed] = 0
    return found


def _listed(hits: Sequence[Hits], n: int) -> pa.ListArray[Any]:
    """Per row the list of its hits, in the order in which they are given."""
    counts = [len(h.rows) for h in hits]
    rows = np.concatenate([h.rows for h in hits]) if hits else np.empty(0, dtype=np.int64)
    order = pa.array(np.argsort(rows, kind="stable"), pa.int64())
    ends = np.cumsum(np.bincount(rows, minlength=n))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    which = pa.array(np.repeat(np.arange(len(hits)), counts), pa.int64()).take(order)
    fields = [
        pa.array([h.rule.name for h in hits], pa.string()).take(which),
        pa.array([h.action.value for h in hits], pa.string()).take(which),
        pa.array([h.rule.mode.value for h in hits], pa.string()).take(which),
        pa.array([r for h in hits for r in h.reasons], pa.string()).take(order),
    ]
    return pa.ListArray.from_arrays(
        offsets, pa.StructArray.from_arrays(fields, fields=list(RULE_HIT))
    )
