"""A project opened from Python or the command line: query, ingest, dead letters, reconciliation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tidegate.clock import Clock
from tidegate.datafolder import DataFolder
from tidegate.deliveries import open_sinks
from tidegate.errors import RequestError
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.ingest import taking
from tidegate.program import Program
from tidegate.project.project import Project, load
from tidegate.reconcile.comparison import Reconciliation
from tidegate.reconcile.stages import Reconciler
from tidegate.records import Records
from tidegate.sinks.ledger import Ledger
from tidegate.sources.files import Block, read_file
from tidegate.warehouse.query import QueryResult, TableInfo, query, tables

FINISH_SECONDS = 600.0

# A dead letter that was sent again has successors whose source names it.
_UNSENT = """
SELECT d.* EXCLUDE (ingest_date) FROM dead_letters AS d
ANTI JOIN (
  SELECT source FROM events UNION ALL
  SELECT source FROM duplicates UNION ALL
  SELECT source FROM dead_letters
) AS s ON s.source = 'resend:' || d.log_offset
ORDER BY d.log_offset
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an ingestion took: records, and whether they all are in the tables by now."""

    records: int
    finished: bool


class Workspace:
    """A project's folder and what lies in its data folder.

    >>> import tidegate
    >>> shop = tidegate.open("shop")                                   # doctest: +SKIP
    >>> shop.query("SELECT count(*) FROM events").arrow()              # doctest: +SKIP
    """

    def __init__(self, project: Project, *, clock: Clock | None = None) -> None:
        self.project = project
        self._clock = clock

    def query(self, sql: str) -> QueryResult:
        """The rows of one SELECT in DuckDB's SQL over all tables. Raises: QueryError."""
        return query(self._tables, sql)

    def tables(self) -> list[TableInfo]:
        """The tables there are, with rows, files and bytes."""
        return tables(self._tables)

    def ingest(
        self, paths: Iterable[Path | str], *, progress: Callable[[Path, Block], None] | None = None
    ) -> Taken:
        """Take the records of files: NDJSON, JSON, CSV, Parquet, or gzip of them.

        `progress` is called for each block as it is read. If another process runs the project, the
        records go into its log and it decides on them.
        """
        return self._take(
            (block.records, f"file:{path.name}")
            for path in map(Path, paths)
            for block in _told(path, self._blocks(path), progress)
        )

    def dead_letters(self) -> pa.Table:
        """The dead letters that were not sent again, oldest first."""
        return self.query(_UNSENT).arrow()

    def resend(self, *, ids: Sequence[int] | None = None, reason: str | None = None) -> Taken:
        """Send dead letters again, for instance after the project was mended.

        Those given by id (their log offsets), of one reason, or all that were not sent again yet.
        Raises: RequestError if an id is none of them.
        """
        rows = self.dead_letters().select(["log_offset", "reason", "record"]).to_pylist()
        chosen = [
            r
            for r in rows
            if (ids is None or r["log_offset"] in ids) and reason in (None, r["reason"])
        ]
        if unknown := sorted(set(ids or ()) - {r["log_offset"] for r in rows}):
            raise RequestError(f"no dead letter waits under id {unknown[0]}", code="unknown_id")
        return self._take((Records.of([r["record"]]), f"resend:{r['log_offset']}") for r in chosen)

    def reconcile(self, *, progress: Callable[[int, int], None] | None = None) -> Reconciliation:
        """Each stage compared with the one before it, down to the missing ids.

        Works beside a running server. Raises: DamageError if the log cannot be read.
        """
        folder = DataFolder(self.project.data)
        program = Program.compile(self.project)
        log, ledger = SqliteLog.open(folder.log), Ledger(folder.ledger)
        try:
            opened = open_sinks(program, folder=folder.root, environment=os.environ)
            offsets = ledger.positions()
            sinks = {
                name: (d.settings, d.sink, offsets[name].offset if name in offsets else 0)
                for name, d in opened.items()
            }
            reconciler = Reconciler(folder.tables, log, program.schema, sinks=sinks)
            return reconciler.run(progress=progress)
        finally:
            ledger.close()
            log.close()

    @property
    def _tables(self) -> Path:
        return self.project.data / "tables"

    def _blocks(self, path: Path) -> Iterator[Block]:
        return read_file(path, schema=self.project.stream.schema)

    def _take(self, blocks: Iterable[tuple[Records, str]]) -> Taken:
        with taking(self.project, clock=self._clock) as taker:
            records = sum(taker.take(blocks))
            return Taken(records, taker.finish(timeout_seconds=FINISH_SECONDS))


def open(folder: Path | str) -> Workspace:  # noqa: A001 - read as `tidegate.open`
    """The project in a folder. Raises: ProjectError with all its mistakes."""
    return Workspace(load(Path(folder)))


def _told(
    path: Path, blocks: Iterable[Block], progress: Callable[[Path, Block], None] | None
) -> Iterator[Block]:
    for block in blocks:
        if progress is not None:
            progress(path, block)
        yield block
