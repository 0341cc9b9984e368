"""The charts of a report, drawn by Matplotlib without a display and without state of its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from tidegate.backtest.words import RULE_HEAD, number, percent, rule_cells, tiles
from tidegate.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tidegate.backtest.result import Backtested

INK, FAINT, GRID = "#1d2733", "#66717f", "#e3e7ec"
CURRENT, CANDIDATE, ALL = "#8d99a8", "#0a6aa1", "#e6eaef"
TONES = {"good": "#1c7c54", "bad": "#b3541e", "plain": INK}
_RULES_MAX = 9
_POINTS_MAX = 45  # days up to which each has a marker
_NARROW = 0.12  # shares that differ by less have their names above and below
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def require() -> None:
    """Raises: InputError if Matplotlib is not installed."""
    try:
        import matplotlib as mpl  # noqa: F401 - an extra; slow to import
    except ImportError as error:
        raise InputError(
            "matplotlib is not installed: run `pip install 'tidegate[report]'`"
        ) from error


def charts_svg(found: Backtested) -> str:
    """The charts alone, as an SVG element to stand inside a page."""
    figure = _figure(12, 4.6)
    parts: Any = figure.subfigures(1, 2, width_ratios=(2.3, 1))
    left, right = parts
    _draw_days(left, found)
    _draw_rates(right.subplots(), found)
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    return text[text.index("<svg") :]


def slide_png(found: Backtested, *, title: str) -> bytes:
    """One picture for a slide, 1920 by 1080: what changes, the charts, the rules."""
    figure = _figure(16, 9)
    margins: Any = figure.get_layout_engine()
    margins.set(rect=(0.015, 0.02, 0.97, 0.96))
    parts: Any = figure.subfigures(3, 1, height_ratios=(2.1, 4.0, 2.9))
    top, middle, bottom = parts
    _draw_head(top, found, title)
    left, right = middle.subfigures(1, 2, width_ratios=(2.3, 1))
    _draw_days(left, found)
    _draw_rates(right.subplots(), found)
    _draw_rules(bottom.subplots(), found)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _draw_head(figure: Any, found: Backtested, title: str) -> None:
    """The title, and a tile for each figure that decides."""
    shown = tiles(found)
    _write(figure, 0.02, 0.9, title, size=20, weight="bold")
    _write(figure, 0.02, 0.74, _subtitle(found), size=12, color=FAINT)
    for place, tile in enumerate(shown):
        x = 0.02 + place * 0.97 / len(shown)
        _write(figure, x, 0.46, tile.value, size=27, weight="bold", color=TONES[tile.tone])
        _write(figure, x, 0.25, tile.name, size=13)
        _write(figure, x, 0.12, tile.worth, size=12, color=FAINT)


def _write(figure: Any, x: float, y: float, text: str, *, color: str = INK, **more: Any) -> None:
    """Text that is not read as a formula."""
    figure.text(x, y, _drawable(text), color=color, va="center", parse_math=False, **more)


def _subtitle(found: Backtested) -> str:
    (total,) = found.total.select(["events", "fraud", "legitimate", "unlabelled"]).to_pylist()
    days = found.days.column("day").to_pylist()
    when = f"{days[0]} to {days[-1]}, " if days else ""
    counts = ", ".join(f"{number(total[n])} {n}" for n in ("fraud", "legitimate", "unlabelled"))
    return f"{when}{number(total['events'])} events ({counts})"


# -- by day ----------------------------------------------------------------------------------------


def _draw_days(figure: Any, found: Backtested) -> None:
    """Fraud caught above, legitimate events disturbed below, both sides in each."""
    caught, disturbed = figure.subplots(2, 1, sharex=True)
    columns: dict[str, list[Any]] = found.days.to_pydict()
    days: list[date] = columns["day"]
    caught.fill_between(days, columns["fraud"], color=ALL, zorder=0, label="all fraud")
    _draw_sides(caught, columns, "fraud", "Fraud caught by day")
    _draw_sides(disturbed, columns, "legitimate", "Legitimate events disturbed by day")
    if days:
        _date_axis(disturbed, days)
    caught.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=10.5,
        labelcolor=INK, borderaxespad=0,
    )  # fmt: skip


def _draw_sides(axes: Any, columns: dict[str, list[Any]], what: str, title: str) -> None:
    days = columns["day"]
    marker = "o" if len(days) <= _POINTS_MAX else None
    # Points at the edge are drawn whole; a line without any point, unclipped, has no place.
    for side, colour, width in (("current", CURRENT, 1.8), ("candidate", CANDIDATE, 2.2)):
        axes.plot(
            days, columns[f"{side}_{what}"], color=colour, linewidth=width, marker=marker,
            markersize=4, label=side, clip_on=not days,
        )  # fmt: skip
    _plain(axes, title)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: number(value) if value % 1 == 0 else "")


def _date_axis(axes: Any, days: Sequence[date]) -> None:
    from matplotlib import dates

    # Matplotlib's dates have no types.
    ticks: Any = dates.AutoDateLocator
    names: Any = dates.ConciseDateFormatter
    first, last = days[0], days[-1]
    if first == last:
        first, last = first - timedelta(days=1), last + timedelta(days=1)
    axes.set_xlim(first, last)
    locator = ticks(minticks=2, maxticks=9)
    locator.intervald[dates.HOURLY] = [24]  # a day is the finest that there is
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(names(locator, show_offset=False))


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", size=12.5, weight="bold", color=INK)
    axes.tick_params(colors=FAINT, length=0, labelsize=10)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(GRID)


# -- precision and recall --------------------------------------------------------------------------


def _draw_rates(axes: Axes, found: Backtested) -> None:
    """Precision and recall of both sides, each as two points on one line."""
    (total,) = found.total.to_pylist()
    _plain(axes, "Precision and recall")
    for place, what in enumerate(("precision", "recall")):
        _draw_rate(axes, what, total[f"current_{what}"], total[f"candidate_{what}"], y=1 - place)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.6, 1.6)
    axes.set_yticks([])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="x", color=GRID, linewidth=0.8)


def _draw_rate(
    axes: Axes, what: str, before: float | None, after: float | None, *, y: float
) -> None:
    axes.text(0, y + 0.34, what, size=12, color=INK, weight="bold")
    if before is None and after is None:
        axes.text(0, y, "not known", size=11, color=FAINT, va="center")
    if before is not None and after is not None:
        axes.plot(
            [before, after], [y, y], color=GRID, linewidth=5, solid_capstyle="round", zorder=1
        )
    is_close = before is not None and after is not None and abs(before - after) < _NARROW
    for value, colour, below in ((before, CURRENT, is_close), (after, CANDIDATE, False)):
        if value is None:
            continue
        axes.scatter([value], [y], s=130, color=colour, zorder=2)
        offset = -0.27 if below else 0.17
        axes.text(
            min(max(value, 0.04), 0.96), y + offset, percent(value), size=11.5, color=colour,
            ha="center", weight="bold",
        )  # fmt: skip


# -- rules -----------------------------------------------------------------------------------------


def _draw_rules(axes: Axes, found: Backtested) -> None:
    """The rules as a table: those first that change most."""
    axes.axis("off")
    rows = found.rules.to_pylist()
    chosen = sorted(rows, key=_weight, reverse=True)[:_RULES_MAX]
    more = len(rows) - len(chosen)
    title = "Rules" if not more else f"Rules ({more} more that change less)"
    axes.set_title(title, loc="left", size=12.5, weight="bold", color=INK)
    if not chosen:
        return
    cells = [[_drawable(cell) for cell in rule_cells(row)] for row in chosen]
    table = axes.table(
        cells, colLabels=RULE_HEAD, loc="upper center", cellLoc="right", edges="horizontal",
        colWidths=_widths(cells),
    )  # fmt: skip
    table.auto_set_font_size(False)  # noqa: FBT003 - Matplotlib's own signature
    table.set_fontsize(11)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor(GRID)
        cell.set_height(min(1 / (len(cells) + 1), 0.13))
        text = cell.get_text()
        text.set_parse_math(False)
        text.set_color(FAINT if row == 0 else INK)
        if column < 3:
            text.set_horizontalalignment("left")


def _weight(row: dict[str, Any]) -> tuple[int, int]:
    changed = ("newly_caught", "newly_disturbed", "no_longer_caught", "no_longer_disturbed")
    return sum(row[n] for n in changed), row["current_hits"] + row["candidate_hits"]


def _widths(cells: Sequence[Sequence[str]]) -> list[float]:
    """Shares of the width, by the longest text of each column."""
    longest = [max(map(len, column)) for column in zip(RULE_HEAD, *cells, strict=True)]
    return [(n + 2) / sum(m + 2 for m in longest) for n in longest]


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap())


def _drawable(text: str) -> str:
    """The text with a mark in the place of what the font cannot show."""
    known = _glyphs()
    return "".join(c if c.isprintable() and ord(c) in known else _UNKNOWN for c in text)
