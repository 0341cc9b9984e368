"""Literals converted when an expression is compiled, by the same code that converts columns."""

from __future__ import annotations

import polars as pl

from tidegate.sql.plan import Plan
from tidegate.sql.tree import Node, literal


def folded(node: Node) -> Node | None:
    """The literal that the node, made of literals only, comes to; none where it fails."""
    plan = Plan([node])
    lowered = plan.lower(node)
    frame = pl.DataFrame({"#rows": [0]})
    for stage in plan.stages:
        frame = frame.with_columns(stage)
    value = frame.select(lowered.value.alias("v"))["v"][0]
    return None if value is None else literal(value, node.type, text=node.text)
