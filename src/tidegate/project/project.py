"""A project: what the user wrote, read and checked as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tidegate.errors import Problem, ProjectError
from tidegate.project.checks import (
    check_lists,
    check_names,
    check_places,
    check_rules,
    check_sink,
    check_stream,
    check_tls,
    check_window,
)
from tidegate.project.document import Document
from tidegate.project.files import RULES_FILE, SETTINGS_FILE, gather
from tidegate.project.labels import check_labels
from tidegate.project.reader import Reader
from tidegate.project.setting import Setting, settings_of
from tidegate.project.settings import (
    Access,
    Data,
    Features,
    Labels,
    Log,
    Query,
    Rule,
    Score,
    Service,
    Stream,
    ValueList,
    Warehouse,
    Window,
)
from tidegate.project.sinks import TYPES, Sink
from tidegate.project.tls import check_tls_files
from tidegate.project.tokens import tokens
from tidegate.project.values import suggestion


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project's settings, rules and queries, and the exact text of the files they came from.

    `files` has every file that makes the version, by name: `tidegate.toml`, `rules.toml` if there
    is one, and the SQL files that they name. `data` is the data folder. SQL is not compiled yet.
    """

    root: Path
    files: Mapping[str, str]
    stream: Stream
    features: Features | None
    labels: Labels
    rules: tuple[Rule, ...]
    windows: tuple[Window, ...]
    lists: tuple[ValueList, ...]
    sinks: tuple[Sink, ...]
    service: Service
    score: Score
    access: Access
    query: Query
    warehouse: Warehouse
    log: Log
    data: Path

    @classmethod
    def from_files(cls, files: Mapping[str, str], *, root: Path) -> Project:
        """The project that the texts of its files make, as when it is read back from the log.

        Raises: ProjectError with all problems.
        """
        return _read(files, root=root)


def load(root: Path) -> Project:
    """The project in the folder `root`. Raises: ProjectError with all problems."""
    files, problems = gather(root)
    project = _read(files, root=root, unreadable=problems)
    # Of the folder alone: a project that is read back from the log needs no certificate.
    check_tls_files(project.service, root=root, settings=files[SETTINGS_FILE])
    return project


def read_rules(text: str, *, file: str) -> tuple[Rule, ...]:
    """The rules in the text of a file laid out as `rules.toml`; `file` is its name in messages.

    Raises: ProjectError with all problems.
    """
    reader = Reader(Document(text, file=file), {})
    rules: tuple[Rule, ...] = _read_rules(reader)["rules"]
    if problems := reader.shown():
        raise ProjectError(problems)
    return rules


def version(project: Project) -> str:
    """12 hexadecimal digits that stand for the features, rules, window queries and stream settings.

    Equal for projects that decide alike by what is written, whatever their service and sinks,
    comments and layout. Two texts with different meaning never count as equal; two ways of writing
    the same condition may count as different.
    """
    content = json.dumps(_content(project), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _content(project: Project) -> list[object]:
    stream = project.stream
    return [
        "tidegate 1",
        [[c.name, str(c)] for c in stream.columns],
        # What has its default is left out, so that a setting added later changes no version.
        [[s.key, getattr(stream, s.field)] for s in settings_of(Stream) if _is_chosen(s, stream)],
        [_rule(rule) for rule in project.rules],
        [[w.name, tokens(w.sql.text), w.allowed_lateness_us] for w in project.windows],
        # Not even an empty list where there are none: versions older than features keep theirs.
        *_features(project.features),
        *_marks(stream),
        *_labels(project.labels),
        *([["lists", {each.name: str(each.type) for each in project.lists}]] * bool(project.lists)),
    ]


def _rule(rule: Rule) -> list[object]:
    written = [rule.name, tokens(rule.when.text), rule.action, rule.reason.text, rule.mode]
    if rule.rollout is None or rule.rollout_by is None:
        return [*written]
    return [*written, str(rule.rollout), rule.rollout_by.text]


def _features(features: Features | None) -> list[object]:
    if features is None:
        return []
    return [["features", tokens(features.sql.text), features.lateness_us, features.look_back_us]]


def _labels(labels: Labels) -> list[object]:
    chosen = [[s.key, getattr(labels, s.field)] for s in settings_of(Labels)]
    return [["labels", chosen]] if labels != Labels() else []


def _marks(stream: Stream) -> list[object]:
    """The columns that reasons say pseudonyms of."""
    return [["pii", sorted(stream.schema.pii)]] if stream.schema.pii else []


def _is_chosen(each: Setting, stream: Stream) -> bool:
    if each.is_required:
        return each.field != "columns"
    return bool(getattr(stream, each.field) != each.parsed_default)


def _read(files: Mapping[str, str], *, root: Path, unreadable: Sequence[Problem] = ()) -> Project:
    problems = list(unreadable)
    pieces: dict[str, Any] = {}
    spoilt = {p.file for p in problems}
    for name, read in ((SETTINGS_FILE, _read_settings), (RULES_FILE, _read_rules)):
        if name in spoilt:
            continue
        try:
            reader = Reader(Document(files.get(name, ""), file=name), files)
        except ProjectError as error:
            problems += error.problems
        else:
            pieces |= read(reader)
            problems += reader.shown()
    if problems:
        raise ProjectError(problems)
    folder = pieces.pop("data").folder
    return Project(root=root, files=MappingProxyType(dict(files)), data=root / folder, **pieces)


_TOP = (
    *("stream", "features", "labels", "windows", "lists", "sinks", "service", "access"),
    *("query", "score", "warehouse", "log", "data"),
)


def _read_settings(reader: Reader) -> dict[str, Any]:
    reader.known((), _TOP)
    stream = reader.table(Stream, ("stream",))
    if stream is not None:
        check_stream(reader, stream)
    pieces: dict[str, Any] = {"stream": stream, "windows": _windows(reader)}
    pieces["features"] = None
    if reader.value(("features",)) is not None:
        pieces["features"] = reader.table(Features, ("features",))
    lists = [reader.table(ValueList, p, name=p[-1]) for p in reader.members(("lists",))]
    check_lists(reader, [each.name for each in lists if each is not None])
    pieces["lists"] = tuple(each for each in lists if each is not None)
    pieces["sinks"] = _sinks(reader, stream)
    for name, table in (
        ("labels", Labels),
        ("service", Service),
        ("access", Access),
        ("query", Query),
        ("score", Score),
        ("warehouse", Warehouse),
        ("log", Log),
        ("data", Data),
    ):
        pieces[name] = reader.table(table, (name,))
    check_tls(reader)
    if stream is not None and pieces["labels"] is not None:
        check_labels(reader, pieces["labels"], stream)
    return pieces


def _read_rules(reader: Reader) -> dict[str, Any]:
    reader.known((), ("rule",))
    paths = reader.elements(("rule",))
    check_rules(reader, paths)
    rules = [reader.table(Rule, path) for path in paths]
    return {"rules": tuple(r for r in rules if r is not None)}


def _windows(reader: Reader) -> tuple[Window, ...]:
    paths = reader.elements(("windows",))
    check_names(reader, paths, "window queries")
    windows = []
    for path in paths:
        window = reader.table(Window, path)
        if window is not None:
            check_window(reader, path, window)
            windows.append(window)
    return tuple(windows)


def _sinks(reader: Reader, stream: Stream | None) -> tuple[Sink, ...]:
    windows = [reader.value((*path, "name")) for path in reader.elements_quietly(("windows",))]
    names = [name for name in windows if isinstance(name, str)]
    columns = None if stream is None else stream.columns
    sinks = []
    for path in reader.members(("sinks",)):
        sink = _sink(reader, path)
        if sink is not None:
            check_sink(reader, sink, columns=columns, windows=names)
            sinks.append(sink)
    check_places(reader, sinks)
    return tuple(sinks)


def _sink(reader: Reader, path: tuple[str | int, ...]) -> Sink | None:
    name = reader.value((*path, "type"))
    if isinstance(name, str) and name not in TYPES:
        hint = suggestion(name, [*TYPES])
        reader.refuse((*path, "type"), f"unknown type of sink `{name}`", hint=hint, position=0)
        return None
    # Without a usable type the settings are checked as the commonest type's.
    declared = TYPES[name] if isinstance(name, str) else TYPES["objects"]
    return reader.table(declared, path, name=path[-1])
