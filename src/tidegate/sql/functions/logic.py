"""Comparison, three-valued logic, and the forms that choose between values.

A part of AND, OR, CASE or COALESCE that does not decide the result in a row cannot fail that row:
`false AND error` is false, in either order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne, or_

import polars as pl

from tidegate.sql.functions.signature import Function, Resolve, Signature, adapted, fits, mixed
from tidegate.sql.plan import combined, narrowed, null_where
from tidegate.sql.tree import Fault, Lowered, Node, Operation
from tidegate.sql.types import BOOLEAN, Name, Type, common_of

_COMPARE: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "=": eq,
    "<>": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}


def _compared(symbol: str) -> Operation:
    # Polars orders doubles as DuckDB does: NaN equals NaN and is greatest, -0.0 equals 0.0.
    compare = _COMPARE[symbol]
    return Operation(symbol, lambda _, a: compare(a[0], a[1]), once=True)


COMPARED = tuple(_compared(symbol) for symbol in _COMPARE)
COMPARISONS = tuple(
    Function(by.name, f"value {by.name} value", mixed(by, gives=BOOLEAN, least=2))
    for by in COMPARED
)
SAME = Operation("same", lambda _, a: a[0].eq_missing(a[1]), once=True, nulls=True)
DIFFERENT = Operation("different", lambda _, a: a[0].ne_missing(a[1]), once=True, nulls=True)
IS_NULL = Operation("is null", lambda _, a: a[0].is_null(), once=True, nulls=True)
NOT = Operation("not", lambda _, a: ~a[0], once=True)
IS_TRUE = Operation("is true", lambda _, a: a[0].fill_null(value=False), once=True, nulls=True)
IS_FALSE = Operation("is false", lambda _, a: ~a[0].fill_null(value=True), once=True, nulls=True)


def _in(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    """The first value among the others; null where it is not, but one of them is null."""
    value, items = args[0], node.args[1:]
    if node.args[0].type.name in _HASHED and all(item.is_literal for item in items):
        known = [item.value for item in items if item.value is not None]
        found = value.is_in(pl.Series(known, dtype=node.args[0].type.physical).implode())
        if len(known) == len(items):
            return found
        return pl.when(found).then(pl.lit(value=True))
    return balanced(or_, [value == item for item in args[1:]])


def balanced(join: Callable[[pl.Expr, pl.Expr], pl.Expr], parts: Sequence[pl.Expr]) -> pl.Expr:
    """The parts joined as a balanced tree, so that many of them do not nest deep."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        rest = parts[-1:] if len(parts) % 2 else []
        parts = [*(join(a, b) for a, b in pairs), *rest]
    return parts[0]


# Doubles are compared one by one: NaN and the two zeros have their own equality.
_HASHED = frozenset({Name.TEXT, Name.INTEGER, Name.BIGINT})
IN = Operation("in", _in, nulls=True)


def _joined(join: Callable[[pl.Expr, pl.Expr], pl.Expr], *, decides: bool) -> Operation:
    """AND (decided by false) or OR (decided by true) of any number of parts."""

    def control(_: Node, args: Sequence[Lowered]) -> Lowered:
        whole = combined(balanced(join, [a.value for a in args]), args)
        faults: list[Fault] = []
        for place, arg in enumerate(args):
            # A part with a fault is null itself, so only the others can decide; one of them may be
            # the very same expression written again.
            others = [*args[:place], *args[place + 1 :]]
            decided = [_is(other.value, decides) for other in others]
            faults += narrowed(arg.faults, ~balanced(or_, decided)) if arg.faults else ()
        return _unless(whole, tuple(faults))

    return Operation("or" if decides else "and", control=control, once=True)


def _is(value: pl.Expr, wanted: bool) -> pl.Expr:  # noqa: FBT001 - the value compared with
    return (value if wanted else ~value).fill_null(value=False)


def _unless(lowered: Lowered, faults: tuple[Fault, ...]) -> Lowered:
    return Lowered(lowered.value, lowered.level, faults)


AND = _joined(and_, decides=False)
OR = _joined(or_, decides=True)


def _case(_: Node, args: Sequence[Lowered]) -> Lowered:
    """Arguments: condition, value, condition, value, …, the value of ELSE."""
    conditions, values = args[:-1:2], [*args[1::2], args[-1]]
    faults: list[Fault] = []
    earlier, spoiled = pl.lit(value=False), pl.lit(value=False)
    for condition, value in zip([*conditions, None], values, strict=True):
        open_ = ~(earlier | spoiled)
        if condition is None:
            faults += narrowed(value.faults, open_)
            break
        here = condition.value.fill_null(value=False)
        faults += narrowed(condition.faults, open_) + narrowed(value.faults, open_ & here)
        spoiled = reduce(or_, [f.condition for f in condition.faults], spoiled)
        earlier = earlier | here
    chosen = values[-1].value
    for condition, value in reversed(list(zip(conditions, values[:-1], strict=True))):
        chosen = pl.when(condition.value).then(value.value).otherwise(chosen)
    chosen = null_where(chosen, faults)
    return _unless(combined(chosen, args), tuple(faults))


def _coalesce(_: Node, args: Sequence[Lowered]) -> Lowered:
    faults: list[Fault] = []
    found, spoiled = pl.lit(value=False), pl.lit(value=False)
    for arg in args:
        faults += narrowed(arg.faults, ~(found | spoiled))
        spoiled = reduce(or_, [f.condition for f in arg.faults], spoiled)
        found = found | arg.value.is_not_null()
    value = null_where(pl.coalesce([a.value for a in args]), faults)
    return _unless(combined(value, args), tuple(faults))


CASE = Operation("case", control=_case)
COALESCE = Operation("coalesce", control=_coalesce)


def joined(by: Operation) -> Resolve:
    """A resolver for AND, OR: any number of booleans."""

    def resolve(types: Sequence[Type]) -> Signature | None:
        if not all(fits(t, BOOLEAN) for t in types):
            return None
        return Signature((BOOLEAN,) * len(types), BOOLEAN, by)

    return resolve


def _case_signature(args: Sequence[Node]) -> Signature | None:
    """The signature of CASE for condition, value, …, ELSE value."""
    shared = common_of(adapted([*args[1::2], args[-1]]))
    if shared is None:
        return None
    params = [BOOLEAN, shared] * (len(args) // 2) + [shared]
    return Signature(tuple(params), shared, CASE)


FORMS = (
    Function("and", "condition AND condition", joined(AND)),
    Function("or", "condition OR condition", joined(OR)),
    Function(
        "case",
        "CASE WHEN condition THEN value ELSE value END",
        lambda _: None,
        settle=_case_signature,
    ),
    Function("in", "value IN (value, …)", mixed(IN, gives=BOOLEAN, least=2)),
    Function("coalesce", "coalesce(value, …)", mixed(COALESCE)),
    Function("ifnull", "ifnull(value, value)", mixed(COALESCE, least=2)),
    Function("is same", "value IS NOT DISTINCT FROM value", mixed(SAME, gives=BOOLEAN, least=2)),
    Function(
        "is different", "value IS DISTINCT FROM value", mixed(DIFFERENT, gives=BOOLEAN, least=2)
    ),
)
