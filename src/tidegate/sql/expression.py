"""Scalar SQL expressions, compiled once and evaluated on batches of columns.

This module is the whole surface of the package for rules, window queries and features: text and
scope in, columns out. What evaluates them is known only behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import expressions as exp

import tidegate.sql.nodes  # noqa: F401 - fills the table of handlers
from tidegate.errors import ProjectError
from tidegate.schema import ColumnType, Kind, Schema
from tidegate.sql.assembly import Bytes, word_of
from tidegate.sql.canonical import canonical
from tidegate.sql.check import Checker, convert
from tidegate.sql.columns import Column, Columns, array_of
from tidegate.sql.direct import Direct, Spread
from tidegate.sql.evaluate import DIRECT_ROWS_MAX, Evaluation
from tidegate.sql.functions.logic import COALESCE
from tidegate.sql.listed import Question
from tidegate.sql.parse import DEPTH_MAX, depth, parse_expression
from tidegate.sql.source import SourceText
from tidegate.sql.tree import COLUMN, Node
from tidegate.sql.types import INTERVAL, NULL, Name, Type, as_column

_WORDS = frozenset({Name.BIGINT, Name.DOUBLE, Name.TIMESTAMP})


@dataclass(frozen=True)
class Scope:
    """The names an expression may use: columns with their types, and aliases of columns.

    Names match without regard to case, as in SQL, unless quoted. `lists` are the lists that may be
    asked for, with the types of their values; None where none can be. `computed` names the columns
    that are no declared ones.
    """

    columns: Mapping[str, ColumnType]
    aliases: Mapping[str, str]
    lists: Mapping[str, ColumnType] | None = None
    computed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, schema: Schema) -> Scope:
        """The scope of a stream: its columns, and `event_id`/`event_time` for its id and time."""
        named = {"event_id": schema.id, "event_time": schema.event_time}
        aliases = {alias: name for alias, name in named.items() if alias not in schema.by_name}
        return cls({c.name: c.type for c in schema}, aliases)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One value per row of the batch, and the rows whose value could not be computed.

    `errors` maps a row to why (`integer overflow in `a * b``); the value there is null.
    """

    values: pa.Array[Any]
    errors: Mapping[int, str]


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    `type` is the type in which its values come out: NULL (`is_null`) as bigint, dates as
    timestamps. `columns` are the columns it reads, and `questions` what it asks of lists, whose
    answers have to stand beside them. `sql` is its canonical text: expressions over one scope with
    the same text have the same value.
    """

    type: ColumnType
    columns: frozenset[str]
    sql: str
    tree: Node
    questions: tuple[Question, ...] = ()

    @property
    def column(self) -> str | None:
        """The name of the column that this is, if it is nothing more than one."""
        return str(self.tree.value) if self.tree.op is COLUMN else None

    @property
    def filled(self) -> tuple[str, int] | None:
        """A column and what stands for its nulls, as a word, if this is nothing more than that.

        Values are words where they are whole numbers, doubles (by their bits) or microseconds.
        """
        tree = self.tree
        if tree.op is not COALESCE or len(tree.args) != 2 or tree.type.name not in _WORDS:
            return None
        column, fill = tree.args
        known = fill.is_literal and fill.value is not None
        if column.op is not COLUMN or not known or not column.type == fill.type == tree.type:
            return None
        return str(column.value), word_of(fill)

    @property
    def is_null(self) -> bool:
        """Whether the expression is NULL by its type, whatever the row."""
        return self.tree.type == NULL


def compile_expression(
    source: SourceText, scope: Scope, *, expect: Kind | None = None
) -> Expression:
    """The expression of the text, checked against the scope.

    `expect` asks for the kind of the result; NULL counts as any kind.
    Raises: ProjectError with every mistake found, each with its place.

    >>> scope = Scope({"price": ColumnType(Kind.DOUBLE)}, {})
    >>> compile_expression(SourceText("Price > 5"), scope).sql
    '"price" > 5'
    """
    return compile_node(parse_expression(source), source, scope, expect=expect)


def compile_node(
    node: exp.Expr, source: SourceText, scope: Scope, *, expect: Kind | None = None
) -> Expression:
    """The expression of a node that sqlglot parsed, in any dialect, from the source's text.

    Raises: ProjectError with every mistake found, each with its place in the source.
    """
    if depth(node) > DEPTH_MAX:
        raise ProjectError([source.problem(0, f"this is more than {DEPTH_MAX} levels deep")])
    checker = Checker(source, scope.columns, scope.aliases, lists=scope.lists)
    tree = checker.check(node)
    if tree is not None and expect is not None:
        tree = _expected(tree, expect, checker, node)
    column = None if tree is None else as_column(tree.type)
    if tree is not None and column is None:
        times = tree.type == INTERVAL
        hint = "take epoch(…) of it" if times else "CAST it to at most 18 digits"
        checker.report(node, f"a value of type {tree.type} cannot be a result", hint=hint)
    if checker.problems or tree is None or column is None:
        raise ProjectError(checker.problems)
    names = {str(n.value) for n in tree.walk() if n.op is COLUMN} - checker.questions.keys()
    questions = tuple(checker.questions.values())
    read = frozenset(names.union(*(q.reads for q in questions)))
    text = canonical(node, scope.columns, scope.aliases)
    return Expression(column, read, text, tree, questions)


def _expected(tree: Node, expect: Kind, checker: Checker, node: exp.Expr) -> Node | None:
    if tree.type == NULL and expect is not Kind.DECIMAL:
        return convert(tree, Type.of(ColumnType(expect)))
    column = as_column(tree.type)
    if tree.type != NULL and (column is None or column.kind is not expect):
        hint = "compare it with something" if expect is Kind.BOOLEAN else f"CAST(… AS {expect})"
        checker.report(node, f"this is {tree.type}, but {expect} is needed", hint=hint)
        return None
    return tree


class ExpressionSet:
    """Expressions evaluated together: what they share is computed once.

    Batches of up to `direct_rows_max` rows do without Polars where the operations allow it; the
    values are the same either way.

    The plan is made when the set is built; one thread at a time may evaluate it.
    """

    def __init__(
        self, expressions: Sequence[Expression], *, direct_rows_max: int = DIRECT_ROWS_MAX
    ) -> None:
        self.expressions = tuple(expressions)
        outputs = [(e.tree, e.type) for e in self.expressions]
        self._evaluation = Evaluation(outputs, direct_rows_max=direct_rows_max)

    def evaluate(self, batch: pa.RecordBatch) -> list[Evaluated]:
        """The expressions' values for each row of the batch, in the expressions' order.

        The batch has (at least) the columns read, in the Arrow types of `ColumnType.arrow`.
        Never raises for what is in a row: such a value is null and told in `errors`.
        """
        found = self._evaluation.run(Columns(batch))
        return [Evaluated(array_of(values), errors) for values, errors in found]

    def columns(
        self, columns: Columns, spread: Spread | None = None
    ) -> list[tuple[Column, Mapping[int, str]]]:
        """As `evaluate`, without making arrays of values that may only be read by kernels.

        `spread(task, size)` does `task(first, last)` over `size` things, several at once, and ends
        when all have ended: with it, large batches do without Polars too.
        """
        return self._evaluation.run(columns, spread)

    @property
    def machine(self) -> Direct | None:
        """What computes all of them for few rows and raises `GiveUp` where it cannot, if any can.

        One thread at a time may use it or the set.
        """
        return self._evaluation.machine

    def truths(self, columns: Columns) -> tuple[Bytes, Mapping[int, Mapping[int, str]]]:
        """Where conditions are true: 1 there and else 0, shape (expressions, rows).

        The errors are by the number of the expression, then by row.
        """
        return self._evaluation.truths(columns)
