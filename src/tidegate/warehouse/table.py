"""One Delta table, appended to exactly once.

Each commit carries the log offset up to which the table now holds every row, as a Delta
application transaction: rows and offset become visible in one atomic step or not at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
)
from deltalake.transaction import AddAction, RemoveAction

from tidegate.warehouse import evolution
from tidegate.warehouse.checkpoint import sync_files, sync_folder
from tidegate.warehouse.faults import storage
from tidegate.warehouse.layout import Layout
from tidegate.warehouse.parquet import DataFile, merge_files, write_files
from tidegate.warehouse.repair import checkpoint_files, commit_files, read_commit

APP_ID = "tidegate"
# The cost of a commit grows with the commits since the last Delta checkpoint, and a handle keeps
# them all: after this many, a checkpoint is written (25 ms) and the handle opened anew.
_COMMITS_PER_CHECKPOINT = 50
_JOINED_AT_A_TIME = 32
_SMALL_ROWS = 1_024  # batches below that, on average, are joined before they are written
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point that is on the disk itself: a Delta version, and the table's own offset in it."""

    version: int
    offset: int


class Table:
    """One table's open handle; `append`, `stamp` and `refresh` may be called from any thread."""

    def __init__(self, path: Path, layout: Layout, handle: DeltaTable) -> None:
        self.path = path
        self.layout = layout
        self.lock = threading.RLock()
        self._handle: DeltaTable | None = handle
        self._checkpointed = max((v for v, _ in checkpoint_files(path / "_delta_log")), default=-1)
        # All versions up to this one are on the disk itself.
        self.durable_version = -1
        self._files: tuple[int, list[DataFile]] | None = None
        self._adopt(handle)

    @classmethod
    def create(cls, path: Path, layout: Layout, *, offset: int, retention_us: int) -> Table:
        """A new table that holds, by definition, everything below `offset`."""
        with storage(f"creating table `{layout.name}`"):
            handle = DeltaTable.create(
                str(path),
                layout.stored,
                partition_by=layout.date,
                configuration=_configuration(retention_us),
                commit_properties=_stamped(offset),
            )
        return cls(path, layout, handle)

    @classmethod
    def open(cls, path: Path, layout: Layout) -> Table:
        """An existing table, with the columns added that it lacks.

        Raises: InputError if the layout's columns conflict with the table's.
        """
        with storage(f"opening table `{layout.name}`"):
            handle = DeltaTable(str(path))
            needed = evolution.changes(layout, stored_schema(handle))
            evolution.apply(handle, needed)
            return cls(path, layout, DeltaTable(str(path)))

    @property
    def name(self) -> str:
        """The table's name."""
        return self.layout.name

    @property
    def date(self) -> str:
        """The column of the partition."""
        return self.layout.date

    @property
    def version(self) -> int:
        """The Delta version last seen."""
        return self._version

    def _adopt(self, handle: DeltaTable) -> None:
        self._handle, self._version = handle, handle.version()
        self.stored = stored_schema(handle)
        # The table holds every row below this log offset.
        self.offset = handle.transaction_version(APP_ID) or 0

    def widen(self, layout: Layout) -> None:
        """Take rows of another layout from now on, columns added where the table lacks them.

        Rows of the layout before are taken as well. Raises: InputError if columns conflict.
        """
        with self.lock:
            self._reopen_if_lost()
            needed = evolution.changes(layout, self.stored)
            if needed.added or needed.relaxed:
                handle, self._handle = self._handle, None  # lost unless all goes well
                assert handle is not None  # noqa: S101 - `_reopen_if_lost` came before
                with storage(f"changing table `{self.layout.name}`"):
                    evolution.apply(handle, needed)
                    self._adopt(DeltaTable(str(self.path)))
            self.layout = layout

    def append(self, batches: Iterable[pa.RecordBatch], *, next_offset: int) -> None:
        """Commit the rows that the table lacks; afterwards it holds everything below `next_offset`.

        Rows ascend by `log_offset`. Nothing is committed where no row is new.
        Raises: StorageFullError, after which the same call may be made again.
        """
        with self.lock:
            self._reopen_if_lost()
            fresh = _fresh(list(batches), self.offset)
            if fresh:
                self._commit(fresh, next_offset)

    def stamp(self, offset: int) -> None:
        """Commit that the table holds everything below `offset`, without rows."""
        with self.lock:
            self._reopen_if_lost()
            if offset > self.offset:
                self._commit([], offset)

    def _commit(self, batches: Sequence[pa.RecordBatch], next_offset: int) -> None:
        handle, self._handle = self._handle, None  # lost unless all goes well
        assert handle is not None  # noqa: S101 - `_reopen_if_lost` came before
        with storage(f"writing table `{self.layout.name}`"):
            if batches:
                self._write(handle, batches, next_offset)
            else:
                self._add(handle, [], next_offset)
            self.offset, self._version = next_offset, handle.version()
            self._handle = self._renewed(handle)

    def _write(
        self, handle: DeltaTable, batches: Sequence[pa.RecordBatch], next_offset: int
    ) -> None:
        rows = self.layout.pack(batches, self.stored)
        self._add(handle, write_files(self.path, self.layout, rows), next_offset)

    def _add(self, handle: DeltaTable, files: list[AddAction], next_offset: int) -> None:
        """Commit files, and that the table holds everything below `next_offset`."""
        self._transact(handle, files, commit_properties=_stamped(next_offset))

    def _transact(
        self,
        handle: DeltaTable,
        actions: Sequence[AddAction | RemoveAction],
        commit_properties: CommitProperties | None = None,
    ) -> None:
        handle.create_write_transaction(
            list(actions),
            "append",
            handle.schema(),
            [self.layout.date],
            commit_properties=commit_properties,
            post_commithook_properties=_NO_HOOKS,
        )
        handle.update_incremental()
        self._version = handle.version()

    def _renewed(self, handle: DeltaTable) -> DeltaTable:
        if self._version - self._checkpointed < _COMMITS_PER_CHECKPOINT:
            return handle
        handle.create_checkpoint()
        self._checkpointed = self._version
        return DeltaTable(str(self.path))

    def refresh(self) -> None:
        """Open the handle anew, at the newest version."""
        with self.lock:
            self._handle = self._files = None
            self._reopen_if_lost()

    def _reopen_if_lost(self) -> None:
        # After a failed commit nobody knows whether it was made: the table itself tells.
        if self._handle is None:
            with storage(f"opening table `{self.layout.name}`"):
                self._adopt(DeltaTable(str(self.path)))

    def sync(self) -> Mark:
        """Make everything committed so far durable: files, log entries, and their folders."""
        with self.lock:
            self._reopen_if_lost()
            mark = Mark(self._version, self.offset)
        if mark.version > self.durable_version:
            self._sync_between(self.durable_version, mark.version)
            self.durable_version = mark.version
        return mark

    def _sync_between(self, after: int, until: int) -> None:
        log = self.path / "_delta_log"
        files = [file for version, file in checkpoint_files(log) if after <= version <= until]
        for version, entry in commit_files(log):
            if after < version <= until:
                commit = read_commit(version, entry)
                # What compaction replaced since may be gone.
                files += [entry, *(self.path / name for name in (commit.added if commit else ()))]
        sync_files(files)
        for folder in {self.path, log, *(file.parent for file in files)}:
            sync_folder(folder)

    def compact(
        self,
        *,
        partitions: Sequence[str],
        bytes_target: int,
        merging: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Merge files of the partitions up to about `bytes_target`; appends may go on.

        Those of half of it and more stay as they are: rows are not written again for little.
        Each merge is made within `merging()`.
        """
        for date in partitions:
            small = [f for f in self.files() if f.date == date and f.bytes < bytes_target // 2]
            for files in _bins(small, bytes_target):
                with merging(), storage(f"compacting table `{self.layout.name}`"):
                    one = merge_files(
                        self.path, self.layout, self.stored, files, version=self._version
                    )
                    self._swap(files, one)

    def _swap(self, files: Sequence[DataFile], merged: AddAction) -> None:
        """Commit the merged file in the place of the files, if nobody else replaced them."""
        with self.lock:
            self._follow()
            if not set(files) <= set(self.files()):
                return  # left to be swept
            handle, self._handle = self._handle, None  # lost unless all goes well
            assert handle is not None  # noqa: S101 - `_follow` opened it
            gone = [self._removal(file) for file in files]
            self._transact(handle, [*gone, merged])
            self._handle = self._renewed(handle)

    def _removal(self, file: DataFile) -> RemoveAction:
        return RemoveAction(
            quote(file.path.relative_to(self.path).as_posix(), safe="/="),
            data_change=False,
            deletion_timestamp=time.time_ns() // 1_000_000,
            size=file.bytes,
            partition_values={self.layout.date: file.date},
        )

    def unused_files(self) -> list[Path]:
        """Files in the table's folder that its newest version does not name, whoever wrote that."""
        # Under the lock no append is under way, whose files would not be named yet.
        with self.lock:
            self._follow()
            named = {str(file.path) for file in self.files()}
            found = self.path.glob(f"{self.layout.date}=*/*")
            return [file for file in found if str(file) not in named]

    def _follow(self) -> None:
        self._reopen_if_lost()
        assert self._handle is not None  # noqa: S101 - reopened above
        with storage(f"reading table `{self.layout.name}`"):
            self._handle.update_incremental()
        self._version = self._handle.version()

    def files(self) -> list[DataFile]:
        """The active files, as of the last commit."""
        with self.lock:
            self._reopen_if_lost()
            if self._files is None or self._files[0] != self._version:
                assert self._handle is not None  # noqa: S101 - reopened above
                self._files = (self._version, active_files(self._handle, self.path))
            return self._files[1]


def _bins(files: Iterable[DataFile], bytes_target: int) -> Iterator[list[DataFile]]:
    """Files in order of their offsets, in groups that reach the target; of single ones, none."""
    group: list[DataFile] = []
    for file in sorted(files, key=lambda f: f.offset_min):
        group.append(file)
        if sum(f.bytes for f in group) >= bytes_target:
            if len(group) > 1:
                yield group
            group = []
    if len(group) > 1:
        yield group


def stored_schema(handle: DeltaTable) -> pa.Schema:
    """The schema of a table's snapshot."""
    # `pa.schema` takes whatever speaks Arrow's C interface, which its stubs do not know.
    return pa.schema(cast("Iterable[pa.Field[Any]]", handle.schema().to_arrow()))


def active_files(handle: DeltaTable, root: Path) -> list[DataFile]:
    """The files of a table's snapshot."""
    actions = pa.table(handle.get_add_actions(flatten=True))
    if actions.num_rows == 0:
        return []
    names = ("path", "modification_time", "size_bytes", "num_records")
    columns = [actions.column(name).to_pylist() for name in names]
    columns += [actions.column(f"{end}.log_offset").to_pylist() for end in ("min", "max")]
    return [
        DataFile(root / unquote(path), _date(path), written_ms * 1_000, *numbers)
        for path, written_ms, *numbers in zip(*columns, strict=True)
    ]


def _date(path: str) -> str:
    return path.partition("=")[2].partition("/")[0]


def _fresh(batches: Sequence[pa.RecordBatch], offset: int) -> list[pa.RecordBatch]:
    """The rows at and beyond an offset; many small batches become one.

    Each column of each batch costs a fixed time at each step from here on, most of it while
    holding the interpreter, for which decisions wait.
    """
    rows = sum(batch.num_rows for batch in batches)
    if rows < len(batches) * _SMALL_ROWS:
        batches = _joined(batches)
    return [fresh for batch in batches if (fresh := _from(batch, offset)).num_rows]


def _joined(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The same rows in one batch, some joined at a time: Arrow lets nobody go on meanwhile."""
    left, step = list(batches), _JOINED_AT_A_TIME
    while len(left) > 1:
        parts = [pa.Table.from_batches(left[i : i + step]) for i in range(0, len(left), step)]
        joined = [batch for part in parts for batch in part.combine_chunks().to_batches()]
        if len(joined) == len(left):
            break  # texts of more than 2 GB
        left = joined
    return left


def _from(batch: pa.RecordBatch, offset: int) -> pa.RecordBatch:
    offsets = batch.column("log_offset").to_numpy()
    return batch.slice(int(np.searchsorted(offsets, offset)))


def _stamped(offset: int) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction(APP_ID, offset)])


def _configuration(retention_us: int) -> dict[str, str]:
    seconds = max(retention_us // 1_000_000, 1)
    return {
        # The only column that a feed prunes by; statistics of the others would swell the log.
        "delta.dataSkippingStatsColumns": "log_offset",
        "delta.logRetentionDuration": f"interval {seconds} seconds",
        "delta.deletedFileRetentionDuration": f"interval {seconds} seconds",
    }
