"""A project with payments of three days and labels, and rules in files beside it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import tidegate
from payments import encoded, payments, write
from tidegate.project.project import Project
from tidegate.tables import CONTROL_TABLES
from tidegate.warehouse import parquet
from tidegate.warehouse.layout import Layout
from tidegate.warehouse.table import Table

COUNT = 6_500
CURRENT = """
[[rule]]
name = "busy"
when = "payments_1h > 4 AND spent_1h > 2000"
action = "review"
reason = "{payments_1h} payments of {spent_1h} within the hour"
[[rule]]
name = "risky_shop"
when = "shop_risk > 0.55"
action = "block"
reason = "a risk of {shop_risk} at shop {shop}"
[[rule]]
name = "known"
when = "card = 'c2' AND amount < 20"
action = "allow"
reason = "a card that we know"
[[rule]]
name = "watched"
when = "risk > 0.95"
action = "block"
reason = "a risk of {risk}"
mode = "shadow"
"""
CANDIDATE = """
[[rule]]
name = "busy"
when = "payments_1h > 4 AND spent_1h BETWEEN 1500 AND 2050"
action = "review"
reason = "many"
[[rule]]
name = "risky_shop"
when = "shop_risk  >  0.55"
action = "block"
reason = "other words"
[[rule]]
name = "watched"
when = "risk > 0.95"
action = "block"
reason = "a risk of {risk}"
[[rule]]
name = "heavy"
when = "weight * weight > 49"
action = "review"
reason = "heavy"
"""


def build(folder: Path) -> Project:
    """The project with its payments in the tables, whose files have small row groups."""
    project = write(folder, rules=CURRENT)
    records = encoded(payments(COUNT))
    (folder / "days.ndjson").write_bytes(b"\n".join([*records[:4_000], b"{", *records[4_000:]]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_ROWS", 300)
        tidegate.open(folder).ingest([folder / "days.ndjson"])
    return project


def rows_of(project: Project, sql: str) -> list[dict[str, Any]]:
    found = tidegate.open(project.root).query(sql).arrow().to_pylist()
    return [dict(row) for row in found]


def label(project: Project, labels: Sequence[Mapping[str, Any]]) -> None:
    """Records in the table of labels, as they come of the log, from its end on."""
    schema = CONTROL_TABLES["labels"]
    path = project.data / "tables" / "labels"
    table = Table.open(path, Layout("labels", schema, "at", "at_date"))
    first = max(COUNT + 1_000, table.offset)
    blank = {"at": 0, "source": "bank", "known_at": 0, "author": "", "event_offset": None}
    rows = [{**blank, **row, "log_offset": first + i} for i, row in enumerate(labels)]
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    table.append([batch], next_offset=first + len(rows))


def labelled(project: Project, *, seed: int = 3) -> None:
    """Labels for most events: some twice, some by id alone, some of events that are not there."""
    chance = random.Random(seed)
    offsets = {
        r["id"]: r["log_offset"] for r in rows_of(project, "SELECT id, log_offset FROM events")
    }
    made = []
    for name, offset in offsets.items():
        for _ in range(chance.choice([0, 1, 1, 1, 1, 2])):
            truth = "fraud" if chance.random() < 0.2 else "legitimate"
            known = offset if chance.random() < 0.8 else None
            made.append({"event_id": name, "label": truth, "event_offset": known})
    made.append({"event_id": "nobody", "label": "fraud"})
    chance.shuffle(made)
    label(project, made)


def rule(name: str, when: str, *, action: str = "review", mode: str = "live") -> str:
    """A rule as it is written in a file; the condition may hold any quotes."""
    told = {"name": name, "when": when, "action": action, "mode": mode, "reason": "r"}
    return "[[rule]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in told.items())
