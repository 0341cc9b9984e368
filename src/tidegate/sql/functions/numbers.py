"""Functions of numbers: rounding, roots, logarithms, trigonometry, greatest and least."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import polars as pl

from tidegate.sql.functions.arithmetic import MODULO, divided, held, per_row
from tidegate.sql.functions.cast import halved
from tidegate.sql.functions.signature import Function, Resolve, Signature, first_of, mixed, takes
from tidegate.sql.tree import Node, Operation
from tidegate.sql.types import BIGINT, BOOLEAN, DOUBLE, INTEGER, NULL, WHOLE, Name, Type, decimal


def _plain(name: str, compute: Callable[[pl.Expr], pl.Expr]) -> Function:
    """A function from one double to another that never fails: NaN where it has no value."""
    by = Operation(name, lambda _, args: compute(args[0]))
    return Function(name, f"{name}(number)", takes(DOUBLE, gives=DOUBLE, by=by))


def _by_library(
    function: Callable[..., float], otherwise: np.ufunc, args: Sequence[pl.Expr]
) -> pl.Expr:
    """A function of Python's math module, which is the C library's as in DuckDB, value by value.

    NumPy's own may be off by a bit, and differ with what stands beside a value in the batch; it
    only answers where the module raises: infinities and NaN.
    """

    def one(*values: float) -> float:
        try:
            return function(*values)
        except (ValueError, OverflowError):
            with np.errstate(all="ignore"):
                return float(otherwise(*(np.float64(v) for v in values)))

    return per_row(one, args, pl.Float64())


def _library(
    name: str, function: Callable[..., float], otherwise: np.ufunc, count: int = 1
) -> Function:
    by = Operation(name, lambda _, args: _by_library(function, otherwise, args))
    shown = f"{name}({', '.join(['number'] * count)})"
    return Function(name, shown, takes(*[DOUBLE] * count, gives=DOUBLE, by=by))


def _abs(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    value = args[0]
    if node.type == DOUBLE:
        return value.abs()
    lowest = -(2**63) if node.type == BIGINT else -(2**31)
    return pl.when(value != lowest).then(value.abs())


_ABS_DOUBLE = Operation("abs.double", _abs)
_ABS_WHOLE = Operation("abs.whole", _abs, fault="integer overflow")
_ABS_DECIMAL = Operation("abs.decimal", lambda _, a: a[0].abs())


def _by_kind(double: Operation, whole: Operation, exact: Operation) -> Resolve:
    """A resolver for one number whose type is kept."""

    def resolve(types: Sequence[Type]) -> Signature | None:
        type_ = BIGINT if types and types[0] == NULL else types[0] if types else NULL
        by = {Name.DOUBLE: double, Name.DECIMAL: exact}.get(type_.name, whole)
        known = type_.name in WHOLE or type_.name in (Name.DOUBLE, Name.DECIMAL)
        return Signature((type_,), type_, by) if len(types) == 1 and known else None

    return resolve


def _sign(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    value = args[0]
    if node.args[0].type == DOUBLE:
        # NaN has no sign: DuckDB says 0.
        value = pl.when(value.is_nan()).then(pl.lit(0.0)).otherwise(value)
    up, down = (value > 0).cast(pl.Int64), (value < 0).cast(pl.Int64)
    return up - down


_SIGN = Operation("sign", _sign)


def _sign_signature(types: Sequence[Type]) -> Signature | None:
    kept = _by_kind(_SIGN, _SIGN, _SIGN)(types)
    return None if kept is None else Signature(kept.params, INTEGER, _SIGN)


def _toward(name: str, whole_of: Callable[[pl.Expr], pl.Expr], bump: int) -> Function:
    """Floor (`bump` -1) or ceil (+1): of decimals exact, of other numbers as a double."""

    def build(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
        value, factor = args[0], 10 ** node.args[0].type.scale
        scale = pl.lit(factor, dtype=pl.Int128)
        towards_zero = value.truncdiv(scale)
        rest = value - towards_zero * scale
        beyond = (rest < 0) if bump < 0 else (rest > 0)
        return towards_zero + beyond.cast(pl.Int128) * bump

    exact = Operation(f"{name}.decimal", build)
    double = Operation(f"{name}.double", lambda _, args: whole_of(args[0]))

    def resolve(types: Sequence[Type]) -> Signature | None:
        if len(types) == 1 and types[0].name is Name.DECIMAL:
            return Signature((types[0],), decimal(types[0].precision, 0), exact)
        return takes(DOUBLE, gives=DOUBLE, by=double)(types)

    return Function(name, f"{name}(number)", resolve)


def _round_double(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    digits = _digits(node)
    value = args[0]
    if digits == 0:
        return value.round(0, mode="half_away_from_zero")
    factor = pl.lit(10.0 ** abs(digits))
    if digits > 0:
        rounded = divided((value * factor).round(0, mode="half_away_from_zero"), factor)
    else:
        rounded = divided(value, factor).round(0, mode="half_away_from_zero") * factor
    return pl.when(rounded.is_finite()).then(rounded).otherwise(value)


def _round_exact(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    digits, given = _digits(node), node.args[0].type
    drop = given.scale - digits
    if drop <= 0:
        return args[0]
    wide = args[0].cast(pl.Int128)
    kept = halved(wide, 10**drop) if drop <= given.precision + 1 else wide * 0
    return held(kept * 10 ** max(0, -digits), node.type)


def _digits(node: Node) -> int:
    return int(str(node.args[1].value)) if len(node.args) > 1 else 0


_ROUND_DOUBLE = Operation("round.double", _round_double)
_ROUND_WHOLE = Operation("round.whole", lambda n, a: _round_whole(n, a), fault="integer overflow")
_ROUND_DECIMAL = Operation("round.decimal", _round_exact, fault="decimal overflow")


def _round_whole(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    digits = _digits(node)
    if digits >= 0:
        return args[0]
    if -digits > 19:
        return args[0] * 0
    rounded = halved(args[0].cast(pl.Int128), 10**-digits) * pl.lit(10**-digits, dtype=pl.Int128)
    return (
        held(rounded.cast(pl.Int64, strict=False), node.type)
        if node.type == INTEGER
        else held(rounded, node.type)
    )


def _check_digits(args: Sequence[Node]) -> str | None:
    if len(args) == 2 and not (isinstance(args[1].value, int) and abs(args[1].value) <= 38):
        return "the digits to round to are a whole number from -38 to 38"
    return None


_CHOICES = {
    "greatest": lambda a, b: pl.when(a.is_null() | (b > a)).then(b).otherwise(a),
    "least": lambda a, b: pl.when(a.is_null() | (b < a)).then(b).otherwise(a),
}


def _choice(name: str) -> Function:
    by = Operation(name, lambda _, args: reduce(_CHOICES[name], args), nulls=True)
    return Function(name, f"{name}(value, …)", mixed(by))


def _log(_: Node, args: Sequence[pl.Expr]) -> pl.Expr:
    logs = [_by_library(math.log10, np.log10, [arg]) for arg in args]
    return logs[0] if len(logs) == 1 else divided(logs[1], logs[0])


_LOG = Operation("log", _log)


def _test(name: str, compute: Callable[[pl.Expr], pl.Expr]) -> Function:
    by = Operation(name, lambda _, args: compute(args[0]))
    return Function(name, f"{name}(number)", takes(DOUBLE, gives=BOOLEAN, by=by))


def _round_signature(args: Sequence[Node]) -> Signature | None:
    """The signature of ROUND, whose result depends on the digits asked for."""
    kept = _by_kind(_ROUND_DOUBLE, _ROUND_WHOLE, _ROUND_DECIMAL)([a.type for a in args[:1]])
    if kept is None or len(args) > 2:
        return None
    result = kept.result
    if result.name is Name.DECIMAL:
        digits = args[1].value if len(args) == 2 else 0
        scale = digits if isinstance(digits, int) else 0
        result = decimal(result.precision, max(0, min(scale, result.scale)))
    return Signature((kept.result, INTEGER)[: len(args)], result, kept.operation)


FUNCTIONS = (
    Function("abs", "abs(number)", _by_kind(_ABS_DOUBLE, _ABS_WHOLE, _ABS_DECIMAL)),
    Function(
        "round",
        "round(number) or round(number, digits)",
        lambda _: None,
        settle=_round_signature,
        literals=frozenset({1}),
        prepare=_check_digits,
    ),
    Function("sign", "sign(number)", _sign_signature),
    _toward("floor", lambda v: v.floor(), -1),
    _toward("ceil", lambda v: v.ceil(), +1),
    _toward("ceiling", lambda v: v.ceil(), +1),
    Function("mod", "mod(number, number)", MODULO),
    Function(
        "log",
        "log(number) or log(base, number)",
        first_of(
            takes(DOUBLE, gives=DOUBLE, by=_LOG), takes(DOUBLE, DOUBLE, gives=DOUBLE, by=_LOG)
        ),
    ),
    Function("pi", "pi()", takes(gives=DOUBLE, by=Operation("pi", lambda _, __: pl.lit(math.pi)))),
    _choice("greatest"),
    _choice("least"),
    _plain("sqrt", lambda v: v.sqrt()),
    _plain("cbrt", lambda v: v.cbrt()),
    _plain("exp", lambda v: v.exp()),
    _plain("ln", lambda v: v.log()),
    _plain("sin", lambda v: v.sin()),
    _plain("cos", lambda v: v.cos()),
    _plain("tan", lambda v: v.tan()),
    _plain("asin", lambda v: v.arcsin()),
    _plain("acos", lambda v: v.arccos()),
    _plain("atan", lambda v: v.arctan()),
    _library("log10", math.log10, np.log10),
    _library("log2", math.log2, np.log2),
    _library("atan2", math.atan2, np.arctan2, 2),
    _library("pow", math.pow, np.power, 2),
    _library("power", math.pow, np.power, 2),
    _plain("radians", lambda v: v * (math.pi / 180.0)),
    _plain("degrees", lambda v: v * (180.0 / math.pi)),
    _test("isnan", lambda v: v.is_nan()),
    _test("isinf", lambda v: v.is_infinite()),
    _test("isfinite", lambda v: v.is_finite()),
)
