"""What a backtest came to, as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tidegate.backtest.amounts import Amounts
from tidegate.backtest.candidate import Compared, allows, stops
from tidegate.backtest.tally import (
    AMOUNTS,
    CANDIDATE,
    CURRENT,
    SHAPE,
    RuleKey,
    States,
    Tally,
    changes,
    side_counts,
)

_EPOCH = date(1970, 1, 1)
_COUNT, _RATE = pa.int64(), pa.float64()
_MEASURES: dict[str, pa.DataType] = {
    "current_hits": _COUNT, "current_fraud": _COUNT, "current_legitimate": _COUNT,
    "current_precision": _RATE, "current_recall": _RATE,
    "candidate_hits": _COUNT, "candidate_fraud": _COUNT, "candidate_legitimate": _COUNT,
    "candidate_precision": _RATE, "candidate_recall": _RATE,
    "newly_caught": _COUNT, "newly_disturbed": _COUNT,
    "no_longer_caught": _COUNT, "no_longer_disturbed": _COUNT,
}  # fmt: skip
_TOTALS: dict[str, pa.DataType] = {
    "events": _COUNT,
    "fraud": _COUNT,
    "legitimate": _COUNT,
    "unlabelled": _COUNT,
}
_WHAT: dict[str, pa.DataType] = {n: pa.string() for n in ("rule", "change", "action", "mode")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backtested:
    """The current rules and a candidate's over the same events.

    An event is *stopped* by a side that reviews or blocks it. `total` (one row) and `days` count
    events: `current_hits` those that the current rules stop, `newly_caught` fraud that only the
    candidate stops, `newly_disturbed` legitimate events that only the candidate stops, and so on;
    precision is the share of fraud among the labelled events stopped, recall the share of the
    fraud that is stopped. `rules` and `rules_by_day` count the events that each rule hits in the
    same columns. `amount_saved`, `amount_blocked_wrongly`, `amount_missed` and `amount_released`
    add up the amounts of newly caught, newly disturbed, no longer caught and no longer disturbed
    events. `changed` lists the first events whose action differs; `changed_events` says how many
    there are. `hits` lists side, rule and event of each hit, where it was asked for. `candidate`
    names what was tried.
    """

    candidate: str
    current_version: str
    candidate_version: str
    first: date | None
    until: date | None
    amount: str | None
    labels: str
    events: int
    evaluated: int
    seconds: float
    remarks: tuple[str, ...]
    total: pa.Table
    rules: pa.Table
    days: pa.Table
    rules_by_day: pa.Table
    changed: pa.Table
    changed_events: int
    hits: pa.Table | None

    @property
    def rate(self) -> float:
        """Events times the candidate's rules a second; the current rules come on top."""
        return self.evaluated / self.seconds if self.seconds else 0.0

    def report(self, path: Path | str) -> None:
        """Write a report with charts: `.html`, a page that stands alone, or `.png`, a slide.

        Raises: InputError if the extra `report` is not installed; RequestError if the file cannot
        be written or has another ending.
        """
        from tidegate.backtest.report import write

        write(self, Path(path))


def total_table(tally: Tally, amounts: Amounts) -> pa.Table:
    """One row: all events."""
    return _table(_TOTALS, [_of_events(_whole(tally), amounts)], amounts)


def days_table(tally: Tally, amounts: Amounts) -> pa.Table:
    """A row for each day with events, in order."""
    rows = [
        {"day": _day(day), **_of_events(states, amounts)}
        for day, states in sorted(tally.days.items())
    ]
    return _table({"day": pa.date32(), **_TOTALS}, rows, amounts)


def rules_table(tally: Tally, rules: Sequence[Compared], amounts: Amounts) -> pa.Table:
    """A row for each rule, and for each feature that could not be computed at times."""
    fraud = int(_whole(tally).counts[1].sum())
    rows = list(_rules(tally.by_rule(), rules, fraud, amounts, with_all=True))
    return _table(_WHAT, rows, amounts)


def rules_by_day_table(tally: Tally, rules: Sequence[Compared], amounts: Amounts) -> pa.Table:
    """A row for each day and rule that hit something on it."""
    by_day: dict[int, dict[RuleKey, States]] = {}
    for (day, key), states in tally.rules.items():
        by_day.setdefault(day, {})[key] = states
    rows = [
        {"day": _day(day), **row}
        for day, hit in sorted(by_day.items())
        for row in _rules(hit, rules, int(tally.days[day].counts[1].sum()), amounts, with_all=False)
    ]
    return _table({"day": pa.date32(), **_WHAT}, rows, amounts)


def _day(number: int) -> date:
    return _EPOCH + timedelta(days=number)


def _nothing() -> States:
    return States(np.zeros(SHAPE, np.int64), None)


def _whole(tally: Tally) -> States:
    return tally.total() or _nothing()


def _of_events(states: States, amounts: Amounts) -> dict[str, object]:
    counts = states.counts
    legitimate, fraud, unlabelled = (int(n) for n in counts.sum(axis=(1, 2)))
    return {
        "events": legitimate + fraud + unlabelled,
        "fraud": fraud,
        "legitimate": legitimate,
        "unlabelled": unlabelled,
        **side_counts("current", counts[:, 1, :].sum(axis=1), fraud),
        **side_counts("candidate", counts[:, :, 1].sum(axis=1), fraud),
        **changes(states, states, amounts),
    }


def _rules(
    hit: Mapping[RuleKey, States],
    rules: Sequence[Compared],
    fraud: int,
    amounts: Amounts,
    *,
    with_all: bool,
) -> Iterator[dict[str, object]]:
    """The rows of rules: all that rest on neither side, or only those that hit something."""
    for rule in rules:
        before, after = (hit.get((side, rule.name, False)) for side in (CURRENT, CANDIDATE))
        if before or after or (with_all and _is_at_work(rule)):
            shown = rule.shown
            what = {"rule": rule.name, "change": rule.change}
            if shown is not None:
                what |= {"action": shown.action, "mode": shown.mode}
            new = after if stops(rule.candidate) else before if allows(rule.current) else None
            gone = before if stops(rule.current) else after if allows(rule.candidate) else None
            yield {**what, **_of_rule(before, after, fraud), **changes(new, gone, amounts)}
    for name in sorted({name for _, name, is_feature in hit if is_feature}):
        before, after = (hit.get((side, name, True)) for side in (CURRENT, CANDIDATE))
        what = {"rule": name, "change": "feature failed", "action": "review", "mode": "live"}
        yield {**what, **_of_rule(before, after, fraud), **changes(None, None, amounts)}


def _is_at_work(rule: Compared) -> bool:
    return any(r is not None and r.mode != "off" for r in (rule.current, rule.candidate))


def _of_rule(before: States | None, after: States | None, fraud: int) -> dict[str, object]:
    current, candidate = ((s or _nothing()).counts.sum(axis=(1, 2)) for s in (before, after))
    return {
        **side_counts("current", current, fraud),
        **side_counts("candidate", candidate, fraud),
    }


def _table(
    first: Mapping[str, pa.DataType], rows: Sequence[Mapping[str, object]], amounts: Amounts
) -> pa.Table:
    fields: dict[str, pa.DataType] = {
        **first,
        **_MEASURES,
        **dict.fromkeys(AMOUNTS, amounts.type),
    }
    schema = pa.schema(list(fields.items()))
    columns: list[Any] = [pa.array([row[n] for row in rows], t) for n, t in fields.items()]
    return pa.Table.from_arrays(columns, schema=schema)
