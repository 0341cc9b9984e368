"""From checked trees to Polars columns: each value computed once, each error kept to its row.

A plan lowers trees one after the other into stages. A stage is a set of new columns, each computed
from the batch and the stages before. A value used more than once becomes such a column; the rest
stays part of the expression that uses it, so that a plain rule is one Polars expression.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_, or_

import polars as pl

from tidegate.sql.tree import COLUMN, LITERAL, Fault, Lowered, Node, Operation, Span
from tidegate.sql.types import Name


class Plan:
    """Lowers trees and collects the stages they need."""

    def __init__(self, trees: Iterable[Node]) -> None:
        self.stages: list[list[pl.Expr]] = []
        self._lowered: dict[Node, Lowered] = {}
        self._uses = _count_uses(trees)

    def lower(self, node: Node) -> Lowered:
        """The node as a Polars expression; stages are added as needed."""
        known = self._lowered.get(node)
        if known is None:
            known = self._lower(node)
            if self._uses[node] > 1:
                known = self.share(known)
            self._lowered[node] = known
        return known

    def share(self, lowered: Lowered) -> Lowered:
        """The same value as a column of its own, which may be used any number of times."""
        if lowered.cheap:
            return lowered
        while len(self.stages) <= lowered.level:
            self.stages.append([])
        name = f"#{lowered.level}.{len(self.stages[lowered.level])}"
        self.stages[lowered.level].append(lowered.value.alias(name))
        return replace(
            lowered, value=pl.col(name), level=lowered.level + 1, cheap=True, loose=False
        )

    def _lower(self, node: Node) -> Lowered:
        if node.op is LITERAL:
            return Lowered(_literal(node), cheap=True)
        if node.op is COLUMN:
            return _column(node)
        args = [self.lower(arg) for arg in node.args]
        if node.op.control is not None:
            failing = any(arg.faults for arg in args)
            args = [self.share(arg) if failing or arg.loose else arg for arg in args]
            return replace(node.op.control(node, args), loose=not node.op.once)
        return self._strict(node, node.op, args)

    def _strict(self, node: Node, operation: Operation, args: list[Lowered]) -> Lowered:
        assert operation.build is not None  # noqa: S101 - every operation has one or the other
        repeats = not operation.once or operation.fault is not None
        args = [self.share(arg) if repeats or arg.loose else arg for arg in args]
        result = combined(operation.build(node, [a.value for a in args]), args)
        if operation.nulls and result.faults:
            result = replace(result, value=null_where(result.value, result.faults), loose=True)
        if operation.fault is None:
            return replace(result, loose=result.loose or not operation.once)
        result = self.share(result)
        failed = _failed(node, args, result)
        fault = Fault(failed, f"{operation.fault} in `{node.text}`", failed)
        return replace(result, faults=(*result.faults, fault))


def staged(frame: pl.DataFrame, stages: Iterable[Sequence[pl.Expr]]) -> pl.DataFrame:
    """The frame with the columns of all stages."""
    for stage in stages:
        # A column of one value for all rows is kept by Polars as that value, and then fails to
        # meet a literal; taken out and put back, it is a column like others.
        frame = pl.DataFrame(frame.with_columns(stage).get_columns())
    return frame


def _failed(node: Node, args: Iterable[Lowered], result: Lowered) -> pl.Expr:
    pairs = zip(node.args, args, strict=True)
    given = [a.value.is_not_null() for n, a in pairs if not n.is_literal or n.value is None]
    return reduce(and_, given, result.value.is_null())


def combined(value: pl.Expr, args: Iterable[Lowered]) -> Lowered:
    """A value computed from the arguments, with all their faults."""
    args = tuple(args)
    faults = tuple(dict.fromkeys(fault for arg in args for fault in arg.faults))
    return Lowered(value, max((a.level for a in args), default=0), faults)


def null_where(value: pl.Expr, faults: Sequence[Fault]) -> pl.Expr:
    """The value, null where a fault holds."""
    if not faults:
        return value
    return pl.when(~reduce(or_, [f.condition for f in faults])).then(value)


def narrowed(faults: Iterable[Fault], condition: pl.Expr) -> tuple[Fault, ...]:
    """The faults, only in rows where the condition (never null) holds."""
    return tuple(Fault(f.condition & condition, f.sentence, f.origin) for f in faults)


def _count_uses(trees: Iterable[Node]) -> Counter[Node]:
    uses: Counter[Node] = Counter()
    waiting = list(trees)
    while waiting:
        node = waiting.pop()
        uses[node] += 1
        if uses[node] == 1:
            waiting += node.args
    return uses


def _column(node: Node) -> Lowered:
    assert isinstance(node.value, str)  # noqa: S101 - columns are built with their name
    column = pl.col(node.value)
    if node.type.name in (Name.DECIMAL, Name.TIMESTAMP):
        return Lowered(column.to_physical())
    return Lowered(column, cheap=True)


def _literal(node: Node) -> pl.Expr:
    value = node.span.total if isinstance(node.value, Span) else node.value
    return pl.lit(value, dtype=node.type.physical)
