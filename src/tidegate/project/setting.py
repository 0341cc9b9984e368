"""How a setting is declared: once, with its kind, its default and a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from tidegate.project.values import Duration, Where, Written
from tidegate.sql.source import SourceText

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """A declared setting; `default` is as a user would write it, None if it may stay away.

    `key` is its name in the file, `field` that of the dataclass field that holds the value.
    """

    kind: Written[Any]
    sentence: str
    default: object = None
    is_required: bool = False
    key: str = ""
    field: str = ""

    @property
    def parsed_default(self) -> Any:
        """The value of the default."""
        return None if self.default is None else self.kind.parse(self.default, NOWHERE)


class _Nowhere:
    """The place of a default, which stands in no file."""

    def source(self) -> SourceText:
        raise AssertionError("a default is never SQL")

    def file(self, name: str) -> SourceText:
        raise AssertionError(f"a default is never a file: {name}")


NOWHERE: Where = _Nowhere()


def required(kind: Written[T], sentence: str, *, key: str = "") -> T:
    """A dataclass field for a setting that has to be written."""
    made: T = _field(Setting(kind, sentence, is_required=True, key=key))
    return made


def optional(kind: Written[T], sentence: str, *, key: str = "") -> T | None:
    """A dataclass field for a setting that may stay away and is None then."""
    made: T = _field(Setting(kind, sentence, key=key), default=None)
    return made


def setting(kind: Written[T], default: object, sentence: str, *, key: str = "") -> T:
    """A dataclass field for a setting with a default, given as a user would write it."""
    declared = Setting(kind, sentence, default, key=key)
    parsed = kind.parse(default, NOWHERE)
    if isinstance(parsed, dict):
        return _field(declared, default_factory=lambda: dict(parsed))  # type: ignore[no-any-return]
    made: T = _field(declared, default=parsed)
    return made


def _field(declared: Setting, **default: Any) -> Any:
    return field(metadata={"setting": declared}, **default)


def settings_of(table: type) -> Iterator[Setting]:
    """The settings that a dataclass declares, in order, their names filled in.

    A field `window_us` of a duration is written `window`: files name the unit in the value.
    """
    for each in fields(table):
        declared: Setting | None = each.metadata.get("setting")
        if declared is None:
            continue
        key = each.name.removesuffix("_us") if isinstance(declared.kind, Duration) else each.name
        yield Setting(
            declared.kind,
            declared.sentence,
            declared.default,
            declared.is_required,
            declared.key or key,
            each.name,
        )
