"""What a `features.sql` computes: columns before the windows, window calls, scalars after them.

Binding takes each selected expression apart. An argument, a filter or a key of a window that is
more than a column becomes a *hidden* column, evaluated before the window; a call becomes a column
of its own; what remains is a scalar expression over columns. A part is known by its meaning, so
that what is written twice, in whatever window, is kept and computed once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from sqlglot import expressions as exp

from tidegate.errors import ProjectError
from tidegate.features.calls import BIGINT, BOOLEAN, FUNCTIONS, KNOWN, OTHERS, Function
from tidegate.features.frames import ROWS_MAX, Window, Windows, frame_text
from tidegate.features.plan import Aggregate, Frame
from tidegate.features.problems import Problems
from tidegate.schema import RESERVED, ColumnType, Kind, Schema
from tidegate.sql.check import Checker, shown
from tidegate.sql.expression import Expression, Scope, compile_node
from tidegate.sql.functions import FUNCTIONS as SCALARS
from tidegate.sql.parse import Dialect, position
from tidegate.sql.types import INTERVAL

# What a feature may come to once the features that it names are put in their places.
PARTS_MAX = 2_000
_PLAIN = re.compile(r"[A-Za-z_]\w*")
_NOT_IN_NAMES = frozenset(" ,;{}()=")

_OVER = "add `OVER (PARTITION BY … ORDER BY … RANGE BETWEEN INTERVAL … PRECEDING AND CURRENT ROW)`"


@dataclass(frozen=True, slots=True)
class Hidden:
    """A column evaluated before the windows of `layer`.

    Without an `expression` it is the one boolean column it reads, as 1 and 0.
    """

    name: str
    type: ColumnType
    columns: frozenset[str]
    layer: int
    expression: Expression | None


@dataclass(frozen=True, slots=True)
class WindowCall:
    """A window function over columns; `name` says all of its meaning."""

    name: str
    layer: int
    keys: tuple[str, ...]
    aggregate: Aggregate
    argument: str | None
    filter: str | None
    frame: Frame | None
    offset: int
    type: ColumnType

    @property
    def columns(self) -> frozenset[str]:
        """The columns that the call reads."""
        read = (*self.keys, self.argument, self.filter)
        return frozenset(name for name in read if name is not None)


@dataclass(frozen=True, slots=True)
class Selected:
    """A feature: one of the columns, or an expression over them."""

    name: str
    sql: str
    type: ColumnType
    column: str | None
    expression: Expression | None


class Binder:
    """Binds one SELECT; mistakes go to `problems`.

    `columns` are all columns there are, with their types; `layers` says before which layer of
    windows each is known.
    """

    def __init__(self, problems: Problems, select: exp.Select, schema: Schema) -> None:
        self._problems = problems
        self._select = select
        self._schema = schema
        self._scope = Scope.of(schema)
        self._windows = Windows(problems, select, schema)
        self._definitions: dict[str, exp.Expr | None] = {}
        self._names: dict[str, str] = {}
        self._broken = False
        self.columns: dict[str, ColumnType] = {c.name: c.type for c in schema}
        self.layers: dict[str, int] = dict.fromkeys(self.columns, 0)
        self.hidden: dict[str, Hidden] = {}
        self.calls: dict[str, WindowCall] = {}
        self.features: list[Selected] = []

    def bind(self) -> None:
        """Bind all that is selected, in its order."""
        if not self._select.expressions:
            self._problems.add(self._select, "there are no features", hint="name one after SELECT")
        for item in self._select.expressions:
            name = self._name_of(item)
            if name is not None:
                self._item(name, item.unalias())

    def _name_of(self, item: exp.Expr) -> str | None:
        if isinstance(item, exp.Star) or (isinstance(item, exp.Column) and item.name == "*"):
            hint = "rules see the columns of the event anyway"
            self._problems.add(item, "features cannot select `*`", hint=hint)
            return None
        if isinstance(item, exp.Column) and self._declared(item) is not None:
            hint = "leave it out; rules see the columns of the event anyway"
            self._problems.add(item, f"`{item.name}` is a column of the stream", hint=hint)
            return None
        if not isinstance(item, exp.Alias) or not item.alias:
            hint = "give it one, as in `count(*) OVER … AS payments_1h`"
            self._problems.add(item, f"`{shown(item)}` has no name", hint=hint)
            return None
        name, place = item.alias, item.args["alias"]
        complaint = self._complaint(name)
        if not place.args.get("quoted") and _PLAIN.fullmatch(name) is None:
            complaint = f"`{name}` is not a name"
        if complaint is not None:
            self._problems.add(place, complaint, hint="choose another name")
        self._names.setdefault(name.lower(), name)
        return name

    def _complaint(self, name: str) -> str | None:
        """What is wrong with a feature's name."""
        lower = name.lower()
        if lower in self._names:
            return f"two features are named `{name}`"
        if lower in {n.lower() for n in (*self._schema.names, *self._scope.aliases)}:
            return f"`{name}` is a column of the stream"
        if lower in RESERVED:
            return f"`{name}` is a column that Tidegate adds"
        if _NOT_IN_NAMES & set(name) or not name.isprintable():
            return f"`{name}` cannot be the name of a column in a table"
        return None

    def _item(self, name: str, node: exp.Expr) -> None:
        self._broken = False
        bound = self.bound(node)
        self._definitions[name.lower()] = None if self._broken else bound
        if self._broken:
            return
        if isinstance(bound, exp.Column):
            type_ = self.columns[bound.name]
            self.features.append(Selected(name, _text(node), type_, bound.name, None))
            return
        expression = self._compiled(self._without_interval(bound), node)
        if expression is None:
            self._definitions[name.lower()] = None
            return
        self.features.append(Selected(name, _text(node), expression.type, None, expression))

    def bound(self, node: exp.Expr, *, inside: bool = False) -> exp.Expr:
        """The node over columns alone; `inside` a window no other window may stand."""

        def replaced(part: exp.Expr) -> exp.Expr:
            if isinstance(part, exp.Window):
                return self._nested(part) if inside else self._call(part)
            if isinstance(part, exp.Column):
                return self._column(part)
            if isinstance(part, exp.Filter) or _is_window_function(part):
                hint = _OVER
                return self._wrong(part, f"`{shown(part)}` has no OVER", hint=hint)
            return part

        return _bare(node.copy().transform(replaced, copy=False))

    def _wrong(self, node: exp.Expr, message: str, *, hint: str | None = None) -> exp.Expr:
        """Notes a mistake, and stands in for what it is in."""
        self._problems.add(node, message, hint=hint)
        return self._null()

    def _null(self) -> exp.Expr:
        self._broken = True
        return exp.Null()

    def _nested(self, node: exp.Window) -> exp.Expr:
        hint = "give the inner one a name of its own, as a feature, and use that"
        return self._wrong(node, "windows cannot stand inside a window", hint=hint)

    def _column(self, node: exp.Column) -> exp.Expr:
        """The column of that name, or what the feature of that name comes to."""
        found = self._declared(node)
        if found is not None:
            return self._reference(found, node)
        name, lower = node.name, node.name.lower()
        exact = self._names.get(lower) == name
        if lower in self._definitions and (exact or not self._is_quoted(node)):
            definition = self._definitions[lower]
            return self._null() if definition is None else self._inlined(definition, node)
        selected = [i.alias.lower() for i in self._select.expressions]
        if lower in selected and lower not in self._definitions:
            hint = "a feature may use those that stand before it"
            return self._wrong(node, f"`{name}` is not defined before this", hint=hint)
        return self._wrong(node, f"there is no column `{name}`", hint=self._nearest(name))

    @staticmethod
    def _is_quoted(node: exp.Column) -> bool:
        return bool(node.this.args.get("quoted"))

    def _declared(self, node: exp.Column) -> str | None:
        names = {**self._scope.aliases, **{n: n for n in self._schema.names}}
        if node.name in names:
            return names[node.name]
        if self._is_quoted(node):
            return None
        found = {c for n, c in names.items() if n.lower() == node.name.lower()}
        return found.pop() if len(found) == 1 else None

    def _nearest(self, name: str) -> str | None:
        known = {n.lower(): n for n in (*self._schema.names, *self._names.values())}
        near = get_close_matches(name.lower(), list(known), n=1)
        return f"did you mean `{known[near[0]]}`?" if near else None

    def _reference(self, name: str, at: exp.Expr) -> exp.Column:
        """The column of exactly this name, standing where `at` stood in the text."""
        identifier = exp.to_identifier(name, quoted=_PLAIN.fullmatch(name) is None)
        identifier.meta["start"] = position(at, self._problems.source)
        return exp.Column(this=identifier)

    def _inlined(self, definition: exp.Expr, at: exp.Expr) -> exp.Expr:
        copy, start = definition.copy(), position(at, self._problems.source)
        parts = 0
        for part in copy.walk():
            parts += 1
            if "start" in part.meta:
                part.meta["start"] = start
        if parts > PARTS_MAX:
            message = f"`{at.name}` is too large to be used in another feature"
            return self._wrong(at, message, hint=f"it has more than {PARTS_MAX:,} parts")
        return copy if isinstance(copy, exp.Column) else exp.Paren(this=copy)

    def _call(self, node: exp.Window) -> exp.Expr:
        """The column that a window function's values go to."""
        inner, condition = node.this, None
        if isinstance(inner, exp.Filter):
            inner, condition = inner.this, inner.expression.this
        if isinstance(inner, exp.IgnoreNulls | exp.RespectNulls):
            return self._refuse_nulls(inner)
        if not isinstance(inner, exp.Anonymous) or inner.name.lower() not in FUNCTIONS:
            return self._unknown(inner)
        function = FUNCTIONS[inner.name.lower()]
        if condition is not None and not function.filters:
            return self._wrong(node, f"FILTER does not go with `{inner.name}`")
        window = self._windows.of(node)
        if window is None:
            return self._null()
        if function.aggregate is Aggregate.LAG:
            return self._lag(inner, window, node)
        frame = self._windows.frame(window, node)
        argument = self._argument(inner, function)
        filter_ = None if condition is None else self._part(condition, expect=Kind.BOOLEAN)
        keys = self._keys(window)
        if frame is None or argument is None or keys is None or (condition and filter_ is None):
            return self._null()
        aggregate, column = argument
        type_ = function.result(BIGINT if column is None else self.columns[column])
        made = self._made(keys, aggregate, column, type_, filter_=filter_, frame=frame)
        return self._reference(made, node)

    def _refuse_nulls(self, node: exp.Expr) -> exp.Expr:
        words = "IGNORE NULLS" if isinstance(node, exp.IgnoreNulls) else "RESPECT NULLS"
        hint = "leave it out" if words == "RESPECT NULLS" else "nulls are rows like others here"
        return self._wrong(node, f"{words} is not supported", hint=hint)

    def _unknown(self, node: exp.Expr) -> exp.Expr:
        name = node.name.lower() if isinstance(node, exp.Anonymous) else shown(node)
        hint = f"there are {KNOWN}"
        if name in OTHERS:
            return self._wrong(node, f"`{name}` is not supported over windows", hint=hint)
        near = get_close_matches(name, list(FUNCTIONS), n=1)
        hint = f"did you mean `{near[0]}`?" if near else hint
        return self._wrong(node, f"there is no window function `{name}`", hint=hint)

    def _argument(self, call: exp.Expr, function: Function) -> tuple[Aggregate, str | None] | None:
        """What is computed of which column; none where the argument is wrong."""
        given: Sequence[exp.Expr] = call.expressions
        counts = function.aggregate is Aggregate.COUNT
        if counts and all(isinstance(g, exp.Star | exp.Literal) for g in given) and len(given) < 2:
            return Aggregate.COUNT, None
        aggregate = function.aggregate
        if len(given) == 1 and isinstance(given[0], exp.Distinct):
            given = given[0].expressions
            if function.distinct is None:
                hint = "DISTINCT goes with count, min and max"
                self._wrong(call, f"DISTINCT does not go with `{call.name}`", hint=hint)
                return None
            aggregate = function.distinct
        if len(given) != 1:
            self._wrong(call, f"`{call.name}` takes one value, not {len(given)}")
            return None
        column = self._taken(given[0], call, function)
        return None if column is None else (aggregate, column)

    def _taken(self, node: exp.Expr, call: exp.Expr, function: Function) -> str | None:
        """The column of an argument, of a type that the function takes."""
        column = self._part(node)
        if column is None:
            return None
        type_ = self.columns[column]
        if type_.kind not in function.takes:
            hint = _conversion(shown(node), type_.kind, function)
            self._wrong(node, f"`{call.name}` does not take {type_.kind}", hint=hint)
            return None
        if type_.kind is Kind.BOOLEAN and function.sums_booleans:
            return self._as_number(column)
        return column

    def _lag(self, call: exp.Expr, window: Window, node: exp.Window) -> exp.Expr:
        given: Sequence[exp.Expr] = call.expressions
        if not window.ordered:
            hint = f"add `ORDER BY {self._schema.event_time}`"
            return self._wrong(node, "this window has no ORDER BY", hint=hint)
        if not 1 <= len(given) <= 3:
            return self._wrong(node, "it takes `lag(value[, rows[, default]])`")
        column = self._taken(given[0], call, FUNCTIONS["lag"])
        offset = self._offset(given[1]) if len(given) > 1 else 1
        keys = self._keys(window)
        if column is None or offset is None or keys is None:
            return self._null()
        type_ = self.columns[column]
        if offset == 0:
            return self._reference(column, node)
        value = self._made(keys, Aggregate.LAG, column, type_, offset=offset)
        if len(given) < 3 or isinstance(given[2], exp.Null):
            return self._reference(value, node)
        exists = self._made(keys, Aggregate.LAG_EXISTS, None, BOOLEAN, offset=offset)
        default = _cast(self.bound(given[2], inside=True), type_)
        branch = exp.If(this=self._reference(exists, node), true=self._reference(value, node))
        return exp.Case(ifs=[branch], default=default)

    def _offset(self, node: exp.Expr) -> int | None:
        """How many rows `lag` looks back."""
        checker = Checker(self._problems.source, {}, {})
        found = None if any(node.find_all(exp.Column)) else checker.check(node)
        value = found.value if found is not None and found.is_literal else None
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= ROWS_MAX:
            return value
        hint = f"write a number from 0 to {ROWS_MAX:,}"
        self._wrong(node, "`lag` looks back a fixed number of rows", hint=hint)
        return None

    def _keys(self, window: Window) -> tuple[str, ...] | None:
        found = [self._part(key) for key in window.keys]
        known = [key for key in found if key is not None]
        return tuple(dict.fromkeys(known)) if len(known) == len(found) else None

    def _part(self, node: exp.Expr, *, expect: Kind | None = None) -> str | None:
        """The column that holds the value of an argument, a filter or a key."""
        refused = self._refused_form(node)
        if refused is not None:
            self._wrong(node, f"{refused} is not supported inside a window function")
            return None
        before, self._broken = self._broken, False
        bound = self.bound(node, inside=True)
        wrong, self._broken = self._broken, before or self._broken
        if wrong:
            return None
        if isinstance(bound, exp.Column) and expect in (None, self.columns[bound.name].kind):
            return bound.name
        expression = self._compiled(bound, node, expect=expect)
        return None if expression is None else self._hide(expression)

    def _refused_form(self, node: exp.Expr) -> str | None:
        match node:
            case exp.IgnoreNulls():
                return "IGNORE NULLS"
            case exp.RespectNulls():
                return "RESPECT NULLS"
            case exp.Order():
                return "ORDER BY"
            case exp.Star() | exp.Distinct():
                return f"`{shown(node)}`"
            case _:
                return None

    def _compiled(
        self, node: exp.Expr, at: exp.Expr, *, expect: Kind | None = None
    ) -> Expression | None:
        if sum(1 for _ in node.walk()) > PARTS_MAX:
            hint = f"it has more than {PARTS_MAX:,} parts"
            self._problems.add(at, "this is too large with the features it names", hint=hint)
            return None
        try:
            scope = Scope(self.columns, {})
            return compile_node(node, self._problems.source, scope, expect=expect)
        except ProjectError as error:
            self._problems.adopt(error)
            self._broken = True
            return None

    def _without_interval(self, node: exp.Expr) -> exp.Expr:
        """The node, or the seconds of it where it is an interval, which no column can hold."""
        found = Checker(self._problems.source, self.columns, {}).check(node)
        if found is None or found.type != INTERVAL:
            return node
        return exp.Anonymous(this="epoch", expressions=[node])

    def _hide(self, expression: Expression) -> str:
        name = f"({expression.sql})"
        layer = max((self.layers[c] for c in expression.columns), default=0)
        columns = expression.columns
        self._add_hidden(Hidden(name, expression.type, columns, layer, expression))
        return name

    def _as_number(self, column: str) -> str:
        name = f"bigint({column})"
        hidden = Hidden(name, BIGINT, frozenset({column}), self.layers[column], None)
        self._add_hidden(hidden)
        return name

    def _add_hidden(self, hidden: Hidden) -> None:
        self.hidden.setdefault(hidden.name, hidden)
        self.columns[hidden.name] = hidden.type
        self.layers[hidden.name] = hidden.layer

    def _made(
        self,
        keys: tuple[str, ...],
        aggregate: Aggregate,
        argument: str | None,
        type_: ColumnType,
        *,
        filter_: str | None = None,
        frame: Frame | None = None,
        offset: int = 0,
    ) -> str:
        """The name of the call, made where there is none like it yet."""
        inner = argument or ("*" if not offset else "")
        inner += f", {offset}" if offset else ""
        where = f" filter {filter_}" if filter_ else ""
        over = f"{', '.join(keys)}{frame_text(frame)}"
        name = f"{aggregate.value}({inner}){where} over ({over})"
        read = [*keys, *(c for c in (argument, filter_) if c is not None)]
        layer = max((self.layers[c] for c in read), default=0)
        call = WindowCall(name, layer, keys, aggregate, argument, filter_, frame, offset, type_)
        self.calls.setdefault(name, call)
        self.columns[name], self.layers[name] = type_, layer + 1
        return name


def _conversion(text: str, kind: Kind, function: Function) -> str:
    """How a value of a kind that a function does not take may be given to it."""
    if function.aggregate in (Aggregate.MIN, Aggregate.MAX):
        return "it takes numbers, booleans and timestamps"
    if Kind.BIGINT not in function.takes:
        return f"make a condition of it, as in `{text} IS NOT NULL`"
    if kind is Kind.TIMESTAMP:
        return f"take `epoch({text})` of it"
    return f"convert it: `CAST({text} AS {'bigint' if kind is Kind.BOOLEAN else 'double'})`"


def _is_window_function(node: exp.Expr) -> bool:
    if not isinstance(node, exp.Anonymous):
        return False
    name = node.name.lower()
    return (name in FUNCTIONS or name in OTHERS) and name not in SCALARS


def _bare(node: exp.Expr) -> exp.Expr:
    """The column within parentheses, if they hold nothing else."""
    inner = node
    while isinstance(inner, exp.Paren):
        inner = inner.this
    return inner if isinstance(inner, exp.Column) else node


def _cast(node: exp.Expr, type_: ColumnType) -> exp.Expr:
    """The node in the column's type; texts, json among them, mix as they are."""
    if type_.kind in (Kind.TEXT, Kind.JSON):
        return node
    return exp.Cast(this=node, to=exp.DataType.build(str(type_), dialect=Dialect))


def _text(node: exp.Expr) -> str:
    return node.sql(dialect=Dialect, normalize_functions=False, comments=False)
