"""A backtest says what a replay with the candidate's rules and plain SQL over the tables say."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidegate
from payments import table
from tidegate.backtest import history
from tidegate.backtest.candidate import candidate_of
from tidegate.backtest.result import Backtested
from tidegate.clock import SystemClock
from tidegate.program import Program
from tidegate.project.project import Project, read_rules
from tidegate.replay import replay, table_history
from tidegate.targets import ToFile

from .backtest_shop import CANDIDATE, COUNT, CURRENT, build, labelled, rule

FIRST_DAY = date(2023, 6, 7)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = build(tmp_path_factory.mktemp("backtest") / "shop")
    labelled(project)
    return project


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "candidate.toml").write_text(CANDIDATE)
    return tmp_path / "candidate.toml"


@pytest.fixture(params=[None, 700], ids=["one piece", "many pieces"])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(history, "PIECE_ROWS", request.param)


def replayed(project: Project, file: Path) -> pa.Table:
    """What a replay with the rules of a file makes of all events."""
    target = file.with_name(f"replayed{next(_numbers)}.parquet")
    program = candidate_of(file, project, shadow_as_live=False)
    events = table_history(project.data / "tables" / "events", program)
    replay(program, events, ToFile(target), clock=SystemClock())
    return pq.read_table(target)


def hits(found: Backtested, side: str) -> list[tuple[int, str]]:
    assert found.hits is not None
    rows = found.hits.select(["side", "log_offset", "rule"]).to_pylist()
    return sorted((r["log_offset"], r["rule"]) for r in rows if r["side"] == side)


def listed(decisions: pa.Table) -> list[tuple[int, str]]:
    """Offset and name of each rule that decisions list."""
    rows: list[dict[str, Any]] = decisions.select(["log_offset", "rules"]).to_pylist()
    return sorted((r["log_offset"], hit["name"]) for r in rows for hit in r["rules"])


# -- beside a replay -------------------------------------------------------------------------------


@pytest.mark.usefixtures("_pieces")
def test_the_hits_are_those_of_a_replay(project: Project, file: Path) -> None:
    found = tidegate.open(project.root).backtest(file, with_hits=True)
    again = replayed(project, file)
    assert hits(found, "candidate") == listed(again)
    assert {"busy", "risky_shop", "watched", "heavy", "squares"} == {n for _, n in listed(again)}
    assert hits(found, "current") == listed(table(project, "decisions"))
    assert found.events == COUNT


_OPERANDS: list[tuple[str, list[float]]] = [
    ("payments_1h", [2, 5, 9]),
    ("spent_1h", [100, 2000.5]),
    ("shop_risk", [0.45, 0.5]),
    ("squares", [40, 200]),
    ("amount", [20, 99.99]),
    ("risk", [0.2, 0.9]),
    ("weight * weight", [4, 70]),
    ("weight + 9223372036854775800", [9223372036854775803]),
    ("shop", [1, 3]),
]


@st.composite
def _terms(draw: st.DrawFn) -> str:
    name, constants = draw(st.sampled_from(_OPERANDS))
    plain = [f"{name} {op} {c}" for op in (">", "<=", "=", "<>") for c in constants]
    other = ["card IS NULL", "card IN ('c1', 'c3')", "card LIKE 'c%'", f"{name} IS NULL", "true"]
    return draw(st.sampled_from([*plain, *other]))


_CONDITIONS = st.recursive(
    _terms(),
    lambda below: st.one_of(
        st.tuples(below, st.sampled_from(["AND", "OR"]), below).map(lambda t: f"({' '.join(t)})"),
        below.map(lambda term: f"NOT ({term})"),
    ),
    max_leaves=4,
)
_ACTIONS = st.sampled_from(["allow", "approve", "review", "block"])
_MODES = st.sampled_from(["live", "live", "shadow", "off"])
_RULES = st.tuples(_CONDITIONS, _ACTIONS, _MODES)


@settings(max_examples=20)
@given(rules=st.lists(_RULES, max_size=6))
def test_random_rules_hit_and_decide_as_in_a_replay(
    project: Project, tmp_path_factory: pytest.TempPathFactory, rules: list[tuple[str, str, str]]
) -> None:
    file = tmp_path_factory.mktemp("random") / "candidate.toml"
    written = [rule(f"r{i}", w, action=a, mode=m) for i, (w, a, m) in enumerate(rules)]
    file.write_text("".join(written))
    found = tidegate.open(project.root).backtest(file, with_hits=True)
    again = replayed(project, file)
    assert hits(found, "candidate") == listed(again)
    before, after = (
        {r["log_offset"]: r["action"] for r in decided.to_pylist()}
        for decided in (table(project, "decisions"), again)
    )
    changed = {
        r["log_offset"]: (r["current"], r["candidate"], sorted(r["candidate_rules"]))
        for r in found.changed.to_pylist()
    }
    names: dict[int, list[str]] = {}
    for offset, name in listed(again):
        names.setdefault(offset, []).append(name)
    assert changed == {
        o: (before[o], after[o], names.get(o, [])) for o in before if before[o] != after[o]
    }


# -- beside SQL ------------------------------------------------------------------------------------

# The definitions of docs/backtest.md, from the events, the labels, the decisions and a replay.
_EVENTS = """
CREATE TEMP TABLE seen AS
WITH last AS (
  SELECT event_id, arg_max(label, log_offset) AS label,
         arg_max({'o': event_offset}, log_offset).o AS event_offset
  FROM labels GROUP BY event_id)
SELECT e.log_offset, CAST(e.at AS DATE) AS day, coalesce(e.amount, 0) AS amount, l.label,
  d.action IN ('review', 'block') AS cur, r.action IN ('review', 'block') AS cand,
  [x.name FOR x IN d.rules] AS cur_rules, [x.name FOR x IN r.rules] AS cand_rules
FROM events e JOIN decisions d USING (log_offset) JOIN replayed r USING (log_offset)
LEFT JOIN last l ON l.event_offset = e.log_offset
  OR (l.event_offset IS NULL AND l.event_id = e.id)
"""
_CHANGES = """
  count(*) FILTER (NOT cur AND cand AND label = 'fraud' AND {new}) AS newly_caught,
  count(*) FILTER (NOT cur AND cand AND label = 'legitimate' AND {new}) AS newly_disturbed,
  count(*) FILTER (cur AND NOT cand AND label = 'fraud' AND {gone}) AS no_longer_caught,
  count(*) FILTER (cur AND NOT cand AND label = 'legitimate' AND {gone}) AS no_longer_disturbed,
  coalesce(sum(amount) FILTER (NOT cur AND cand AND label = 'fraud' AND {new}), 0)
    AS amount_saved,
  coalesce(sum(amount) FILTER (NOT cur AND cand AND label = 'legitimate' AND {new}), 0)
    AS amount_blocked_wrongly,
  coalesce(sum(amount) FILTER (cur AND NOT cand AND label = 'fraud' AND {gone}), 0)
    AS amount_missed,
  coalesce(sum(amount) FILTER (cur AND NOT cand AND label = 'legitimate' AND {gone}), 0)
    AS amount_released
"""
_SIDE = """
  count(*) FILTER ({hit}) AS {side}_hits,
  count(*) FILTER ({hit} AND label = 'fraud') AS {side}_fraud,
  count(*) FILTER ({hit} AND label = 'legitimate') AS {side}_legitimate,
  count(*) FILTER ({hit} AND label = 'fraud')
    / nullif(count(*) FILTER ({hit} AND label IS NOT NULL), 0) AS {side}_precision,
  count(*) FILTER ({hit} AND label = 'fraud') / nullif(count(*) FILTER (label = 'fraud'), 0)
    AS {side}_recall,
"""
_TOTALS = """
  count(*) AS events, count(*) FILTER (label = 'fraud') AS fraud,
  count(*) FILTER (label = 'legitimate') AS legitimate,
  count(*) FILTER (label IS NULL) AS unlabelled,
"""


class Oracle:
    """DuckDB over the tables of the project and a replay with the candidate's rules."""

    def __init__(self, project: Project, file: Path) -> None:
        self._connection = duckdb.connect()
        everything = tidegate.open(project.root)
        for name in ("events", "labels", "decisions"):
            self._connection.register(name, everything.query(f"SELECT * FROM {name}").arrow())
        self._connection.register("replayed", replayed(project, file))
        self._connection.execute(_EVENTS)

    def events(self, group: str = "", *, where: str = "true") -> list[dict[str, Any]]:
        """The figures of all events, or by day."""
        sides = "".join(_SIDE.format(side=f"{s}", hit=h) for s, h in _SIDES.items())
        return self._rows(
            f"SELECT {group + ',' if group else ''} {_TOTALS} {sides} "
            f"{_CHANGES.format(new='true', gone='true')} FROM seen WHERE {where} "
            + (f"GROUP BY {group} ORDER BY {group}" if group else "")
        )

    def rule(self, name: str, *, new: str, gone: str) -> dict[str, Any]:
        """The figures of one rule."""
        hit = {s: f"list_contains({h}_rules, '{name}')" for s, h in _SIDES.items()}
        sides = "".join(_SIDE.format(side=s, hit=h) for s, h in hit.items())
        changes = _CHANGES.format(new=new.format(**hit), gone=gone.format(**hit))
        (row,) = self._rows(f"SELECT {sides} {changes} FROM seen")
        return row

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._connection.sql(sql).to_arrow_table().to_pylist()
        return found


_SIDES = {"current": "cur", "candidate": "cand"}


@pytest.mark.usefixtures("_pieces")
def test_counts_are_those_of_plain_sql(project: Project, file: Path) -> None:
    found = tidegate.open(project.root).backtest(file)
    oracle = Oracle(project, file)
    assert found.total.to_pylist() == oracle.events()
    assert found.days.to_pylist() == oracle.events("day")
    assert found.days.num_rows == 3
    (total,) = found.total.to_pylist()
    assert [name for name, value in total.items() if not value] == []
    assert found.labels == "table `labels`"


@pytest.mark.parametrize(
    ("name", "new", "gone"),
    [
        ("busy", "{candidate}", "{current}"),
        ("watched", "{candidate}", "false"),  # it was in the shadow: nothing was stopped by it
        ("heavy", "{candidate}", "false"),
        ("known", "{current}", "false"),  # it allowed what is stopped now
        ("squares", "false", "false"),  # a feature that could not be computed, on both sides
    ],
)
def test_each_rule_counts_as_plain_sql_does(
    project: Project, file: Path, name: str, new: str, gone: str
) -> None:
    found = tidegate.open(project.root).backtest(file)
    (row,) = (r for r in found.rules.to_pylist() if r["rule"] == name)
    expected = Oracle(project, file).rule(name, new=new, gone=gone)
    assert {k: row[k] for k in expected} == expected
    assert row["current_hits"] + row["candidate_hits"] > 0


def test_the_rules_of_a_day_add_up_to_the_rules(project: Project, file: Path) -> None:
    found = tidegate.open(project.root).backtest(file)
    counts = [n for n in found.rules.column_names if found.rules.schema.field(n).type == pa.int64()]
    sums = found.rules_by_day.group_by("rule").aggregate([(n, "sum") for n in counts])
    by_rule = {r["rule"]: [r[f"{n}_sum"] for n in counts] for r in sums.to_pylist()}
    assert by_rule == {r["rule"]: [r[n] for n in counts] for r in found.rules.to_pylist()}


def test_only_the_days_asked_for_count(project: Project, file: Path) -> None:
    second = date(2023, 6, 8)
    found = tidegate.open(project.root).backtest(file, first=second, until=date(2023, 6, 9))
    oracle = Oracle(project, file)
    assert found.total.to_pylist() == oracle.events(where="day = '2023-06-08'")
    assert found.days.column("day").to_pylist() == [second]
    nothing = tidegate.open(project.root).backtest(file, until=FIRST_DAY)
    assert nothing.events == 0
    assert nothing.remarks == ("there are no events in these days",)
    assert [r["candidate_precision"] for r in nothing.total.to_pylist()] == [None]


# -- what differs between the files ----------------------------------------------------------------


def test_each_rule_says_how_it_differs(project: Project, file: Path) -> None:
    found = tidegate.open(project.root).backtest(file)
    shown = {r["rule"]: (r["change"], r["action"], r["mode"]) for r in found.rules.to_pylist()}
    assert shown == {
        "busy": ("changed", "review", "live"),
        "risky_shop": ("same", "block", "live"),
        "watched": ("changed", "block", "live"),
        "heavy": ("added", "review", "live"),
        "known": ("removed", "allow", "live"),
        "squares": ("feature failed", "review", "live"),
    }


def test_the_same_rules_change_nothing(project: Project) -> None:
    found = tidegate.open(project.root).backtest(project.root / "rules.toml")
    assert found.candidate_version == found.current_version
    assert found.changed_events == 0
    (total,) = found.total.to_pylist()
    assert total["current_hits"] == total["candidate_hits"] > 0
    assert not [n for n in total if n.startswith(("newly", "no_longer")) and total[n]]


def test_shadow_rules_decide_only_when_asked_to(project: Project, tmp_path: Path) -> None:
    rules = project.root / "rules.toml"
    found = tidegate.open(project.root).backtest(rules, shadow_as_live=True)
    live = tmp_path / "live.toml"
    live.write_text(CURRENT.replace('mode = "shadow"', 'mode = "live"'))
    assert found.total == tidegate.open(project.root).backtest(live).total
    (total,) = found.total.to_pylist()
    assert total["newly_caught"] > 0


def test_rules_that_are_off_are_left_alone(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "off.toml"
    file.write_text(rule("asleep", "true", mode="off"))
    found = tidegate.open(project.root).backtest(file)
    assert "asleep" not in found.rules.column("rule").to_pylist()
    assert found.evaluated == 0


def test_rules_without_columns_hit_all_or_nothing(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(rule("all", "1 < 2") + rule("none", "NULL"))
    alone = replace(project, rules=read_rules(file.read_text(), file="all.toml"), features=None)
    assert Program.compile(alone).rules.rules[0].when.columns == frozenset()
    found = tidegate.open(project.root).backtest(file)
    counts = {r["rule"]: r["candidate_hits"] for r in found.rules.to_pylist()}
    assert (counts["all"], counts["none"]) == (COUNT, 0)


def test_progress_ends_with_all_rows(
    project: Project, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PIECE_ROWS", 700)
    told: list[tuple[int, int]] = []
    tidegate.open(project.root).backtest(file, progress=lambda *step: told.append(step))
    assert len(told) > 5
    assert told[-1][0] == told[-1][1] == COUNT
    assert told == sorted(told)
