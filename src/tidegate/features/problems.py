"""Mistakes in a `features.sql`, collected so that all of them are shown at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import expressions as exp

from tidegate.errors import Problem, ProjectError
from tidegate.sql.parse import position
from tidegate.sql.source import SourceText


@dataclass(slots=True)
class Problems:
    """The mistakes found so far in one text."""

    source: SourceText
    found: list[Problem] = field(default_factory=list)

    def add(self, place: exp.Expr | int, message: str, *, hint: str | None = None) -> None:
        """Note a mistake at a node of the tree, or at a character of the text."""
        at = place if isinstance(place, int) else position(_placed(place), self.source)
        self._note(self.source.problem(at, message, hint=hint))

    def adopt(self, error: ProjectError) -> None:
        """Note the mistakes that the check of an expression found."""
        for problem in error.problems:
            self._note(problem)

    def stop(self) -> None:
        """Raises: ProjectError with all that was found, if anything was."""
        if self.found:
            raise ProjectError(self.found)

    def _note(self, problem: Problem) -> None:
        # A window used many times would tell its mistake as often.
        if problem not in self.found:
            self.found.append(problem)


def _placed(node: exp.Expr) -> exp.Expr:
    """The node, or the nearest one around it of which the parser kept the place."""
    here: exp.Expr | None = node
    while here is not None and not any("start" in n.meta for n in here.walk()):
        here = here.parent
    return here or node
