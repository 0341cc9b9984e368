"""What rules in the shadow would have done, from the decisions in the tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tidegate.decisions.decide import SEVERITY
from tidegate.program import Program
from tidegate.warehouse.query import query

# By decision: the strongest action that counts beside the rule in question, whether an `allow`
# counts, and what that rule said. A shadow rule takes the place of the live one of its name.
_DECIDED = """
WITH hits AS (
  SELECT d.log_offset, d.action AS decided, h.name, h.action, h.mode
  FROM decisions AS d, unnest(d.rules) AS t(h)
  WHERE d.log_offset >= $since AND d.version = $version
), others AS (
  SELECT log_offset, any_value(decided) AS decided,
    max(CASE WHEN mode = 'live' AND NOT (name = $rule AND $replaces)
        THEN CASE action {ranks} ELSE 0 END ELSE 0 END) AS rank,
    bool_or(mode = 'live' AND action = 'allow' AND NOT (name = $rule AND $replaces)) AS allowed,
    max(CASE WHEN mode = 'shadow' AND name = $rule
        THEN CASE action {ranks} ELSE 0 END END) AS shadow,
    bool_or(mode = 'shadow' AND name = $rule AND action = 'allow') AS allows,
    bool_or(mode = 'shadow' AND name = $rule) AS hit
  FROM hits GROUP BY log_offset
  HAVING bool_or(name = $rule)
)
SELECT decided,
  CASE WHEN allowed OR allows THEN 0 ELSE greatest(rank, coalesce(shadow, 0)) END AS rank,
  hit, count(*) AS events
FROM others GROUP BY ALL
"""
_EVENTS = "SELECT count(*) AS n FROM decisions WHERE log_offset >= $since AND version = $version"
_RANKS = " ".join(f"WHEN '{action.value}' THEN {n}" for n, action in enumerate(SEVERITY))


@dataclass(frozen=True, slots=True)
class Effect:
    """What a rule in the shadow would have done to the events since it is there.

    `hit` of `events` were hit. `changes` counts the decisions that would have been another, by
    what was decided and what would have been. `replaces` says that it would take the place of a
    live rule of its name; a rule that is rolled out to a part of the entities has `share` of them.
    """

    rule: str
    action: str
    events: int
    hit: int
    changes: dict[tuple[str, str], int]
    replaces: bool
    share: float | None

    @property
    def changed(self) -> int:
        """How many decisions would have been another."""
        return sum(self.changes.values())


def effects(program: Program, tables: Path, *, since: int) -> list[Effect]:
    """What each rule of a version that is in the shadow would have done from an offset on.

    Raises: InputError if there are no tables yet.
    """
    live = {r.name for r in program.project.rules if r.mode == "live"}
    found = []
    where: dict[str, object] = {"since": since, "version": program.version}
    events = int(query(tables, _EVENTS, parameters=where).arrow()["n"][0].as_py())
    for rule in program.rules.rules:
        shadow, partial = rule.mode == "shadow", rule.mode == "live" and rule.rollout is not None
        if not (shadow or partial):
            continue
        replaces = shadow and rule.name in live
        asked = where | {"rule": rule.name, "replaces": replaces}
        rows = query(tables, _DECIDED.format(ranks=_RANKS), parameters=asked).arrow().to_pylist()
        changes: Counter[tuple[str, str]] = Counter()
        for row in rows:
            would = SEVERITY[row["rank"]].value
            if would != row["decided"]:
                changes[row["decided"], would] += row["events"]
        hit = sum(row["events"] for row in rows if row["hit"])
        share = float(rule.rollout.share) if partial and rule.rollout is not None else None
        found.append(
            Effect(rule.name, rule.action.value, events, hit, dict(changes), replaces, share)
        )
    return found
