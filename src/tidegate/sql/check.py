"""From a parsed tree to a checked one: names found, types settled, every mistake reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches

from sqlglot import expressions as exp

from tidegate.errors import Problem
from tidegate.schema import ColumnType
from tidegate.sql.functions import FUNCTIONS
from tidegate.sql.functions.cast import cast
from tidegate.sql.functions.logic import IS_FALSE, IS_NULL, IS_TRUE, NOT
from tidegate.sql.functions.signature import Function
from tidegate.sql.parse import Dialect, position
from tidegate.sql.source import SourceText
from tidegate.sql.tree import COLUMN, Node, literal
from tidegate.sql.types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    INTEGER,
    NULL,
    TEXT,
    Type,
    decimal,
)


class Refused(Exception):  # noqa: N818 - not an error of ours: carried to the list of problems
    """What is wrong with one node; raised inside the checker, reported with its place."""

    def __init__(
        self, message: str, *, hint: str | None = None, at: exp.Expr | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.at = at


class Checker:
    """Checks parsed nodes against a scope; `problems` collects what is wrong."""

    def __init__(
        self, source: SourceText, columns: Mapping[str, ColumnType], aliases: Mapping[str, str]
    ) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._columns = columns
        self._aliases = aliases
        self._folded = _fold_names(columns, aliases)

    def check(self, node: exp.Expr) -> Node | None:
        """The checked node, or none where it or a part of it is wrong."""
        handler = _HANDLERS.get(type(node))
        try:
            if handler is None:
                raise Refused(f"`{shown(node)}` is not supported here")
            return handler(self, node)
        except Refused as refused:
            self.report(refused.at or node, refused.message, hint=refused.hint)
        return None

    def report(self, node: exp.Expr, message: str, *, hint: str | None = None) -> None:
        """Note a problem at the node."""
        at = position(node, self.source)
        self.problems.append(self.source.problem(at, message, hint=hint))

    def column(self, node: exp.Expr) -> Node:
        """The column that the name stands for."""
        identifier = node.this
        if node.args.get("table") is not None or not isinstance(identifier, exp.Identifier):
            raise Refused(f"`{shown(node)}` is not a column", hint="name the column alone")
        found = self._find(identifier.name, quoted=bool(identifier.args.get("quoted")))
        if found is None:
            raise Refused(
                f"there is no column `{identifier.name}`", hint=self._nearest(identifier.name)
            )
        return Node(COLUMN, Type.of(self._columns[found]), (), found, found)

    def _find(self, name: str, *, quoted: bool) -> str | None:
        if name in self._columns:
            return name
        if name in self._aliases:
            return self._aliases[name]
        return None if quoted else self._folded.get(name.lower())

    def _nearest(self, name: str) -> str | None:
        near = get_close_matches(name.lower(), list(self._folded), n=1)
        return f"did you mean `{self._folded[near[0]]}`?" if near else None

    def call(self, name: str, nodes: Sequence[exp.Expr], whole: exp.Expr) -> Node | None:
        """The call of a function of the table; none where an argument is wrong already."""
        args = [self.check(node) for node in nodes]
        if any(arg is None for arg in args):
            return None
        return apply(FUNCTIONS[name], [a for a in args if a is not None], text=shown(whole))


def apply(function: Function, args: Sequence[Node], *, text: str) -> Node:
    """The function on checked arguments, each converted to what the function takes.

    Raises: Refused where the types do not fit.
    """
    types = _adapted(args)
    signature = function.resolve(types)
    if signature is None:
        given = ", ".join(str(a.type) for a in args)
        raise Refused(f"`{text}` is not defined for {given}", hint=f"it takes `{function.shown}`")
    converted = [convert(a, t) for a, t in zip(args, signature.params, strict=True)]
    return Node(signature.operation, signature.result, tuple(converted), None, text)


def convert(node: Node, target: Type) -> Node:
    """The node in the target type. Raises: Refused where it cannot be converted."""
    converted = cast(node, target, text=node.text)
    if converted is None:
        raise Refused(
            f"`{node.text}` is {node.type} where {target} is needed",
            hint=f"convert it: CAST({node.text} AS {target})",
        )
    return converted


def _adapted(args: Sequence[Node]) -> list[Type]:
    """The arguments' types; a text literal takes the type of what it stands beside."""
    others = {a.type for a in args if not _is_text(a) and a.type != NULL}
    if not others or TEXT in others:
        return [a.type for a in args]
    return [NULL if _is_text(a) else a.type for a in args]


def _is_text(node: Node) -> bool:
    return node.is_literal and node.type == TEXT and node.value is not None


def shown(node: exp.Expr, *, limit: int = 60) -> str:
    """The node as SQL, for messages."""
    text = node.sql(dialect=Dialect, normalize_functions=False, comments=False)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _fold_names(columns: Mapping[str, ColumnType], aliases: Mapping[str, str]) -> dict[str, str]:
    """Names in lower case; one that two columns share in lower case is left to its exact form."""
    folded: dict[str, str] = {}
    twice: set[str] = set()
    for name, column in [*aliases.items(), *((c, c) for c in columns)]:
        lower = name.lower()
        if folded.get(lower, column) != column:
            twice.add(lower)
        folded[lower] = column
    return {name: column for name, column in folded.items() if name not in twice}


def _literal(_: Checker, node: exp.Expr) -> Node:
    text = str(node.this)
    if node.args.get("is_string"):
        return literal(text, TEXT, text=shown(node))
    return number(text)


def number(text: str) -> Node:
    """The literal of a number as written, typed as DuckDB types it."""
    if "e" in text.lower():
        return literal(float(text), DOUBLE, text=text)
    if "." in text:
        value = Decimal(text)
        scale = len(text.partition(".")[2])
        digits = max(len(text.partition(".")[0]) + scale, scale + 1)
        if digits > 38:
            return literal(float(text), DOUBLE, text=text)
        return literal(int(value.scaleb(scale)), decimal(digits, scale), text=text)
    return whole(int(text), text)


def whole(value: int, text: str) -> Node:
    """The literal of a whole number. Raises: Refused beyond 64 bits."""
    if -(2**31) <= value < 2**31:
        return literal(value, INTEGER, text=text)
    if -(2**63) <= value < 2**63:
        return literal(value, BIGINT, text=text)
    raise Refused(f"`{text}` is too large for a bigint", hint=f"write it as a double: {text}e0")


def _negated(checker: Checker, node: exp.Expr) -> Node | None:
    inner = node.this
    if isinstance(inner, exp.Literal) and not inner.args.get("is_string"):
        text = str(inner.this)
        if text.isdigit():
            return whole(-int(text), f"-{text}")
        positive = number(text)
        assert isinstance(positive.value, int | float)  # noqa: S101 - a number's literal
        return literal(-positive.value, positive.type, text=f"-{text}")
    return checker.call("negate", [inner], node)


def _boolean(_: Checker, node: exp.Expr) -> Node:
    return literal(bool(node.this), BOOLEAN, text=shown(node))


def _null(_: Checker, __: exp.Expr) -> Node:
    return literal(None, NULL, text="NULL")


def _paren(checker: Checker, node: exp.Expr) -> Node | None:
    return checker.check(node.this)


def _binary(name: str) -> Handler:
    return lambda checker, node: checker.call(name, [node.this, node.expression], node)


def condition(node: Node) -> Node:
    """The node as a condition: numbers count as whether they are not zero, as in DuckDB."""
    return convert(node, BOOLEAN)


def _conjunction(name: str, kind: type[exp.Connector]) -> Handler:
    def handle(checker: Checker, node: exp.Expr) -> Node | None:
        parts = [checker.check(part) for part in _flat(node, kind)]
        if any(part is None for part in parts):
            return None
        args = [condition(part) for part in parts if part is not None]
        return apply(FUNCTIONS[name], args, text=shown(node))

    return handle


def _flat(node: exp.Expr, kind: type[exp.Connector]) -> list[exp.Expr]:
    """The parts of a chain of the same connector, in order, found without recursion."""
    parts: list[exp.Expr] = []
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, kind):
            waiting += [here.expression, here.this]
        elif isinstance(here, exp.Paren) and isinstance(here.this, kind):
            waiting.append(here.this)
        else:
            parts.append(here)
    return parts


def _not(checker: Checker, node: exp.Expr) -> Node | None:
    inner = checker.check(node.this)
    return None if inner is None else Node(NOT, BOOLEAN, (condition(inner),), None, shown(node))


def _is(checker: Checker, node: exp.Expr) -> Node | None:
    inner, tested = checker.check(node.this), node.expression
    if inner is None:
        return None
    if isinstance(tested, exp.Null):
        return Node(IS_NULL, BOOLEAN, (inner,), None, shown(node))
    if not isinstance(tested, exp.Boolean):
        raise Refused(f"`{shown(node)}` is not supported", hint="IS takes NULL, TRUE or FALSE")
    by = IS_TRUE if tested.this else IS_FALSE
    return Node(by, BOOLEAN, (condition(inner),), None, shown(node))


Handler = Callable[[Checker, exp.Expr], Node | None]

_HANDLERS: dict[type[exp.Expr], Handler] = {
    exp.Column: Checker.column,
    exp.Literal: _literal,
    exp.Boolean: _boolean,
    exp.Null: _null,
    exp.Paren: _paren,
    exp.Neg: _negated,
    exp.Not: _not,
    exp.Is: _is,
    exp.And: _conjunction("and", exp.And),
    exp.Or: _conjunction("or", exp.Or),
    exp.NullSafeEQ: _binary("is same"),
    exp.NullSafeNEQ: _binary("is different"),
    exp.EQ: _binary("="),
    exp.NEQ: _binary("<>"),
    exp.LT: _binary("<"),
    exp.LTE: _binary("<="),
    exp.GT: _binary(">"),
    exp.GTE: _binary(">="),
    exp.Add: _binary("+"),
    exp.Sub: _binary("-"),
    exp.Mul: _binary("*"),
    exp.Div: _binary("/"),
    exp.IntDiv: _binary("//"),
    exp.Mod: _binary("%"),
}
