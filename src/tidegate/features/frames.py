"""Windows as written, in OVER or in WINDOW, and the frames they come to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import expressions as exp

from tidegate.features.plan import Frame
from tidegate.features.problems import Problems
from tidegate.schema import Schema
from tidegate.sql.check import Checker, shown
from tidegate.sql.expression import Scope
from tidegate.sql.tree import Node
from tidegate.sql.types import INTERVAL, WHOLE

SPAN_MAX = 36_500 * 86_400 * 1_000_000
ROWS_MAX = 1_000_000

_EXAMPLE = "RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW"
_OPENING = re.compile(r"\b(RANGE|ROWS|GROUPS)\b(?P<between>\s+BETWEEN\b)?", re.IGNORECASE)
_BOUNDED = f"say how far it looks back, as in `{_EXAMPLE}`; state would grow without end"


@dataclass(frozen=True, slots=True)
class Window:
    """A window with all that it takes over from others: `frame` is as written, if at all.

    `ordered` says whether it has the ORDER BY that all windows have to have.
    """

    keys: tuple[exp.Expr, ...]
    ordered: bool
    frame: exp.WindowSpec | None


class Windows:
    """The windows of one SELECT; mistakes go to `problems`."""

    def __init__(self, problems: Problems, select: exp.Select, schema: Schema) -> None:
        self._problems = problems
        self._schema = schema
        self._scope = Scope.of(schema)
        self._named: dict[str, Window | None] = {}
        for node in select.args.get("windows") or ():
            self._name(node)

    def of(self, node: exp.Window) -> Window | None:
        """The window of a call with OVER; none where it is wrong."""
        if node.args.get("alias") is not None and not _adds(node):
            return self._base(node)
        return self._resolved(node)

    def frame(self, window: Window, call: exp.Expr) -> Frame | None:
        """The frame of an aggregate's window; none where it is missing or wrong."""
        if not window.ordered:
            hint = f"add `ORDER BY {self._schema.event_time}` and a frame"
            self._problems.add(call, "this window has no ORDER BY", hint=hint)
            return None
        if window.frame is None:
            message = "without a frame this looks back to the first event there ever was"
            self._problems.add(call, message, hint=_BOUNDED)
            return None
        return self._frame(window.frame)

    def _name(self, node: exp.Window) -> None:
        name = node.name.lower()
        if name in self._named:
            self._problems.add(node, f"two windows are named `{node.name}`")
        self._named[name] = self._resolved(node)
        if self._named[name] is not None and node.args.get("spec") is not None:
            # Checked even where no feature uses the window.
            self._frame(node.args["spec"])

    def _resolved(self, node: exp.Window) -> Window | None:
        ordered, fine = self._order(node)
        keys, frame = tuple(node.args.get("partition_by") or ()), node.args.get("spec")
        if node.args.get("alias") is None:
            return Window(keys, ordered, frame) if fine else None
        base = self._base(node)
        if base is None or not fine:
            return None
        if base.frame is not None:
            self._refuse_base(node, f"`{node.alias}` has a frame: it cannot be built on")
            return None
        if keys or (ordered and base.ordered):
            part = "PARTITION BY" if keys else "ORDER BY"
            self._refuse_base(node, f"a window built on another takes over its {part}")
            return None
        return Window(base.keys, base.ordered or ordered, frame)

    def _refuse_base(self, node: exp.Window, message: str) -> None:
        self._problems.add(node.args["alias"], message, hint="write the window out")

    def _base(self, node: exp.Window) -> Window | None:
        name = node.alias.lower()
        if name not in self._named:
            known = ", ".join(f"`{n}`" for n in self._named) or "none"
            message = f"there is no window `{node.alias}`"
            hint = f"windows named in WINDOW, and before their use there: {known}"
            self._problems.add(node.args["alias"], message, hint=hint)
        return self._named.get(name)

    def _order(self, node: exp.Window) -> tuple[bool, bool]:
        """Whether the window has an ORDER BY, and whether it is the one that is possible."""
        order = node.args.get("order")
        if order is None:
            return False, True
        parts: Sequence[exp.Expr] = order.expressions
        time = self._schema.event_time
        if len(parts) != 1 or not self._is_time(parts[0].this):
            hint = f"write `ORDER BY {time}`"
            self._problems.add(order, "windows are ordered by the time of the event", hint=hint)
            return True, False
        if parts[0].args.get("desc"):
            message = "windows run forward in time, and DESC looks into the future"
            self._problems.add(order, message, hint=f"write `ORDER BY {time}`")
            return True, False
        return True, True

    def _is_time(self, node: exp.Expr) -> bool:
        if not isinstance(node, exp.Column):
            return False
        names = {self._schema.event_time: self._schema.event_time, **self._scope.aliases}
        folded: Mapping[str, str] = {n.lower(): c for n, c in names.items()}
        return folded.get(node.name.lower()) == self._schema.event_time

    def _frame(self, spec: exp.WindowSpec) -> Frame | None:
        kind = str(spec.args["kind"]).upper()
        if kind not in ("RANGE", "ROWS"):
            self._add(spec, f"{kind} frames are not supported", hint="use RANGE or ROWS")
            return None
        exclude = spec.args.get("exclude")
        excluded = exclude.name.upper() if exclude is not None else "NO OTHERS"
        if excluded not in ("NO OTHERS", "CURRENT ROW"):
            hint = "use EXCLUDE CURRENT ROW"
            self._add(spec, f"EXCLUDE {excluded} is not supported", hint=hint)
            return None
        opening = self._opening(spec)
        if opening is not None and opening["between"] and spec.args.get("end") is None:
            self._add(spec, "this frame has no end", hint=f"write `{_EXAMPLE}`")
            return None
        start = self._bound(spec, "start", rows=kind == "ROWS")
        end = self._bound(spec, "end", rows=kind == "ROWS")
        if start is None or end is None:
            return None
        if start < end:
            hint = "the bound further back comes first"
            self._add(spec, "this frame ends before it begins", hint=hint)
            return None
        return Frame(kind == "ROWS", start, end, excluded == "CURRENT ROW")

    def _bound(self, spec: exp.WindowSpec, which: str, *, rows: bool) -> int | None:
        """How far before the event a bound lies, in microseconds or rows."""
        value, side = spec.args.get(which), str(spec.args.get(f"{which}_side") or "").upper()
        if value is None or str(value).upper() == "CURRENT ROW":
            return 0
        if side == "FOLLOWING":
            hint = "frames end at CURRENT ROW or before it"
            self._add(spec, "an event cannot see what follows it", hint=hint)
            return None
        if not isinstance(value, exp.Expr):
            self._add(spec, "UNBOUNDED looks back to the first event there ever was", hint=_BOUNDED)
            return None
        if side != "PRECEDING":
            self._add(spec, "a bound of this frame has no PRECEDING", hint=f"write `{_EXAMPLE}`")
            return None
        return self._rows(spec, value) if rows else self._span(spec, value)

    def _span(self, spec: exp.WindowSpec, node: exp.Expr) -> int | None:
        found = self._literal(node)
        if found is None:
            return None
        if found.type != INTERVAL:
            hint = f"write `{_EXAMPLE}`; `ROWS` counts events"
            self._add(spec, "a RANGE frame over time needs an interval", hint=hint)
            return None
        if found.span.months:
            hint = "count in days, as in `INTERVAL 30 DAYS`"
            self._add(spec, "months and years are not all of one length", hint=hint)
            return None
        return self._within(spec, found.span.micros, SPAN_MAX, "0 to 36,500 days")

    def _rows(self, spec: exp.WindowSpec, node: exp.Expr) -> int | None:
        found = self._literal(node)
        if found is None:
            return None
        if found.type.name not in WHOLE or not isinstance(found.value, int):
            self._add(spec, "a ROWS frame needs a whole number of rows")
            return None
        return self._within(spec, found.value, ROWS_MAX, f"0 to {ROWS_MAX:,} rows")

    def _within(self, spec: exp.WindowSpec, value: int, limit: int, span: str) -> int | None:
        if 0 <= value <= limit:
            return value
        self._add(spec, "a frame cannot begin or end there", hint=f"{span} PRECEDING")
        return None

    def _literal(self, node: exp.Expr) -> Node | None:
        """What a bound made of literals comes to."""
        if any(isinstance(part, exp.Column) for part in node.walk()):
            message = f"`{shown(node)}` must be a literal: frames are the same for every event"
            self._problems.add(node, message)
            return None
        checker = Checker(self._problems.source, {}, {})
        found = checker.check(node)
        self._problems.found += checker.problems
        return found if found is not None and found.is_literal else None

    def _add(self, spec: exp.WindowSpec, message: str, *, hint: str | None = None) -> None:
        opening = self._opening(spec)
        self._problems.add(spec if opening is None else opening.start(), message, hint=hint)

    def _opening(self, spec: exp.WindowSpec) -> re.Match[str] | None:
        """The word that opens a frame; the parser does not keep its place."""
        window = spec.parent
        ahead = [window.args.get(part) for part in ("alias", "order")] if window else []
        ends = [n.meta["end"] for part in ahead if part for n in part.walk() if "end" in n.meta]
        return _OPENING.search(self._problems.source.text, max(ends)) if ends else None


def _adds(node: exp.Window) -> bool:
    """Whether OVER holds more than the name of a window."""
    return any(node.args.get(part) for part in ("partition_by", "order", "spec"))


_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000))


def span_text(micros: int) -> str:
    """A span of time in the largest unit of which it is a multiple, or falls short by one step.

    >>> span_text(7_200_000_000), span_text(7_199_999_999)
    ('2 h', '2 h less 1 us')
    """
    for unit, size in _UNITS:
        if micros and micros % size == 0:
            return f"{micros // size} {unit}"
        if micros > 0 and (micros + 1) % size == 0:
            return f"{(micros + 1) // size} {unit} less 1 us"
    return f"{micros} us" if micros else "0"


def frame_text(frame: Frame | None) -> str:
    """A frame in the words of `--explain`; nothing for none."""
    if frame is None:
        return ""
    bounds = [str(b) if frame.rows else span_text(b) for b in (frame.start, frame.end)]
    excluded = " without itself" if frame.exclude_current else ""
    return f" {'rows' if frame.rows else 'range'} {bounds[0]} to {bounds[1]}{excluded}"
