"""What differs between two versions: rule by rule, feature by feature, setting by setting."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.program import Program
from tidegate.project.document import Document
from tidegate.project.files import SETTINGS_FILE
from tidegate.project.settings import Rule
from tidegate.project.tokens import tokens


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that was `added`, `removed` or `changed`; `lines` tell how, with `+` or `-`.

    `kind` is `rule`, `feature`, `window query`, `list` or `setting`.
    """

    kind: str
    name: str
    change: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.kind} {self.name}: {self.change}", *self.lines])


def differences(before: Program, after: Program) -> list[Difference]:
    """What changes from one version to another."""
    return [
        difference
        for kind, things in _THINGS.items()
        for difference in _between(kind, things(before), things(after))
    ]


Things = Mapping[str, Mapping[str, str]]  # by name: parts with their text


def _between(kind: str, before: Things, after: Things) -> Iterator[Difference]:
    for name in [*before, *(n for n in after if n not in before)]:
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            change = "added" if old is None else "removed"
            yield Difference(kind, name, change, tuple(_lines(old or {}, new or {})))
        elif any(_meant(kind, old.get(p)) != _meant(kind, new.get(p)) for p in {*old, *new}):
            yield Difference(kind, name, "changed", tuple(_lines(old, new)))


def _meant(kind: str, text: str | None) -> object:
    """The text without its layout, where that means nothing."""
    return text if text is None or kind == "setting" else tokens(text)


def _lines(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for part in [*old, *(p for p in new if p not in old)]:
        before, after = (_labelled(part, side.get(part)) for side in (old, new))
        if before == after:
            continue
        for line in difflib.ndiff(before, after):
            if line[0] in "+- ":
                yield f"  {line}".rstrip()


def _labelled(part: str, text: str | None) -> list[str]:
    if text is None:
        return []
    first, *rest = text.strip().split("\n") or [""]
    return [f"{part} = {first}" if part else first, *rest]


def _rules(program: Program) -> Things:
    """By name; the shadow rule of a name that a live one has too is told apart."""
    rules = program.project.rules
    taken = {rule.name for rule in rules if rule.mode != "shadow"}
    return {
        f"{rule.name} (shadow)" if rule.mode == "shadow" and rule.name in taken else rule.name: (
            _rule(rule)
        )
        for rule in rules
    }


def _rule(rule: Rule) -> dict[str, str]:
    parts = {
        "when": rule.when.text,
        "action": rule.action,
        "reason": rule.reason.text,
        "mode": rule.mode,
    }
    if rule.rollout is not None and rule.rollout_by is not None:
        parts["rollout"] = f"{float(rule.rollout * 100):g} %"
        parts["rollout_by"] = rule.rollout_by.text
    return parts


def _features(program: Program) -> Things:
    plan = program.features
    return {} if plan is None else {f.name: {"": f.sql} for f in plan.features}


def _windows(program: Program) -> Things:
    return {w.name: {"": w.sql.text} for w in program.project.windows}


def _lists(program: Program) -> Things:
    return {each.name: {"type": str(each.type)} for each in program.project.lists}


def _settings(program: Program) -> Things:
    """All that `tidegate.toml` says, by dotted key; tables of lists by their names."""
    document = Document(program.files[SETTINGS_FILE], file=SETTINGS_FILE)
    found = dict(_flat("", document.values))
    return {key: {"": text} for key, text in found.items() if not key.startswith("lists.")}


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{path}.{key}" if path else key, part)
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        for number, part in enumerate(value):
            yield from _flat(f"{path}.{part.get('name', number)}", part)
    else:
        yield path, str(value).lower() if isinstance(value, bool) else str(value)


_THINGS = {
    "rule": _rules,
    "feature": _features,
    "window query": _windows,
    "list": _lists,
    "setting": _settings,
}
