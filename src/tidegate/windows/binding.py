"""What a window query computes for each event, for each group, and for each row that it emits.

Binding takes the query without its window apart: expressions over the event's columns (WHERE,
keys, arguments of aggregates), aggregates of those, and expressions over keys, aggregates and the
bounds of the window (SELECT, HAVING). A part is known by its text, so that what is written twice
is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

from sqlglot import exp

from tidegate.errors import ProjectError
from tidegate.schema import ColumnType, Kind, Schema
from tidegate.sql.expression import Expression, Scope, compile_node
from tidegate.tables import WINDOW_COLUMNS
from tidegate.windows.aggregates import FUNCTIONS, Aggregate
from tidegate.windows.emission import Output
from tidegate.windows.problems import Problems
from tidegate.windows.spelling import END, START, Plain, bound_of, called, column

_TIME = ColumnType(Kind.TIMESTAMP)
_KNOWN = "count, sum, avg, min, max, list, first, last, stddev, variance"
_OTHER_AGGREGATES = (
    *("approx_count_distinct", "approx_quantile", "arg_max", "arg_min", "collecttop", "fsum"),
    *("histogram", "kurtosis", "mad", "median", "mode", "percentile_cont", "percentile_disc"),
    *("product", "quantile", "quantile_cont", "skewness", "string_agg", "topone"),
)


@dataclass(slots=True)
class Bound:
    """The parts of a query; `held` are the columns kept of each row until its windows close."""

    where: Expression | None = None
    held: dict[str, Expression] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    aggregates: dict[str, Aggregate] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    selected: list[str] = field(default_factory=list)
    having: Expression | None = None


class Binder:
    """Binds one query; mistakes go to `problems`."""

    def __init__(self, problems: Problems, plain: Plain, schema: Schema) -> None:
        self._problems = problems
        self._plain = plain
        self._schema = schema
        self._events = Scope.of(schema)
        self._aliases: dict[str, exp.Expr] = {}
        self.bound = Bound()

    def bind(self) -> Bound:
        """All parts of the query."""
        select = self._plain.select
        for node in list(select.find_all(exp.Column)):
            self._unqualify(node)
        if (where := select.args.get("where")) is not None:
            self.bound.where = self._compiled(where.this, self._events, expect=Kind.BOOLEAN)
        for key in self._keys():
            self._key(key)
        for item in select.expressions:
            self._item(item)
        if (having := select.args.get("having")) is not None:
            over = self._over_groups(having.this)
            self.bound.having = self._compiled(over, self._groups(), expect=Kind.BOOLEAN)
        return self.bound

    def _unqualify(self, node: exp.Column) -> None:
        if node.table and node.table.lower() not in self._plain.names:
            self._problems.add(node, f"unknown table `{node.table}`")
        node.set("table", None)

    def _keys(self) -> list[exp.Expr]:
        """The keys, with positions and aliases replaced by the selected expressions."""
        items = self._plain.select.expressions
        named = {i.alias.lower(): i.this for i in items if isinstance(i, exp.Alias)}
        keys = []
        for key in self._plain.keys:
            if isinstance(key, exp.Literal) and not key.is_string:
                place = int(key.name) - 1 if key.name.isdecimal() else -1
                if not 0 <= place < len(items):
                    self._problems.add(key, f"there is no selected column number {key.name}")
                    continue
                keys.append(items[place].unalias())
            elif isinstance(key, exp.Column) and not self._is_source(key):
                keys.append(named.get(key.name.lower(), key))
            else:
                keys.append(key)
        return [k for k in keys if not bound_of(k)]

    def _is_source(self, node: exp.Column) -> bool:
        names = {*self._schema.names, *self._events.aliases}
        return node.name.lower() in {n.lower() for n in names}

    def _key(self, node: exp.Expr) -> None:
        name = self._hold(node)
        if name is not None and name not in self.bound.keys:
            self.bound.keys.append(name)

    def _hold(self, node: exp.Expr, *, expect: Kind | None = None) -> str | None:
        """The name of the held column for an expression over the event's columns."""
        name = text(node)
        if name not in self.bound.held or expect is not None:
            compiled = self._compiled(node, self._events, expect=expect)
            if compiled is None:
                return None
            self.bound.held[name] = compiled
        return name

    def _item(self, item: exp.Expr) -> None:
        if isinstance(item, exp.Star) or (isinstance(item, exp.Column) and item.name == "*"):
            hint = "name the keys and aggregates that the rows are to hold"
            self._problems.add(item, "a window query cannot select `*`", hint=hint)
            return
        node = item.unalias()
        name = item.alias or (node.name if isinstance(node, exp.Column) else "")
        if not name:
            message = f"`{shown(node)}` has no name"
            self._problems.add(item, message, hint="give it one, as in `count(*) AS orders`")
            return
        if self._new_name(item, node, name):
            self._output(node, name)
        if isinstance(item, exp.Alias):
            self._aliases[name.lower()] = node

    def _new_name(self, item: exp.Expr, node: exp.Expr, name: str) -> bool:
        """Whether the name makes a column of its own; the bounds are in every row anyway."""
        taken = {n.lower() for n in self.bound.selected}
        if name.lower() in taken:
            self._problems.add(item, f"two selected columns are named `{name}`")
            return False
        added = {f.name for f in WINDOW_COLUMNS}
        if name.lower() in added and bound_of(node) != name.lower():
            hint = "choose another name"
            message = f"`{name}` is a column that every window query has"
            self._problems.add(item, message, hint=hint)
            return False
        self.bound.selected.append(name.lower() if name.lower() in added else name)
        return name.lower() not in added

    def _output(self, node: exp.Expr, name: str) -> None:
        listed = self._list(node)
        if listed is not None:
            arrow = self.bound.aggregates[listed].arrow
            self.bound.outputs.append(Output(name, arrow, list_name=listed))
            return
        over = self._over_groups(node)
        compiled = self._compiled(over, self._groups())
        if compiled is not None:
            self.bound.outputs.append(Output(name, compiled.type.arrow, compiled))

    def _list(self, node: exp.Expr) -> str | None:
        """The name of the aggregate, if the whole expression is one that makes a list."""
        function = FUNCTIONS.get(called(_unfiltered(node)))
        if function is None or not function.is_list:
            return None
        return self._aggregate(node)

    def _over_groups(self, node: exp.Expr) -> exp.Expr:
        """The expression with keys, aggregates and aliases replaced by columns of the groups."""
        return node.copy().transform(self._replaced, copy=False)

    def _replaced(self, node: exp.Expr) -> exp.Expr:
        if (name := text(node)) in self.bound.keys:
            return column(name, node)
        if isinstance(node, exp.Window):
            self._problems.add(
                node, "a window query has no OVER", hint="aggregates are over groups"
            )
            return exp.Null()
        if called(_unfiltered(node)) in FUNCTIONS:
            return self._replaced_aggregate(node)
        if isinstance(node, exp.Column):
            return self._replaced_column(node)
        if isinstance(node, exp.Filter | exp.AggFunc) or called(node) in _OTHER_AGGREGATES:
            name = called(_unfiltered(node)) or type(_unfiltered(node)).__name__.lower()
            self._problems.add(node, f"there is no aggregate `{name}`", hint=f"known are {_KNOWN}")
            return exp.Null()
        return node

    def _replaced_aggregate(self, node: exp.Expr) -> exp.Expr:
        name = self._aggregate(node)
        if name is None:
            return exp.Null()
        if self.bound.aggregates[name].function.is_list:
            hint = "select the list as it is, with a name of its own"
            self._problems.add(node, "a list cannot be part of an expression", hint=hint)
            return exp.Null()
        return column(name, node)

    def _replaced_column(self, node: exp.Column) -> exp.Expr:
        if (bound := bound_of(node)) is not None:
            return column(bound, node)
        alias = self._aliases.get(node.name.lower())
        if alias is not None and not self._is_source(node):
            return exp.Paren(this=self._over_groups(alias))
        if self._is_source(node):
            message = f"`{node.name}` is neither in GROUP BY nor inside an aggregate"
            hint = f"group by it, or take one of its values, as in `max({node.name})`"
            self._problems.add(node, message, hint=hint)
        else:
            message = f"there is no column `{node.name}`"
            self._problems.add(node, message, hint=self._nearest(node.name))
        return exp.Null()

    def _nearest(self, name: str) -> str | None:
        near = get_close_matches(name.lower(), self._schema.names, n=1)
        return f"did you mean `{near[0]}`?" if near else None

    def _aggregate(self, node: exp.Expr) -> str | None:
        name = text(node)
        if name in self.bound.aggregates:
            return name
        call = _unfiltered(node)
        condition = node.expression.this if isinstance(node, exp.Filter) else None
        arguments = list(call.expressions)
        held = None if condition is None else self._hold(condition, expect=Kind.BOOLEAN)
        if condition is not None and held is None:
            return None
        made = self._function(call, arguments, condition=held)
        if made is not None:
            self.bound.aggregates[name] = made
        return name if made is not None else None

    def _function(
        self, call: exp.Expr, arguments: list[exp.Expr], *, condition: str | None
    ) -> Aggregate | None:
        name = called(call)
        function = FUNCTIONS[name]
        distinct = len(arguments) == 1 and isinstance(arguments[0], exp.Distinct)
        if distinct:
            arguments = list(arguments[0].expressions)
        if not arguments or isinstance(arguments[0], exp.Star):
            return self._of_rows(call, condition=condition)
        if len(arguments) > 1 or isinstance(arguments[0], exp.Order):
            hint = "values come in the order of arrival"
            self._problems.add(call, f"`{name}` takes one value", hint=hint)
            return None
        if any(called(n) in FUNCTIONS for n in arguments[0].walk()):
            self._problems.add(arguments[0], "an aggregate cannot hold another one")
            return None
        argument = self._hold(arguments[0])
        if argument is None:
            return None
        type_ = self.bound.held[argument].type
        if type_.kind not in function.kinds:
            kinds = ", ".join(sorted(function.kinds))
            message = f"`{name}` takes {kinds}, not {type_}"
            self._problems.add(arguments[0], message)
            return None
        return Aggregate(function, function.result(type_), argument, condition, distinct)

    def _of_rows(self, call: exp.Expr, *, condition: str | None) -> Aggregate | None:
        name = called(call)
        if name in ("count", "count_big"):
            return Aggregate(FUNCTIONS["count"], ColumnType(Kind.BIGINT), None, condition)
        hint = f"name a column, as in `{name}({self._schema.id})`"
        self._problems.add(call, f"`{name}` of whole events is not supported", hint=hint)
        return None

    def _groups(self) -> Scope:
        held = {k: self.bound.held[k].type for k in self.bound.keys}
        made = {n: a.type for n, a in self.bound.aggregates.items() if not a.function.is_list}
        return Scope({**held, **made, START: _TIME, END: _TIME}, {})

    def _compiled(
        self, node: exp.Expr, scope: Scope, *, expect: Kind | None = None
    ) -> Expression | None:
        try:
            return compile_node(node, self._problems.source, scope, expect=expect)
        except ProjectError as error:
            self._problems.adopt(error)
            return None


def text(node: exp.Expr) -> str:
    """The text by which a part is known: the same for what means the same."""
    copy = node.copy()
    for part in copy.walk():
        if isinstance(part, exp.Identifier):
            part.set("this", part.name.lower())
            part.args["quoted"] = False
        elif isinstance(part, exp.Anonymous):
            part.set("this", str(part.this).lower())
    return shown(copy)


def shown(node: exp.Expr) -> str:
    """The part as SQL, with the names of functions as they are."""
    return node.sql(dialect="duckdb", comments=False, normalize_functions=False)


def _unfiltered(node: exp.Expr) -> exp.Expr:
    inner: exp.Expr = node.this if isinstance(node, exp.Filter) else node
    return inner
