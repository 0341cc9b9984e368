"""One decision for each event, from the rules it hit."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidegate.decisions.decide import decide
from tidegate.decisions.whose import Whose
from tidegate.rules.reason import compile_reason
from tidegate.rules.ruleset import Action, Hits, Mode, Rule, failed_features
from tidegate.schema import Schema
from tidegate.sql.expression import Scope, compile_expression
from tidegate.sql.source import SourceText
from tidegate.tables import DECISIONS, events_schema

SCHEMA = Schema.of([("id", "text"), ("ts", "timestamp")], id="id", event_time="ts")
SCOPE = Scope.of(SCHEMA)
BEGIN = datetime.fromisoformat("2023-06-06T20:24:00")


def events(n: int) -> pa.RecordBatch:
    rows = [
        {
            "id": f"e{i}",
            "ts": BEGIN + timedelta(seconds=i),
            "ingest_time": BEGIN,
            "source": "test",
            "log_offset": 100 + i,
        }
        for i in range(n)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=events_schema(SCHEMA))


def rule(name: str, action: Action, mode: Mode = Mode.LIVE) -> Rule:
    when = compile_expression(SourceText("id = 'e1'"), SCOPE)
    return Rule(name, when, action, compile_reason(SourceText("because"), SCOPE), mode)


def hits(hit: Rule, *rows: int) -> Hits:
    reasons = [f"{hit.name} at {row}" for row in rows]
    return Hits(hit, hit.action, np.array(rows, dtype=np.int64), reasons)


def decided(n: int, *found: Hits) -> list[dict[str, object]]:
    whose = Whose.of(events(n), SCHEMA)
    batch = decide(whose, found, version="v1", decided_at=7).rows
    assert batch.schema == DECISIONS
    batch.validate(full=True)
    return batch.to_pylist()


def test_an_event_without_hits_is_approved() -> None:
    (row,) = decided(1)
    assert row["action"] == "approve"
    assert row["rules"] == []


def test_many_events_are_decided_as_few_are() -> None:
    """Hits that are looked at one by one and those that are taken as columns come out alike."""
    severe, mild = rule("severe", Action.BLOCK), rule("mild", Action.REVIEW, Mode.SHADOW)
    free, n = rule("free", Action.ALLOW), 3000
    every = {severe: range(0, n, 2), mild: range(0, n, 3), free: range(0, n, 5)}
    whole = decided(n, *(hits(hit, *rows) for hit, rows in every.items()))
    for row in (0, 1, 6, 10, n - 1):
        alone = [hits(hit, row) for hit, rows in every.items() if row in rows]
        whose = Whose.of(events(n).slice(row, 1), SCHEMA)
        decisions = decide(whose, _at(alone, 0), version="v1", decided_at=7)
        assert decisions.rows.to_pylist() == [whole[row]]


def _at(found: list[Hits], row: int) -> list[Hits]:
    return [Hits(h.rule, h.action, np.array([row]), h.reasons) for h in found]


def test_no_events_make_no_decisions() -> None:
    assert decided(0) == []


def test_the_decision_carries_id_time_version_and_offset() -> None:
    (row,) = decided(1)
    assert (row["event_id"], row["event_time"]) == ("e0", BEGIN)
    assert (row["version"], row["log_offset"], row["score"]) == ("v1", 100, None)


def test_the_most_severe_action_counts_and_every_hit_is_listed() -> None:
    found = [hits(rule("a", Action.BLOCK), 0), hits(rule("b", Action.REVIEW), 0, 1)]
    first, second = decided(2, *found)
    assert (first["action"], second["action"]) == ("block", "review")
    assert first["rules"] == [
        {"name": "a", "action": "block", "mode": "live", "reason": "a at 0"},
        {"name": "b", "action": "review", "mode": "live", "reason": "b at 0"},
    ]


def test_allow_overrides_block() -> None:
    found = [hits(rule("a", Action.BLOCK), 0), hits(rule("vip", Action.ALLOW), 0)]
    assert decided(1, *found)[0]["action"] == "approve"


def test_shadow_hits_are_listed_and_change_nothing() -> None:
    (row,) = decided(1, hits(rule("try", Action.BLOCK, Mode.SHADOW), 0))
    assert row["action"] == "approve"
    assert row["rules"] == [
        {"name": "try", "action": "block", "mode": "shadow", "reason": "try at 0"}
    ]


RULES = [rule(f"r{i}{m}", a, m) for m in (Mode.LIVE, Mode.SHADOW) for i, a in enumerate(Action)]


@given(st.lists(st.tuples(st.sampled_from(RULES), st.sets(st.integers(0, 5), min_size=1))))
def test_decisions_equal_those_made_one_by_one(drawn: list[tuple[Rule, set[int]]]) -> None:
    found = [hits(r, *sorted(rows)) for r, rows in drawn]
    for i, row in enumerate(decided(6, *found)):
        own = [h for h in found if i in h.rows]
        live = [h.action for h in own if h.rule.mode is Mode.LIVE]
        expected = max(
            (a for a in live if a is not Action.ALLOW), key=list(Action).index, default="approve"
        )
        assert row["action"] == ("approve" if Action.ALLOW in live else expected)
        assert [r["name"] for r in row["rules"]] == [h.rule.name for h in own]  # type: ignore[attr-defined]


def test_a_feature_that_could_not_be_computed_calls_for_a_review_and_is_named() -> None:
    failed = failed_features({"spent": {1: "overflow in `sum(n)`"}, "seen": {}})
    plain, reviewed = decided(2, *failed)
    assert (plain["action"], plain["rules"]) == ("approve", [])
    assert reviewed["action"] == "review"
    assert reviewed["rules"] == [
        {
            "name": "spent",
            "action": "review",
            "mode": "live",
            "reason": "feature `spent` could not be computed: overflow in `sum(n)`",
        }
    ]


def test_a_block_is_stronger_than_a_feature_that_could_not_be_computed() -> None:
    failed = failed_features({"spent": {0: "overflow"}})
    (row,) = decided(1, hits(rule("r", Action.BLOCK), 0), *failed)
    assert row["action"] == "block"
