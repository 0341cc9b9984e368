"""A replay shown in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.cli.rows import print_table
from tidegate.cli.terminal import say
from tidegate.replay import Replayed


def show(found: Replayed) -> None:
    """Print what a replay came to: how fast, what was decided, and which rules were hit."""
    rows = [["decision", name, count] for name, count in _most(found.actions)]
    rows += [["hit", name, count] for name, count in _most(found.rules)]
    if rows:
        print_table(["", "name", "events"], rows)
        say()
    refused = f", {found.refused} records that are no events" if found.refused else ""
    say(f"{found.events} events{refused}, {found.rate:.0f} a second, version {found.version}")
    if found.target:
        say(f"written to {found.target}")


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
