"""Literals as DuckDB types them: numbers and intervals."""

from __future__ import annotations

import re
from decimal import Decimal

from tidegate.sql.check import Refused
from tidegate.sql.functions.time import unit_named
from tidegate.sql.tree import Node, Span, literal
from tidegate.sql.types import BIGINT, DIGITS_MAX, DOUBLE, INTEGER, decimal


def number(text: str) -> Node:
    """The literal of a number as written, typed as DuckDB types it."""
    if "e" in text.lower():
        return literal(float(text), DOUBLE, text=text)
    if "." in text:
        value = Decimal(text)
        scale = len(text.partition(".")[2])
        digits = max(len(text.partition(".")[0]) + scale, scale + 1)
        if digits > DIGITS_MAX:
            return literal(float(text), DOUBLE, text=text)
        return literal(int(value.scaleb(scale)), decimal(digits, scale), text=text)
    return whole(int(text), text)


def whole(value: int, text: str) -> Node:
    """The literal of a whole number. Raises: Refused beyond 64 bits."""
    if -(2**31) <= value < 2**31:
        return literal(value, INTEGER, text=text)
    if -(2**63) <= value < 2**63:
        return literal(value, BIGINT, text=text)
    raise Refused(f"`{text}` is too large for a bigint", hint=f"write it as a double: {text}e0")


_COUNT = re.compile(r"\s*([+-]?\d+)\s*([A-Za-z]+)?\s*", re.ASCII)


def span_of(text: str, unit: str) -> Span:
    """The literal interval of a text such as `5`, with its unit, or `1 day 2 hours`."""
    months = micros = at = 0
    while at < len(text) or at == 0:
        match = _COUNT.match(text, at)
        found = unit_named((match[2] or unit) if match else "")
        if match is None or found is None:
            raise Refused(f"`{text} {unit}` is not an interval", hint="write `INTERVAL 5 MINUTES`")
        months += int(match[1]) * found[0]
        micros += int(match[1]) * found[1]
        at = match.end()
    if abs(months) > 3_000_000 or abs(micros) >= 2**62:
        raise Refused(f"`{text} {unit}` is too long for an interval")
    return Span(months, micros)
