"""The settings of sinks: a dataclass for each type, named in `TYPES`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tidegate.project.setting import optional, required, setting
from tidegate.project.values import (
    Choice,
    Choices,
    Duration,
    Integer,
    Refused,
    Size,
    Text,
    Where,
    is_inside,
    shown,
)

CAPTURE_HOLES = (
    "Namespace", "EventHub", "PartitionId", "Year", "Month", "Day", "Hour", "Minute", "Second",
)  # fmt: skip
_TIME_HOLE = re.compile(r"(?:yyyy|MM|dd|HH|mm|ss)(?:[-_.]?(?:yyyy|MM|dd|HH|mm|ss))*")
_HOLE = re.compile(r"\{([^{}]*)\}")
_SECRET = re.compile(
    r"pass|secret|token|credential|connection_string|(?:^|_)(?:key|sas)$", re.IGNORECASE
)
_DEPTH_MAX = 8
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_time_hole(name: str) -> bool:
    """Whether a hole of a path is filled with a time, as in `{yyyy-MM-dd}` or `{HH}`."""
    return _TIME_HOLE.fullmatch(name) is not None


def holes(path: str) -> Iterator[tuple[str, int]]:
    """The holes of a path template and where their names begin in it.

    >>> list(holes("dt={yyyy}/{type}"))
    [('yyyy', 4), ('type', 11)]
    """
    return ((m[1], m.start(1)) for m in _HOLE.finditer(path))


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A relative path with `{holes}`."""

    name: str = "path"
    bounds: str = "relative, `/` between its parts, with `{holes}`"

    def parse(self, value: object, where: Where) -> str:  # noqa: ARG002 - one signature for all kinds
        """The path as written."""
        if not isinstance(value, str):
            raise Refused(f"must be a path with holes, not {shown(value)}")
        filled = _HOLE.sub("x", value)
        stray = re.search(r"[{}]", _HOLE.sub(lambda m: "x" * len(m[0]), value))
        if stray is not None:
            raise Refused(f"has a `{stray[0]}` without its other half", position=stray.start())
        if not is_inside(filled):
            raise Refused(f"must be a relative path below the sink's `url`, not {shown(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Url:
    """An fsspec URL, or a path relative to the data folder; it never holds a secret."""

    name: str = "URL or path"
    bounds: str = "`s3://bucket/prefix`, `memory://name`, or a path below the data folder"

    def parse(self, value: object, where: Where) -> str:  # noqa: ARG002 - as above
        """The URL as written."""
        if not isinstance(value, str) or not value.strip():
            raise Refused(f"must be a URL or a path, not {shown(value)}")
        try:
            has_password = "://" in value and urlsplit(value).password is not None
        except ValueError as error:
            raise Refused("is no URL") from error
        if has_password:
            hint = "name its variable in `options_env`"
            raise Refused("must not hold a password", hint=hint, is_secret=True)
        if "://" not in value and not value.startswith("/") and not is_inside(value.rstrip("/")):
            raise Refused(f"must stay below the data folder, not {shown(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Options:
    """A table of options for fsspec, as they are."""

    name: str = "table of options"
    bounds: str = "no secrets"

    def parse(self, value: object, where: Where) -> Mapping[str, Any]:  # noqa: ARG002 - as above
        """The options as written."""
        if not isinstance(value, dict):
            raise Refused(f"must be a table of options, not {shown(value)}")
        hint = "name its variable in `options_env`"
        refusals = [
            Refused("may be a secret", hint=hint, path=path, at_key=True, is_secret=True)
            for path in _paths(value)
            if _SECRET.search(path[-1])
        ]
        if refusals:
            raise Refused("has mistakes", parts=refusals)
        return value


def _paths(table: Mapping[str, Any], depth: int = 1) -> Iterator[tuple[str, ...]]:
    for name, value in table.items():
        yield (name,)
        if isinstance(value, dict):
            if depth == _DEPTH_MAX:
                raise Refused("is nested too deeply")
            yield from ((name, *rest) for rest in _paths(value, depth + 1))


@dataclass(frozen=True, slots=True)
class Variables:
    """A table from option to the name of the environment variable that holds its value."""

    name: str = "table of environment variables"
    bounds: str = "names, never values"

    def parse(self, value: object, where: Where) -> Mapping[str, str]:  # noqa: ARG002 - as above
        """The names of variables by option."""
        if not isinstance(value, dict):
            raise Refused(f"must be a table of environment variables, not {shown(value)}")
        for name, variable in value.items():
            # The value is not shown: someone may have written the secret itself.
            if not isinstance(variable, str) or _VARIABLE.fullmatch(variable) is None:
                hint = f'write the variable\'s name, as in {name} = "STORE_SECRET"'
                raise Refused(
                    "must be the name of an environment variable",
                    hint=hint,
                    path=(name,),
                    is_secret=True,
                )
        return value


@dataclass(frozen=True, kw_only=True)
class Sink:
    """What every sink has, of whatever type. `name` is that of its table `[sinks.NAME]`."""

    name: str
    type: str = required(Text(), "What kind of place it is; see the types below.")
    table: str = required(
        Text(),
        "What it receives: `events`, `decisions` (with their events), or a window query's rows.",
        key="from",
    )
    output: str | None = optional(
        Text(), "The name behind `INTO` in the window query that this sink stands for."
    )
    actions: tuple[str, ...] = setting(
        Choices(("approve", "review", "block")),
        ["approve", "review", "block"],
        'With `from = "decisions"`: the actions whose events it receives.',
    )
    retry_pause_min_us: int = setting(
        Duration(low="1 ms", high="1 hour"),
        "200 ms",
        "The pause before the first new attempt after a failure; it doubles each time.",
    )
    retry_pause_max_us: int = setting(
        Duration(low="1 ms", high="1 day"), "1 minute", "The longest pause between attempts."
    )
    timeout_us: int = setting(
        Duration(low="100 ms", high="1 hour"),
        "1 minute",
        "How long one delivery may take before it counts as failed.",
    )


@dataclass(frozen=True, kw_only=True)
class ObjectsSink(Sink):
    """Object storage or a folder: files that hold many rows, or one each."""

    url: str = required(Url(), "Where the objects go.")
    format: str = required(
        Choice(("capture", "json", "ndjson", "event")),
        "`capture`: Avro as Event Hub Capture writes it; `json`: an array for each file; "
        "`ndjson`: a row for each line; `event`: a file for each row.",
    )
    path: str = required(
        PathTemplate(),
        "Folder of the files below `url`, with holes: the columns of a row, times such as "
        "`{yyyy-MM-dd}` and `{HH-mm}`, and those of Event Hub Capture.",
    )
    every_us: int = setting(
        Duration(low="10 ms", high="1 day"),
        "1 minute",
        "How old rows may grow before they are written, even if few.",
    )
    bytes_max: int = setting(
        Size(low="1 KiB", high="1 GiB"), "10485763 B", "The size from which on a file is closed."
    )
    rows_max: int = setting(
        Integer(1, 10_000_000), 100_000, "The number of rows at which a file is closed."
    )
    namespace: str = setting(Text(), "tidegate", "What `{Namespace}` stands for.")
    event_hub: str = setting(Text(), "events", "What `{EventHub}` stands for.")
    partitions: int = setting(
        Integer(1, 1024), 1, "Partitions that `{PartitionId}` tells apart, by hash of the event id."
    )
    options: Mapping[str, Any] = setting(
        Options(), {}, "Options of the fsspec file system, such as `endpoint_url`."
    )
    options_env: Mapping[str, str] = setting(
        Variables(),
        {},
        "Options whose values are secrets: the environment variables that hold them.",
    )


TYPES: Mapping[str, type[Sink]] = {"objects": ObjectsSink}
