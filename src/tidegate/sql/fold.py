"""What is made of literals only is computed when an expression is compiled, by the same code."""

from __future__ import annotations

import polars as pl

from tidegate.sql.plan import Plan, staged
from tidegate.sql.tree import COLUMN, Fault, Lowered, Node, Operation, Span, literal
from tidegate.sql.types import INTERVAL


def folded(node: Node) -> Node:
    """The literal that a node without columns comes to; other nodes as they are.

    A node that fails becomes one that fails in every row: it may stand in a branch not taken.
    """
    if node.is_literal or any(part.op is COLUMN for part in node.walk()):
        return node
    plan = Plan([node])
    lowered = plan.lower(node)
    frame = staged(pl.DataFrame({"#rows": [0]}), plan.stages)
    sentences = [pl.when(f.condition).then(pl.lit(f.sentence)) for f in lowered.faults]
    told = pl.coalesce([*sentences, pl.lit(None, dtype=pl.String)])
    frame = frame.with_columns(lowered.value.alias("value"), told.alias("told"))
    if frame["told"][0] is not None:
        return _failing(node, str(frame["told"][0]))
    value = frame["value"][0]
    spans = node.type == INTERVAL and value is not None
    return literal(Span(0, value) if spans else value, node.type, text=node.text)


def _failing(node: Node, sentence: str) -> Node:
    fault = Fault(pl.lit(value=True), sentence, pl.lit(value=True))
    value = pl.lit(None, dtype=node.type.physical)
    by = Operation("failing", control=lambda _, __: Lowered(value, 0, (fault,), cheap=True))
    return Node(by, node.type, (), None, node.text)
