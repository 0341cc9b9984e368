"""A reconciliation shown in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console

from tidegate.cli.rows import print_table
from tidegate.reconcile.comparison import Comparison, Key, Reconciliation

_KEYS_SHOWN = 20


def show(found: Reconciliation, *, by_hour: bool) -> bool:
    """Print the comparisons, and what is amiss down to the ids; True if nothing is."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"offsets {found.first_offset} to {found.next_offset} of the log\n")
    rows = [[*_row(c), *c.counts] for c in found.comparisons]
    print_table(["", "stage", "left", "right"], rows)
    for note in found.notes:
        console.print(f"     {note}", markup=False)
    for comparison in found.comparisons:
        if by_hour:
            _hours(console, comparison)
        if not comparison.equal:
            _amiss(console, comparison)
    console.print("\nnothing is missing" if found.equal else "\nsomething is amiss")
    return found.equal


def _row(comparison: Comparison) -> list[str]:
    return ["ok" if comparison.equal else "!!", comparison.stage]


def _hours(console: Console, comparison: Comparison) -> None:
    console.print(f"\n{comparison.stage}", markup=False)
    names = ["", "hour (UTC)", comparison.left, comparison.right]
    rows = [["ok" if h.equal else "!!", _hour(h.hour), h.left, h.right] for h in comparison.hours]
    print_table(names, rows)


def _amiss(console: Console, comparison: Comparison) -> None:
    for hour in (h for h in comparison.hours if not h.equal):
        console.print(
            f"\n{comparison.stage}: hour {_hour(hour.hour)} has {hour.left} in {comparison.left} "
            f"and {hour.right} in {comparison.right}",
            markup=False,
        )
    _keys(console, f"only in {comparison.left}", comparison.missing)
    _keys(console, f"only in {comparison.right}", comparison.unexpected)


def _keys(console: Console, title: str, keys: tuple[Key, ...]) -> None:
    for key in keys[:_KEYS_SHOWN]:
        of_id = f" id {key.id}" if key.id is not None else ""
        console.print(f"  {title}: offset {key.log_offset}{of_id}", markup=False)
    if len(keys) > _KEYS_SHOWN:
        console.print(f"  {title}: … {len(keys)} or more in all", markup=False)


def _hour(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:00")
