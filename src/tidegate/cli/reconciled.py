"""A reconciliation shown in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from tidegate.cli.rows import print_table
from tidegate.cli.terminal import say
from tidegate.reconcile.comparison import SHOWN_MAX, Comparison, Key, Reconciliation

_KEYS_SHOWN = 20


def show(found: Reconciliation, *, by_hour: bool) -> bool:
    """Print the comparisons, and what is amiss down to the ids; True if nothing is."""
    rows = [[_mark(equal=c.equal), c.stage, *c.counts] for c in found.comparisons]
    print_table(["", "stage", "left", "right"], rows)
    for note in found.notes:
        say(f"    {note}")
    for comparison in found.comparisons:
        if by_hour:
            _hours(comparison)
        if not comparison.equal:
            _amiss(comparison)
    _verdict(found)
    return found.equal


def _verdict(found: Reconciliation) -> None:
    say()
    offsets = f"offsets {found.first_offset} to {found.next_offset}"
    if found.equal:
        say(f"nothing is missing at {offsets} of the log", style="green")
    else:
        say(f"something is amiss at {offsets} of the log", style="red")


def _mark(*, equal: bool) -> str:
    return "ok" if equal else "!!"


def _hours(comparison: Comparison) -> None:
    say()
    say(comparison.stage, style="bold")
    names = ["", "hour (UTC)", comparison.left, comparison.right]
    rows = [[_mark(equal=h.equal), _hour(h.hour), h.left, h.right] for h in comparison.hours]
    print_table(names, rows)


def _amiss(comparison: Comparison) -> None:
    say()
    for hour in (h for h in comparison.hours if not h.equal):
        say(
            f"{comparison.stage}: hour {_hour(hour.hour)} has {hour.left} in {comparison.left}"
            f" and {hour.right} in {comparison.right}"
        )
    _keys(f"only in {comparison.left}", comparison.missing)
    _keys(f"only in {comparison.right}", comparison.unexpected)


def _keys(title: str, keys: tuple[Key, ...]) -> None:
    for key in keys[:_KEYS_SHOWN]:
        say(f"  {title}: offset {key.log_offset}{'' if key.id is None else f' id {key.id}'}")
    if len(keys) > _KEYS_SHOWN:
        number = f"{SHOWN_MAX} or more" if len(keys) == SHOWN_MAX else str(len(keys))
        say(f"  {title}: … {number} in all")


def _hour(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:00")
