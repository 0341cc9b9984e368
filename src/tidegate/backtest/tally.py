"""What is counted: events by day, by rule and by both, each by label and by what both sides did.

An event is in one of 12 states: legitimate, fraud or unlabelled; stopped or not by the current
rules; stopped or not by the candidate's. All figures of a report are sums over states.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tidegate.backtest.amounts import Amounts, Sums
from tidegate.backtest.labels import Codes
from tidegate.backtest.sides import Judged
from tidegate.rules.ruleset import FailedFeature, Rows

STATES = 12
SHAPE = (3, 2, 2)  # label, stopped by the current rules, stopped by the candidate's
CURRENT, CANDIDATE = 0, 1
DAY_US = 86_400_000_000

Integers = npt.NDArray[np.int64]
# Which side, the rule's name, and whether it is a feature that could not be computed.
RuleKey: TypeAlias = "tuple[int, str, bool]"
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(slots=True)
class States:
    """Events in each state, and their amounts where there are any; in the shape `SHAPE`."""

    counts: Integers
    amounts: Sums | None

    def __add__(self, other: States) -> States:
        both = self.amounts is not None and other.amounts is not None
        amounts = self.amounts + other.amounts if both else None  # type: ignore[operator] # both are there
        return States(self.counts + other.counts, amounts)


@dataclass(slots=True)
class Tally:
    """Counts by day (days since 1970), and by day and rule."""

    days: dict[int, States] = field(default_factory=dict)
    rules: dict[tuple[int, RuleKey], States] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Take in what was counted of other events."""
        _merge(self.days, other.days)
        _merge(self.rules, other.rules)

    def total(self) -> States | None:
        """The states of all events; None without any."""
        return _sum(self.days.values())

    def by_rule(self) -> dict[RuleKey, States]:
        """The states of the events that each rule hit."""
        found: dict[RuleKey, States] = {}
        for (_, key), states in self.rules.items():
            found[key] = found[key] + states if key in found else states
        return found


def _merge(into: dict[_Key, States], more: Mapping[_Key, States]) -> None:
    for key, states in more.items():
        into[key] = into[key] + states if key in into else states


def _sum(items: Iterable[States]) -> States | None:
    whole = None
    for states in items:
        whole = states if whole is None else whole + states
    return whole


def count(
    times: Integers,
    labels: Codes,
    sides: tuple[Judged, Judged],
    amounts: Amounts,
    weights: list[npt.NDArray[np.float64]],
) -> Tally:
    """The tally of events at `times` (UTC microseconds), judged by both sides."""
    days, day = np.unique(times // DAY_US, return_inverse=True)
    stopped = [side.ranks > 0 for side in sides]
    state = labels * np.int64(4) + stopped[CURRENT] * 2 + stopped[CANDIDATE]
    counter = _Counter(days, day * STATES + state, amounts, weights)
    tally = Tally(counter.of(None))
    for side, judged in enumerate(sides):
        for key, rows in _rows_by_rule(side, judged).items():
            found = counter.of(rows)
            tally.rules |= {(day, key): states for day, states in found.items()}
    return tally


def _rows_by_rule(side: int, judged: Judged) -> dict[RuleKey, Rows]:
    """The rows that each rule hit, those in which it could not be computed among them."""
    found: dict[RuleKey, Rows] = {}
    for hit in judged.hits:
        key = (side, hit.rule.name, isinstance(hit.rule, FailedFeature))
        found[key] = np.concatenate([found[key], hit.rows]) if key in found else hit.rows
    return found


@dataclass(frozen=True, slots=True)
class _Counter:
    """Counts rows by day and state."""

    days: Integers
    codes: Integers
    amounts: Amounts
    weights: list[npt.NDArray[np.float64]]

    def of(self, rows: Rows | None) -> dict[int, States]:
        """The states by day, of all rows or of some; days without any are left out."""
        codes = self.codes if rows is None else self.codes[rows]
        groups = len(self.days) * STATES
        counts = np.bincount(codes, minlength=groups).reshape(-1, *SHAPE)
        sums = self.amounts.sums(codes, self.weights, rows, groups=groups)
        shaped = None if sums is None else sums.reshape(-1, *SHAPE)
        return {
            int(day): States(counts[i], None if shaped is None else shaped[i])
            for i, day in enumerate(self.days)
            if counts[i].any()
        }


# -- figures ---------------------------------------------------------------------------------------

AMOUNTS = ("amount_saved", "amount_blocked_wrongly", "amount_missed", "amount_released")

_LEGITIMATE, _FRAUD = 0, 1


def side_counts(prefix: str, counts: Integers, fraud: int) -> dict[str, object]:
    """Hits of one side and what they were; `fraud` is how many frauds there were to be found.

    `counts` are the events that the side hit, by label.
    """
    caught, disturbed = int(counts[_FRAUD]), int(counts[_LEGITIMATE])
    return {
        f"{prefix}_hits": int(counts.sum()),
        f"{prefix}_fraud": caught,
        f"{prefix}_legitimate": disturbed,
        f"{prefix}_precision": caught / (caught + disturbed) if caught + disturbed else None,
        f"{prefix}_recall": caught / fraud if fraud else None,
    }


def changes(new: States | None, gone: States | None, amounts: Amounts) -> dict[str, object]:
    """What changes: the events that only the candidate stops among `new`, those that only the
    current rules stop among `gone`; nothing for None.
    """
    found: dict[str, object] = {}
    for states, at, names in (
        (new, (0, 1), ("newly_caught", "newly_disturbed", *AMOUNTS[:2])),
        (gone, (1, 0), ("no_longer_caught", "no_longer_disturbed", *AMOUNTS[2:])),
    ):
        for label, name, amount in zip((_FRAUD, _LEGITIMATE), names[:2], names[2:], strict=True):
            found[name] = int(states.counts[label][at]) if states else 0
            sums = states.amounts if states else None
            found[amount] = amounts.value(sums[label][at] if sums is not None else 0)
    return found
