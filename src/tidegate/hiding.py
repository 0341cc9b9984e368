"""Which columns are hidden from those who may not see them in clear."""

from __future__ import annotations

import msgspec


class Hiding(msgspec.Struct, frozen=True, kw_only=True):
    """The columns that are hidden in each table, and the key of the pseudonyms in their place.

    `elsewhere` counts for tables that are in none of the others.
    """

    tables: dict[str, frozenset[str]]
    elsewhere: frozenset[str]
    key: bytes

    def __repr__(self) -> str:
        # Without the key: what is shown may be written down.
        return f"Hiding({sorted(self.tables)})"

    def columns(self, table: str) -> frozenset[str]:
        """The names of the columns that are hidden in a table."""
        return self.tables.get(table, self.elsewhere)
