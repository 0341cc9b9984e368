"""A report as one HTML file that needs nothing else: no script, no font, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import pyarrow as pa

from tidegate.backtest.result import Backtested
from tidegate.backtest.words import RULE_HEAD, Tile, number, percent, rule_cells, tiles

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; max-width: 76rem; margin: 2rem auto;
  padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.about, td.none { color: #66717f; } p.about { margin-top: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem; }
.tile { border: 1px solid #e3e7ec; border-radius: 8px; padding: 0.8rem 1rem; }
.tile b { display: block; font-size: 1.9rem; line-height: 1.2; }
.good b { color: #1c7c54; } .bad b { color: #b3541e; } .tile span { color: #66717f; }
svg { width: 100%; height: auto; margin-top: 1.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: 0.3rem 0.6rem; border-bottom: 1px solid #e3e7ec;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { color: #66717f; font-weight: 600; } .text { text-align: left; }
ul { padding-left: 1.2rem; } dt { font-weight: 600; } dd { margin: 0 0 0.5rem 0; }
"""
# Whatever should get into the page, a browser loads and runs nothing for it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_DEFINITIONS = (
    ("stopped", "reviewed or blocked by the side's rules"),
    ("caught, disturbed", "stopped and fraud; stopped and legitimate, by the labels"),
    (
        "newly",
        "the candidate stops what the current rules let pass; no longer: the other way round",
    ),
    ("precision", "share of fraud among the labelled events that are stopped, or that a rule hits"),
    ("recall", "share of all labelled fraud that is stopped, or that a rule hits"),
    ("of a rule", "newly caught counts events that the rule hits, so that rules may share some"),
)
_DAY_HEAD = (
    "day", "events", "fraud", "caught", "→", "disturbed", "→", "newly caught", "newly disturbed",
    "no longer caught", "no longer disturbed", "saved", "blocked wrongly",
)  # fmt: skip


def page(found: Backtested, *, title: str, charts: str) -> str:
    """The page; `charts` is an SVG element, all other text is escaped."""
    (total,) = found.total.to_pylist()
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="about">{escape(_about(found, total))}</p>',
        '<div class="tiles">' + "".join(_tile(t) for t in tiles(found)) + "</div>",
        charts,
        "<h2>All events</h2>" + _totals(total),
        "<h2>Rules</h2>" + _table(RULE_HEAD, map(rule_cells, found.rules.to_pylist()), texts=3),
        "<h2>Days</h2>" + _table(_DAY_HEAD, _days(found.days), texts=1),
        "<h2>Remarks</h2>" + _remarks(found.remarks),
        "<h2>Words</h2>" + _definitions(),
    ]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _about(found: Backtested, total: dict[str, Any]) -> str:
    days = found.days.column("day").to_pylist()
    when = f"{days[0]} to {days[-1]}: " if days else ""
    amount = f"; amounts: column {found.amount}" if found.amount else ""
    return (
        f"{when}{number(total['events'])} events, labels: {found.labels.replace('`', '')}{amount}; "
        f"current version {found.current_version}, candidate {found.candidate_version}"
    )


def _tile(tile: Tile) -> str:
    text = f"<b>{escape(tile.value)}</b>{escape(tile.name)}<br><span>{escape(tile.worth)}</span>"
    return f'<div class="tile {tile.tone}">{text}</div>'


def _totals(total: dict[str, Any]) -> str:
    """What both sides stop, beside each other."""
    rows = [
        [what, *(shown(total[f"{side}_{key}"]) for side in ("current", "candidate"))]
        for what, key, shown in (
            ("stopped", "hits", number),
            ("fraud caught", "fraud", number),
            ("legitimate disturbed", "legitimate", number),
            ("precision", "precision", percent),
            ("recall", "recall", percent),
        )
    ]
    return _table(("", "current", "candidate"), rows, texts=1)


def _days(days: pa.Table) -> list[list[str]]:
    names = (
        "events", "fraud", "current_fraud", "candidate_fraud", "current_legitimate",
        "candidate_legitimate", "newly_caught", "newly_disturbed", "no_longer_caught",
        "no_longer_disturbed", "amount_saved", "amount_blocked_wrongly",
    )  # fmt: skip
    return [[str(r["day"]), *(number(r[n]) for n in names)] for r in days.to_pylist()]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    """A table whose first so many columns are text, the others numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' if i < texts else "" for i in range(len(cells))]
        pairs = zip(kinds, cells, strict=True)
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in pairs) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{line(head, "th")}\n{body}</table></div>'


def _remarks(remarks: Sequence[str]) -> str:
    if not remarks:
        return "<p>None.</p>"
    return "<ul>" + "".join(f"<li>{escape(r)}</li>" for r in remarks) + "</ul>"


def _definitions() -> str:
    return "<dl>" + "".join(f"<dt>{w}</dt><dd>{escape(m)}</dd>" for w, m in _DEFINITIONS) + "</dl>"
