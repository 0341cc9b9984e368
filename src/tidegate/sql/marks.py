"""Which outputs of a SELECT carry values of marked columns on to whoever reads them."""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import expressions as exp

# Beneath these a column is looked at, and what comes out is none of its values.
_LOOKED_AT = (exp.Predicate, exp.Not, exp.And, exp.Or, exp.Count)
_COUNTS = frozenset({"count", "count_if", "countif", "approx_count_distinct"})
# The parts of a window that choose and order its rows.
_CHOOSING = frozenset({"partition_by", "order", "spec"})


def carrying(select: exp.Select, marked: Collection[str]) -> frozenset[str]:
    """The names of the outputs that carry values of the `marked` columns, those among themselves.

    An output may use another by its name. What compares, counts or groups by a column does not
    carry it; what computes with it does, whatever it computes.
    """
    found: frozenset[str] = frozenset()
    while True:
        known = {name.lower() for name in (*marked, *found)}
        more = found | {o.alias_or_name for o in select.expressions if _carries(o, known)}
        if more == found:
            return found
        found = more


def _carries(output: exp.Expr, known: Collection[str]) -> bool:
    return any(c.name.lower() in known and _is_carried(c) for c in output.find_all(exp.Column))


def _is_carried(column: exp.Column) -> bool:
    node: exp.Expr = column
    while node.parent is not None and not isinstance(node.parent, exp.Select):
        parent, part = node.parent, node.arg_key
        if isinstance(parent, _LOOKED_AT):
            return False
        if isinstance(parent, exp.Anonymous) and parent.name.lower() in _COUNTS:
            return False
        if isinstance(parent, exp.Window) and part in _CHOOSING:
            return False
        if isinstance(parent, exp.Filter) and part == "expression":
            return False
        node = parent
    return True
