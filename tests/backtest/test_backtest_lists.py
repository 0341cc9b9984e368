"""Rules that ask for lists or are rolled out to a share count as they decided live."""

from __future__ import annotations

from pathlib import Path

import pytest

import tidegate
from payments import encoded, payments, table
from tidegate.backtest import history
from tidegate.controls import ListRecord
from tidegate.ingest import taking
from tidegate.project.project import Project, load
from tidegate.records import Records
from tidegate.workspace import Workspace
from waiting import PATIENCE_SECONDS

from .backtest_shop import rule

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
[lists.blocked]
type = "text"
[lists.shops]
type = "bigint"
"""
RULES = (
    rule("listed", "card IN LIST('blocked')", action="block")
    + rule("sum", "shop + 1 IN LIST('shops') AND amount > 50")
    + rule("some", "amount > 60")
    + "rollout = '40 %'\nrollout_by = 'card'\n"
    + rule("free", "card NOT IN LIST('blocked') AND amount < 5", action="allow")
)
DAYS = 86_400_000_000


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Payments among which the lists change; one entry ends after some hours."""
    folder = tmp_path_factory.mktemp("lists") / "shop"
    folder.mkdir()
    (folder / "tidegate.toml").write_text(SETTINGS)
    (folder / "rules.toml").write_text(RULES)
    project, records = load(folder), encoded(payments(5_000))
    ends = 1_686_139_200_000_000 + DAYS // 2  # 12 hours after the first payment
    changes = [
        ListRecord("blocked", "add", ("c1",)),
        ListRecord("shops", "add", ("2", "3")),
        ListRecord("blocked", "add", ("c2", "c3"), until=ends),
        ListRecord("blocked", "remove", ("c1",)),
        ListRecord("shops", "remove", ("3",)),
    ]
    with taking(project) as taker:
        for place, change in enumerate(changes):
            part = records[place * 1_000 : (place + 1) * 1_000]
            assert list(taker.take([(Records.of(part), "test")]))
            taker.append([change], source="test")
        assert taker.finish(timeout_seconds=PATIENCE_SECONDS)
    return project


@pytest.mark.parametrize("rows", [131_072, 300])
def test_events_see_the_lists_as_they_were(
    project: Project, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(history, "PIECE_ROWS", rows)
    found = Workspace(project).backtest(project.root / "rules.toml", with_hits=True)
    assert found.remarks == (
        "there are no labels: name a column with `--label-column`, or send labels",
    )  # above all not that decisions differ
    assert found.hits is not None
    hits = found.hits.select(["side", "log_offset", "rule"]).to_pylist()
    decided = table(project, "decisions").select(["log_offset", "rules"]).to_pylist()
    listed = sorted((r["log_offset"], hit["name"]) for r in decided for hit in r["rules"])
    for side in ("current", "candidate"):
        assert sorted((h["log_offset"], h["rule"]) for h in hits if h["side"] == side) == listed
    assert {name for _, name in listed} == {"listed", "sum", "some", "free"}


def test_a_larger_share_stops_more(project: Project, tmp_path: Path) -> None:
    more = tmp_path / "more.toml"
    more.write_text(RULES.replace("40 %", "100 %"))
    found = tidegate.open(project.root).backtest(more)
    (row,) = (r for r in found.rules.to_pylist() if r["rule"] == "some")
    assert (row["change"], row["current_hits"]) == ("changed", row["candidate_hits"])
    (total,) = found.total.to_pylist()
    assert total["candidate_hits"] > total["current_hits"]
