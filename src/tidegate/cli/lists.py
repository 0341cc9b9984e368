"""`tidegate list`: values that people keep while the stream runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.versions import FAILED, author_or_login

if TYPE_CHECKING:
    from tidegate.hiding import Hiding
    from tidegate.lists.desk import Changed, ListDesk, ValueEntry

lists = typer.Typer(
    help="Put values on lists that rules ask for, take them off, show them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The list's name.", show_default=False)]
_Values = Annotated[
    list[str], typer.Argument(metavar="VALUE", help="One value or more.", show_default=False)
]
_Project = Annotated[Path, typer.Option("--project", help="The project's folder.")]
_Until = Annotated[
    str | None,
    typer.Option(help="For events before this date or time, UTC; else for all that follow."),
]
_Reason = Annotated[str, typer.Option(help="Why, in words.")]
_Author = Annotated[
    str | None, typer.Option(help="Who; your login name if absent.", show_default=False)
]
HERE = Path()


@lists.command()
def add(
    name: _Name,
    values: _Values,
    until: _Until = None,
    reason: _Reason = "",
    author: _Author = None,
    project: _Project = HERE,
) -> None:
    """Put values on a list; one that is there gets the new end."""
    from tidegate.cli.quiet import quietly

    with quietly():
        found = _desk(project).add(
            name, values, until=until, reason=reason, author=author_or_login(author)
        )
    _tell(found, f"put on {name}")


@lists.command()
def remove(
    name: _Name,
    values: _Values,
    reason: _Reason = "",
    author: _Author = None,
    project: _Project = HERE,
) -> None:
    """Take values off a list."""
    from tidegate.cli.quiet import quietly

    with quietly():
        found = _desk(project).remove(name, values, reason=reason, author=author_or_login(author))
    _tell(found, f"taken off {name}")


@lists.command("import")
def load(
    name: _Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A value on each line.", show_default=False)
    ],
    until: _Until = None,
    reason: _Reason = "",
    author: _Author = None,
    project: _Project = HERE,
) -> None:
    """Put the lines of a file on a list."""
    from tidegate.cli.progress import stepping
    from tidegate.cli.quiet import quietly

    with quietly(), stepping("importing") as progress:
        found = _desk(project).load(
            name, file, until=until, reason=reason, author=author_or_login(author),
            progress=progress,
        )  # fmt: skip
    _tell(found, f"put on {name}")


@lists.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="All lists if absent.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many values.")] = 100,
    clear: Annotated[  # noqa: FBT002 - an option by name
        bool, typer.Option("--clear", help="Show values where a column is marked pii.")
    ] = False,
    project: _Project = HERE,
) -> None:
    """Show what is on a list, or which lists there are."""
    import tidegate
    from tidegate.cli.rows import print_table
    from tidegate.cli.terminal import remark

    shop = tidegate.open(project)
    desk, hiding = shop.lists, None if clear else shop.hiding
    if name is None:
        rows = [[n, str(t), len(desk.entries(n))] for n, t in desk.declared.items()]
        print_table(["list", "type", "values"], rows)
        return
    found = desk.entries(name)
    names = ["value", "until (UTC)", "since (UTC)", "author", "reason"]
    print_table(names, [_row(entry, hiding) for entry in found[:limit]])
    if len(found) > limit:
        typer.echo(f"… and {len(found) - limit} more: --limit {len(found)} shows them")
    if found and hiding is not None:
        remark("values are shown as pseudonyms; --clear shows them")


def _row(e: ValueEntry, hiding: Hiding | None) -> list[object]:
    from tidegate.access.pii import hidden_text

    value = hidden_text(e.value, hiding)
    return [value, e.until and f"{e.until}", f"{e.at:%Y-%m-%d %H:%M:%S}", e.author, e.reason]


def _desk(folder: Path) -> ListDesk:
    import tidegate

    return tidegate.open(folder).lists


def _tell(found: Changed, what: str) -> None:
    from tidegate.cli.terminal import remark

    by = f"; {found.beside} decides" if found.beside else ""
    values = "1 value" if found.values == 1 else f"{found.values} values"
    typer.echo(f"{values} {what}, for events from offset {found.offset + 1} on{by}")
    if not found.finished:
        remark("it is safe in the log, but not decided that far yet: is the server well?")
        raise typer.Exit(FAILED)
