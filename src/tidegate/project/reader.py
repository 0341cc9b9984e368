"""Reads declared tables out of a TOML document, gathering every mistake on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from tidegate.errors import Problem
from tidegate.project.document import Document
from tidegate.project.places import Path
from tidegate.project.setting import Setting, settings_of
from tidegate.project.values import Refused, nearest, shown, suggestion
from tidegate.sql.source import SourceText

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one value stands: the `Where` of its kind."""

    document: Document
    path: Path
    files: Mapping[str, str]

    def source(self) -> SourceText:
        return self.document.source(self.path)

    def file(self, name: str) -> SourceText:
        if name not in self.files:
            known = [f for f in self.files if f.endswith(".sql")]
            close = nearest(name, known)
            hint = f"did you mean `{close}`?" if close else None
            raise Refused(f"names `{name}`, a file that is not there", hint=hint)
        return sql_file(name, self.files[name])


def sql_file(name: str, text: str) -> SourceText:
    """A whole SQL file as a text with its place."""
    return SourceText(text, name, 1, 1, tuple(line.rstrip("\r") for line in text.split("\n")))


@dataclass(slots=True)
class Reader:
    """Takes declared tables from `document`; mistakes gather in `problems`."""

    document: Document
    files: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    secret_lines: set[int] = field(default_factory=set)

    def refuse(
        self,
        path: Path,
        message: str,
        *,
        hint: str | None = None,
        at_key: bool = False,
        position: int | None = None,
    ) -> None:
        """Note a problem at the value of `path`, or at its key, or at a character of its text."""
        self.problems.append(
            self.document.problem(path, message, hint=hint, at_key=at_key, position=position)
        )

    def shown(self) -> list[Problem]:
        """The problems as they may be shown: without the text of lines that may hold a secret."""
        hidden = self.secret_lines
        return [replace(p, text="") if p.line in hidden else p for p in self.problems]

    def known(self, path: Path, names: Sequence[str]) -> set[str]:
        """Refuse the keys of a table that are not in `names`; gives the names they seem to mean."""
        meant: set[str] = set()
        for key in self.value(path) or {}:
            if key not in names:
                what = "table" if isinstance(self.value((*path, key)), dict | list) else "setting"
                hint = suggestion(key, names)
                self.refuse((*path, key), f"unknown {what} `{key}`", hint=hint, at_key=True)
                meant.add(nearest(key, names) or "")
        return meant

    def value(self, path: Path) -> Any:
        """What stands at `path`; None if nothing does."""
        value: Any = self.document.values
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def elements(self, path: Path) -> list[Path]:
        """The paths of the tables in the array of tables at `path`."""
        value = self.value(path)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            message = f"`{path[-1]}` must be tables written `[[{path[-1]}]]`, not {shown(value)}"
            self.refuse(path, message, at_key=True)
            return []
        return [(*path, i) for i in range(len(value))]

    def elements_quietly(self, path: Path) -> list[Path]:
        """The paths of the tables in the array at `path`, as far as it is one."""
        value = self.value(path)
        return [(*path, i) for i in range(len(value))] if isinstance(value, list) else []

    def members(self, path: Path) -> list[Path]:
        """The paths of the named tables in the table at `path`."""
        if not self._is_table(path):
            return []
        paths = [(*path, name) for name in self.value(path) or {}]
        return [p for p in paths if self._is_table(p)]

    def table(self, declared: type[T], path: Path, **given: Any) -> T | None:
        """The dataclass for the table at `path`; None if anything in it was refused."""
        if not self._is_table(path):
            return None
        settings = list(settings_of(declared))
        before = len(self.problems)
        meant = self.known(path, [s.key for s in settings])
        values = dict(given)
        for each in settings:
            self._setting(each, path, values, is_meant=each.key in meant)
        return declared(**values) if len(self.problems) == before else None

    def _is_table(self, path: Path) -> bool:
        value = self.value(path)
        if value is None or isinstance(value, dict):
            return True
        name = path[-1]
        self.refuse(path, f"`{name}` must be a table, not {shown(value)}", at_key=True)
        return False

    def _setting(
        self, each: Setting, path: Path, values: dict[str, Any], *, is_meant: bool
    ) -> None:
        here = (*path, each.key)
        written = self.value(here)
        if written is not None:
            try:
                values[each.field] = each.kind.parse(
                    written, _Place(self.document, here, self.files)
                )
            except Refused as refused:
                self._refusals(here, refused.parts)
        elif each.is_required and not is_meant:
            message = f"`{each.key}` is missing in {_table_name(path)}"
            self.refuse(here, message, hint=each.sentence[:1].lower() + each.sentence[1:-1])

    def _refusals(self, path: Path, refusals: Iterable[Refused]) -> None:
        for r in refusals:
            here = (*path, *r.path)
            name = next(p for p in reversed(here) if isinstance(p, str))
            problem = self.document.problem(
                here, f"`{name}` {r.message}", hint=r.hint, at_key=r.at_key, position=r.position
            )
            self.problems.append(problem)
            if r.is_secret:
                self.secret_lines.add(problem.line)


def _table_name(path: Path) -> str:
    if isinstance(path[-1], int):
        return f"`[[{path[-2]}]]`"
    return f"`[{'.'.join(str(step) for step in path)}]`"
