"""Verdicts: who waits for decisions, and what they are told once the engine has passed them.

A decision is a pure function of the log, so it need not be in the tables before it is told: after a
crash it is computed again and comes out equal. What must come first is that its event is durable.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from tidegate.decisions.featured import Featured
from tidegate.door import Receipt
from tidegate.errors import TidegateError, TransientError
from tidegate.events.decode import DeadRecord
from tidegate.outcome import Outcome
from tidegate.rows import Rows


class Decided(msgspec.Struct, frozen=True, gc=False):
    """The decision on one event, with its features by name (none under a version without)."""

    event_id: str
    action: str
    score: float | None
    rules: list[dict[str, str]]
    features: dict[str, Any]
    version: str
    log_offset: int


class Repeated(msgspec.Struct, frozen=True, gc=False):
    """An event whose id was there before: the decision is that on the event at `first_offset`."""

    event_id: str
    log_offset: int
    first_offset: int


class Refused(msgspec.Struct, frozen=True):
    """A record that is no event."""

    log_offset: int
    dead: DeadRecord


Verdict: TypeAlias = Decided | Repeated | Refused
Results: TypeAlias = list[Verdict] | TidegateError

# Tells the waiters of one loop or thread what was decided, all in one call.
Tell: TypeAlias = Callable[[list[tuple["Awaited", Any]]], None]


@dataclass(frozen=True, slots=True)
class Settled:
    """What was decided on a submission: `rows` on events whose ids are new, and the others."""

    rows: Rows
    repeated: list[Repeated]


@dataclass(slots=True, eq=False)
class Awaited:
    """A submission whose decisions somebody waits for; the door sets where its records lie.

    With `in_rows` they are told as `Settled`, which costs a fraction of an object for each.
    """

    token: Any
    tell: Tell
    receipt: Receipt | None = None
    in_rows: bool = False

    @property
    def next_offset(self) -> int:
        """The offset after its last record."""
        receipt = self.receipt
        return -1 if receipt is None else receipt.first_offset + receipt.count


class Verdicts:
    """Submissions in the order of the log. The door adds, the engine's thread takes off."""

    def __init__(self) -> None:
        self._waiting: deque[Awaited] = deque()
        self._any = threading.Event()

    def place(self, token: Any, receipt: Receipt) -> None:
        """The records of an `Awaited` are durable at these offsets; called in their order."""
        awaited: Awaited = token
        awaited.receipt = receipt
        self._waiting.append(awaited)
        self._any.set()

    def rest(self, seconds: float) -> None:
        """Wait so long, or until somebody waits for the engine."""
        if not self._waiting:
            self._any.clear()
            if not self._waiting:  # or one came between the two lines
                self._any.wait(seconds)

    def settle(self, outcome: Outcome) -> None:
        """Tell those whose records the outcome has; called as outcomes come."""
        due = list(self._due(outcome.next_offset))
        if not due:
            return
        told: dict[Tell, list[tuple[Awaited, Results | Settled]]] = {}
        for awaited, found in _told(outcome, due):
            told.setdefault(awaited.tell, []).append((awaited, found))
        for tell, pairs in told.items():
            tell(pairs)

    def _due(self, next_offset: int) -> Iterator[Awaited]:
        while self._waiting and self._waiting[0].next_offset <= next_offset:
            yield self._waiting.popleft()


def _told(outcome: Outcome, due: Sequence[Awaited]) -> Iterator[tuple[Awaited, Results | Settled]]:
    in_rows = [a for a in due if a.in_rows]
    others = [a for a in due if not a.in_rows]
    if in_rows:
        rows = _Rows(outcome, in_rows)
        yield from ((awaited, rows.of(awaited)) for awaited in in_rows)
    if others:
        found = _Found(outcome, others)
        yield from ((awaited, found.of(awaited)) for awaited in others)


class _Rows:
    """What an outcome has of the records that are waited for, by column."""

    def __init__(self, outcome: Outcome, due: Sequence[Awaited]) -> None:
        receipts = [a.receipt for a in due if a.receipt is not None]
        begin, end = _places(outcome, receipts[0].first_offset, due[-1].next_offset)
        featured = outcome.featured
        self._decided = outcome.decided.told(begin, end)
        self._names = [] if featured is None else list(featured.names)
        self._features = [] if featured is None else featured.told(begin, end)
        self._repeated = list(_repeated(outcome, receipts))

    def of(self, awaited: Awaited) -> Settled:
        receipt = awaited.receipt
        first, after = (-1, -1) if receipt is None else (receipt.first_offset, awaited.next_offset)
        here = self._decided.places(first, after)
        features = [column[here] for column in self._features]
        return Settled(
            Rows(*self._decided.at(here), self._names, features),
            [r for r in self._repeated if first <= r.log_offset < after],
        )


class _Found:
    """What an outcome has of the records that are waited for, by offset."""

    def __init__(self, outcome: Outcome, due: Sequence[Awaited]) -> None:
        receipts = [a.receipt for a in due if a.receipt is not None]
        found: list[Verdict] = [*_decided(outcome, receipts), *_repeated(outcome, receipts)]
        self._verdicts = {verdict.log_offset: verdict for verdict in found}
        for receipt in receipts:
            for dead in receipt.dead:
                offset = receipt.first_offset + dead.row
                self._verdicts[offset] = Refused(offset, dead)

    def of(self, awaited: Awaited) -> Results:
        receipt = awaited.receipt
        if receipt is None:
            return []
        offsets = range(receipt.first_offset, receipt.first_offset + receipt.count)
        try:
            return [self._verdicts[offset] for offset in offsets]
        except KeyError:
            # The engine read them from the log before the door had said who waits for them.
            return TransientError("the decision is made and cannot be told: send the event again")


def _decided(outcome: Outcome, receipts: Sequence[Receipt]) -> Iterator[Decided]:
    """The decisions on the records, and no others: there may be thousands between them."""
    for first, after in _stretches(receipts):
        begin, end = _places(outcome, first, after)
        ids, actions, scores, rules, versions, offsets = outcome.decided.told(begin, end)
        named = _named(outcome.featured, begin, end)
        yield from map(Decided, ids, actions, scores, rules, named, versions, offsets)


def _stretches(receipts: Sequence[Receipt]) -> list[tuple[int, int]]:
    """The offsets `first <= o < after` of the records, those that follow each other as one."""
    found: list[tuple[int, int]] = []
    for receipt in receipts:
        first, after = receipt.first_offset, receipt.first_offset + receipt.count
        if found and found[-1][1] == first:
            first, _ = found.pop()
        found.append((first, after))
    return found


def _places(outcome: Outcome, first: int, after: int) -> tuple[int, int]:
    """Where the rows of decisions and features on the offsets `first <= o < after` stand."""
    offsets = outcome.decided.whose.offsets.to_numpy()
    begin, end = offsets.searchsorted((first, after)).tolist()
    return begin, end


def _named(featured: Featured | None, begin: int, end: int) -> Iterator[dict[str, Any]]:
    """The features of each row, by name."""
    if featured is None:
        return ({} for _ in range(begin, end))
    names, columns = featured.names, featured.told(begin, end)
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _repeated(outcome: Outcome, receipts: Sequence[Receipt]) -> Iterator[Repeated]:
    rows = outcome.duplicates
    if not rows.num_rows:
        return
    wanted = np.concatenate([np.arange(first, after) for first, after in _stretches(receipts)])
    there = np.isin(rows["log_offset"].to_numpy(), wanted, assume_unique=True)
    rows = rows.filter(pa.array(there))
    names = ("event_id", "log_offset", "first_offset")
    yield from map(Repeated, *(rows[name].to_pylist() for name in names))
