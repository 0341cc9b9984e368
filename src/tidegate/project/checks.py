"""What must hold between settings; each check notes its problems with the reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidegate.project.places import Path
from tidegate.project.reader import Reader
from tidegate.project.settings import Stream, Window
from tidegate.project.sinks import CAPTURE_HOLES, ObjectsSink, Sink, holes, is_time_hole
from tidegate.project.values import IDENTIFIER, suggestion
from tidegate.schema import Column, Kind

# Tables that every project has; window queries cannot take their names.
TABLES = ("events", "decisions", "dead_letters", "duplicates", "late_rows", "features")

LIST_NAME_MAX = 64
_ID_KINDS = (Kind.TEXT, Kind.BIGINT)
_TIME_KINDS = (Kind.TIMESTAMP,)


def check_stream(reader: Reader, stream: Stream) -> None:
    """The id and the event time are columns of fit types that are never missing."""
    _check_column(reader, stream, "id", stream.id, _ID_KINDS)
    _check_column(reader, stream, "event_time", stream.event_time, _TIME_KINDS)
    if stream.id == stream.event_time and stream.id in stream.schema.by_name:
        reader.refuse(("stream", "event_time"), f"`{stream.id}` cannot be both id and event time")


def _check_column(
    reader: Reader, stream: Stream, key: str, name: str, kinds: Sequence[Kind]
) -> None:
    column = stream.schema.by_name.get(name)
    if column is None:
        hint = suggestion(name, stream.schema.names)
        reader.refuse(("stream", key), f"`{key}` names no column: `{name}`", hint=hint, position=0)
        return
    place: Path = ("stream", "columns", name)
    if column.type.kind not in kinds:
        fit = " or ".join(f"`{k}`" for k in kinds)
        reader.refuse(
            place, f"`{name}` is the {_ROLES[key]}: it must be {fit}, not `{column.type}`"
        )
    elif column.nullable:
        hint = f"write `{column.type}` without `?`"
        reader.refuse(place, f"`{name}` is the {_ROLES[key]}: it cannot be missing", hint=hint)
    elif column.pii:
        hint = "it is in every table, answer and path; send a pseudonym in its place"
        reader.refuse(place, f"`{name}` is the {_ROLES[key]}: it cannot be `pii`", hint=hint)


_ROLES = {"id": "stream's id", "event_time": "event time"}


def check_names(reader: Reader, paths: Iterable[Path], what: str) -> list[str]:
    """The `name` of each table, each only once; refuses the later of two that are equal."""
    names: list[str] = []
    for path in paths:
        name = reader.value((*path, "name"))
        if not isinstance(name, str):
            continue
        if name in names:
            reader.refuse((*path, "name"), f"there are two {what} named `{name}`", position=0)
        names.append(name)
    return names


def check_rules(reader: Reader, paths: Sequence[Path]) -> None:
    """Names are unique among the rules that decide, and among those in the shadow.

    What a rule is to become may run in the shadow of what it is. A roll-out is a share of
    something, and where one is under way the shadow's place is taken.
    """
    shadows = [p for p in paths if reader.value((*p, "mode")) == "shadow"]
    check_names(reader, [p for p in paths if p not in shadows], "rules")
    shadowed = check_names(reader, shadows, "shadow rules")
    for path in paths:
        share, by = (reader.value((*path, key)) for key in ("rollout", "rollout_by"))
        if (share is None) != (by is None):
            there, missing = ("rollout", "rollout_by") if by is None else ("rollout_by", "rollout")
            reader.refuse((*path, there), f"`{there}` needs `{missing}` beside it", at_key=True)
        name = reader.value((*path, "name"))
        if share is not None and path not in shadows and name in shadowed:
            hint = "give the shadow rule a name of its own"
            message = f"`{name}` is rolled out, and elsewhere reports as a shadow rule itself"
            reader.refuse((*path, "rollout"), message, hint=hint)


def check_lists(reader: Reader, names: Sequence[str]) -> None:
    """Names can be written without thinking of spelling."""
    for name in names:
        if IDENTIFIER.fullmatch(name) is None or len(name) > LIST_NAME_MAX:
            hint = f"a name has `a` to `z`, `0` to `9` and `_`, at most {LIST_NAME_MAX} of them"
            reader.refuse(
                ("lists", name), f"`{name}` is no name for a list", hint=hint, at_key=True
            )


def check_window(reader: Reader, path: Path, window: Window) -> None:
    """The query's table does not take the place of another."""
    if window.name in TABLES:
        message = f"`{window.name}` is a table that Tidegate keeps itself"
        reader.refuse(
            (*path, "name"), message, hint="give the window query another name", position=0
        )


def check_sink(
    reader: Reader, sink: Sink, *, columns: Sequence[Column] | None, windows: Sequence[str]
) -> None:
    """What the sink receives exists, and its other settings fit to it."""
    path: Path = ("sinks", sink.name)
    if IDENTIFIER.fullmatch(sink.name) is None:
        hint = "a name has `a` to `z`, `0` to `9` and `_`, beginning with a letter"
        reader.refuse(path, f"`{sink.name}` is no name for a sink", hint=hint, at_key=True)
    known = ["events", "decisions", *windows]
    if sink.table not in known:
        hint = suggestion(sink.table, known)
        reader.refuse(
            (*path, "from"), f"`from` names no table: `{sink.table}`", hint=hint, position=0
        )
    _check_only(reader, (*path, "output"), "a window query", fits=sink.table in windows)
    _check_only(reader, (*path, "actions"), "`decisions`", fits=sink.table == "decisions")
    if sink.retry_pause_min_us > sink.retry_pause_max_us:
        at = (*path, "retry_pause_min")
        reader.refuse(at, "`retry_pause_min` must not be longer than `retry_pause_max`")
    if isinstance(sink, ObjectsSink):
        _check_objects(reader, path, sink, columns)


def _check_only(reader: Reader, path: Path, source: str, *, fits: bool) -> None:
    if not fits and reader.value(path) is not None:
        message = f"`{path[-1]}` only has a meaning for a sink `from` {source}"
        reader.refuse(path, message, at_key=True)


def _check_objects(
    reader: Reader, path: Path, sink: ObjectsSink, columns: Sequence[Column] | None
) -> None:
    if sink.format == "capture" and sink.table != "events":
        reader.refuse((*path, "format"), "`capture` is a format for a sink `from` `events` only")
    for option in sink.options.keys() & sink.options_env.keys():
        at = (*path, "options_env", option)
        reader.refuse(at, f"`{option}` is given in `options` too", at_key=True)
    if columns is None or sink.table not in ("events", "decisions"):
        return  # what a window query's rows hold is known once it is compiled
    known = [*(c.name for c in columns), *CAPTURE_HOLES]
    for name, position in holes(sink.path):
        if name not in known and not is_time_hole(name):
            hint = suggestion(name, known)
            at = (*path, "path")
            reader.refuse(at, f"`path` has the unknown hole `{name}`", hint=hint, position=position)


def check_tls(reader: Reader) -> None:
    """A certificate comes with its key."""
    for key, other in (("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")):
        path: Path = ("service", key)
        if reader.value(path) is not None and reader.value(("service", other)) is None:
            hint = "a certificate and its key go together"
            reader.refuse(path, f"`{key}` needs `{other}` beside it", hint=hint, at_key=True)


def check_places(reader: Reader, sinks: Iterable[Sink]) -> None:
    """No two sinks write to the same place, where one would overwrite what the other wrote."""
    seen: dict[tuple[str, str], str] = {}
    for sink in sinks:
        if not isinstance(sink, ObjectsSink):
            continue
        place = (sink.url.rstrip("/"), sink.path)
        if place in seen:
            message = (
                f"the sinks `{seen[place]}` and `{sink.name}` write to the same `url` and `path`"
            )
            reader.refuse(("sinks", sink.name, "path"), message)
        seen[place] = sink.name
