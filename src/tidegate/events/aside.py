"""A full table of ids that is set aside while its run file is written.

To sort half a million ids, build their filter and write them takes as long as thousands of
decisions. So a thread of its own does it, of a table that does not change any more; ids are looked
for in it until the run can be asked instead.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path

from tidegate.events.fingerprints import Table
from tidegate.events.runs import Run, Shelf, write_run
from tidegate.events.timeline import Unwritten


class Aside:
    """A table, and the changes of the ingest time that belong to it, on their way into a run.

    Ids of offset `floor` and more are written. The filter is made at a place of a shelf, which
    nobody else may take meanwhile.
    """

    def __init__(
        self,
        table: Table,
        changes: Unwritten,
        *,
        folder: Path,
        floor: int,
        shelf: Shelf,
        place: int,
        threads: Executor,
    ) -> None:
        self.table, self.changes = table, changes
        self._folder, self._floor, self._threads = folder, floor, threads
        self._shelf, self._place = shelf, place
        self._writing: Future[Run] | None = threads.submit(self._write)

    @property
    def is_writing(self) -> bool:
        """Whether the run is being written at this moment."""
        return self._writing is not None and not self._writing.done()

    def run(self, *, wait: bool) -> Run | None:
        """The run, which takes part in look-ups from now on; None while it is being written.

        Raises: StorageFullError if it could not be written; then the next call begins anew.
        """
        if self._writing is None:
            self._writing = self._threads.submit(self._write)
        if not wait and not self._writing.done():
            return None
        try:
            run = self._writing.result()
        except BaseException:
            self._writing = None
            raise
        self._shelf.put(self._place, run)
        return run

    def _write(self) -> Run:
        pairs = self.table.live(self._floor)
        words = self._shelf.prepare(self._place, pairs)
        return write_run(self._folder, pairs=pairs, changes=self.changes.held, words=words)
