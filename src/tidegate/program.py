"""The program: what a project's files mean, compiled; one version of what decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from tidegate.errors import Problem, ProjectError
from tidegate.features import statement as features_statement
from tidegate.features.compile import FeaturePlan, compile_features
from tidegate.features.problems import Problems as FeatureProblems
from tidegate.lists.answers import ListAnswers
from tidegate.project.document import Document
from tidegate.project.files import SETTINGS_FILE
from tidegate.project.project import Project, version
from tidegate.rules.ruleset import Hits, RuleSet, compile_rules
from tidegate.schema import ColumnType, Schema
from tidegate.sql.columns import Columns, array_of
from tidegate.sql.expression import Evaluated, ExpressionSet, Scope
from tidegate.sql.marks import carrying
from tidegate.tables import events_schema
from tidegate.windows import statement as window_statement
from tidegate.windows.problems import Problems as WindowProblems
from tidegate.windows.query import WindowQuery, compile_query

if TYPE_CHECKING:
    from tidegate.events.intake import Intake


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Rules hit, and for each window query with a WHERE its value for each event."""

    hits: list[Hits]
    chosen: dict[str, Evaluated]


@dataclass(frozen=True, eq=False)
class Program:
    """A project compiled: how to decode, what to ask, what to count."""

    project: Project
    version: str
    features: FeaturePlan | None
    rules: RuleSet
    windows: tuple[WindowQuery, ...]

    @classmethod
    def compile(cls, project: Project) -> Program:
        """The program of a project.

        Raises: ProjectError with the mistakes of all features, rules, window queries and sinks
        together; rules that stand on features are only looked at once the features are right.
        """
        problems: list[Problem] = []
        features = _compile_features(project, problems)
        rules = RuleSet([])
        if features is not None or project.features is None:
            try:
                scope, pii = _scope(project, features), _marked_features(project)
                rules = compile_rules(project.rules, scope, pii=project.stream.schema.pii | pii)
            except ProjectError as error:
                problems += error.problems
        windows = _compile_windows(project, problems)
        problems += _unknown_outputs(project, windows)
        if problems:
            raise ProjectError(problems)
        return cls(project, version(project), features, rules, windows)

    @classmethod
    def of(cls, files: Mapping[str, str]) -> Program:
        """The program of a project's files as the log keeps them."""
        return cls.compile(Project.from_files(files, root=Path()))

    @cached_property
    def intake(self) -> Intake:
        """How records become events; made when first asked for, since it loads the kernels."""
        from tidegate.events.decode import Decoder
        from tidegate.events.intake import Intake

        stream = self.project.stream
        decoder = Decoder(
            stream.schema,
            record_bytes_max=stream.record_bytes_max,
            epoch_unit=None if stream.epoch_unit == "none" else stream.epoch_unit,
        )
        return Intake(stream.schema, decoder, stream.ahead_max_us)

    def load(self) -> None:
        """Load what the first event would load, so that nobody waits for that."""
        if self.rules.rules or self.features is not None:
            from tidegate.sql.registers import warm_up

            warm_up()
        _ = self.intake

    def ask(self, events: Columns, *, key: bytes = b"") -> Answers:
        """What rules and window queries want to know of events.

        The columns are those of the events and, where the program has them, the features and the
        answers of lists (`list_answers`). `key` is that of the pseudonyms in reasons.
        """
        if not events.rows:
            return Answers([], {})
        names, expressions = self._chosen
        found = expressions.columns(events) if names else ()
        chosen = [Evaluated(array_of(values), errors) for values, errors in found]
        hits = self.rules.ask(events, key=key)
        return Answers(hits, dict(zip(names, chosen, strict=True)))

    @cached_property
    def _chosen(self) -> tuple[list[str], ExpressionSet]:
        """The conditions of window queries, by the queries' names."""
        found = {q.name: q.where for q in self.windows if q.where is not None}
        return list(found), ExpressionSet(list(found.values()))

    @property
    def lists(self) -> Mapping[str, ColumnType]:
        """The declared lists, with the types of their values."""
        return {each.name: each.type for each in self.project.lists}

    @cached_property
    def list_answers(self) -> ListAnswers:
        """What the rules ask of lists."""
        return ListAnswers(self.rules.conditions)

    @property
    def schema(self) -> Schema:
        """The declared columns of the stream."""
        return self.project.stream.schema

    @cached_property
    def pii(self) -> Mapping[str, frozenset[str]]:
        """The columns with values of columns marked `pii`, by table; empty without such marks.

        The tables are those that have any. Input that became no event may hold anything, and so may
        the values of a list: they count as marked wherever a column is.
        """
        return marked_tables(self.project)

    @property
    def files(self) -> Mapping[str, str]:
        """The texts that the program was made of."""
        return self.project.files

    @cached_property
    def events_schema(self) -> pa.Schema:
        """The Arrow schema of accepted events."""
        return events_schema(self.schema)

    @property
    def feature_schema(self) -> pa.Schema | None:
        """The Arrow schema of the features, or None where the program has none."""
        return None if self.features is None else self.features.schema

    def window_schemas(self) -> dict[str, pa.Schema]:
        """The Arrow schema of each window query's table."""
        return {q.name: q.schema for q in self.windows}


def _compile_features(project: Project, problems: list[Problem]) -> FeaturePlan | None:
    wanted = project.features
    if wanted is None:
        return None
    try:
        return compile_features(
            wanted.sql,
            project.stream.schema,
            lateness=wanted.lateness_us,
            look_back=wanted.look_back_us,
            label=project.labels.column,
        )
    except ProjectError as error:
        problems += error.problems
        return None


def _marked_features(project: Project) -> frozenset[str]:
    """The features that carry values of columns marked `pii`."""
    if project.features is None or not project.stream.schema.pii:
        return frozenset()
    sql = project.features.sql
    return carrying(features_statement.read(FeatureProblems(sql)), project.stream.schema.pii)


def marked_tables(project: Project) -> dict[str, frozenset[str]]:
    """The columns with values of columns marked `pii`, by table."""
    pii = project.stream.schema.pii
    if not pii:
        return {}
    windows = {
        window.name: carrying(window_statement.read(WindowProblems(window.sql)).select, pii)
        for window in project.windows
    }
    return _MARKED_WITH_ANY | windows | {"events": pii, "features": _marked_features(project)}


_MARKED_WITH_ANY = {
    "dead_letters": frozenset({"message", "record"}),
    "list_changes": frozenset({"value"}),
    "audit": frozenset({"detail"}),
}


def _scope(project: Project, features: FeaturePlan | None) -> Scope:
    """What rules may name: the columns of the stream, the features, and the lists."""
    scope = Scope.of(project.stream.schema)
    made = {} if features is None else {f.name: f.type for f in features.features}
    lists = {each.name: each.type for each in project.lists}
    return Scope({**scope.columns, **made}, scope.aliases, lists, frozenset(made))


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


def _unknown_outputs(project: Project, windows: Sequence[WindowQuery]) -> Iterator[Problem]:
    """Sinks that stand for an INTO which their window query does not have."""
    queries = {query.name: query for query in windows}
    settings = Document(project.files[SETTINGS_FILE], file=SETTINGS_FILE)
    for sink in project.sinks:
        query = queries.get(sink.table)
        if sink.output is None or (query and sink.output in query.outputs):
            continue
        known = ", ".join(f"`{o}`" for o in query.outputs) if query else ""
        yield settings.problem(
            ("sinks", sink.name, "output"),
            f"`{sink.table}` has no output `{sink.output}`",
            hint=f"it has {known}" if known else "only window queries with INTO have outputs",
        )
