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
_NAMES = [a.value for a in SEVERITY]
_FIELDS: list[pa.Field[Any]] = list(RULE_HIT)
_FEW = 256  # rows or hits that are looked at one by one sooner than as columns


def decide(
    events: pa.RecordBatch,
    hits: Sequence[Hits],
    *,
    schema: Schema,
    version: str,
    decided_at: int,
    ids: pa.Array[Any] | None = None,
) -> pa.RecordBatch:
    """The decisions on `events`, row by row, as a batch of `DECISIONS`.

    `decided_at` is UTC microseconds. Shadow rules are listed and change nothing. `ids` are the
    `event_ids`, where somebody has them already.
    """
    n = events.num_rows
    columns = [
        event_ids(events, schema) if ids is None else ids,
        events[schema.event_time],
        _named(ranks(hits, n)),
        pa.nulls(n, pa.float64()),
        _listed(hits, n),
        pa.repeat(pa.scalar(version), n),
        events["log_offset"],
        pa.repeat(pa.scalar(decided_at, pa.timestamp("us")), n),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DECISIONS)


def event_ids(events: pa.RecordBatch, schema: Schema) -> pa.Array[Any]:
    """The ids of events as text, whatever their declared type."""
    ids = events[schema.id]
    return ids if ids.type == pa.string() else ids.cast(pa.string())


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


def _named(ranks: npt.NDArray[np.int8]) -> pa.Array[Any]:
    if len(ranks) <= _FEW:
        return pa.array([_NAMES[rank] for rank in ranks.tolist()], pa.string())
    return pa.array(_NAMES).take(pa.array(ranks, pa.int8()))


def _listed(hits: Sequence[Hits], n: int) -> pa.ListArray[Any]:
    """Per row the list of its hits, in the order in which they are given."""
    rows = np.concatenate([h.rows for h in hits]) if hits else np.empty(0, dtype=np.int64)
    ends = np.zeros(n + 1, dtype=np.int32)
    ends[1:] = np.cumsum(np.bincount(rows, minlength=n))
    fields = (_told if len(rows) <= _FEW else _columns)(hits, np.argsort(rows, kind="stable"))
    entries = pa.StructArray.from_arrays(fields, fields=_FIELDS)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), entries)


def _told(hits: Sequence[Hits], order: npt.NDArray[np.int64]) -> list[pa.Array[Any]]:
    """Name, action, mode and reason of each entry, made one by one."""
    each: list[tuple[str, ...]] = []
    for hit in hits:
        who = hit.rule.name, hit.action.value, hit.rule.mode.value
        each += [(*who, reason) for reason in hit.reasons]
    entries = [each[k] for k in order.tolist()]
    if not entries:
        return [_NOTHING] * len(_FIELDS)
    return [pa.array(column, pa.string()) for column in zip(*entries, strict=True)]


_NOTHING: pa.Array[Any] = pa.array([], pa.string())


def _columns(hits: Sequence[Hits], order: npt.NDArray[np.int64]) -> list[pa.Array[Any]]:
    """The same, as columns that are taken together."""
    places = pa.array(order, pa.int64())
    counts = [len(h.rows) for h in hits]
    which = pa.array(np.repeat(np.arange(len(hits)), counts), pa.int64()).take(places)
    return [
        pa.array([h.rule.name for h in hits], pa.string()).take(which),
        pa.array([h.action.value for h in hits], pa.string()).take(which),
        pa.array([h.rule.mode.value for h in hits], pa.string()).take(which),
        pa.array([r for h in hits for r in h.reasons], pa.string()).take(places),
    ]
