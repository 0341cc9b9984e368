"""A piece of SQL and where it stands in the user's files."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.errors import Problem


@dataclass(frozen=True, slots=True)
class SourceText:
    """SQL text that begins at `line`:`column` (from 1) of `file`.

    `lines` are the lines of the whole file, for showing the place.
    """

    text: str
    file: str = "<sql>"
    line: int = 1
    column: int = 1
    lines: tuple[str, ...] = ()

    def problem(self, position: int, message: str, *, hint: str | None = None) -> Problem:
        """A problem at the character `position` (from 0) of this text."""
        before = self.text[:position]
        row = before.count("\n")
        line = self.line + row
        column = position - (before.rfind("\n") + 1) + 1 + (self.column - 1 if row == 0 else 0)
        shown = self.lines or ("",) * (self.line - 1) + tuple(
            [
                " " * (self.column - 1) + t if i == 0 else t
                for i, t in enumerate(self.text.split("\n"))
            ]
        )
        text = shown[line - 1] if line <= len(shown) else ""
        return Problem(self.file, line, column, message, hint, _clipped(text, column))

    def slice(self, start: int, end: int) -> SourceText:
        """The part `text[start:end]`, still knowing where it stands in the file."""
        row = self.text.count("\n", 0, start)
        column = (
            start - (self.text.rfind("\n", 0, start) + 1) + 1 + (self.column - 1 if row == 0 else 0)
        )
        return SourceText(self.text[start:end], self.file, self.line + row, column, self.lines)


def _clipped(line: str, column: int, *, limit: int = 300) -> str:
    """The line if it is worth showing: its beginning if it is very long, nothing beyond that."""
    if len(line) <= limit:
        return line
    return f"{line[:limit]}…" if column <= limit else ""
