"""Rules compiled together and evaluated on a batch of columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.errors import Problem, ProjectError
from tidegate.project.settings import Rule as RuleText
from tidegate.project.values import suggestion
from tidegate.rules.reason import Reason, compile_reason
from tidegate.rules.rollout import Rollout, split
from tidegate.schema import Kind
from tidegate.sql.expression import Evaluated, Expression, ExpressionSet, Scope, compile_expression

Rows = npt.NDArray[np.int64]


class Action(StrEnum):
    """What a rule asks for; `allow` overrides the others, which rise in severity."""

    APPROVE = "approve"
    REVIEW = "review"
    BLOCK = "block"
    ALLOW = "allow"


class Mode(StrEnum):
    """Whether a rule decides (`live`), only reports (`shadow`), or rests (`off`)."""

    LIVE = "live"
    SHADOW = "shadow"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule; where it is rolled out, it is live for a share of the entities alone."""

    name: str
    when: Expression
    action: Action
    reason: Reason
    mode: Mode
    rollout: Rollout | None = None


@dataclass(frozen=True, slots=True)
class FailedFeature:
    """A feature that could not be computed, which a decision lists as it lists a rule."""

    name: str
    mode: Mode = Mode.LIVE


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The rows of a batch that one rule hit, ascending, with the reason for each.

    A row whose condition, or a feature of which, could not be computed counts as hit with action
    `review`: whoever can provoke an overflow must not slip past a rule by it.
    """

    rule: Rule | FailedFeature
    action: Action
    rows: Rows
    reasons: Sequence[str]


class RuleSet:
    """Rules in the order in which a decision lists them."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(r for r in rules if r.mode is not Mode.OFF)
        self.conditions = tuple(r.when for r in self.rules)
        self._evaluated = ExpressionSet(self.conditions)

    def evaluate(self, batch: pa.RecordBatch) -> list[Hits]:
        """The hits of every rule that hit something, in the order of the rules.

        The batch has the columns of the scope: those of the stream, and the features.
        """
        if not self.rules or batch.num_rows == 0:
            return []
        return self.hits(batch, self._evaluated.evaluate(batch))

    def hits(
        self,
        batch: pa.RecordBatch,
        results: Sequence[Evaluated],
        *,
        with_reasons: bool = True,
        key: bytes = b"",
    ) -> list[Hits]:
        """The hits, where somebody has evaluated `conditions` already.

        Without reasons, for counting, those of the rows that were hit are left empty. `key` is that
        of the pseudonyms that reasons say in the place of values marked `pii`.
        """
        pairs = zip(self.rules, results, strict=True)
        told = batch if with_reasons else None
        found = [hit for rule, result in pairs for hit in _hits(rule, result, told, key)]
        return [part for hit in found for part in rolled_out(hit, batch)]


def rolled_out(hit: Hits, batch: pa.RecordBatch) -> list[Hits]:
    """The hits of a rule by what it is for each event: live for the chosen, else in the shadow."""
    rule = hit.rule
    if not isinstance(rule, Rule) or rule.rollout is None or rule.mode is not Mode.LIVE:
        return [hit]
    entities = batch[rule.rollout.column].take(pa.array(hit.rows, pa.int64()))
    parts = split(hit.rows, hit.reasons, rule.rollout.chosen(entities))
    sides = zip((rule, replace(rule, mode=Mode.SHADOW)), parts, strict=True)
    return [Hits(who, hit.action, rows, told) for who, (rows, told) in sides if len(rows)]


def _hits(rule: Rule, result: Evaluated, batch: pa.RecordBatch | None, key: bytes) -> list[Hits]:
    found = []
    hit = result.values.fill_null(False)  # noqa: FBT003 - a value, not a switch
    rows = np.flatnonzero(hit.to_numpy(zero_copy_only=False))
    if len(rows):
        reasons = [] if batch is None else _reasons(rule, rows, batch, key)
        found.append(Hits(rule, rule.action, rows, reasons))
    if result.errors:
        found.append(_failed(rule, result.errors))
    return found


def _reasons(rule: Rule, rows: Rows, batch: pa.RecordBatch, key: bytes) -> list[str]:
    told = batch.select(sorted(rule.reason.columns)).take(pa.array(rows, pa.int64()))
    return rule.reason.render(told, key=key)


def _failed(rule: Rule, errors: Mapping[int, str]) -> Hits:
    return _for_review(rule, errors, f"rule `{rule.name}` could not be evaluated")


def failed_features(errors: Mapping[str, Mapping[int, str]]) -> list[Hits]:
    """The rows in which features could not be computed; `errors` gives feature, row and why."""
    return [
        _for_review(FailedFeature(name), rows, f"feature `{name}` could not be computed")
        for name, rows in errors.items()
        if rows
    ]


def _for_review(rule: Rule | FailedFeature, errors: Mapping[int, str], what: str) -> Hits:
    rows = sorted(errors)
    reasons = [f"{what}: {errors[row]}" for row in rows]
    return Hits(rule, Action.REVIEW, np.array(rows, dtype=np.int64), reasons)


def compile_rules(
    texts: Sequence[RuleText], scope: Scope, *, pii: Collection[str] = frozenset()
) -> RuleSet:
    """The compiled rules; `pii` are the columns whose values no reason says.

    Raises: ProjectError with the mistakes of all rules, those that are `off` included.
    """
    rules, problems = list[Rule](), list[Problem]()
    for text in texts:
        try:
            rules.append(_compile(text, scope, pii))
        except ProjectError as error:
            problems += error.problems
    if problems:
        raise ProjectError(problems)
    return RuleSet(rules)


def _compile(text: RuleText, scope: Scope, pii: Collection[str]) -> Rule:
    problems: list[Problem] = []
    try:
        when = compile_expression(text.when, scope, expect=Kind.BOOLEAN)
    except ProjectError as error:
        problems += error.problems
    try:
        reason = compile_reason(text.reason, replace(scope, lists=None), pii=pii)
    except ProjectError as error:
        problems += error.problems
    problems += _unfit_rollout(text, scope)
    if problems:
        raise ProjectError(problems)
    action, mode = Action(text.action), Mode(text.mode)
    return Rule(text.name, when, action, reason, mode, _rollout(text, scope))


def _rollout(text: RuleText, scope: Scope) -> Rollout | None:
    if text.rollout is None or text.rollout_by is None:
        return None
    column = scope.aliases.get(text.rollout_by.text, text.rollout_by.text)
    return Rollout(text.name, column, text.rollout)


def _unfit_rollout(text: RuleText, scope: Scope) -> list[Problem]:
    """What is wrong with the column of an entity, if anything."""
    if text.rollout_by is None:
        return []
    name = scope.aliases.get(text.rollout_by.text, text.rollout_by.text)
    declared = [c for c in scope.columns if c not in scope.computed]
    if name not in declared:
        hint = suggestion(name, declared)
        return [text.rollout_by.problem(0, f"`rollout_by` names no column: `{name}`", hint=hint)]
    if scope.columns[name].kind in (Kind.DOUBLE, Kind.JSON):
        message = f"`{name}` is {scope.columns[name]}, which tells no entity from another"
        return [text.rollout_by.problem(0, message)]
    return []
