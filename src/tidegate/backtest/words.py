"""Figures of a backtest in words, the same in a terminal, on a page and on a slide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate.backtest.result import Backtested

MISSING = "n/a"
RULE_HEAD = (
    "rule", "change", "action", "hits", "→", "precision", "→", "recall", "→",
    "newly caught", "newly disturbed", "no longer caught", "no longer disturbed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure that decides: its value, what it is, and what it is worth."""

    name: str
    value: str
    worth: str
    tone: str  # good, bad or plain


def number(value: float | Decimal | None) -> str:
    """A count or an amount with separators between thousands; amounts with two places.

    >>> number(1234), number(Decimal("1234.5")), number(None)
    ('1,234', '1,234.50', 'n/a')
    """
    if value is None:
        return MISSING
    whole = isinstance(value, int) or (isinstance(value, float) and value % 1 == 0)
    return f"{value:,.0f}" if whole else f"{value:,.2f}"


def percent(value: float | None) -> str:
    """A share as a percentage; null as `n/a`.

    >>> percent(0.12345), percent(None)
    ('12.3 %', 'n/a')
    """
    return MISSING if value is None else f"{value * 100:.1f} %"


def tiles(found: Backtested) -> list[Tile]:
    """What changes, what it is worth."""
    (total,) = found.total.to_pylist()
    return [
        _tile(total, "newly caught", "newly_caught", "amount_saved", "good"),
        _tile(total, "newly disturbed", "newly_disturbed", "amount_blocked_wrongly", "bad"),
        _tile(total, "no longer caught", "no_longer_caught", "amount_missed", "bad"),
        _tile(total, "no longer disturbed", "no_longer_disturbed", "amount_released", "good"),
    ]


def _tile(total: Mapping[str, Any], name: str, key: str, amount: str, tone: str) -> Tile:
    money = total[amount]
    worth = "" if money is None or not total[key] else f"{_money(money)} {_WORTH[amount]}"
    return Tile(name, number(total[key]), worth, tone if total[key] else "plain")


_WORTH = {
    "amount_saved": "saved",
    "amount_blocked_wrongly": "blocked wrongly",
    "amount_missed": "missed",
    "amount_released": "released",
}


def _money(value: float | Decimal) -> str:
    is_long = abs(float(value)) >= 1_000  # where cents are no more of interest
    return f"{value:,.0f}" if is_long else f"{value:,.2f}"


def rule_cells(row: Mapping[str, Any]) -> list[str]:
    """A row of `Backtested.rules` under `RULE_HEAD`."""
    shadow = "" if row["mode"] == "live" else f" ({row['mode']})"
    cells = [row["rule"], row["change"], f"{row['action']}{shadow}"]
    cells += [number(row[f"{side}_hits"]) for side in ("current", "candidate")]
    for what in ("precision", "recall"):
        cells += [percent(row[f"{side}_{what}"]) for side in ("current", "candidate")]
    changed = ("newly_caught", "newly_disturbed", "no_longer_caught", "no_longer_disturbed")
    return cells + [number(row[name]) for name in changed]
