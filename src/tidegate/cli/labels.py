"""`tidegate labels`: what events truly were, from files or one by one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from tidegate.labelled import Labelled

_AMISS, _FAILED = 1, 3
_SHOWN = 10


class _FilesOrCommand(TyperGroup):
    """A group in which anything but the name of a command is a file to read."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] not in self.commands:
            args = ["files", *args]
        return super().resolve_command(ctx, args)


labels = typer.Typer(cls=_FilesOrCommand, no_args_is_help=True, rich_markup_mode=None)


@labels.callback()
def labels_of(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The project's folder.", show_default=False)
    ],
    context: typer.Context,
) -> None:
    """Say what events truly were: `tidegate labels FOLDER FILE...`, or `add EVENT_ID LABEL`."""
    context.obj = folder


@labels.command()
def files(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="NDJSON, JSON, CSV, Parquet, or gzip of them."),
    ],
    source: Annotated[
        str | None, typer.Option(help="Who knows it, where a label does not say; else the file.")
    ] = None,
) -> None:
    """Take labels from files with event_id, label, and source and known_at if there are any."""
    import tidegate
    from tidegate.cli.keys import author
    from tidegate.cli.progress import reading

    shop = tidegate.open(context.obj)
    with reading(paths) as progress:
        taken = shop.label_files(paths, source=source, author=author(), progress=progress)
    _tell(taken)


@labels.command()
def add(
    context: typer.Context,
    event_id: Annotated[
        str, typer.Argument(metavar="EVENT_ID", help="The event.", show_default=False)
    ],
    label: Annotated[
        str, typer.Argument(metavar="LABEL", help="fraud or legitimate.", show_default=False)
    ],
    source: Annotated[str, typer.Option(help="Who knows it.")] = "command line",
    known_at: Annotated[
        str | None, typer.Option(help="Since when it is known, in ISO 8601; now if absent.")
    ] = None,
) -> None:
    """Label one event."""
    import tidegate
    from tidegate.cli.keys import author

    shop = tidegate.open(context.obj)
    given = {"event_id": event_id, "label": label, "known_at": known_at}
    _tell(shop.label(given, source=source, author=author()))


def _tell(taken: Labelled) -> None:
    """Say what became of labels; fail if any was refused, or if that is not known yet."""
    from tidegate.cli.terminal import remark

    typer.echo(f"{taken.accepted} labels taken, {len(taken.refused)} refused")
    for mistake in taken.refused[:_SHOWN]:
        remark(f"label {mistake.index}: {mistake.message}")
    if len(taken.refused) > _SHOWN:
        remark(f"… and {len(taken.refused) - _SHOWN} more")
    if not taken.finished:
        remark("they are safe in the log, but not all in the tables: is the server well?")
        raise typer.Exit(_FAILED)
    if taken.refused:
        raise typer.Exit(_AMISS)
