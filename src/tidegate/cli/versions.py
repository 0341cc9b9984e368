"""`tidegate publish`, `versions`, `diff`, `rollback` and `shadow`: versions of a project."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tidegate.versions import Publication, Versions
    from tidegate.versions.desk import Progress

FAILED = 3

_Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The project's folder.", show_default=False)
]
_Message = Annotated[str, typer.Option("--message", "-m", help="Why, in words.")]
_Author = Annotated[
    str | None, typer.Option(help="Who; your login name if absent.", show_default=False)
]
_Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="How many seconds to wait for the switch.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (publish, versions, diff, rollback, shadow):
        app.command()(command)


def publish(
    folder: _Folder,
    shadow: Annotated[  # noqa: FBT002 - an option by name
        bool, typer.Option("--shadow", help="New and changed rules only report.")
    ] = False,
    message: _Message = "",
    author: _Author = None,
    timeout: _Timeout = 600.0,
) -> None:
    """Make the folder's files the version that decides, beside a running server or without one."""
    with _waiting() as progress:
        found = _desk(folder).publish(
            message=message, author=author_or_login(author), shadow=shadow,
            timeout_seconds=timeout, progress=progress,
        )  # fmt: skip
    _tell(found, "published")


def rollback(
    folder: _Folder,
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="The one before if absent.")
    ] = None,
    message: _Message = "",
    author: _Author = None,
    timeout: _Timeout = 600.0,
) -> None:
    """Go back to an earlier version."""
    with _waiting() as progress:
        found = _desk(folder).rollback(
            version, message=message, author=author_or_login(author),
            timeout_seconds=timeout, progress=progress,
        )  # fmt: skip
    _tell(found, "taken back to")


def versions(
    folder: _Folder,
    effect: Annotated[  # noqa: FBT002 - an option by name
        bool, typer.Option("--effect", help="Show what shadow rules would have done, as `shadow`.")
    ] = False,
) -> None:
    """List the versions, the newest last; that one decides."""
    from tidegate.cli.rows import print_table

    desk = _desk(folder)
    rows = [
        [v.version, v.change, f"{v.at:%Y-%m-%d %H:%M:%S}", v.offset, v.author, v.message]
        for v in desk.all()
    ]
    print_table(["version", "change", "since (UTC)", "offset", "author", "message"], rows)
    if effect:
        typer.echo()
        _show_effects(desk)


def diff(
    folder: _Folder,
    before: Annotated[
        str | None, typer.Argument(metavar="A", help="A version; the running one if absent.")
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="B", help="A version; the folder if absent.")
    ] = None,
) -> None:
    """Show what differs between two versions, by rule, feature and setting."""
    from tidegate.cli.terminal import say

    found = _desk(folder).diff(before, after)
    if not found:
        typer.echo("no difference")
    for difference in found:
        for line in str(difference).split("\n"):
            say(line)


def shadow(folder: _Folder) -> None:
    """Show what the rules in the shadow would have done since the running version took over."""
    _show_effects(_desk(folder))


def _show_effects(desk: Versions) -> None:
    from tidegate.cli.rows import print_table

    found = desk.effects()
    if not found:
        typer.echo("no rule is in the shadow")
        return
    rows = [
        [e.rule, e.action, e.events, e.hit, e.changed, _changes(e.changes), _place(e)]
        for e in found
    ]
    heads = ["rule", "action", "events", "hit", "decided otherwise", "how", "place"]
    print_table(heads, rows)


def _changes(changes: dict[tuple[str, str], int]) -> str:
    return ", ".join(f"{n} {old} to {new}" for (old, new), n in sorted(changes.items()))


def _place(effect: object) -> str:
    from tidegate.versions.effects import Effect

    assert isinstance(effect, Effect)  # noqa: S101 - the one kind there is
    if effect.share is not None:
        return f"beyond its {effect.share * 100:g} %"
    return "instead of the live one" if effect.replaces else "beside all others"


def _desk(folder: Path) -> Versions:
    import tidegate

    return tidegate.open(folder).versions


def author_or_login(given: str | None) -> str:
    """Who does something: as given, else whoever is logged in."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return ""


@contextmanager
def _waiting() -> Iterator[Progress]:
    """A line in a terminal that says what is waited for; the engine's own remarks are left out."""
    from tidegate.cli.progress import stepping
    from tidegate.cli.quiet import quietly

    with quietly(), stepping("publishing") as step:
        yield lambda _: step(0, 1)


def _tell(found: Publication, what: str) -> None:
    from tidegate.cli.terminal import remark

    for line in found.remarks:
        remark(line)
    if found.shadows:
        typer.echo(f"in the shadow: {', '.join(found.shadows)}")
    if found.offset is None:
        remark(
            f"version {found.version} waits at offset {found.proposed_at}, and had not taken over "
            f"after {found.seconds:.1f} seconds: `tidegate versions` shows when it has"
        )
        raise typer.Exit(FAILED)
    by = f"; {found.beside} decides" if found.beside else ""
    typer.echo(
        f"{what} version {found.version} (before: {found.before or 'none'}) "
        f"at offset {found.offset}, {found.seconds:.1f} seconds{by}"
    )
