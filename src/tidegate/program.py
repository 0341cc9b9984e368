"""The program: what a project's files mean, compiled; one version of what decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tidegate.errors import Problem, ProjectError
from tidegate.events.decode import Decoder
from tidegate.events.intake import Intake
from tidegate.project.project import Project, version
from tidegate.rules.ruleset import RuleSet, compile_rules
from tidegate.schema import Schema
from tidegate.sql.expression import Scope
from tidegate.windows.query import WindowQuery, compile_query


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A project compiled: how to decode, what to ask, what to count."""

    project: Project
    version: str
    rules: RuleSet
    windows: tuple[WindowQuery, ...]
    intake: Intake

    @classmethod
    def compile(cls, project: Project) -> Program:
        """The program of a project.

        Raises: ProjectError with the mistakes of all rules and window queries together.
        """
        problems: list[Problem] = []
        rules = RuleSet([])
        try:
            rules = compile_rules(project.rules, Scope.of(project.stream.schema))
        except ProjectError as error:
            problems += error.problems
        windows = _compile_windows(project, problems)
        if problems:
            raise ProjectError(problems)
        return cls(project, version(project), rules, windows, _intake(project))

    @classmethod
    def of(cls, files: Mapping[str, str]) -> Program:
        """The program of a project's files as the log keeps them."""
        return cls.compile(Project.from_files(files, root=Path()))

    @property
    def schema(self) -> Schema:
        """The declared columns of the stream."""
        return self.project.stream.schema

    @property
    def files(self) -> Mapping[str, str]:
        """The texts that the program was made of."""
        return self.project.files

    def window_schemas(self) -> dict[str, pa.Schema]:
        """The Arrow schema of each window query's table."""
        return {q.name: q.schema for q in self.windows}


def _compile_windows(project: Project, problems: list[Problem]) -> tuple[WindowQuery, ...]:
    compiled = []
    for window in project.windows:
        lateness = (
            project.stream.allowed_lateness_us
            if window.allowed_lateness_us is None
            else window.allowed_lateness_us
        )
        try:
            compiled.append(
                compile_query(window.name, window.sql, project.stream.schema, lateness=lateness)
            )
        except ProjectError as error:
            problems += error.problems
    return tuple(compiled)


def _intake(project: Project) -> Intake:
    stream = project.stream
    decoder = Decoder(
        stream.schema,
        record_bytes_max=stream.record_bytes_max,
        epoch_unit=None if stream.epoch_unit == "none" else stream.epoch_unit,
    )
    return Intake(stream.schema, decoder, stream.ahead_max_us)
