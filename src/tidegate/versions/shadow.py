"""A candidate in the shadow of what decides: one set of files that holds both.

The rules that decide go on; those of the candidate that are new or changed stand beside them as
shadow rules, and new features are added. Whatever else a candidate changes would change what is
decided now, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sqlglot import expressions as exp

from tidegate.errors import Problem, ProjectError
from tidegate.features.compile import Feature, FeaturePlan
from tidegate.program import Program
from tidegate.project.document import Document
from tidegate.project.files import RULES_FILE, SETTINGS_FILE
from tidegate.project.places import Path as Place
from tidegate.project.reader import sql_file
from tidegate.project.setting import settings_of
from tidegate.project.settings import Rule, Stream
from tidegate.project.tokens import tokens
from tidegate.sql.parse import Dialect, parse_select

_LENGTH_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Merged:
    """Files that hold both, the names of the rules in the shadow, and what could not be tried."""

    files: dict[str, str]
    shadows: tuple[str, ...]
    remarks: tuple[str, ...]


def merged(base: Program, candidate: Program) -> Merged:
    """The candidate in the shadow of `base`.

    Raises: ProjectError with what the candidate changes beyond rules and new features.
    """
    problems = [*_conflicts(base, candidate), *_changed_features(base, candidate)]
    known = {_key(rule): rule for rule in base.project.rules}
    wanted = [r for r in candidate.project.rules if _is_new(r, known)]
    problems += _rolled_out(wanted, known)
    if problems:
        raise ProjectError(problems)
    shadows = [replace(r, mode="shadow") for r in wanted if r.mode != "off"]
    names = {rule.name for rule in shadows}
    kept = [r for r in base.project.rules if not (r.mode == "shadow" and r.name in names)]
    files = {**base.files, **candidate.files}
    files[RULES_FILE] = "\n".join(_written(rule) for rule in (*kept, *shadows))
    files |= _feature_files(base, candidate)
    return Merged(
        files, tuple(rule.name for rule in shadows), tuple(_remarks(wanted, base, candidate))
    )


def _key(rule: Rule) -> tuple[str, bool]:
    return rule.name, rule.mode == "shadow"


def _is_new(rule: Rule, known: dict[tuple[str, bool], Rule]) -> bool:
    return _key(rule) not in known or meaning(known[_key(rule)]) != meaning(rule)


def meaning(rule: Rule) -> list[object]:
    """What a rule says, without the layout of its SQL."""
    by = None if rule.rollout_by is None else rule.rollout_by.text
    texts = [tokens(rule.when.text), rule.action, rule.reason.text, rule.mode]
    return [*texts, rule.rollout, by]


def _remarks(wanted: Sequence[Rule], base: Program, candidate: Program) -> Iterator[str]:
    for rule in wanted:
        if rule.mode == "off":
            yield f"rule `{rule.name}` would be off; until it is published, it goes on as it is"
    names = {rule.name for rule in candidate.project.rules}
    for rule in base.project.rules:
        if rule.name not in names:
            yield f"rule `{rule.name}` would go; until that is published, it goes on as it is"


def _rolled_out(wanted: Sequence[Rule], known: dict[tuple[str, bool], Rule]) -> Iterator[Problem]:
    for rule in wanted:
        live = known.get((rule.name, False))
        if rule.mode != "off" and live is not None and live.rollout is not None:
            message = f"`{rule.name}` is rolled out, and elsewhere reports as a shadow rule itself"
            yield rule.when.problem(0, message, hint="give the changed rule a name of its own")


# -- settings --------------------------------------------------------------------------------------


def _conflicts(base: Program, candidate: Program) -> Iterator[Problem]:
    """What of the settings would change what is decided now."""
    document = Document(candidate.files[SETTINGS_FILE], file=SETTINGS_FILE)

    def refused(place: Place, what: str) -> Problem:
        hint = "set it back, or publish it without --shadow first"
        return document.problem(place, f"{what}, which cannot be tried in the shadow", hint=hint)

    old, new = base.project.stream, candidate.project.stream
    for each in settings_of(Stream):
        if each.field != "columns" and getattr(old, each.field) != getattr(new, each.field):
            yield refused(("stream", each.key), f"`{each.key}` differs from what runs")
    declared = {c.name: str(c) for c in new.columns}
    for column in old.columns:
        if declared.get(column.name) != str(column):
            yield refused(("stream", "columns", column.name), f"column `{column.name}` changes")
    windows = {
        w.name: [tokens(w.sql.text), w.allowed_lateness_us] for w in candidate.project.windows
    }
    for window in base.project.windows:
        if windows.get(window.name) != [tokens(window.sql.text), window.allowed_lateness_us]:
            yield refused(("windows",), f"window query `{window.name}` changes")
    lists = {each.name: each.type for each in candidate.project.lists}
    for each_list in base.project.lists:
        if lists.get(each_list.name) != each_list.type:
            yield refused(("lists", each_list.name), f"list `{each_list.name}` changes")
    kept, wanted = base.project.features, candidate.project.features
    if kept is not None and wanted is None:
        yield refused(("features",), "`[features]` is gone")
    if kept is not None and wanted is not None:
        for key in ("lateness", "look_back"):
            if getattr(kept, f"{key}_us") != getattr(wanted, f"{key}_us"):
                yield refused(("features", key), f"`{key}` of the features changes")


# -- features --------------------------------------------------------------------------------------


def _changed_features(base: Program, candidate: Program) -> Iterator[Problem]:
    old, new = _meanings(base.features), _meanings(candidate.features)
    wanted = candidate.project.features
    for name in old.keys() & new.keys():
        if wanted is not None and old[name] != new[name]:
            place = wanted.sql.text.lower().find(name.lower())
            hint = "give what it is to become a name of its own, and let the new rules use that"
            message = f"feature `{name}` is in use and would change its meaning"
            yield wanted.sql.problem(max(place, 0), message, hint=hint)


def _meanings(plan: FeaturePlan | None) -> dict[str, list[object]]:
    return {} if plan is None else {f.name: _meaning_of(f, plan) for f in plan.features}


def _meaning_of(feature: Feature, plan: FeaturePlan) -> list[object]:
    """The value's type, how it is computed, and the windows behind it by what they say."""
    expression = feature.expression.sql if feature.expression is not None else feature.column
    return [feature.type, expression, sorted(plan.behind(feature.columns))]


def _feature_files(base: Program, candidate: Program) -> dict[str, str]:
    """The candidate's SELECT with the features that it leaves out and that decide now."""
    kept, wanted = base.project.features, candidate.project.features
    if kept is None or wanted is None:
        return {}
    missing = _meanings(base.features).keys() - _meanings(candidate.features).keys()
    if not missing:
        return {}
    old = parse_select(kept.sql, length_max=_LENGTH_MAX)
    new = parse_select(wanted.sql, length_max=_LENGTH_MAX)
    return {wanted.sql.file: _joined(old, new, missing)}


def _joined(old: exp.Select, new: exp.Select, missing: set[str]) -> str:
    """The new SELECT, with those of the old that are missing; windows of the old get new names."""
    names = {w.name.lower() for select in (old, new) for w in select.args.get("windows") or ()}
    renamed: dict[str, str] = {}
    for window in old.args.get("windows") or ():
        name = f"kept_{window.name}"
        while name.lower() in names:
            name = f"kept_{name}"
        renamed[window.name.lower()] = name

    def named(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Window):
            for key in ("this", "alias"):
                part = node.args.get(key)
                if isinstance(part, exp.Identifier) and part.name.lower() in renamed:
                    part.set("this", renamed[part.name.lower()])
        return node

    whole = new.copy()
    lower = {n.lower() for n in missing}
    kept = [s for s in old.expressions if s.alias_or_name.lower() in lower]
    whole.set("expressions", [*whole.expressions, *(s.copy().transform(named) for s in kept)])
    windows = [w.copy().transform(named) for w in old.args.get("windows") or ()]
    whole.set("windows", [*(whole.args.get("windows") or ()), *windows])
    return whole.sql(dialect=Dialect, pretty=True)


# -- rules as text ---------------------------------------------------------------------------------


def _written(rule: Rule) -> str:
    """A rule as `rules.toml` has it."""
    lines = [
        "[[rule]]",
        f"name = {_quoted(rule.name)}",
        f"when = {_quoted(rule.when.text)}",
        f"action = {_quoted(rule.action)}",
        f"reason = {_quoted(rule.reason.text)}",
        f"mode = {_quoted(rule.mode)}",
    ]
    if rule.rollout is not None and rule.rollout_by is not None and rule.mode != "shadow":
        share = f"{float(rule.rollout * 100):.6f}".rstrip("0").rstrip(".")
        lines += [f'rollout = "{share} %"', f"rollout_by = {_quoted(rule.rollout_by.text)}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text as TOML has it; of what JSON writes plainly, TOML escapes one character more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def check_merge(base: Program, both: Program) -> None:
    """Check that what decided before decides the same in the merged files.

    Raises: ProjectError where a feature came out with another meaning.
    """
    old, new = _meanings(base.features), _meanings(both.features)
    wanted = both.project.features
    changed = [name for name, meant in old.items() if new.get(name) != meant]
    if changed and wanted is not None:
        source = sql_file(wanted.sql.file, wanted.sql.text)
        message = f"feature `{changed[0]}` cannot be kept beside the candidate's"
        hint = "let the candidate keep the features that decide now"
        raise ProjectError([source.problem(0, message, hint=hint)])
