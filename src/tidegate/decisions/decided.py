"""Decisions on a batch of events, row by row.

They are told to those who wait and counted at once, and written to their table a second later,
together with those of many other batches. Few ones are kept as Python has them until then: to make
columns of Arrow for forty events and to read them again takes longer than to decide.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.batches import counted
from tidegate.batches import joined as one_batch
from tidegate.decisions.whose import Held, Whose
from tidegate.tables import DECISIONS, RULE_HIT

_FIELDS: list[pa.Field[Any]] = list(RULE_HIT)

# By rule and mode.
RuleCounts: TypeAlias = "Counter[tuple[str, str]]"


# The columns of their table that are told.
_TOLD = ("event_id", "action", "score", "rules", "version", "log_offset")


class Told(NamedTuple):
    """Decisions by column, as they are told; offsets ascend."""

    ids: list[str]
    actions: list[str]
    scores: list[float | None]
    rules: list[list[dict[str, str]]]
    versions: list[str]
    offsets: list[int]

    def at(self, here: slice) -> Told:
        """Those that stand there."""
        return Told(
            self.ids[here],
            self.actions[here],
            self.scores[here],
            self.rules[here],
            self.versions[here],
            self.offsets[here],
        )

    def places(self, first: int, after: int) -> slice:
        """Where those on the events at offsets `first <= o < after` stand."""
        return slice(bisect_left(self.offsets, first), bisect_left(self.offsets, after))


class Hit(NamedTuple):
    """A rule that hit an event, as a decision lists it."""

    row: int
    name: str
    action: str
    mode: str
    reason: str


class Stamp(NamedTuple):
    """By which version so many events were decided on, and when (UTC microseconds)."""

    events: int
    version: str
    decided_at: int


class Decisions(Held):
    """Decisions on the events `whose`; the rows are those of `DECISIONS`."""

    @abstractmethod
    def told(self, begin: int, end: int) -> Told:
        """The rows `begin <= row < end` as they are told."""

    @abstractmethod
    def count(self, actions: Counter[str], rules: RuleCounts) -> None:
        """Add how many there are of each action, and how many events each rule hit."""


class DecisionRows(Decisions):
    """Decisions as rows of their table."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._rows, self.whose = rows, Whose.in_rows(rows)

    @property
    def rows(self) -> pa.RecordBatch:
        """These."""
        return self._rows

    def told(self, begin: int, end: int) -> Told:
        """Some of them, read from the columns."""
        rows = self._rows.slice(begin, end - begin)
        ids, actions, scores, rules, versions, offsets = (_list(rows[n]) for n in _TOLD)
        return Told(ids, actions, scores, rules, versions, offsets)

    def count(self, actions: Counter[str], rules: RuleCounts) -> None:
        """Count by column."""
        if len(self):
            actions.update(counted(self._rows["action"]))
        hits = cast("Any", self._rows["rules"]).flatten()
        if len(hits):
            # Names have no line ends, so that one column can stand for both.
            both = pc.binary_join_element_wise(hits.field("name"), hits.field("mode"), "\n")
            for value, count in counted(both).items():
                name, _, mode = value.partition("\n")
                rules[name, mode] += count


def _list(column: pa.Array[Any]) -> list[Any]:
    return column.to_pylist()


class FewDecisions(Decisions):
    """Decisions on few events; rows of their table are made once they are asked for.

    `actions` has one for each event, `hits` ascend by row. `stamps` follow each other.
    """

    def __init__(
        self, whose: Whose, actions: list[str], hits: list[Hit], stamps: Sequence[Stamp]
    ) -> None:
        self.whose, self.actions, self.hits, self.stamps = whose, actions, hits, stamps

    @cached_property
    def rows(self) -> pa.RecordBatch:
        """Made when first asked for."""
        n, whose = len(self), self.whose
        counts, times = [s.events for s in self.stamps], [s.decided_at for s in self.stamps]
        columns = [
            whose.ids,
            whose.times,
            pa.array(self.actions, pa.string()),
            pa.nulls(n, pa.float64()),
            listed(self._fields(), [hit.row for hit in self.hits], n),
            pa.array(self._versions(), pa.string()),
            whose.offsets,
            pa.array(np.repeat(times, counts).astype("M8[us]")),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=DECISIONS)

    def told(self, begin: int, end: int) -> Told:
        """Some of them, as they are held."""
        rules: list[list[dict[str, str]]] = [[] for _ in range(begin, end)]
        for row, name, action, mode, reason in self.hits:
            if begin <= row < end:
                listed = {"name": name, "action": action, "mode": mode, "reason": reason}
                rules[row - begin].append(listed)
        return Told(
            _list(self.whose.ids.slice(begin, end - begin)),
            self.actions[begin:end],
            [None] * (end - begin),
            rules,
            self._versions()[begin:end],
            self.whose.offsets.to_numpy()[begin:end].tolist(),
        )

    def count(self, actions: Counter[str], rules: RuleCounts) -> None:
        """Count one by one."""
        actions.update(self.actions)
        for hit in self.hits:
            rules[hit.name, hit.mode] += 1

    def _versions(self) -> list[str]:
        return list(chain.from_iterable(repeat(s.version, s.events) for s in self.stamps))

    def _fields(self) -> list[pa.Array[Any]]:
        if not self.hits:
            return [_NOTHING] * len(_FIELDS)
        _, *columns = zip(*self.hits, strict=True)
        return [pa.array(column, pa.string()) for column in columns]


_NOTHING: pa.Array[Any] = pa.array([], pa.string())


def listed(fields: Sequence[pa.Array[Any]], rows: npt.ArrayLike, n: int) -> pa.ListArray[Any]:
    """Per row the list of its hits, in order; `rows` says whose they are, in any order."""
    ends = np.zeros(n + 1, dtype=np.int32)
    ends[1:] = np.cumsum(np.bincount(np.asarray(rows, dtype=np.int64), minlength=n))
    entries = pa.StructArray.from_arrays(fields, fields=_FIELDS)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), entries)


def joined(parts: Sequence[Decisions]) -> Decisions:
    """The decisions of several batches, which follow each other, as rows of their table."""
    few = [part for part in parts if isinstance(part, FewDecisions)]
    if len(parts) == 1:
        return parts[0]
    if len(few) < len(parts):
        return DecisionRows(one_batch([part.rows for part in parts], DECISIONS))
    return DecisionRows(_together(few).rows)


def _together(parts: Sequence[FewDecisions]) -> FewDecisions:
    firsts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    hits = [
        hit._replace(row=first + hit.row)
        for part, first in zip(parts, firsts, strict=False)
        for hit in part.hits
    ]
    return FewDecisions(
        Whose.joined([part.whose for part in parts]),
        [action for part in parts for action in part.actions],
        hits,
        [stamp for part in parts for stamp in part.stamps],
    )
