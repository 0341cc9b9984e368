"""What both spellings come to: a grid of windows, and a `SELECT` that speaks of their bounds.

Each spelling is a module with one function, `plain`, that takes the statement as parsed and gives
it back as a `Plain` query: the window is out of `GROUP BY` and `FROM`, and every way of writing a
bound of the window is the column `window_start` or `window_end`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from tidegate.windows.grid import Grid
from tidegate.windows.problems import Problems, position

START, END = "window_start", "window_end"

SECOND = 1_000_000
UNITS: Mapping[str, int] = {
    "microsecond": 1,
    "millisecond": 1_000,
    "second": SECOND,
    "minute": 60 * SECOND,
    "hour": 3_600 * SECOND,
    "day": 86_400 * SECOND,
    "week": 7 * 86_400 * SECOND,
}
SIZE_MAX = 366 * UNITS["day"]
# An event is taken up once by each window it lies in; beyond this a query would never keep up.
OVERLAP_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Plain:
    """A query without its window: `keys` are the other expressions of `GROUP BY`.

    `names` are the names by which columns may be qualified (the stream's and its alias).
    """

    select: exp.Select
    grid: Grid
    keys: tuple[exp.Expr, ...]
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Length:
    """A length of time as written, in microseconds."""

    micros: int
    node: exp.Expr


def column(name: str, at: exp.Expr) -> exp.Column:
    """A column of exactly this name, standing where `at` stood in the text."""
    identifier = exp.to_identifier(name, quoted=True)
    identifier.meta["start"] = position(at)
    return exp.Column(this=identifier)


def bound_of(node: exp.Expr) -> str | None:
    """Which bound of the window a column names, if any."""
    if isinstance(node, exp.Column) and not node.table and node.name.lower() in (START, END):
        return node.name.lower()
    return None


def called(node: exp.Expr) -> str:
    """The name of a called function, in lower case; empty for anything else."""
    return str(node.this).lower() if isinstance(node, exp.Anonymous) else ""


def grid(
    problems: Problems, *, size: Length, hop: Length, offset: Length | None, includes_end: bool
) -> Grid:
    """The grid of windows, with bounds on multiples of the hop since 1970 (plus the offset)."""
    shift = offset.micros if offset else 0
    _check(problems, size=size, hop=hop)
    # The end of each window lies on the grid in `(start, end]`, its start in `[start, end)`.
    aligned = -size.micros if includes_end else 0
    origin = (aligned + shift) % max(hop.micros, 1)
    return Grid(max(size.micros, 1), max(hop.micros, 1), origin, includes_end)


def _check(problems: Problems, *, size: Length, hop: Length) -> None:
    for length in (size, hop):
        if not 0 < length.micros <= SIZE_MAX:
            hint = "a window lasts from one microsecond to 366 days"
            problems.add(length.node, "a window cannot last this long", hint=hint)
            return
    if hop.micros > size.micros:
        hint = "check the order of the two: events between the windows would count in none"
        problems.add(hop.node, "the hop is longer than the window", hint=hint)
    elif size.micros > OVERLAP_MAX * hop.micros:
        hint = f"an event may lie in {OVERLAP_MAX:,} windows at most"
        problems.add(hop.node, "the hop is too short for a window of this size", hint=hint)


_FOREIGN = {
    "with_": ("WITH", "write one `SELECT` over the stream"),
    "distinct": ("SELECT DISTINCT", "groups are distinct already"),
    "joins": ("JOIN", "a window query reads the stream alone"),
    "laterals": ("LATERAL", "a window query reads the stream alone"),
    "qualify": ("QUALIFY", "use HAVING"),
    "windows": ("WINDOW", "aggregates here are over groups, not over frames"),
    "order": ("ORDER BY", "rows come in the order in which windows close"),
    "limit": ("LIMIT", "use HAVING to choose rows"),
    "offset": ("OFFSET", "use HAVING to choose rows"),
    "pivots": ("PIVOT", None),
    "sample": ("SAMPLE", None),
}


def refuse_foreign(problems: Problems, select: exp.Select) -> None:
    """Notes the clauses that a window query cannot have."""
    for key, (words, hint) in _FOREIGN.items():
        part = select.args.get(key)
        if part:
            node = part[0] if isinstance(part, list) else part
            place = node if isinstance(node, exp.Expr) else select
            problems.add(place, f"a window query has no {words}", hint=hint)
    group = select.args.get("group")
    for key in ("all", "cube", "rollup", "grouping_sets", "totals"):
        if group is not None and group.args.get(key):
            hint = "name each expression that the rows are grouped by"
            problems.add(
                group, f"GROUP BY {key.replace('_', ' ').upper()} is not supported", hint=hint
            )


def group_of(select: exp.Select) -> list[exp.Expr]:
    """The expressions of `GROUP BY`."""
    group = select.args.get("group")
    return list(group.expressions) if group is not None else []
