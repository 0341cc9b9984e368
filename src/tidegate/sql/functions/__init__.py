"""The function table: every function and operator, by name, a module for each theme."""

from __future__ import annotations

from tidegate.sql.functions import arithmetic, document, logic, numbers, text, time
from tidegate.sql.functions.signature import Function, first_of

FUNCTIONS: dict[str, Function] = {
    entry.name: entry
    for entry in (
        Function(
            "+", "number + number, timestamp + interval", first_of(arithmetic.PLUS, time.PLUS)
        ),
        Function(
            "-", "number - number, timestamp - interval", first_of(arithmetic.MINUS, time.MINUS)
        ),
        *arithmetic.OPERATORS,
        *logic.COMPARISONS,
        *logic.FORMS,
        *numbers.FUNCTIONS,
        *text.FUNCTIONS,
        *time.FUNCTIONS,
        *document.FUNCTIONS,
    )
}

__all__ = ["FUNCTIONS", "Function"]
