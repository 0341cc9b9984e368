"""From a parsed tree to a checked one: names found, types settled, every mistake reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sqlglot import expressions as exp
from sqlglot import parse_one
from sqlglot.errors import SqlglotError

from tidegate.errors import Problem
from tidegate.schema import ColumnType
from tidegate.sql.fold import folded
from tidegate.sql.functions import FUNCTIONS
from tidegate.sql.functions.cast import cast
from tidegate.sql.functions.signature import Function, adapted
from tidegate.sql.parse import Dialect, position
from tidegate.sql.source import SourceText
from tidegate.sql.tree import COLUMN, Node, literal
from tidegate.sql.types import BOOLEAN, JSON, NULL, TEXT, TEXTUAL, Type

if TYPE_CHECKING:
    from tidegate.sql.listed import Question


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
    """Checks parsed nodes against a scope; `problems` collects what is wrong.

    `lists` are those that may be asked for, with the types of their values, None where that makes
    no sense; `questions` collects what is asked, by the column that will have the answers.
    """

    def __init__(
        self,
        source: SourceText,
        columns: Mapping[str, ColumnType],
        aliases: Mapping[str, str],
        *,
        lists: Mapping[str, ColumnType] | None = None,
    ) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.lists = lists
        self.questions: dict[str, Question] = {}
        self.columns, self.aliases = columns, aliases
        self._columns = columns
        self._aliases = aliases
        self._folded = _fold_names(columns, aliases)

    def check(self, node: exp.Expr) -> Node | None:
        """The checked node, or none where it or a part of it is wrong."""
        handler = HANDLERS.get(type(node)) or _other
        try:
            found = handler(self, node)
            return found if found is None else folded(found)
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
        args = self.all(nodes)
        return None if args is None else apply(FUNCTIONS[name], args, text=shown(whole))

    def all(self, nodes: Sequence[exp.Expr]) -> list[Node] | None:
        """The checked nodes, or none where one is wrong; every one is looked at."""
        args = [self.check(node) for node in nodes]
        known = [arg for arg in args if arg is not None]
        return known if len(known) == len(args) else None


def apply(function: Function, args: Sequence[Node], *, text: str) -> Node:
    """The function on checked arguments, each converted to what the function takes.

    Raises: Refused where the types do not fit.
    """
    _require_literals(function, args, text)
    signature = function.settle(args) if function.settle else function.resolve(adapted(args))
    if signature is None:
        raise _no_signature(function, args, text)
    by = signature.operation
    if (
        by.build
        and not by.nulls
        and any(a.type == NULL or (a.is_literal and a.value is None) for a in args)
    ):
        # As in DuckDB: NULL as written makes the call NULL, whatever the other arguments do.
        return literal(None, signature.result, text=text)
    complaint = function.prepare(args) if function.prepare else None
    if complaint:
        raise Refused(complaint, hint=f"it takes `{function.shown}`")
    converted = [convert(a, t) for a, t in zip(args, signature.params, strict=True)]
    return Node(signature.operation, signature.result, tuple(converted), None, text)


def _require_literals(function: Function, args: Sequence[Node], text: str) -> None:
    for index in function.literals:
        if index < len(args) and not args[index].is_literal:
            hint = f"write the value itself: `{function.shown}`"
            raise Refused(f"`{args[index].text}` in `{text}` must be a literal", hint=hint)


def _no_signature(function: Function, args: Sequence[Node], text: str) -> Refused:
    given = ", ".join(str(a.type) for a in args) or "no arguments"
    hint = f"it takes `{function.shown}`"
    if {a.type for a in args} & {TEXT, JSON} and len({a.type for a in args}) > 1:
        hint += "; convert with CAST(… AS …) where types differ"
    return Refused(f"`{text}` is not defined for {given}", hint=hint)


def convert(node: Node, target: Type) -> Node:
    """The node in the target type. Raises: Refused where it cannot be converted."""
    converted = cast(node, target, text=node.text)
    if converted is None:
        raise Refused(
            f"`{node.text}` is {node.type} where {target} is needed",
            hint=f"convert it: CAST({node.text} AS {target})",
        )
    if not node.is_literal or converted.is_literal:
        return converted
    value = folded(converted)
    if not value.is_literal:
        raise Refused(f"`{node.text}` cannot be read as {target}")
    return value


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


def condition(node: Node) -> Node:
    """The node as a condition: numbers count as whether they are not zero, as in DuckDB.

    Raises: Refused for text, which DuckDB would try to read as a boolean row by row.
    """
    if node.type.name in TEXTUAL and not node.is_literal:
        hint = f"compare it, or write CAST({node.text} AS boolean)"
        raise Refused(f"`{node.text}` is {node.type} where a condition is needed", hint=hint)
    return convert(node, BOOLEAN)


Handler = Callable[[Checker, exp.Expr], Node | None]

# How each kind of parsed node is checked; `nodes.py` fills it, and packages that add aggregates or
# window functions register theirs here.
HANDLERS: dict[type[exp.Expr], Handler] = {exp.Column: Checker.column}


def _other(checker: Checker, node: exp.Expr) -> Node | None:
    """Functions that the dialect of the parser knows by a class of its own."""
    plain = in_our_dialect(node) if isinstance(node, exp.Func) else None
    if plain is None or type(plain) not in HANDLERS:
        raise Refused(f"`{shown(node)}` is not supported")
    return checker.check(plain)


def in_our_dialect(node: exp.Expr) -> exp.Expr | None:
    """The node as our parser gives it, its parts kept as they are with their places."""
    copy, parts = node.copy(), [c for c in node.iter_expressions() if not isinstance(c, _WORDS)]
    for index, part in enumerate([c for c in copy.iter_expressions() if not isinstance(c, _WORDS)]):
        part.replace(exp.column(exp.to_identifier(f"#{index}", quoted=True)))
    try:
        plain = parse_one(copy.sql(dialect="duckdb"), dialect=Dialect)
    except SqlglotError:
        return None
    return plain.transform(
        lambda n: parts[int(n.name[1:])] if isinstance(n, exp.Column) and n.name[:1] == "#" else n
    )


_WORDS = (exp.Literal, exp.Var, exp.DataType, exp.JSONPath)
