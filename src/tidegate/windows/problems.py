"""Mistakes in a window query, collected so that all of them are shown at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from tidegate.errors import Problem, ProjectError
from tidegate.sql.source import SourceText


@dataclass(slots=True)
class Problems:
    """The mistakes found so far in one query."""

    source: SourceText
    found: list[Problem] = field(default_factory=list)

    def add(self, place: exp.Expr | int, message: str, *, hint: str | None = None) -> None:
        """Note a mistake at a node of the tree or at a character of the text."""
        where = place if isinstance(place, int) else position(place)
        problem = self.source.problem(where, message, hint=hint)
        if problem not in self.found:
            self.found.append(problem)

    def adopt(self, error: ProjectError) -> None:
        """Note the mistakes that another stage found."""
        self.found.extend(p for p in error.problems if p not in self.found)

    def stop(self) -> None:
        """Raises: ProjectError with all that was found, if anything was."""
        if self.found:
            raise ProjectError(self.found)


def position(node: exp.Expr) -> int:
    """The character of the text at which a node begins, as far as its tokens tell."""
    starts = [n.meta["start"] for n in node.walk() if "start" in n.meta]
    if not starts and node.parent is not None:
        return position(node.parent)
    return min(starts, default=0)
