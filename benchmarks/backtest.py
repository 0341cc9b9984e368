"""A backtest of 50 rules over stored events and features, beside the same counts in DuckDB."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import ROOT, fresh_folder
from benchmarks.result import Result, Target
from tidegate.testing import cards
from tidegate.workspace import Workspace
from tidegate.workspace import open as open_project

RULES = 50
_EXAMPLE = ROOT / "examples" / "cards"
_TARGET = 20e6


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: days of the payments of so many customers."""

    days: int = 180
    customers: int = 10_000
    rounds: int = 5

    @classmethod
    def quick(cls) -> Size:
        """Just enough to see that it works."""
        return cls(days=2, customers=200, rounds=1)


def condition(number: int, *, stricter: int = 0) -> str:
    """The condition of a rule: three or four terms on columns and features.

    >>> condition(0)
    'amount > 220 AND amount_ratio_30d > 2.0 AND card_payments_1d >= 1'
    """
    step = number // 5 + stricter
    ratio = 2 + step / 10
    return (
        f"amount > {220 - 3 * step} AND amount_ratio_30d > {ratio} AND card_payments_1d >= 1",
        f"terminal_risk_7d > {0.5 + step / 50} AND terminal_payments_7d >= 2 AND amount > 5",
        f"failed_logins_1h >= 2 AND card_devices_7d > 1 AND device_cards_7d < {20 - step}",
        f"seconds_since_last < {60 + step} AND amount > usual_amount_30d * {ratio}",
        f"(during_night OR during_weekend) AND card_payments_7d > {40 + step} AND amount > 50",
    )[number % 5]  # fmt: skip


def rules(*, stricter: int = 0) -> str:
    """A file of 50 rules; with other thresholds than the first ones where they are stricter."""
    return "".join(
        f'[[rule]]\nname = "rule_{n}"\nwhen = "{condition(n, stricter=stricter)}"\n'
        f'action = "{"block" if n % 5 == 0 else "review"}"\nreason = "rule {n}"\n'
        for n in range(RULES)
    )


def measure(size: Size) -> Iterator[Result]:
    """The results of this benchmark, as they come."""
    with fresh_folder() as folder:
        shop = _filled(Path(shutil.copytree(_EXAMPLE, folder / "cards")), size)
        candidate = folder / "candidate.toml"
        candidate.write_text(rules(stricter=1))
        pairs = [(_ours(shop, candidate), _in_duckdb(shop)) for _ in range(size.rounds)]
        (events,) = shop.query("SELECT count(*) FROM events").arrow().column(0).to_pylist()
        yield Result.beside(
            "backtest.rules",
            f"{RULES} rules beside {RULES} others over {events:,} stored card payments",
            pairs,
            unit="million events · rules/s",
            peer="DuckDB, one SELECT that counts the hits of both",
            target=Target("value", "≥", _TARGET / 1e6),
            note="only the candidate's rules are counted as work; the time covers reading the "
            "tables, both sides, labels, counts by rule and day, and the check against the stored "
            "decisions. DuckDB reads the same tables and counts hits alone",
        )


def _filled(folder: Path, size: Size) -> Workspace:
    """A project with 50 rules and the payments in its tables."""
    (folder / "rules.toml").write_text(rules())
    file = folder / "payments.ndjson"
    with file.open("wb") as out:
        out.writelines(cards.generate_ndjson(size.days, seed=7, customers=size.customers))
    shop = open_project(folder)
    shop.ingest([file])
    file.unlink()
    return shop


def _ours(shop: Workspace, candidate: Path) -> float:
    """Millions of events times rules a second."""
    return shop.backtest(candidate, label_column="is_fraud").rate / 1e6


def _in_duckdb(shop: Workspace) -> float:
    begun = time.perf_counter()
    both = [condition(n, stricter=side) for side in (0, 1) for n in range(RULES)]
    counts = ", ".join(f"count_if({text}) AS r{n}" for n, text in enumerate(both))
    sql = f"SELECT count(*) AS events, {counts} FROM events JOIN features USING (log_offset)"
    (row,) = shop.query(sql).arrow().to_pylist()
    return float(row["events"] * RULES / (time.perf_counter() - begun) / 1e6)
