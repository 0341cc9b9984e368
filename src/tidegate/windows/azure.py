"""The spelling of Azure Stream Analytics: `TumblingWindow`, `HoppingWindow`, `(start, end]`.

    SELECT store_id, COLLECT(id) AS ids, System.Timestamp() AS WindowEnd
    INTO [output] FROM [input] TIMESTAMP BY ts
    WHERE [priority_shipping] = 1
    GROUP BY store_id, TumblingWindow(minute, 5)

`System.Timestamp()` is the end of the window, and inside WHERE or an aggregate the event's time.
The remaining differences of T-SQL (0 and 1 for booleans, `DATEADD`, `LEN`, `float` of 64 bits) are
rewritten here into what the expressions of `tidegate.sql` know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import exp

from tidegate.schema import Kind, Schema
from tidegate.windows.aggregates import FUNCTIONS
from tidegate.windows.grid import Grid
from tidegate.windows.problems import Problems
from tidegate.windows.spelling import (
    END,
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

_EXAMPLE = "write `GROUP BY …, TumblingWindow(minute, 5)`"
_WINDOWS = ("tumblingwindow", "hoppingwindow")
_OTHER_WINDOWS = ("slidingwindow", "sessionwindow", "snapshotwindow", "windows")
_SHORT = {
    "dd": "day", "d": "day", "hh": "hour", "mi": "minute", "n": "minute", "ss": "second",
    "s": "second", "ms": "millisecond", "mcs": "microsecond",
}  # fmt: skip
_RENAMED = {
    "len": "length", "isnull": "coalesce", "ceiling": "ceil", "charindex": "instr",
    "power": "pow", "substring": "substr", "log": "ln", "atn2": "atan2",
}  # fmt: skip
_TYPES: Mapping[exp.DType, exp.DType] = {
    exp.DType.FLOAT: exp.DType.DOUBLE,
    exp.DType.NVARCHAR: exp.DType.TEXT,
    exp.DType.VARCHAR: exp.DType.TEXT,
    exp.DType.BIT: exp.DType.BOOLEAN,
    exp.DType.DATETIME: exp.DType.TIMESTAMP,
    exp.DType.DATETIME2: exp.DType.TIMESTAMP,
}


def plain(problems: Problems, statement: Statement, schema: Schema) -> Plain:
    """The query without its window. Raises: ProjectError where no window can be made out."""
    select = statement.select
    _check_timestamp_by(problems, statement, schema)
    keys = group_of(select)
    window = _the_window(problems, select, keys)
    made = _grid(problems, window)
    window.pop()
    clauses = (select.args.get(c) for c in ("where", "having", "group"))
    for root in (*select.expressions, *(c for c in clauses if c is not None)):
        _rewrite(root, schema)
    rest = tuple(k for k in group_of(select) if not bound_of(k))
    return Plain(select, made, rest, _names(problems, select))


def _check_timestamp_by(problems: Problems, statement: Statement, schema: Schema) -> None:
    if statement.timestamp_by is None:
        return
    name, start = statement.timestamp_by
    if name.lower() not in (schema.event_time.lower(), "event_time"):
        hint = f"windows run over the stream's event time, `{schema.event_time}`"
        problems.add(start, f"`{name}` is not the event time", hint=hint)


def _the_window(problems: Problems, select: exp.Select, keys: list[exp.Expr]) -> exp.Expr:
    for key in keys:
        if called(key) in _OTHER_WINDOWS:
            hint = "use TumblingWindow or HoppingWindow"
            problems.add(key, f"`{key.this}` is not supported", hint=hint)
            problems.stop()
    found = [k for k in keys if called(k) in _WINDOWS]
    for extra in found[1:]:
        problems.add(extra, "a query has one window")
    if not found:
        place = select.args.get("group") or select
        problems.add(place, "the rows are not grouped by a window of time", hint=_EXAMPLE)
        problems.stop()
    return found[0]


def _names(problems: Problems, select: exp.Select) -> frozenset[str]:
    """The input is the stream, whatever the query calls it."""
    source = select.args.get("from_")
    table = source.this if source is not None else None
    if not isinstance(table, exp.Table):
        problems.add(
            source or select, "a window query reads the stream", hint="write `FROM [input]`"
        )
        return frozenset()
    return frozenset(n.lower() for n in (table.name, table.alias) if n)


def _grid(problems: Problems, window: exp.Expr) -> Grid:
    tumbling = called(window) == "tumblingwindow"
    lengths = _lengths(problems, window, wanted=1 if tumbling else 2)
    size, hop = lengths[0], lengths[0] if tumbling else lengths[1]
    offset = lengths[-1] if len(lengths) > (1 if tumbling else 2) else None
    return grid(problems, size=size, hop=hop, offset=offset, includes_end=True)


def _lengths(problems: Problems, window: exp.Expr, *, wanted: int) -> list[Length]:
    """Size, hop and offset in both forms: `(minute, 10, 5)`, `(Duration(minute, 10), Hop(…))`."""
    arguments = window.expressions
    if arguments and called(arguments[0]) == "duration":
        parts = [(a.expressions[0], a.expressions[1]) for a in arguments if len(a.expressions) == 2]
        complete = len(parts) == len(arguments)
    else:
        parts = [(arguments[0], a) for a in arguments[1:]]
        complete = bool(parts)
    if not complete or not wanted <= len(parts) <= wanted + 1:
        hop = "" if wanted == 1 else ", its hop"
        hint = f"give it a unit of time, the window's size{hop}, and an offset if needed"
        problems.add(window, f"`{window.this}` does not take these arguments", hint=hint)
        problems.stop()
    return [_length(problems, unit, number) for unit, number in parts]


def _length(problems: Problems, unit: exp.Expr, number: exp.Expr) -> Length:
    name = _unit(unit)
    value = number.this if isinstance(number, exp.Neg) else number
    if name is None:
        hint = "use day, hour, minute, second, millisecond or microsecond"
        problems.add(unit, f"unknown unit of time `{unit.name}`", hint=hint)
    elif not isinstance(value, exp.Literal) or not value.name.isdecimal():
        problems.add(number, "a window's length is a whole number")
    else:
        sign = -1 if isinstance(number, exp.Neg) else 1
        return Length(sign * int(value.name) * UNITS[name], number)
    return Length(1, number)


def _unit(node: exp.Expr) -> str | None:
    written = node.name.lower()
    name = _SHORT.get(written, written)
    return name if name in UNITS else None


def _rewrite(root: exp.Expr, schema: Schema) -> None:
    """Turns T-SQL into the SQL that expressions are compiled from, in place."""
    for node in list(root.walk(bfs=False)):
        if _is_timestamp(node):
            inside = isinstance(root, exp.Where) or _in_aggregate(node, root)
            name = schema.event_time if inside else END
            node.replace(column(name, node))
    for kind, rule in _RULES.items():
        for node in list(root.find_all(kind)):
            rule(node, schema)


def _is_timestamp(node: exp.Expr) -> bool:
    if isinstance(node, exp.Dot):
        return node.this.name.lower() == "system" and called(node.expression) == "timestamp"
    if isinstance(node, exp.Column):
        return node.table.lower() == "system" and node.name.lower() == "timestamp"
    return False


def _in_aggregate(node: exp.Expr, root: exp.Expr) -> bool:
    above = node.parent
    while above is not None and above is not root.parent:
        if called(above) in FUNCTIONS:
            return True
        above = above.parent
    return False


def _call(node: exp.Expr, _schema: Schema) -> None:
    name, arguments = called(node), node.expressions
    if name == "dateadd" and len(arguments) == 3:
        _shift(node, *arguments)
    elif name == "iif" and len(arguments) == 3:
        branch = exp.If(this=arguments[0], true=arguments[1])
        node.replace(exp.Case(ifs=[branch], default=arguments[2]))
    elif name == "count_big":
        node.set("this", "count")
    elif name in _RENAMED:
        node.set("this", _RENAMED[name])


def _shift(node: exp.Expr, unit: exp.Expr, number: exp.Expr, time: exp.Expr) -> None:
    name, back = _unit(unit), isinstance(number, exp.Neg)
    amount = number.this if back else number
    if name is not None and isinstance(amount, exp.Literal):
        interval = exp.Interval(this=exp.Literal.string(amount.name), unit=exp.var(name.upper()))
        kind = exp.Sub if back else exp.Add
        node.replace(exp.Paren(this=kind(this=time, expression=interval)))


def _cast(node: exp.Expr, _schema: Schema) -> None:
    to = node.args.get("to")
    if isinstance(to, exp.DataType) and to.this in _TYPES:
        node.set("to", exp.DataType(this=_TYPES[to.this]))


def _compare(node: exp.Expr, schema: Schema) -> None:
    """`[flag] = 1` on a boolean column is `flag = TRUE`."""
    for one, other in ((node.this, node.expression), (node.expression, node.this)):
        known = {c.name.lower() for c in schema if c.type.kind is Kind.BOOLEAN}
        literal = (
            isinstance(other, exp.Literal) and not other.is_string and other.name in ("0", "1")
        )
        if isinstance(one, exp.Column) and one.name.lower() in known and literal:
            truth = exp.Boolean(this=other.name == "1")
            truth.meta.update(other.meta)
            other.replace(truth)


_RULES: Mapping[type[exp.Expr], Callable[[exp.Expr, Schema], None]] = {
    exp.Anonymous: _call,
    exp.Cast: _cast,
    exp.EQ: _compare,
    exp.NEQ: _compare,
}
