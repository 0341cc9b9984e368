"""The two streams of a command: answers on standard output, all else on standard error."""

from __future__ import annotations

import sys
from functools import cache

from rich.console import Console
from rich.text import Text

_WIDE = 1 << 16  # of what is no terminal: a line is never broken there


@cache
def errors() -> Console:
    """Where progress, remarks and errors go; text is shown as it is, on one line each."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


@cache
def answers() -> Console:
    """Where tables and reports go; as wide as the terminal, without end where there is none."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False)


def say(text: str = "", *, style: str | None = None) -> None:
    """Write a line of an answer; a line longer than the terminal is broken by the terminal."""
    answers().print(plain(text), style=style, soft_wrap=True)


def remark(text: str, *, style: str | None = None) -> None:
    """Write a line to standard error."""
    errors().print(text, style=style)


def plain(text: str) -> Text:
    """Text that can do nothing to the terminal: control characters are shown, not sent."""
    return Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))
