"""CAST among all types, written or implied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from tidegate.sql.functions.arithmetic import divided, held, within
from tidegate.sql.tree import LITERAL, Node, Operation, literal
from tidegate.sql.types import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    INTEGER,
    INTERVAL,
    NULL,
    TEXTUAL,
    WHOLE,
    Name,
    Type,
)

Convert = Callable[[pl.Expr, Type, Type], pl.Expr]


def cast(node: Node, target: Type, *, text: str = "") -> Node | None:
    """The node converted to the target type; none where there is no such conversion."""
    if node.type == target:
        return node
    if node.op is LITERAL and (node.value is None or node.type == NULL):
        return literal(None, target, text=node.text)
    if node.type == INTEGER and target == BIGINT:
        return (
            Node(node.op, target, node.args, node.value, node.text)
            if node.is_literal
            else Node(_SAME, target, (node,), None, text)
        )
    convert = _CONVERSIONS.get((node.type.name, target.name))
    if convert is None:
        return None
    return Node(convert, target, (node,), None, text or node.text)


def _op(name: str, convert: Convert, *, fails: bool = False) -> Operation:
    def build(node: Node, args: Sequence[pl.Expr]) -> pl.Expr:
        return convert(args[0], node.args[0].type, node.type)

    return Operation(name, build, fault="no such value" if fails else None)


def _whole_to_decimal(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    return held(value.cast(pl.Int128) * 10**to.scale, to)


def _decimal_to_double(value: pl.Expr, from_: Type, _: Type) -> pl.Expr:
    return divided(value.cast(pl.Float64), pl.lit(float(10**from_.scale)))


def halved(value: pl.Expr, divisor: int) -> pl.Expr:
    """The whole number divided, rounded to nearest, halves away from zero."""
    away = pl.when(value < 0).then(-(divisor // 2)).otherwise(divisor // 2).cast(pl.Int128)
    return (value + away).truncdiv(pl.lit(divisor, dtype=pl.Int128))


def rescaled(value: pl.Expr, from_: Type, to: Type) -> pl.Expr:
    """A decimal's whole number at another scale; null where it does not fit."""
    if to.scale < from_.scale:
        return held(halved(value, 10 ** (from_.scale - to.scale)), to)
    factor = 10 ** (to.scale - from_.scale)
    return pl.when(within(value, (10**to.precision - 1) // factor)).then(
        value * pl.lit(factor, dtype=pl.Int128)
    )


def _double_to_whole(value: pl.Expr, _: Type, to: Type) -> pl.Expr:
    # Halves to even, as DuckDB's nearbyint.
    nearest = value.round(0, mode="half_to_even")
    low, high = (-(2.0**63), 2.0**63) if to == BIGINT else (-(2.0**31), 2.0**31)
    return pl.when((nearest >= low) & (nearest < high)).then(nearest).cast(pl.Int64, strict=False)


_SAME = _op("same value", lambda v, _, __: v)

_CONVERSIONS: Mapping[tuple[Name, Name], Operation] = {
    (Name.BOOLEAN, Name.INTEGER): _op("boolean to whole", lambda v, _, to: v.cast(to.physical)),
    (Name.BOOLEAN, Name.BIGINT): _op("boolean to whole", lambda v, _, to: v.cast(to.physical)),
    (Name.BOOLEAN, Name.DOUBLE): _op("boolean to double", lambda v, _, to: v.cast(to.physical)),
    (Name.BOOLEAN, Name.DECIMAL): _op(
        "boolean to decimal",
        lambda v, f, to: _whole_to_decimal(v.cast(pl.Int64), f, to),
        fails=True,
    ),
    (Name.INTEGER, Name.BOOLEAN): _op("number to boolean", lambda v, _, __: v != 0),
    (Name.BIGINT, Name.BOOLEAN): _op("number to boolean", lambda v, _, __: v != 0),
    (Name.DOUBLE, Name.BOOLEAN): _op("number to boolean", lambda v, _, __: v != 0),
    (Name.DECIMAL, Name.BOOLEAN): _op("number to boolean", lambda v, _, __: v != 0),
    (Name.INTEGER, Name.DOUBLE): _op("whole to double", lambda v, _, to: v.cast(to.physical)),
    (Name.BIGINT, Name.DOUBLE): _op("whole to double", lambda v, _, to: v.cast(to.physical)),
    (Name.INTEGER, Name.DECIMAL): _op("whole to decimal", _whole_to_decimal, fails=True),
    (Name.BIGINT, Name.DECIMAL): _op("whole to decimal", _whole_to_decimal, fails=True),
    (Name.DECIMAL, Name.DOUBLE): _op("decimal to double", _decimal_to_double),
    (Name.DECIMAL, Name.DECIMAL): _op("decimal to decimal", rescaled, fails=True),
}

__all__ = ["BOOLEAN", "DOUBLE", "INTERVAL", "TEXTUAL", "WHOLE", "cast", "halved", "rescaled"]
