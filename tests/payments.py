"""A small project with features, its events, and what a plain run over its tables gives."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidegate.evaluator import Evaluator
from tidegate.program import Program
from tidegate.project.project import Project, load
from tidegate.warehouse.query import query

SETTINGS = """
[stream]
id = "id"
event_time = "at"
[stream.columns]
id = "text"
at = "timestamp"
card = "text?"
shop = "bigint"
amount = "decimal(9,2)?"
risk = "double?"
weight = "bigint?"
[features]
sql = "features.sql"
lateness = "10 minutes"
[warehouse]
commit_every = "20 ms"
snapshot_every = "100 ms"
"""
WINDOWS = """
WINDOW card_1h AS (PARTITION BY card ORDER BY at
  RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW),
shop_2h AS (PARTITION BY shop ORDER BY at
  RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND INTERVAL 1 MINUTE PRECEDING)
"""
FEATURES = f"""
SELECT count(*) OVER card_1h AS payments_1h, sum(amount) OVER card_1h AS spent_1h,
  avg(risk) OVER shop_2h AS shop_risk, sum(weight * weight) OVER card_1h AS squares
FROM events
{WINDOWS}
"""
MORE_FEATURES = FEATURES.replace("AS squares", "AS squares, max(risk) OVER card_1h AS riskiest")
RULES = """
[[rule]]
name = "busy"
when = "payments_1h > 4 AND spent_1h > 100"
action = "review"
reason = "{payments_1h} payments of {spent_1h} within the hour"
[[rule]]
name = "risky_shop"
when = "shop_risk > 0.55"
action = "block"
reason = "a risk of {shop_risk} at shop {shop}"
"""
NOON = datetime(2023, 6, 7, 12, tzinfo=UTC)


def write(folder: Path, *, features: str | None = FEATURES, rules: str = RULES) -> Project:
    """The project in a folder, over the one that may be there."""
    folder.mkdir(exist_ok=True)
    settings = SETTINGS
    if features is None:
        settings = settings.replace('[features]\nsql = "features.sql"\nlateness = "10 minutes"', "")
    (folder / "tidegate.toml").write_text(settings)
    (folder / "features.sql").write_text(features or "")
    (folder / "rules.toml").write_text(rules)
    return load(folder)


def payments(count: int, *, seed: int = 1, first: int = 0) -> list[dict[str, Any]]:
    """Payments, some of them late, some with values that overflow; ids count from `first`."""
    chance, made = random.Random(seed), []
    for number in range(first, first + count):
        late = chance.choice([0, 0, 0, 0, 30, 500, 9_000])
        at = NOON + timedelta(seconds=20 * number - late, microseconds=chance.randrange(10**6))
        made.append(
            {
                "id": f"p{number}",
                "at": at.isoformat(),
                "card": chance.choice(["c1", "c2", "c3", "c4", "c5", None]),
                "shop": chance.randrange(4),
                "amount": f"{chance.randrange(10_000) / 100:.2f}",
                "risk": chance.random(),
                "weight": 2**62 if chance.random() < 0.01 else chance.randrange(9),
            }
        )
    return made


def encoded(rows: Sequence[dict[str, Any]]) -> list[bytes]:
    """The payments as records."""
    return [json.dumps(row).encode() for row in rows]


def table(project: Project, name: str) -> pa.Table:
    """The rows of a table in order of the log, without the date of the partition."""
    sql = f'SELECT * EXCLUDE (event_date) FROM "{name}" ORDER BY log_offset'
    return query(project.data / "tables", sql).arrow()


def in_one_go(project: Project) -> pa.Table:
    """The features of all events by one evaluator, in one batch."""
    program = Program.compile(project)
    events = table(project, "events").combine_chunks().to_batches()
    (batch,) = events
    verdict = Evaluator(program, key=bytes(16)).evaluate(batch, decided_at=0)
    assert verdict.featured is not None
    return pa.Table.from_batches([verdict.featured.rows])


def bits(rows: pa.Table, *, without: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    """Rows that are equal only where every bit is; doubles by their hexadecimal form."""
    kept = [c for c in rows.column_names if c not in without]
    lists = [rows.column(c).to_pylist() for c in kept]
    spelt = [[v.hex() if isinstance(v, float) else v for v in values] for values in lists]
    return list(zip(*spelt, strict=True))
