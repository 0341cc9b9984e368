"""The standard spelling: `TUMBLE` and `HOP` over event time, windows `[start, end)`.

    SELECT store_id, count(*) AS n FROM events
    GROUP BY store_id, TUMBLE(ts, INTERVAL 5 MINUTES)

    GROUP BY store_id, HOP(ts, INTERVAL 1 MINUTE, INTERVAL 5 MINUTES)      -- slide, then size

    FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '5' MINUTE))
    GROUP BY store_id, window_start, window_end

The order of arguments is that of Flink and Calcite: the time, then the slide, then the size, then
optionally an offset.
"""

from __future__ import annotations

from sqlglot import exp

from tidegate.schema import Schema
from tidegate.windows.grid import Grid
from tidegate.windows.problems import Problems
from tidegate.windows.spelling import (
    END,
    START,
    UNITS,
    Length,
    Plain,
    bound_of,
    called,
    column,
    grid,
    group_of,
)
from tidegate.windows.statement import Statement

STREAM = "events"
_EXAMPLE = "write `GROUP BY …, TUMBLE({time}, INTERVAL 5 MINUTES)`"
_BOUNDS = {"tumble_start": START, "hop_start": START, "tumble_end": END, "hop_end": END}
_ARGUMENTS = {"tumble": 1, "hop": 2}


def plain(problems: Problems, statement: Statement, schema: Schema) -> Plain:
    """The query without its window. Raises: ProjectError where no window can be made out."""
    select = statement.select
    names, call = _stream(problems, select)
    keys = group_of(select)
    calls = [k for k in keys if called(k) in _ARGUMENTS]
    _refuse_others(problems, keys)
    window = _the_window(problems, select, calls, call, schema=schema)
    made = _grid(problems, window, schema=schema)
    _replace_bounds(problems, select, window)
    if call is not None and not any(bound_of(k) for k in keys):
        hint = f"add `{START}, {END}` to GROUP BY"
        problems.add(call, "the rows are not grouped by their window", hint=hint)
    rest = tuple(k for k in keys if k is not window and not bound_of(k))
    return Plain(select, made, rest, names)


def _the_window(
    problems: Problems,
    select: exp.Select,
    calls: list[exp.Expr],
    call: exp.Expr | None,
    *,
    schema: Schema,
) -> exp.Expr:
    found = [c for c in (call, *calls) if c is not None]
    for extra in found[1:]:
        problems.add(extra, "a query has one window")
    if not found:
        place = select.args.get("group") or select
        hint = _EXAMPLE.format(time=schema.event_time)
        problems.add(place, "the rows are not grouped by a window of time", hint=hint)
        problems.stop()
    return found[0]


def _refuse_others(problems: Problems, keys: list[exp.Expr]) -> None:
    for key in keys:
        if called(key) in ("session", "cumulate"):
            hint = "use TUMBLE or HOP"
            problems.add(key, f"{called(key).upper()} windows are not supported", hint=hint)
            problems.stop()


def _stream(problems: Problems, select: exp.Select) -> tuple[frozenset[str], exp.Expr | None]:
    """The names of the stream, and the window if `FROM` calls one."""
    source = select.args.get("from_")
    table = source.this if source is not None else None
    if not isinstance(table, exp.Table):
        problems.add(
            source or select, "a window query reads the stream", hint=f"write `FROM {STREAM}`"
        )
        return frozenset(), None
    alias = table.alias
    inner = table.this
    if called(inner) == "table" and len(inner.expressions) == 1:
        inner = inner.expressions[0]
    if called(inner) in _ARGUMENTS and inner.expressions:
        stream = inner.expressions[0]
        _check_stream(problems, stream, stream.name)
        return _names(alias, stream.name), inner
    _check_stream(problems, table, table.name)
    return _names(alias, table.name), None


def _names(*names: str) -> frozenset[str]:
    return frozenset(n.lower() for n in names if n)


def _check_stream(problems: Problems, node: exp.Expr, name: str) -> None:
    if name.lower() != STREAM:
        shown = f"unknown table `{name}`" if name else "this is not the stream"
        problems.add(node, shown, hint=f"write `FROM {STREAM}`")


def _grid(problems: Problems, window: exp.Expr, *, schema: Schema) -> Grid:
    kind = called(window)
    arguments = window.expressions
    if isinstance(window.parent, exp.Table) or called(window.parent or window) == "table":
        arguments = arguments[1:]
    wanted = _ARGUMENTS[kind]
    if not wanted < len(arguments) <= wanted + 2:
        order = "the slide, the size" if kind == "hop" else "the size"
        hint = f"give it the event time, {order}, and an offset if needed"
        problems.add(window, f"{kind.upper()} does not take these arguments", hint=hint)
        problems.stop()
    _check_time(problems, arguments[0], schema=schema)
    lengths = [_length(problems, a) for a in arguments[1:]]
    offset = lengths[wanted] if len(lengths) > wanted else None
    hop, size = lengths[0], lengths[wanted - 1]
    return grid(problems, size=size, hop=hop, offset=offset, includes_end=False)


def _check_time(problems: Problems, node: exp.Expr, *, schema: Schema) -> None:
    named = node.expressions[0] if called(node) == "descriptor" and node.expressions else node
    known = {schema.event_time.lower(), "event_time"}
    if not isinstance(named, exp.Column) or named.name.lower() not in known:
        hint = f"windows run over the stream's event time, `{schema.event_time}`"
        problems.add(node, f"`{named.sql(dialect='duckdb')}` is not the event time", hint=hint)


def _length(problems: Problems, node: exp.Expr) -> Length:
    """The length of an interval written as a literal."""
    if isinstance(node, exp.Interval):
        unit = str(node.args["unit"].name).lower() if node.args.get("unit") else ""
        number = node.this.unnest() if node.this is not None else None
        micros = UNITS.get(unit) or UNITS.get(unit.removesuffix("s"))
        if isinstance(number, exp.Literal) and number.name.isdecimal() and micros:
            return Length(int(number.name) * micros, node)
    hint = "write it as `INTERVAL 5 MINUTES`, in weeks, days, hours, minutes, seconds or less"
    problems.add(node, "this is not a fixed length of time", hint=hint)
    return Length(1, node)


def _replace_bounds(problems: Problems, select: exp.Select, window: exp.Expr) -> None:
    for node in list(select.find_all(exp.Anonymous)):
        name = _BOUNDS.get(called(node))
        if name is None:
            continue
        same = node.expressions in ([], window.expressions)
        if not (called(node).startswith(called(window)) and same):
            hint = "give it the arguments of the window in GROUP BY"
            problems.add(node, f"`{node.this}` speaks of another window", hint=hint)
        node.replace(column(name, node))
