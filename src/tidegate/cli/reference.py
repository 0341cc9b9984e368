"""The page of the command line, written from the commands themselves.

`python -m tidegate.cli.reference > docs/cli.md` brings the page up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from tidegate.cli.app import app

_WIDTH = 96
_INTRODUCTION = """\
# The command line

Written from the commands by `python -m tidegate.cli.reference`; do not edit.

Answers go to standard output, remarks, errors and progress to standard error. Bars are shown only
in a terminal. Where standard output is no terminal, no line of a table is ever broken.

| exit code | meaning |
|---|---|
| 0 | done; for `check`, `reconcile` and `verify`: nothing is amiss |
| 1 | something is amiss, or there is a mistake in the project, a query or a file |
| 2 | no such command or option |
| 3 | it could not be done now: a full disk, a server that does not answer, a damaged log |
| 130 | interrupted by Ctrl-C |

- `ingest` and `resend` work beside a running server: the records go into its log and it decides on
  them, by the project as it was when the server started. To ingest a file again adds what is
  missing.
- `query` sees the tables as they are when it begins, also while a server writes. Times are UTC. In
  JSON, bytes are base64, and decimals are written with all their digits. A file named with
  `--output` is there whole or not at all.
- `replay` and `verify` do not disturb a running server. A replay's table takes the place of an
  earlier one of that name, once it is whole; repeated ids in files are not looked for.
- A dead letter's id is its offset in the log. One that was sent again is no longer listed; where it
  is refused again, its successor is.
"""


def page() -> str:
    """The page, in Markdown."""
    return _INTRODUCTION + "".join(_sections(typer.main.get_command(app), "tidegate"))


def _sections(command: Any, name: str, parent: Any = None) -> Iterator[str]:
    context = command.make_context(
        name.rpartition(" ")[2],
        [],
        parent=parent,
        resilient_parsing=True,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
    )
    help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"\n## {name}\n\n```text\n{help_text}\n```\n"
    for child in getattr(command, "commands", {}).values():
        yield from _sections(child, f"{name} {child.name}", context)


if __name__ == "__main__":
    sys.stdout.write(page())
