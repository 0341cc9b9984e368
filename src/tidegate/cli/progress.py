"""Progress bars for what takes longer than a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tidegate.sources.files import Block


@contextmanager
def reading(files: Sequence[Path], *, console: Console) -> Iterator[Callable[[Path, Block], None]]:
    """A bar over the bytes of files; gives what is to be called for each block read."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in files}
    before = {path: sum(list(sizes.values())[:i]) for i, path in enumerate(sizes)}
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=sum(sizes.values()) or None)

        def read(path: Path, block: Block) -> None:
            progress.update(task, completed=before[path] + block.bytes_read, description=path.name)

        yield read


@contextmanager
def counting(what: str, total: int, *, console: Console) -> Iterator[Callable[[int], None]]:
    """A bar over a count; gives what is to be called with each further number."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)
