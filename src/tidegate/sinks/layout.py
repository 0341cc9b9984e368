"""Rows to file names: a path with holes, filled from the rows themselves."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

_HOLE = re.compile(r"\{([^{}]*)\}")
_TIME = re.compile(r"yyyy|MM|dd|HH|mm|ss")
_TIME_HOLE = re.compile(r"(?:yyyy|MM|dd|HH|mm|ss)(?:[-_.]?(?:yyyy|MM|dd|HH|mm|ss))*")
# Event Hub Capture's names for the same.
_CAPTURE_TIMES = {
    "Year": "yyyy", "Month": "MM", "Day": "dd", "Hour": "HH", "Minute": "mm", "Second": "ss",
}  # fmt: skip

NULL = "__HIVE_DEFAULT_PARTITION__"
_ESCAPED = frozenset("\"#%'*/:=?\\{}[]^<>|`~\x7f")
_SEGMENT_BYTES_MAX = 160  # of one value; a name may have 255 in most file systems


@dataclass(frozen=True)
class PathTemplate:
    """A relative path whose `{holes}` are times, or values of a row.

    `times` and `values` have the hole names of each kind.
    """

    text: str
    times: frozenset[str]
    values: frozenset[str]

    @classmethod
    def parse(cls, text: str, *, values: Collection[str]) -> PathTemplate:
        """The template, whose value holes must be among `values`.

        Raises: ValueError with a message fit for a user.

        >>> sorted(PathTemplate.parse("t={kind}/dt={yyyy}_{MM}", values=["kind"]).times)
        ['MM', 'yyyy']
        """
        if re.search(r"[{}]", _HOLE.sub("", text)):
            raise ValueError(f"the path `{text}` has a brace without its other half")
        parts = _HOLE.sub("x", text).split("/")
        if not all(parts) or any(part.startswith(".") for part in parts):
            raise ValueError(
                f"the path `{text}` must be relative, no part empty or with a dot first"
            )
        holes = frozenset(_HOLE.findall(text))
        times = frozenset(h for h in holes if h in _CAPTURE_TIMES or _TIME_HOLE.fullmatch(h))
        for hole in sorted(holes - times - set(values)):
            raise ValueError(_unknown(text, hole, values))
        return cls(text, times, holes - times)

    @property
    def folder(self) -> str:
        """A folder that holds all files of the template: what stands before the first hole."""
        return self.text.partition("{")[0].rpartition("/")[0]

    def pattern(self, name: str) -> re.Pattern[str]:
        """What the keys of the template's files look like; `name` is the pattern of their ends."""
        literal = re.split(r"\{[^{}]*\}", self.text)
        return re.compile("[^/]+".join(re.escape(part) for part in literal) + name)

    def fill(self, values: Mapping[str, str]) -> str:
        """The path with its holes filled by values that are safe already."""
        filled = _HOLE.sub(lambda hole: values.get(hole[1], hole[0]), self.text)
        return "/".join(_dots_escaped(part) for part in filled.split("/"))

    def fill_times(self, text: str, time: int) -> str:
        """The rest of a filled path, with `time` (UTC microseconds) in its holes.

        >>> PathTemplate.parse("{yyyy-MM-dd}/{HH-mm}", values=[]).fill_times(
        ...     "{yyyy-MM-dd}/{HH-mm}", 1686132600000000)
        '2023-06-07/10-10'
        """
        parts = time_parts(time // 1_000_000)
        for hole in self.times:
            written = _TIME.sub(lambda m: parts[m[0]], _CAPTURE_TIMES.get(hole, hole))
            text = text.replace(f"{{{hole}}}", written)
        return text


def _unknown(text: str, hole: str, values: Collection[str]) -> str:
    known = [*values, *_CAPTURE_TIMES, "yyyy", "MM", "dd", "HH", "mm", "ss"]
    near = difflib.get_close_matches(hole, known, n=1, cutoff=0.5)
    hint = f"; did you mean `{{{near[0]}}}`?" if near else f"; there are {', '.join(values)}"
    return f"the path `{text}` has an unknown hole `{{{hole}}}`{hint}"


@lru_cache(maxsize=4096)
def time_parts(second: int) -> Mapping[str, str]:
    """A second since 1970 taken apart, every part padded with zeros.

    >>> time_parts(0)["yyyy"], time_parts(59)["ss"]
    ('1970', '59')
    """
    date, clock = str(np.datetime64(second, "s")).split("T")
    parts = [*date.rsplit("-", 2), *clock.split(":")]
    return dict(zip(("yyyy", "MM", "dd", "HH", "mm", "ss"), parts, strict=True))


@lru_cache(maxsize=4096)
def safe(value: str | None) -> str:
    """A value as part of a path, escaped as Hive does: `%` and two hexadecimal digits for a byte.

    Null and empty text are Hive's default partition. What is very long is cut, and ends in a hash.

    >>> safe("a/b"), safe(None)
    ('a%2Fb', '__HIVE_DEFAULT_PARTITION__')
    """
    if not value:
        return NULL
    escaped = "".join(_escaped(c) if c in _ESCAPED or not c.isprintable() else c for c in value)
    if len(escaped.encode()) <= _SEGMENT_BYTES_MAX:
        return escaped
    cut = escaped.encode()[: _SEGMENT_BYTES_MAX - 40].decode(errors="ignore")
    whole = re.sub(r"%[0-9A-F]?$", "", cut)  # not amid an escape
    return f"{whole}~{hashlib.sha256(value.encode()).hexdigest()[:32]}"


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _dots_escaped(part: str) -> str:
    # Templates have no such part, so the dot is a value's: it must not climb or hide the file.
    return f"%2E{part[1:]}" if part.startswith(".") else part


@dataclass(frozen=True, slots=True)
class Group:
    """The rows (by position) that belong into one file, and its path."""

    path: str
    rows: Sequence[int]


def groups(
    template: PathTemplate,
    *,
    columns: Mapping[str, pa.ChunkedArray[Any]],
    times: Sequence[int],
    apart: Sequence[int] | None = None,
    by_time: bool = True,
) -> list[Group]:
    """The rows grouped by their filled path, groups and rows in order of first appearance.

    `columns` has the value holes of the template, `times` fills its time holes: those of each row,
    or, unless `by_time`, that of the first row of a group. Rows that differ in `apart` never share
    a group.
    """
    paths = _paths(template, columns, len(times))
    if by_time:
        fill = _cached(template)
        paths = [fill(path, time // 1_000_000) for path, time in zip(paths, times, strict=True)]
    found: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(paths, apart or [0] * len(paths), strict=True)):
        found.setdefault(key, []).append(row)
    return [
        Group(template.fill_times(path, times[rows[0]]), rows) for (path, _), rows in found.items()
    ]


def _paths(
    template: PathTemplate, columns: Mapping[str, pa.ChunkedArray[Any]], count: int
) -> list[str]:
    if not template.values:
        return [template.text] * count
    names = sorted(template.values)
    spelled = [[safe(v) for v in texts(columns[name])] for name in names]
    fill = lru_cache(maxsize=4096)(lambda row: template.fill(dict(zip(names, row, strict=True))))
    return [fill(row) for row in zip(*spelled, strict=True)]


def _cached(template: PathTemplate) -> Callable[[str, int], str]:
    return lru_cache(maxsize=4096)(lambda path, second: template.fill_times(path, second * 10**6))


def texts(column: pa.ChunkedArray[Any]) -> list[str | None]:
    """The values of a column as text: booleans `true` and `false`, times in ISO form."""
    if pa.types.is_boolean(column.type) or pa.types.is_string(column.type):
        return [str(v).lower() if isinstance(v, bool) else v for v in column.to_pylist()]
    return column.cast(pa.string()).to_pylist()
