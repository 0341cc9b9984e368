"""A table's rows in the order of `log_offset`, read from the files that can hold them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from tidegate.errors import InputError
from tidegate.sinks.contract import Delivery
from tidegate.warehouse.faults import storage
from tidegate.warehouse.layout import fitted, shown_type
from tidegate.warehouse.parquet import DataFile
from tidegate.warehouse.table import active_files, stored_schema


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of a file, or the whole file (`index` is None) where it is small."""

    path: str
    index: int | None
    rows: int
    offset_min: int
    offset_max: int


_WHOLE_ROWS = 32_768
_READ_ROWS = 8_192  # decoded at a time by whoever reads alone


class Stored(Protocol):
    """A table whose files can be read: one that this process writes, or one that it only reads."""

    @property
    def stored(self) -> pa.Schema:
        """The columns on disk."""

    @property
    def name(self) -> str:
        """The table's name."""

    @property
    def date(self) -> str:
        """The column of the partition."""

    def files(self) -> list[DataFile]:
        """The active files."""

    def refresh(self) -> None:
        """Look at the table anew."""


class Written:
    """A table in a folder as it stands, which another process may be writing.

    Raises: InputError if there is no such table.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self.refresh()

    def refresh(self) -> None:
        """Look at the table anew."""
        if not (self._path / "_delta_log").is_dir():
            raise InputError(f"there is no table `{self.name}` in {self._path.parent}")
        with storage(f"reading table `{self.name}`"):
            handle = DeltaTable(str(self._path))
            (self.date,) = handle.metadata().partition_columns
            self.stored = stored_schema(handle)
            self._files = active_files(handle, self._path)

    def files(self) -> list[DataFile]:
        """The active files."""
        return self._files

    def end(self) -> int:
        """The offset after the last row."""
        return max((f.offset_max + 1 for f in self._files), default=0)


class TableFeed:
    """The feed of one table (see `sinks/contract.py`); compaction does not change what it gives.

    Rows have the table's columns except the date of the partition, or only the `columns` that are
    asked for, as far as the table has them, and `log_offset`; times are UTC microseconds without a
    zone, as between stages. With `threads` files are decoded on all processors, else by whoever
    reads alone.
    """

    def __init__(
        self,
        table: Stored,
        end: Callable[[], int],
        *,
        columns: Collection[str] | None = None,
        threads: bool = True,
    ) -> None:
        self._table = table
        self._threads = threads
        self._end = end
        self._columns = None if columns is None else {*columns, "log_offset"}

    def end(self) -> int:
        """The offset below which every row is there to be read."""
        return self._end()

    def read(self, offset: int, *, until: int, rows_max: int) -> Delivery:
        """Rows at `offset <= log_offset < until`, at most about `rows_max`; all rows of an offset.

        Raises: ValueError if `until` is beyond `end()` or `rows_max` below 1.
        """
        if until > self._end() or rows_max < 1:
            raise ValueError(f"cannot read to {until} (end {self._end()}) by {rows_max} rows")
        with storage(f"reading table `{self._table.name}`"):
            try:
                return self._read(offset, until, rows_max)
            except FileNotFoundError:
                # Compacted and swept between the listing and the reading: list again.
                self._table.refresh()
                return self._read(offset, until, rows_max)

    def deliveries(self, first: int, *, until: int, rows_max: int) -> Iterator[Delivery]:
        """All rows at `first <= log_offset < until`, one delivery after the other; see `read`."""
        while first < until:
            delivery = self.read(first, until=until, rows_max=rows_max)
            yield delivery
            first = delivery.next_offset

    def _read(self, offset: int, until: int, rows_max: int) -> Delivery:
        schema = self._schema()
        start = offset
        while True:
            groups, bound = _enough(
                _groups(self._table.files(), start, until), start, until, rows_max
            )
            offsets = [_offsets(group) for group in groups]
            bound = _narrowed(offsets, start, bound, rows_max)
            wanted = [(start <= held) & (held < bound) for held in offsets]
            tables = (
                table
                for group, chosen in zip(groups, wanted, strict=True)
                for table in _tables(group, schema, chosen, threads=self._threads)
            )
            rows = _ordered(tables, schema)
            if rows.num_rows or bound == until:
                return Delivery(offset, bound, rows)
            start = bound

    def _schema(self) -> pa.Schema:
        wanted = {f.name for f in self._table.stored} if self._columns is None else self._columns
        fields = [f for f in self._table.stored if f.name in wanted - {self._table.date}]
        return pa.schema([f.with_type(shown_type(f.type)) for f in fields])


def _groups(files: Sequence[DataFile], offset: int, until: int) -> Iterator[_Group]:
    """What can hold rows of the stretch, by lowest offset; a large file by its row groups.

    The footer of a large file is read only when its turn comes.
    """
    waiting = [
        (f.offset_min, str(f.path), -1, f.rows, f.offset_max)
        for f in files
        if f.offset_min < until and f.offset_max >= offset
    ]
    heapq.heapify(waiting)
    while waiting:
        low, path, index, rows, high = heapq.heappop(waiting)
        if index < 0 and rows > _WHOLE_ROWS:
            for group in _row_groups(path):
                if group[0] < until and group[-1] >= offset:
                    heapq.heappush(waiting, group)
        else:
            yield _Group(path, None if index < 0 else index, rows, low, high)


def _row_groups(path: str) -> Iterator[tuple[int, str, int, int, int]]:
    with pq.ParquetFile(path) as file:
        footer = file.metadata
        # The leaf's place among the leaves: nested columns before it count once for each leaf.
        leaves = [footer.schema.column(i).path for i in range(footer.num_columns)]
        column = leaves.index("log_offset")
        for index in range(footer.num_row_groups):
            group = footer.row_group(index)
            low, high = _bounds(group.column(column))
            yield low, path, index, group.num_rows, high


def _bounds(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return 0, 2**63 - 1  # written by someone else: it may hold anything
    return cast("int", statistics.min), cast("int", statistics.max)


def _enough(
    groups: Iterator[_Group], offset: int, until: int, rows_max: int
) -> tuple[list[_Group], int]:
    """The first groups that together hold `rows_max` rows, and the offset they are complete below.

    Groups come in the order of their lowest offset, so what the first one left out does not reach
    down to, is complete.
    """
    taken: list[_Group] = []
    rows = 0
    for group in groups:
        if rows >= rows_max and group.offset_min > offset:
            return taken, min(until, group.offset_min)
        taken.append(group)
        rows += group.rows
    return taken, until


def _offsets(group: _Group) -> npt.NDArray[np.int64]:
    """The offset of each row of a group, in the order of the file."""
    with pq.ParquetFile(group.path) as file:
        rows = (
            file.read(columns=["log_offset"], use_threads=False)
            if group.index is None
            else file.read_row_group(group.index, columns=["log_offset"], use_threads=False)
        )
    return rows.column("log_offset").to_numpy()


def _narrowed(held: Sequence[npt.NDArray[np.int64]], offset: int, bound: int, rows_max: int) -> int:
    """The bound below which there are at most `rows_max` of these rows, or those of one offset."""
    offsets = np.sort(np.concatenate([*held, np.empty(0, np.int64)]))
    offsets = offsets[np.searchsorted(offsets, offset) : np.searchsorted(offsets, bound)]
    if len(offsets) <= rows_max:
        return bound
    first_left = offsets[rows_max]
    if first_left == offsets[0]:
        later = np.searchsorted(offsets, first_left, side="right")
        first_left = offsets[later] if later < len(offsets) else bound
    return int(first_left)


def _tables(
    group: _Group, schema: pa.Schema, wanted: npt.NDArray[np.bool_], *, threads: bool
) -> Iterator[pa.Table]:
    """The rows of a group that are wanted: all at once with `threads`, else some at a time.

    Whoever reads alone does so beside the decisions, and is not to hold more than is asked for.
    """
    places = np.flatnonzero(wanted)
    if not len(places):
        return
    with pq.ParquetFile(group.path) as file:
        # Columns that came to the table later are in none of the older files.
        have = [name for name in schema.names if name in file.schema_arrow.names]
        read = 0
        for batch in file.iter_batches(
            len(wanted) if threads else _READ_ROWS,
            row_groups=None if group.index is None else [group.index],
            columns=have,
            use_threads=threads,
        ):
            # Before they are chosen, since another writer of Delta may have kept text as views.
            rows = fitted(pa.Table.from_batches([batch]), schema)
            yield _chosen(rows, wanted[read : read + len(batch)])
            read += len(batch)
            if read > places[-1]:
                return


def _chosen(rows: pa.Table, wanted: npt.NDArray[np.bool_]) -> pa.Table:
    return rows if wanted.all() else rows.filter(pa.array(wanted))


def _ordered(tables: Iterator[pa.Table], schema: pa.Schema) -> pa.Table:
    rows = pa.concat_tables([schema.empty_table(), *tables])
    offsets = rows.column("log_offset").to_numpy()
    if np.all(offsets[1:] >= offsets[:-1]):
        return rows
    return rows.take(np.argsort(offsets, kind="stable"))
