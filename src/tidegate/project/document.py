"""A TOML file, read with the place of each key and value, which tomllib does not tell."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tidegate.errors import Problem, ProjectError
from tidegate.project.places import Path, Place, places
from tidegate.sql.source import SourceText


@dataclass(frozen=True, slots=True)
class WrittenText(SourceText):
    """SQL text inside a TOML string, each character of which may be written as an escape.

    `places` has line and column of each character, and at its end of the end.
    """

    places: tuple[tuple[int, int], ...] = ()

    def problem(self, position: int, message: str, *, hint: str | None = None) -> Problem:
        """A problem at the character `position` (from 0) of this text."""
        line, column = self.places[min(position, len(self.places) - 1)]
        return Problem(self.file, line, column, message, hint, self.lines[line - 1])

    def slice(self, start: int, end: int) -> SourceText:
        """The part `text[start:end]`, still knowing where it stands in the file."""
        places = self.places[start : end + 1]
        return WrittenText(self.text[start:end], self.file, *places[0], self.lines, places)


class Document:
    """The values of a TOML file (`values`) and the places of its keys.

    Raises: ProjectError if it is not TOML.
    """

    def __init__(self, text: str, *, file: str) -> None:
        self.file = file
        self.text = text.replace("\r\n", "\n")
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
            self._places = places(self.text)
        except (ValueError, RecursionError) as error:
            raise ProjectError([self._syntax_problem(error)]) from error

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The lines of the file."""
        return tuple(self.text.split("\n"))

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(m.end() for m in re.finditer("\n", self.text))]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of a character of the file."""
        row = bisect_right(self._starts, offset) - 1
        return row + 1, offset - self._starts[row] + 1

    def problem(
        self,
        path: Path,
        message: str,
        *,
        hint: str | None = None,
        at_key: bool = False,
        position: int | None = None,
    ) -> Problem:
        """A problem at the value of `path`, or at its key, or at a character of its text.

        What is not written at all is shown at the nearest table around it.
        """
        while path and path not in self._places:
            path, at_key, position = path[:-1], True, None
        place = self._places.get(path, Place(0, 0))
        offset = place.key if at_key else place.value
        if position is not None and place.origins:
            offset = place.origins[min(position, len(place.origins) - 1)]
        return self._problem_at(*self.position(offset), message, hint)

    def source(self, path: Path) -> SourceText:
        """The text value at `path` with its place."""
        value: Any = self.values
        for step in path:
            value = value[step]
        places = tuple(self.position(o) for o in self._places[path].origins)
        line, column = places[0]
        return WrittenText(value, self.file, line, column, self.lines, places)

    def _problem_at(self, line: int, column: int, message: str, hint: str | None) -> Problem:
        return Problem(self.file, line, column, message, hint, self.lines[line - 1])

    def _syntax_problem(self, error: Exception) -> Problem:
        if isinstance(error, RecursionError):
            return self._problem_at(1, 1, "not TOML: nested too deeply", None)
        message = str(error)
        found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        line, column = len(self.lines), len(self.lines[-1]) + 1
        if found and found[1]:
            line, column = min(int(found[1]), line), int(found[2])
        reason = message[: found.start()] if found else message
        # tomllib quotes what it saw at the end of some messages; the first letter is its capital.
        return self._problem_at(line, column, f"not TOML: {reason[:1].lower()}{reason[1:]}", None)
