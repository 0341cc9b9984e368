"""Results: what was measured beside what, kept in a file and shown as a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True)
class Target:
    """What a result must reach: its value or its ratio, at least or at most."""

    of: Literal["value", "ratio"]
    bound: Literal["≥", "≤"]
    limit: float

    def __str__(self) -> str:
        return f"{self.of} {self.bound} {_number(self.limit)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Something measured: medians of several rounds, and the lowest and highest of them.

    `ratio` is the median of value/peer taken round by round, so that what slows the whole machine
    for a while slows both. `note` says in words what a reader must know to judge it.
    """

    name: str
    what: str
    unit: str
    value: float
    low: float
    high: float
    rounds: int
    peer: str | None = None
    peer_value: float | None = None
    peer_low: float | None = None
    peer_high: float | None = None
    ratio: float | None = None
    target: Target | None = None
    note: str = ""

    @classmethod
    def of(cls, name: str, what: str, values: Sequence[float], *, unit: str, **more: Any) -> Self:
        """A result of one value a round. Raises: ValueError without values."""
        return cls(
            name=name,
            what=what,
            unit=unit,
            value=_median(values),
            low=min(values),
            high=max(values),
            rounds=len(values),
            **more,
        )

    @classmethod
    def beside(
        cls,
        name: str,
        what: str,
        pairs: Sequence[tuple[float, float]],
        *,
        unit: str,
        peer: str,
        **more: Any,
    ) -> Self:
        """A result from pairs of value and peer's value, measured one after the other."""
        peers = [p for _, p in pairs]
        return cls.of(
            name,
            what,
            [v for v, _ in pairs],
            unit=unit,
            peer=peer,
            peer_value=_median(peers),
            peer_low=min(peers),
            peer_high=max(peers),
            ratio=_median([v / p for v, p in pairs]),
            **more,
        )

    @property
    def holds(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        seen = self.value if self.target.of == "value" else self.ratio
        if seen is None:
            return False
        return seen >= self.target.limit if self.target.bound == "≥" else seen <= self.target.limit


@dataclass(frozen=True, slots=True)
class Report:
    """All results, by name, and the machine by its cores only."""

    cores: int
    results: tuple[Result, ...]

    def with_results(self, results: Iterable[Result], *, replaced: str) -> Report:
        """The report after a benchmark ran again: its earlier results give way."""
        kept = [r for r in self.results if r.name.partition(".")[0] != replaced]
        return Report(self.cores, tuple(sorted([*kept, *results], key=lambda r: r.name)))

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        body = {"cores": self.cores, "results": [asdict(r) for r in self.results]}
        path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path, *, cores: int) -> Report:
        """The report as it was saved on a machine of as many cores; else an empty one."""
        if not path.exists():
            return cls(cores, ())
        found = json.loads(path.read_text())
        if found["cores"] != cores:
            return cls(cores, ())
        return cls(cores, tuple(map(_read, found["results"])))


def _read(found: dict[str, Any]) -> Result:
    known = {f.name for f in fields(Result)}
    target = found.get("target")
    values = {k: v for k, v in found.items() if k in known and k != "target"}
    return Result(**values, target=Target(**target) if target else None)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


# -- as Markdown -----------------------------------------------------------------------------------

_HEAD = """# Benchmarks

Written by `python -m benchmarks` (`make bench`) on a machine with {cores} cores; nothing here is
typed by hand. Each figure is the median of its rounds, with the lowest and highest in brackets.
Where there is a peer, it ran in the same process environment right before or after, round by
round; the ratio is the median of the rounds' own ratios. The machine has other work too, so that
ratios say more than absolute figures.
"""


def markdown(
    report: Report,
    *,
    titles: Sequence[tuple[str, str, str]],
    measured: Collection[str],
    before: str = "",
) -> str:
    """The page: a section for each benchmark that was measured or has results.

    `titles` are name, title and introduction of each benchmark, in the order of the page. Those
    that were not `measured` now are as they were in the page `before`, if they were there.
    """
    parts = [_HEAD.format(cores=report.cores)]
    for name, title, text in titles:
        own = [r for r in report.results if r.name.partition(".")[0] == name]
        kept = "" if name in measured else _section(before, title)
        if kept:
            parts.append(kept)
        elif own:
            parts.append(f"## {title}\n\n{text.strip()}\n\n{_table(own)}{_notes(own)}")
    return "\n".join(parts).rstrip() + "\n"


def _section(page: str, title: str) -> str:
    """The section of a page, with its heading; nothing if it has none of that title."""
    begin = page.find(f"## {title}\n")
    if begin < 0:
        return ""
    end = page.find("\n## ", begin)
    return page[begin:].rstrip() + "\n" if end < 0 else page[begin:end]


def _table(results: Sequence[Result]) -> str:
    rows = ["| what | figure | peer | ratio | target |", "|---|---|---|---|---|"]
    rows += [
        f"| {r.what} | {_figure(r.value, r.low, r.high, r.unit)} | {_peer(r)} "
        f"| {'' if r.ratio is None else _number(r.ratio)} | {_target(r)} |"
        for r in results
    ]
    return "\n".join(rows) + "\n"


def _notes(results: Sequence[Result]) -> str:
    return "".join(f"\n- {r.what}: {r.note}" for r in results if r.note) + "\n"


def _figure(value: float, low: float, high: float, unit: str) -> str:
    spread = "" if low == high else f" ({_number(low)} to {_number(high)})"
    return f"{_number(value)} {unit}{spread}"


def _peer(result: Result) -> str:
    if result.peer is None:
        return ""
    value, low, high = result.peer_value, result.peer_low, result.peer_high
    if value is None or low is None or high is None:
        return result.peer
    return f"{result.peer}: {_figure(value, low, high, result.unit)}"


def _target(result: Result) -> str:
    if result.target is None:
        return ""
    return f"{result.target}: {'holds' if result.holds else '**missed**'}"


def _number(value: float) -> str:
    """Three significant digits, whole above 1,000.

    >>> [_number(v) for v in (0.3456, 12.34, 345678.9, 0.0012)]
    ['0.346', '12.3', '345,679', '0.0012']
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
