"""The tables of a project, written exactly once and read by offset.

How far the tables hold everything
----------------------------------

Each table's commits carry the table's own offset: it holds every row below that. A stretch in which
a table has no rows is not committed to it, so its own offset falls behind though it lacks nothing.
Therefore a *checkpoint* note says, now and then, "every table holds everything below X". After a
start a table holds everything below `max(own offset, X)`, and `position` is the least of these:

- A crash between the commits of one write leaves some tables ahead. `position` is that of the one
  most behind; the engine replays from there, and each table skips what lies below its own offset.
- The note is written after all tables of a write are committed and durable, so X never claims
  what a table lacks. A note that is old, torn or lost only makes `position` smaller, thus the
  replay longer; replayed rows are skipped. To keep even that replay short, `maintain` stamps the
  tables that fell behind with a commit that carries the offset alone.
- Power loss may tear what was committed after the note. Opening checks all versions beyond those
  that the note lists as durable and cuts a table back to its last good version (`repair.py`); the
  offset goes back with it. Should damage reach below the note, the note counts no more for that
  table.
- A table that joins later (a new window query) is created with `position` as its own offset: it
  holds nothing older and is not asked for it. One that was away and returns is stamped the same
  way; the note's list of tables tells which those are.

`durable_position` is the least of the own offsets that are on the disk itself. It needs no note,
so whatever it allows to be trimmed from the log is never asked for again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pyarrow as pa

from tidegate.clock import Clock
from tidegate.outcome import Outcome
from tidegate.schema import Schema
from tidegate.warehouse import checkpoint, opening
from tidegate.warehouse.checkpoint import Checkpoint
from tidegate.warehouse.faults import storage
from tidegate.warehouse.feed import TableFeed
from tidegate.warehouse.layout import layouts
from tidegate.warehouse.table import Table
from tidegate.warehouse.upkeep import Upkeep

_WRITERS = 4
_SMALL_ROWS = 262_144  # of all tables together; a commit of fewer is done by one thread
_PROBE, _PROBE_BYTES = "probe.draft", 1 << 16


class Warehouse:
    """The tables of one project in one folder; one process at a time writes.

    `write` is called by one thread; `maintain`, `sync` and the feeds may run beside it.
    """

    def __init__(
        self,
        root: Path,
        tables: Mapping[str, Table],
        *,
        position: int,
        repairs: Sequence[str],
        upkeep: Upkeep,
        retention_us: int = 600_000_000,
    ) -> None:
        self._root = root
        self._tables = dict(tables)
        self._position = position
        self._durable = min(t.offset for t in tables.values())
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="warehouse")
        self._maintaining = threading.RLock()
        self._noted: Checkpoint | None = None
        self._refused = False  # the last write failed
        self._upkeep = upkeep
        self._retention_us = retention_us
        self.repairs = tuple(repairs)  # what opening had to mend, in words for the operator

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        schema: Schema,
        windows: Mapping[str, pa.Schema],
        features: pa.Schema | None = None,
        clock: Clock,
        compact_after: int = 64,
        vacuum_after: int = 600_000_000,
    ) -> Warehouse:
        """The warehouse in folder `root`: tables created, widened or repaired as needed.

        A table of features that is there is opened even where `features` is None: what an earlier
        version decides before the present one takes over still has its place there.

        `compact_after` is the number of small files a table may have; files that compaction
        replaced are deleted after `vacuum_after` microseconds, so a query may run that long.
        Raises: InputError if columns conflict with a table's, StorageFullError, DamageError.
        """
        if features is None and (root / "features").exists():
            features = pa.schema([])
        wanted = layouts(schema, windows, features)
        with storage("opening the warehouse"):
            root.mkdir(parents=True, exist_ok=True)
            opened = opening.open_tables(root, wanted, retention_us=vacuum_after)
        found = cls(
            root,
            opened.tables,
            position=opened.position,
            repairs=opened.repairs,
            upkeep=Upkeep(clock, compact_after=compact_after, vacuum_after_us=vacuum_after),
            retention_us=vacuum_after,
        )
        # From here on the note lists every table, the newly joined too.
        found.sync()
        return found

    @property
    def position(self) -> int:
        """The log offset below which every table holds everything; the engine replays from here."""
        return self._position

    @property
    def durable_position(self) -> int:
        """The same, as it would be after a loss of power: what lies below may leave the log."""
        return self._durable

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables."""
        return tuple(self._tables)

    @property
    def offsets(self) -> dict[str, int]:
        """The log offset below which each table holds everything."""
        return {name: max(t.offset, self._position) for name, t in self._tables.items()}

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Commit the rows of consecutive outcomes to all tables, each row exactly once.

        What the tables hold already is skipped, so a replay may begin anywhere at or below
        `position`. Raises: StorageFullError, after which the same or a later call that begins no
        higher may be made; ValueError if outcomes leave a gap.
        """
        if not outcomes:
            return
        self._refuse_gap(outcomes)
        end = outcomes[-1].next_offset
        if end <= self._position:
            return
        rows = self._by_table(outcomes)
        self._probe()
        self._refused = True
        self._commit(rows, end)
        self._refused = False
        self._position = end

    def extend(
        self,
        schema: Schema,
        windows: Mapping[str, pa.Schema],
        features: pa.Schema | None = None,
    ) -> None:
        """Make room for the rows of another version too, while writing goes on.

        Tables and columns are added; nothing goes. Arguments are as for `open`.
        Raises: InputError if columns conflict with a table's, before anything is changed;
        StorageFullError.
        """
        wanted = layouts(schema, windows, features)
        with self._maintaining:
            opening.refuse_conflicts(self._root, wanted)
            joined = {}
            for name, layout in wanted.items():
                if name in self._tables:
                    self._tables[name].widen(layout)
                else:
                    joined[name] = opening.join_table(
                        self._root / name,
                        layout,
                        position=self._position,
                        retention_us=self._retention_us,
                    )
            if joined:
                # Replaced as a whole: the thread that writes looks a table up at any time.
                self._tables = {**self._tables, **joined}
            self.sync()

    def _probe(self) -> None:
        # While the disk is full each attempt would leave torn files and fill the error output with
        # the storage library's own complaints: a small file tells first whether it is worth it.
        if self._refused:
            with storage("writing the tables"):
                probe = self._root / _PROBE
                probe.write_bytes(bytes(_PROBE_BYTES))
                probe.unlink()

    def _refuse_gap(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes[0].first_offset > self._position:
            raise ValueError(
                f"offsets {self._position} to {outcomes[0].first_offset} were left out: "
                f"the tables hold everything below {self._position} only"
            )
        expected = outcomes[0].first_offset
        for outcome in outcomes:
            if outcome.first_offset != expected:
                raise ValueError(f"outcomes must join: {expected} != {outcome.first_offset}")
            expected = outcome.next_offset

    def _by_table(self, outcomes: Sequence[Outcome]) -> dict[str, list[pa.RecordBatch]]:
        rows: dict[str, list[pa.RecordBatch]] = {}
        for outcome in outcomes:
            for name, batch in outcome.tables().items():
                if name not in self._tables:
                    raise ValueError(f"there is no table `{name}` for the rows that go there")
                if batch.num_rows:
                    rows.setdefault(name, []).append(batch)
        return rows

    def _commit(self, rows: Mapping[str, list[pa.RecordBatch]], end: int) -> None:
        if sum(batch.num_rows for batches in rows.values() for batch in batches) < _SMALL_ROWS:
            # Not worth several threads: they would take turns with those who decide, and each of
            # their turns is somebody's wait.
            for name, batches in rows.items():
                self._tables[name].append(batches, next_offset=end)
            return
        jobs = [
            self._pool.submit(self._tables[name].append, batches, next_offset=end)
            for name, batches in rows.items()
        ]
        # All have come to an end before an error is raised: the caller may try again at once.
        wait(jobs)
        for job in jobs:
            job.result()

    def sync(self) -> int:
        """Make everything written so far durable and note it; returns `durable_position`.

        Costs about 0.2 ms for each file written since the last time. Raises: StorageFullError.
        """
        with self._maintaining, storage("making the tables durable"):
            position = self._position  # taken first: by now the tables hold at least this
            marks = {name: table.sync() for name, table in self._tables.items()}
            versions = {name: mark.version for name, mark in marks.items()}
            note = Checkpoint(position, versions)
            if note != self._noted:
                checkpoint.write(self._root, note)
                self._noted = note
            self._durable = min(mark.offset for mark in marks.values())
            return self._durable

    def stamp(self) -> int:
        """Bring every table's own offset up to `position`, durably; returns `durable_position`.

        Costs a commit for each table without rows of late. Raises: StorageFullError.
        """
        with self._maintaining:
            for table in self._tables.values():
                table.stamp(self._position)
            return self.sync()

    def maintain(
        self, *, merging: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """Keep files few and folders small; safe beside `write`, meant to be called every second.

        Makes what was written durable; every ten seconds stamps the tables that fell behind;
        compacts tables with more than `compact_after` small files; deletes files unused for
        `vacuum_after` and old entries of the Delta log. After a bulk load that may take seconds;
        each merge is made within `merging()`. Raises: StorageFullError.
        """
        with self._maintaining:
            tables = self._tables.values()
            self._upkeep.stamp(tables, self._position)
            self._upkeep.compact(tables, merging)
            # Only what is durable may take the place of older files.
            self.sync()
            self._upkeep.sweep(tables)

    def feed(
        self, table: str, *, columns: Collection[str] | None = None, threads: bool = True
    ) -> TableFeed:
        """The table's rows by log offset, all columns or those given and the offset.

        See `TableFeed`. KeyError for a table that there is not.
        """
        return TableFeed(
            self._tables[table], lambda: self._position, columns=columns, threads=threads
        )

    def close(self) -> None:
        """Make everything durable and release what is held; closing twice is fine."""
        with self._maintaining:
            self._pool.shutdown()
            self.sync()
