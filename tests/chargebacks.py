"""A small project whose features read labels, its traffic, and what a slow twin makes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

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
is_fraud = "bigint?"
[features]
sql = "features.sql"
lateness = "10 minutes"
[labels]
column = "is_fraud"
[access]
required = false
[warehouse]
commit_every = "20 ms"
snapshot_every = "100 ms"
"""
WINDOWS = """
WINDOW card_2h AS (PARTITION BY card ORDER BY at RANGE INTERVAL 2 HOURS PRECEDING),
shop_late AS (PARTITION BY shop ORDER BY at
  RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND INTERVAL 30 MINUTES PRECEDING)
"""
FEATURES = f"""
SELECT sum(is_fraud) OVER card_2h AS card_frauds, count(is_fraud) OVER card_2h AS card_known,
  sum(CASE WHEN is_fraud = 1 THEN amount END) OVER card_2h AS card_lost,
  avg(is_fraud) OVER shop_late AS shop_rate,
  count(*) FILTER (WHERE is_fraud = 1) OVER shop_late AS shop_frauds,
  count(*) OVER card_2h AS payments
FROM events
{WINDOWS}
"""
MORE_FEATURES = FEATURES.replace(
    "AS payments", "AS payments, max(is_fraud) OVER shop_late AS worst"
)
RULES = """
[[rule]]
name = "known_thief"
when = "card_frauds > 1"
action = "block"
reason = "{card_frauds} frauds with this card within two hours"
[[rule]]
name = "said_itself"
when = "is_fraud = 1"
action = "review"
reason = "labelled before it came"
"""
NOON = datetime(2023, 6, 7, 12, tzinfo=UTC)


def write(
    folder: Path, *, features: str = FEATURES, edits: Mapping[str, str] | None = None
) -> Project:
    """The project in a folder, over the one that may be there."""
    folder.mkdir(exist_ok=True)
    settings = SETTINGS
    for old, new in (edits or {}).items():
        assert old in settings
        settings = settings.replace(old, new)
    (folder / "tidegate.toml").write_text(settings)
    (folder / "features.sql").write_text(features)
    (folder / "rules.toml").write_text(RULES)
    return load(folder)


@dataclass(frozen=True)
class Step:
    """Payments that come together, or labels that do."""

    payments: tuple[dict[str, Any], ...] = ()
    labels: tuple[dict[str, Any], ...] = ()

    @property
    def records(self) -> list[bytes]:
        return [json.dumps(row).encode() for row in self.payments or self.labels]


def traffic(count: int, *, seed: int) -> Iterator[Step]:
    """Payments, and labels of those long gone, just gone and yet to come, some of them again."""
    chance, number = random.Random(seed), 0
    while number < count:
        if chance.random() < 0.5:
            size = chance.choice([1, 1, 3, 40])
            yield Step(payments=tuple(_payment(chance, number + i) for i in range(size)))
            number += size
            continue
        found = []
        for _ in range(chance.choice([1, 1, 2, 15])):
            about = chance.choice([number - 1, chance.randrange(number + 60), number + 3])
            name = f"p{max(0, about)}" if chance.random() < 0.95 else f"x{about}"
            found.append(
                {"event_id": name, "label": chance.choice(["fraud", "fraud", "legitimate"])}
            )
        yield Step(labels=tuple(found))


def _payment(chance: random.Random, number: int) -> dict[str, Any]:
    late = chance.choice([0, 0, 0, 0, 30, 500, 9_000])
    at = NOON + timedelta(seconds=60 * number - late, microseconds=chance.randrange(3))
    return {
        "id": f"p{number if chance.random() < 0.97 else max(0, number - 5)}",
        "at": at.isoformat(),
        "card": chance.choice(["c1", "c2", "c3", None]),
        "shop": chance.randrange(2),
        "amount": f"{chance.randrange(10_000) / 100:.2f}",
        "is_fraud": chance.choice([None, None, None, 0, 1]),
    }


def in_log_order(project: Project) -> list[tuple[str, dict[str, Any]]]:
    """The accepted events and the labels, as their tables have them."""
    found = [("event", row) for row in table(project, "events", date="event_date").to_pylist()]
    if (project.data / "tables" / "labels" / "_delta_log").is_dir():
        found += [("label", r) for r in table(project, "labels", date="at_date").to_pylist()]
    return sorted(found, key=lambda item: int(item[1]["log_offset"]))


def table(project: Project, name: str, *, date: str = "event_date") -> pa.Table:
    sql = f'SELECT * EXCLUDE ({date}) FROM "{name}" ORDER BY log_offset'
    return query(project.data / "tables", sql).arrow()


def expected(project: Project) -> list[dict[str, Any]]:
    """The features of each event, all that came before it looked through for each."""
    rows: list[dict[str, Any]] = []
    early: dict[str, int] = {}
    found, newest = [], datetime(1, 1, 1)  # noqa: DTZ001 - tables give times in UTC without a zone
    for kind, item in in_log_order(project):
        if kind == "label":
            value, mine = int(item["label"] == "fraud"), item["event_id"]
            if mine not in {row["id"] for row in rows}:
                early[mine] = value
            for row in rows:
                row["is_fraud"] = value if row["id"] == mine else row["is_fraud"]
            continue
        newest = max(newest, item["at"])
        rows.append(item | {"is_fraud": early.pop(item["id"], item["is_fraud"])})
        found.append(_features(rows, newest))
    return found


def _features(rows: Sequence[dict[str, Any]], newest: datetime) -> dict[str, Any]:
    """What the last of the rows sees."""
    card = _frame(rows, "card", newest, timedelta(hours=2), timedelta())
    shop = _frame(rows, "shop", newest, timedelta(hours=3), timedelta(minutes=30))
    known = [r["is_fraud"] for r in card if r["is_fraud"] is not None]
    rates = [r["is_fraud"] for r in shop if r["is_fraud"] is not None]
    lost = [r["amount"] for r in card if r["is_fraud"] == 1 and r["amount"] is not None]
    return {
        "card_frauds": sum(known) if known else None,
        "card_known": len(known),
        "card_lost": sum(lost) if lost else None,
        "shop_rate": sum(rates) / len(rates) if rates else None,
        "shop_frauds": sum(r["is_fraud"] == 1 for r in shop),
        "payments": len(card),
    }


def _frame(
    rows: Sequence[dict[str, Any]], key: str, newest: datetime, start: timedelta, end: timedelta
) -> list[dict[str, Any]]:
    event = rows[-1]
    horizon = newest - start - timedelta(minutes=10)
    if event["at"] < horizon:
        return [event] if not end else []
    low, high = max(event["at"] - start, horizon), event["at"] - end
    return [r for r in rows if r[key] == event[key] and low <= r["at"] <= high]
