"""Labels from files or from Python, for a project that this process runs or another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from tidegate.accepted import Accepted
from tidegate.clock import Clock, SystemClock
from tidegate.datafolder import DataFolder
from tidegate.ingest import taking
from tidegate.labelling import Desk
from tidegate.labels.report import FIELDS, Mistake
from tidegate.project.project import Project
from tidegate.records import Records
from tidegate.sources.files import Block, read_file

_BLOCK = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What became of labels: how many were accepted, and what is wrong with the others.

    `finished` is False where those accepted are safe in the log and not all in the tables yet.
    `beside` says who took them into account, where that was another process.
    """

    accepted: int
    refused: tuple[Mistake, ...] = ()
    finished: bool = True
    beside: str | None = None


def label(
    project: Project,
    blocks: Iterable[tuple[Records, str]],
    *,
    author: str,
    clock: Clock | None,
    timeout_seconds: float,
) -> Labelled:
    """Take in labels, block by block, each with the source of those that do not tell their own.

    Raises: what `taking` raises, and what reading the blocks does.
    """
    accepted, refused, seen = 0, list[Mistake](), 0
    with taking(project, clock=clock) as taker:
        found = Accepted(DataFolder(project.data).tables, project.stream.schema)
        desk = Desk(found.find, taker.append, clock=clock or SystemClock())
        for records, source in blocks:
            receipt = desk.take(records, source=source, author=author)
            accepted += receipt.accepted
            refused += [replace(m, index=m.index + seen) for m in receipt.mistakes]
            seen += len(records)
        return Labelled(
            accepted=accepted,
            refused=tuple(refused),
            finished=taker.finish(timeout_seconds=timeout_seconds),
            beside=taker.beside,
        )


def label_blocks(labels: Iterable[Mapping[str, object]]) -> Iterator[Records]:
    """Labels as records, a bounded number at a time."""
    block: list[bytes] = []
    for row in labels:
        block.append(msgspec.json.encode({k: v for k, v in row.items() if v is not None}))
        if len(block) == _BLOCK:
            yield Records.of(block)
            block = []
    if block:
        yield Records.of(block)


def label_file(path: Path) -> Iterator[Block]:
    """The labels of a file. Raises: RequestError if it cannot be read."""
    return read_file(path, schema=FIELDS)
