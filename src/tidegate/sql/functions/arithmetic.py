"""The operators + - * / // % and the sign, on numbers.

Whole numbers and decimals are computed wide enough not to wrap, then held to their type: what does
not fit becomes null, which the plan reports as an error of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add, and_, mul, sub

import numpy as np
import polars as pl

from tidegate.sql.functions.signature import Function, Resolve, Signature, first_of
from tidegate.sql.tree import Node, Operation
from tidegate.sql.types import (
    BIGINT,
    DIGITS_INT64,
    DIGITS_MAX,
    DOUBLE,
    INTEGER,
    NULL,
    NUMERIC,
    WHOLE,
    Name,
    Type,
    as_decimal,
    common,
    decimal,
)

Combine = Callable[[pl.Expr, pl.Expr], pl.Expr]

_INTEGER_MAX = 2**31 - 1


def held(value: pl.Expr, type_: Type) -> pl.Expr:
    """The exact value where it fits the whole-number or decimal type, null elsewhere.

    `value` is Int128 for bigint and decimals, Int64 for integer.
    """
    match type_.name:
        case Name.BIGINT:
            return value.cast(pl.Int64, strict=False)
        case Name.INTEGER:
            inside = value.is_between(-_INTEGER_MAX - 1, _INTEGER_MAX)
            return pl.when(inside).then(value)
        case _:
            return pl.when(within(value, 10**type_.precision - 1)).then(value)


def within(value: pl.Expr, limit: int) -> pl.Expr:
    """Whether the Int128 lies in -limit … limit."""
    return value.is_between(pl.lit(-limit, dtype=pl.Int128), pl.lit(limit, dtype=pl.Int128))


def wide(value: pl.Expr, type_: Type) -> pl.Expr:
    """The value in a Polars type in which one + - * of this type cannot wrap."""
    return value.cast(pl.Int128) if type_ == BIGINT else value


def _exact(combine: Combine) -> Callable[[Node, Sequence[pl.Expr]], pl.Expr]:
    def build(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
        left, right = args
        return held(combine(wide(left, node.type), wide(right, node.type)), node.type)

    return build


def _multiply_decimals(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    left, right = args
    product = held(left * right, node.type)
    digits = sum(arg.type.precision for arg in node.args)
    if digits <= DIGITS_MAX:
        return product
    # Beyond 38 digits Int128 may wrap; well below that a double tells that it will.
    estimate = (left.cast(pl.Float64) * right.cast(pl.Float64)).abs()
    return pl.when(estimate < 1.2 * 10.0**DIGITS_MAX).then(product)


def _negate(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    value = args[0]
    if node.type == BIGINT:
        return pl.when(value != -(2**63)).then(-value)
    return held(0 - value, node.type)


def quotient(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """The whole quotient rounded toward zero; null for division by zero."""
    return pl.when(right != 0).then(left.truncdiv(right))


def remainder(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """The remainder with the sign of the dividend; null for division by zero."""
    return left - quotient(left, right) * right


def _divide_whole(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    return pl.when(_divisible(node, *args)).then(quotient(*args))


def _remain_whole(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    return pl.when(_divisible(node, *args)).then(remainder(*args))


def _divisible(node: Node, left: pl.Expr, right: pl.Expr) -> pl.Expr:
    lowest = -(2**63) if node.type == BIGINT else -(2**31)
    return (right != -1) | (left != lowest)


def by_numpy(function: np.ufunc, args: Sequence[pl.Expr]) -> pl.Expr:
    """A NumPy function of doubles, null where an argument is null."""

    def compute(series: Sequence[pl.Series]) -> pl.Series:
        with np.errstate(all="ignore"):
            found = pl.Series(function(*(s.to_numpy() for s in series)))
        known = reduce(and_, [s.is_not_null() for s in series])
        return found if known.all() else found.set(~known, None)

    return pl.map_batches(args, compute, return_dtype=pl.Float64(), is_elementwise=True)


def per_row(compute: Callable[..., object], args: Sequence[pl.Expr], gives: pl.DataType) -> pl.Expr:
    """A Python function of plain values, row by row; null where an argument is null."""

    def run(series: Sequence[pl.Series]) -> pl.Series:
        # A literal comes as one value for all rows.
        count = next((len(s) for s in series if len(s) != 1), 1)
        columns = [s.to_list() * (count if len(s) == 1 else 1) for s in series]
        rows = zip(*columns, strict=True)
        return pl.Series([None if None in r else compute(*r) for r in rows], dtype=gives)

    return pl.map_batches(args, run, return_dtype=gives, is_elementwise=True)


def divided(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """The correctly rounded quotient of doubles."""
    # Polars multiplies by the reciprocal where the divisor is one value for many rows: off by a
    # bit, and different for a batch of one.
    return by_numpy(np.true_divide, [left, right])


def _remain_double(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    # C's fmod, as in DuckDB: exact, with the sign of the dividend.
    return by_numpy(np.fmod, args)


# Polars takes short cuts where a value is one for many rows (0 + x is x, which loses the sign of a
# zero); NumPy has none.
ADD_DOUBLE = Operation("add.double", lambda _, a: by_numpy(np.add, a))
SUB_DOUBLE = Operation("sub.double", lambda _, a: by_numpy(np.subtract, a))
MUL_DOUBLE = Operation("mul.double", lambda _, a: a[0] * a[1], once=True)
DIV_DOUBLE = Operation("div.double", lambda _, a: divided(a[0], a[1]))
ADD_WHOLE = Operation("add.whole", _exact(add), fault="integer overflow")
SUB_WHOLE = Operation("sub.whole", _exact(sub), fault="integer overflow")
MUL_WHOLE = Operation("mul.whole", _exact(mul), fault="integer overflow")
ADD_DECIMAL = Operation("add.decimal", _exact(add), fault="decimal overflow")
SUB_DECIMAL = Operation("sub.decimal", _exact(sub), fault="decimal overflow")
MUL_DECIMAL = Operation("mul.decimal", _multiply_decimals, fault="decimal overflow")
DIVIDE_WHOLE = Operation("intdiv.whole", _divide_whole, fault="division by zero or overflow")
DIVIDE_DOUBLE = Operation(
    "intdiv.double",
    lambda _, a: pl.when(a[1] != 0.0).then(divided(a[0], a[1])),
    fault="division by zero",
)
REMAIN_WHOLE = Operation("mod.whole", _remain_whole, fault="division by zero or overflow")
REMAIN_DECIMAL = Operation(
    "mod.decimal", lambda _, a: remainder(a[0], a[1]), fault="division by zero"
)
REMAIN_DOUBLE = Operation("mod.double", _remain_double)
NEGATE_EXACT = Operation("neg.exact", _negate, fault="overflow")
NEGATE_DOUBLE = Operation("neg.double", lambda _, a: -a[0], once=True)


def _numbers(types: Sequence[Type], count: int = 2) -> bool:
    return len(types) == count and all(t.name in NUMERIC or t == NULL for t in types)


def _shared(types: Sequence[Type]) -> Type | None:
    """The common type of numbers; NULL alone counts as bigint, as in DuckDB."""
    shared = common(types[0], types[1])
    return BIGINT if shared == NULL else shared


def _whole(by: Operation) -> Resolve:
    def resolve(types: Sequence[Type]) -> Signature | None:
        shared = _shared(types) if _numbers(types) else None
        if shared is None or shared.name not in WHOLE:
            return None
        return Signature((shared, shared), shared, by)

    return resolve


def _doubles(by: Operation) -> Resolve:
    def resolve(types: Sequence[Type]) -> Signature | None:
        return Signature((DOUBLE, DOUBLE), DOUBLE, by) if _numbers(types) else None

    return resolve


def _any_double(by: Operation) -> Resolve:
    def resolve(types: Sequence[Type]) -> Signature | None:
        return _doubles(by)(types) if DOUBLE in types else None

    return resolve


def _sum(by: Operation) -> Resolve:
    def resolve(types: Sequence[Type]) -> Signature | None:
        shared = _shared(types) if _numbers(types) else None
        if shared is None or shared.name is not Name.DECIMAL:
            return None
        result = decimal(shared.precision + 1, shared.scale)
        param = decimal(result.precision, shared.scale)
        return Signature((param, param), result, by)

    return resolve


def _product(by: Operation) -> Resolve:
    def resolve(types: Sequence[Type]) -> Signature | None:
        if not _numbers(types) or DOUBLE in types:
            return None
        left, right = (as_decimal(t if t != NULL else INTEGER) for t in types)
        digits = left.precision + right.precision
        # As DuckDB: a product stays within 18 digits as long as its factors do.
        if max(left.precision, right.precision) <= DIGITS_INT64:
            digits = min(digits, DIGITS_INT64)
        scale = left.scale + right.scale
        if scale > DIGITS_MAX:
            return None
        return Signature((left, right), decimal(max(digits, scale), scale), by)

    return resolve


def _remainder(types: Sequence[Type]) -> Signature | None:
    shared = _shared(types) if _numbers(types) else None
    if shared is None or shared.name is not Name.DECIMAL:
        return None
    return Signature((shared, shared), shared, REMAIN_DECIMAL)


def _sign(types: Sequence[Type]) -> Signature | None:
    if not _numbers(types, 1):
        return None
    type_ = BIGINT if types[0] == NULL else types[0]
    return Signature((type_,), type_, NEGATE_DOUBLE if type_ == DOUBLE else NEGATE_EXACT)


PLUS = first_of(_any_double(ADD_DOUBLE), _whole(ADD_WHOLE), _sum(ADD_DECIMAL))
MINUS = first_of(_any_double(SUB_DOUBLE), _whole(SUB_WHOLE), _sum(SUB_DECIMAL))
TIMES = first_of(_any_double(MUL_DOUBLE), _whole(MUL_WHOLE), _product(MUL_DECIMAL))
MODULO = first_of(_any_double(REMAIN_DOUBLE), _whole(REMAIN_WHOLE), _remainder)

OPERATORS = (
    Function("*", "number * number", TIMES),
    Function("/", "number / number", _doubles(DIV_DOUBLE)),
    Function("//", "number // number", first_of(_whole(DIVIDE_WHOLE), _doubles(DIVIDE_DOUBLE))),
    Function("%", "number % number", MODULO),
    Function("unary -", "- number", _sign),
)
