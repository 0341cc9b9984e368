"""The function table: every function and operator, by name, a module for each theme."""

from __future__ import annotations

from tidegate.sql.functions import arithmetic, logic
from tidegate.sql.functions.signature import Function

FUNCTIONS: dict[str, Function] = {
    entry.name: entry for entry in (*arithmetic.OPERATORS, *logic.COMPARISONS, *logic.FORMS)
}
