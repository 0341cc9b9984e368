"""Progress bars for what may take longer than a second: on standard error, only in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tidegate.cli.terminal import errors

if TYPE_CHECKING:
    from tidegate.sources.files import Block

_WHAT = TextColumn("{task.description}", markup=False)


@contextmanager
def reading(files: Sequence[Path]) -> Iterator[Callable[[Path, Block], None]]:
    """A bar over the bytes of files; gives what is to be called for each block read."""
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in files}
    before = {path: sum(list(sizes.values())[:i]) for i, path in enumerate(sizes)}
    total = sum(sizes.values())
    columns = TaskProgressColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with _progress(*columns) as progress:
        task = progress.add_task("reading", total=total or None)

        def read(path: Path, block: Block) -> None:
            done = before[path] + block.bytes_read
            # The engine and the tables are a little behind the reader.
            what = path.name if done < total else "deciding, writing tables"
            progress.update(task, completed=done, description=what)

        yield read


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over a count; gives what is to be called with each further number."""
    with _progress(MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)


@contextmanager
def stepping(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over steps; gives what is to be called with how many of how many are done."""
    with _progress(TimeRemainingColumn()) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _progress(*columns: ProgressColumn) -> Progress:
    console = errors()
    return Progress(
        _WHAT, BarColumn(), *columns,
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
