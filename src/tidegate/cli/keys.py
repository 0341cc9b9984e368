"""`tidegate keys`: API keys made, listed and revoked by whoever has the data folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tidegate.access import Keys
    from tidegate.project.project import Project

FINISH_SECONDS = 60.0

keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@keys.callback()
def keys_of(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The project's folder.", show_default=False)
    ],
    context: typer.Context,
) -> None:
    """Make, list or revoke API keys, beside a running server or without one."""
    context.obj = folder


@keys.command()
def add(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Who or what will use it.", show_default=False)
    ],
    scopes: Annotated[
        list[str],
        typer.Option(
            "--scope",
            help="What it is good for: ingest, score, label, query, admin; pii shows columns "
            "marked so in clear. May be given again.",
        ),
    ],
    expires: Annotated[
        str | None,
        typer.Option(help="When it ends: a length as in 90d, or a time; never if absent."),
    ] = None,
) -> None:
    """Make a key and show it, this once: only a hash of it is kept."""
    from tidegate.access.expiry import expiry_us
    from tidegate.cli.terminal import remark, say
    from tidegate.clock import SystemClock

    with _opened(context.obj) as (project, kept):
        now = SystemClock().now()
        until = None if expires is None else expiry_us(expires, now=now)
        key, text = kept.add(name, scopes=scopes, author=author(), expires_us=until)
        say(text)
        end = f", until {_time(key.expires_us)}" if key.expires_us else ""
        remark(f"this is the only time that the key is shown; {', '.join(key.scopes)}{end}")
        _note(project, kept)


@keys.command("list")
def list_keys(context: typer.Context) -> None:
    """List the keys, newest first, by their prefixes."""
    from tidegate.cli.rows import print_table
    from tidegate.clock import SystemClock

    with _opened(context.obj) as (_, kept):
        now = SystemClock().now()
        rows = [
            [
                *(k.prefix, k.name, " ".join(k.scopes), k.state(now)),
                *(_time(k.created_us), k.created_by, _time(k.expires_us), _time(k.last_used_us)),
            ]
            for k in kept.all()
        ]
    names = ["prefix", "name", "scopes", "state", "created", "by", "expires", "last used"]
    print_table(names, rows)


@keys.command()
def revoke(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Argument(metavar="PREFIX", help="The key's prefix.", show_default=False)
    ],
) -> None:
    """End a key for good, within a second also for a running server."""
    from tidegate.cli.terminal import say

    with _opened(context.obj) as (project, kept):
        key = kept.revoke(prefix, author=author())
        say(f"{key.prefix} ({key.name}) was revoked at {_time(key.revoked_us)}")
        _note(project, kept)


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[Project, Keys]]:
    """The project in a folder and its keys."""
    from tidegate.access import Keys
    from tidegate.clock import SystemClock
    from tidegate.datafolder import DataFolder
    from tidegate.project.project import load

    project = load(folder)
    kept = Keys.open(DataFolder(project.data).operational, clock=SystemClock())
    try:
        yield project, kept
    finally:
        kept.close()


def _note(project: Project, kept: Keys) -> None:
    """Take the change over into the event log; where that fails, it waits for the next time."""
    from tidegate.access.audit import SOURCE, relay
    from tidegate.cli.terminal import remark
    from tidegate.errors import TidegateError
    from tidegate.ingest import taking

    try:
        with taking(project) as taker:
            relay(kept, lambda records: taker.append(records, source=SOURCE))
            taker.finish(timeout_seconds=FINISH_SECONDS)
    except TidegateError as error:
        remark(f"it is not in the table `audit` yet, and will be after the next start: {error}")


def author() -> str:
    """Who runs the command, by the name that the machine has for them."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user of whom the machine knows the number alone
        return f"user {os.getuid()}"


def _time(time_us: int | None) -> str | None:
    if time_us is None:
        return None
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"
