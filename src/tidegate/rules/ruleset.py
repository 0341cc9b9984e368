"""Rules compiled together and evaluated on a batch of columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.errors import Problem, ProjectError
from tidegate.project.settings import Rule as RuleText
from tidegate.project.values import suggestion
from tidegate.rules.reason import Reason, compile_reason
from tidegate.rules.rollout import Rollout, split
from tidegate.schema import Kind
from tidegate.sql.columns import Columns
from tidegate.sql.evaluate import truth
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
        return self.ask(Columns(batch))

    def ask(self, columns: Columns, *, key: bytes = b"") -> list[Hits]:
        """As `evaluate`; `key` is that of the pseudonyms said in the place of marked values."""
        if not self.rules or columns.rows == 0:
            return []
        truths, errors = self._evaluated.truths(columns)
        return self._hits(columns, truths, errors, key=key)

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
        if not results:
            return []
        truths = np.stack([truth(r.values) for r in results])
        errors = {k: r.errors for k, r in enumerate(results) if r.errors}
        return self._hits(Columns(batch), truths, errors, with_reasons=with_reasons, key=key)

    def _hits(
        self,
        columns: Columns,
        truths: npt.NDArray[Any],
        errors: Mapping[int, Mapping[int, str]],
        *,
        with_reasons: bool = True,
        key: bytes,
    ) -> list[Hits]:
        if not errors and not np.count_nonzero(truths):
            return []
        which, rows = np.nonzero(truths)
        bounds = np.searchsorted(which, range(len(truths) + 1)).tolist()
        found: list[Hits] = []
        for k in sorted({*which.tolist(), *errors}):
            rule, hit = self.rules[k], rows[bounds[k] : bounds[k + 1]]
            if len(hit):
                reasons = rule.reason.say(columns, hit, key=key) if with_reasons else []
                found += rolled_out(Hits(rule, rule.action, hit, reasons), columns)
            if k in errors:
                found += rolled_out(_failed(rule, errors[k]), columns)
        return found


def rolled_out(hit: Hits, columns: Columns) -> list[Hits]:
    """The hits of a rule by what it is for each event: live for the chosen, else in the shadow."""
    rule = hit.rule
    if not isinstance(rule, Rule) or rule.rollout is None or rule.mode is not Mode.LIVE:
        return [hit]
    entities = columns.array(rule.rollout.column).take(pa.array(hit.rows, pa.int64()))
    parts = split(hit.rows, hit.reasons, rule.rollout.chosen(entities))
    sides = zip((rule, replace(rule, mode=Mode.SHADOW)), parts, strict=True)
    return [Hits(who, hit.action, rows, told) for who, (rows, told) in sides if len(rows)]


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
