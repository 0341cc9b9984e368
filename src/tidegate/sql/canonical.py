"""The canonical text of an expression: names resolved and quoted, keywords and spaces in one form.

Expressions over one scope with the same text have the same value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlglot import expressions as exp

from tidegate.sql.parse import Dialect


def canonical(node: exp.Expr, columns: Iterable[str], aliases: Mapping[str, str]) -> str:
    """The canonical text of a parsed node, whose names are those of columns or their aliases."""
    known = set(columns)
    folded = {n.lower(): c for n, c in [*aliases.items(), *((c, c) for c in known)]}

    def resolved(part: exp.Expr) -> exp.Expr:
        if not isinstance(part, exp.Column):
            return part
        name = part.name if part.name in known else folded.get(part.name.lower(), part.name)
        return exp.column(exp.to_identifier(name, quoted=True))

    return node.transform(resolved).sql(dialect=Dialect, comments=False)
