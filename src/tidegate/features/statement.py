"""The text of a `features.sql` as one `SELECT … FROM events`; all else is refused."""

from __future__ import annotations

from itertools import pairwise

import sqlglot
from sqlglot import TokenType
from sqlglot import expressions as exp

from tidegate.features.problems import Problems
from tidegate.sql.parse import Dialect, parse_select, position
from tidegate.sql.source import SourceText

STREAM = "events"
LENGTH_MAX = 200_000

_EVERY_EVENT = "features are computed for every event"
_CHOOSE = "count only some events with `FILTER (WHERE …)` before OVER"
_FOREIGN: dict[str, tuple[str, str | None]] = {
    "with_": ("WITH", "name a feature and use its name in those that follow"),
    "distinct": ("DISTINCT", _EVERY_EVENT),
    "joins": ("JOIN", "features read the stream alone"),
    "laterals": ("LATERAL", "features read the stream alone"),
    "where": ("WHERE", _CHOOSE),
    "group": ("GROUP BY", "windows are over entities: `OVER (PARTITION BY …)`"),
    "having": ("HAVING", _CHOOSE),
    "qualify": ("QUALIFY", _CHOOSE),
    "order": ("ORDER BY", f"{_EVERY_EVENT}, in the order of the log"),
    "limit": ("LIMIT", _EVERY_EVENT),
    "offset": ("OFFSET", _EVERY_EVENT),
    "pivots": ("PIVOT", None),
    "sample": ("SAMPLE", _EVERY_EVENT),
    "into": ("INTO", None),
}
_KNOWN = frozenset({"expressions", "from_", "windows"})


def read(problems: Problems) -> exp.Select:
    """The SELECT of the text, its columns without the name of the stream before them.

    Raises: ProjectError where the text cannot be parsed; other mistakes are noted in `problems`.
    """
    select = parse_select(problems.source, length_max=LENGTH_MAX)
    _refuse_clauses(problems, select)
    _refuse_empty_partitions(problems)
    names = _stream(problems, select)
    for query in select.find_all(exp.Select):
        if query is not select and query.find_ancestor(exp.From, exp.With) is None:
            hint = "name a feature and use its name in those that follow"
            problems.add(query, "features have no subqueries", hint=hint)
    for column in select.find_all(exp.Column):
        _unqualify(problems, column, names)
    for call in [n for n in select.walk() if isinstance(n, exp.Min | exp.Max)]:
        _as_call(call, problems.source)
    problems.stop()
    return select


def _refuse_clauses(problems: Problems, select: exp.Select) -> None:
    for key, part in select.args.items():
        if key in _KNOWN or not part:
            continue
        words, hint = _FOREIGN.get(key, (key.strip("_").upper(), None))
        node = part[0] if isinstance(part, list) else part
        place = node if isinstance(node, exp.Expr) else select
        problems.add(place, f"features have no {words}", hint=hint)


def _refuse_empty_partitions(problems: Problems) -> None:
    """The parser takes PARTITION BY with nothing after it for a window over all events."""
    tokens = sqlglot.tokenize(problems.source.text, dialect=Dialect)
    ends = (TokenType.ORDER_BY, TokenType.R_PAREN)
    for token, following in pairwise(tokens):
        if token.token_type is TokenType.PARTITION_BY and following.token_type in ends:
            hint = "name a column, or leave PARTITION BY out for one group of all events"
            problems.add(token.start, "PARTITION BY names nothing", hint=hint)


def _stream(problems: Problems, select: exp.Select) -> frozenset[str]:
    """The names by which the stream's columns may be qualified."""
    clause = select.args.get("from_")
    table = clause.this if clause is not None else None
    hint = f"write `FROM {STREAM}`"
    if not isinstance(table, exp.Table) or table.args.get("db") is not None:
        problems.add(clause or select, "features read the stream and nothing else", hint=hint)
        return frozenset()
    if table.name.lower() != STREAM:
        problems.add(table, f"unknown table `{table.name}`", hint=hint)
    return frozenset({table.name.lower(), table.alias.lower()} - {""})


def _unqualify(problems: Problems, column: exp.Column, names: frozenset[str]) -> None:
    if column.table and column.table.lower() not in names:
        problems.add(column, f"unknown table `{column.table}`", hint=f"columns are of `{STREAM}`")
    column.set("table", None)


def _as_call(node: exp.Min | exp.Max, source: SourceText) -> None:
    """Gives `min` and `max`, which the parser treats apart, the form of other calls."""
    given = [part for part in (node.this, *node.expressions) if part is not None]
    call = exp.Anonymous(this=node.sql_name().lower(), expressions=given)
    if given:
        call.meta["start"] = position(node, source)
    node.replace(call)
