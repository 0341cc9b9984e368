"""The candidate: a file of rules in the place of the project's, and how each rule differs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tidegate.program import Program
from tidegate.project.files import read
from tidegate.project.project import Project, read_rules
from tidegate.project.settings import Rule
from tidegate.project.tokens import tokens
from tidegate.sql.source import SourceText


def candidate_of(path: Path, project: Project, *, shadow_as_live: bool) -> Program:
    """The project with the rules of a file, which may lie anywhere.

    With `shadow_as_live` its rules in mode `shadow` decide as live ones do.
    Raises: ProjectError with all mistakes, under the file's name as given.
    """
    rules = read_rules(read(path), file=str(path))
    if shadow_as_live:
        rules = tuple(replace(r, mode="live") if r.mode == "shadow" else r for r in rules)
    return Program.compile(replace(project, rules=rules))


@dataclass(frozen=True, slots=True)
class Compared:
    """A rule by name: its text on either side, None where the side has no such rule.

    `change` is `same`, `changed`, `added` or `removed`; the words of the reason are no change.
    """

    name: str
    current: Rule | None
    candidate: Rule | None

    @property
    def change(self) -> str:
        """How the candidate's rule differs."""
        if self.current is None:
            return "added"
        if self.candidate is None:
            return "removed"
        return "same" if _meaning(self.current) == _meaning(self.candidate) else "changed"

    @property
    def shown(self) -> Rule | None:
        """The candidate's text, of a removed rule the current one."""
        return self.candidate or self.current


def compared(current: Iterable[Rule], candidate: Iterable[Rule]) -> list[Compared]:
    """All rules by name: the candidate's in their order, then those that it removes."""
    before, after = ({r.name: r for r in rules} for rules in (current, candidate))
    names = [*after, *(name for name in before if name not in after)]
    return [Compared(name, before.get(name), after.get(name)) for name in names]


def stops(rule: Rule | None) -> bool:
    """Whether the rule can stop an event."""
    return rule is not None and rule.mode == "live" and rule.action in ("review", "block")


def allows(rule: Rule | None) -> bool:
    """Whether the rule can let an event pass that others would stop."""
    return rule is not None and rule.mode == "live" and rule.action == "allow"


def _meaning(rule: Rule) -> list[object]:
    """All that is declared of a rule but its reason; SQL without its layout."""
    values = [getattr(rule, f.name) for f in fields(rule) if f.name != "reason"]
    return [tokens(v.text) if isinstance(v, SourceText) else v for v in values]
