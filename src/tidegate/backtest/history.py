"""What a backtest reads: rows of several tables about the same events, a piece at a time.

Tables are filed by the date of the event time, and in files by the offset in the log. A piece is a
few small days or a stretch of a large one. Pieces are independent of each other, so that several
threads can read them; within a piece the tables have their rows in the same order as a rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from tidegate.errors import InputError, TransientError
from tidegate.warehouse.faults import storage
from tidegate.warehouse.layout import fitted, shown_type
from tidegate.warehouse.parquet import DataFile
from tidegate.warehouse.table import APP_ID, active_files, stored_schema

PIECE_ROWS = 131_072  # large enough for Polars, small enough that four of them are no load
OFFSET = "log_offset"
_OFFSET_MAX = 2**63 - 1

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Piece:
    """The events of some days with `first <= log_offset < until`; about so many `rows`."""

    days: tuple[str, ...]
    first: int
    until: int
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """What was decided on events: a row for each, `rules` the names of the rules hit."""

    rows: pa.Table
    rules: Any


class Stored:
    """A table as it stood when it was opened. Times are UTC microseconds without a zone.

    `end` is the offset below which it holds every row. Raises: InputError if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        if not (path / "_delta_log").is_dir():
            raise InputError(f"there is no table `{self.name}` in {path.parent}")
        with storage(f"reading table `{self.name}`"):
            handle = DeltaTable(str(path))
            (partition,) = handle.metadata().partition_columns
            stored = [f for f in stored_schema(handle) if f.name != partition]
            self.schema = pa.schema([f.with_type(shown_type(f.type)) for f in stored])
            self.end = handle.transaction_version(APP_ID) or 0
            self._days: dict[str, list[DataFile]] = defaultdict(list)
            for file in sorted(active_files(handle, path), key=lambda f: f.offset_min):
                self._days[file.date].append(file)

    def days(self, first: date | None, until: date | None) -> list[str]:
        """The days of which there are rows, from `first` on and before `until`."""
        low, high = first or date.min, until or date.max
        return sorted(d for d in self._days if low.isoformat() <= d < high.isoformat())

    def pieces(self, days: Sequence[str], *, end: int) -> Iterator[Piece]:
        """The pieces that hold the rows of the days below the offset `end`."""
        waiting: list[str] = []
        rows = 0
        for day in days:
            size = self._rows(day)
            if size > 2 * PIECE_ROWS:
                yield from self._stretches(day, end)
                continue
            waiting, rows = [*waiting, day], rows + size
            if rows >= PIECE_ROWS:
                yield Piece(tuple(waiting), 0, end, rows)
                waiting, rows = [], 0
        if waiting:
            yield Piece(tuple(waiting), 0, end, rows)

    def _rows(self, day: str) -> int:
        return sum(f.rows for f in self._days[day])

    def _stretches(self, day: str, end: int) -> Iterator[Piece]:
        first = rows = 0
        for low, count in sorted(self._counted(day)):
            if rows >= PIECE_ROWS and low > first:
                yield Piece((day,), first, min(low, end), rows)
                first, rows = low, 0
            rows += count
        yield Piece((day,), first, end, rows)

    def _counted(self, day: str) -> Iterator[tuple[int, int]]:
        """The lowest offset and the rows of each file, or of the row groups of a large one."""
        for file in self._days[day]:
            if file.rows <= PIECE_ROWS:
                yield file.offset_min, file.rows
                continue
            with storage(f"reading table `{self.name}`"), pq.ParquetFile(file.path) as opened:
                for index, (low, _) in enumerate(_bounds(opened)):
                    yield low, opened.metadata.row_group(index).num_rows

    def read(self, piece: Piece, columns: Collection[str]) -> tuple[pa.Table, dict[str, int]]:
        """The columns of a piece and `log_offset`, and how many rows lie in files without a column.

        Columns that came to the table later are in none of its older files: there they are null.
        """
        wanted = {*columns, OFFSET}
        schema = pa.schema([f for f in self.schema if f.name in wanted])
        parts, lacking = [schema.empty_table()], dict[str, int]()
        for file, rows in self._parts(piece, wanted):
            for name in wanted - {*file.schema_arrow.names}:
                lacking[name] = lacking.get(name, 0) + rows.num_rows
            parts.append(fitted(rows, schema))
        return pa.concat_tables(parts), lacking

    def decided(self, piece: Piece, columns: Collection[str]) -> Decided:
        """The columns of a piece of a table of decisions, and the rules that each lists."""
        parts = self._listed(piece, columns, "name")
        schema = pa.schema([f for f in self.schema if f.name in {*columns, OFFSET}])
        rows = [fitted(part, schema) for part, _ in parts]
        whole = pa.concat_tables([schema.empty_table(), *rows])
        return Decided(whole, _whole(rules for _, rules in parts))

    def reasons(self, piece: Piece) -> Any:
        """The reasons that go with the rules of `decided`."""
        return _whole(reasons for _, reasons in self._listed(piece, (), "reason"))

    def _listed(
        self, piece: Piece, columns: Collection[str], field: str
    ) -> list[tuple[pa.Table, Any]]:
        """The parts of a piece, each with one field of the rules that its decisions list."""
        found = []
        for _, rows in self._parts(piece, {*columns, OFFSET}, of_rules=field):
            lists: Any = rows.column("rules").combine_chunks()
            names = lists.values.field(field).cast(pa.string())
            found.append((rows, pa.ListArray.from_arrays(lists.offsets, names)))
        return found

    def _parts(
        self, piece: Piece, columns: Collection[str], *, of_rules: str | None = None
    ) -> Iterator[tuple[pq.ParquetFile, pa.Table]]:
        """The rows of a piece, file by file, with those of the columns that each has."""
        try:
            yield from self._read(piece, columns, of_rules)
        except FileNotFoundError as error:
            message = f"a file of table `{self.name}` is gone, merged since the start: try again"
            raise TransientError(message) from error

    def _read(
        self, piece: Piece, columns: Collection[str], of_rules: str | None
    ) -> Iterator[tuple[pq.ParquetFile, pa.Table]]:
        files = [f for day in piece.days for f in self._days.get(day, ())]
        for data in files:
            if data.offset_max < piece.first or data.offset_min >= piece.until:
                continue
            with pq.ParquetFile(data.path, memory_map=True) as file:
                names = _leaves(file, columns, of_rules)
                with storage(f"reading table `{self.name}`"):
                    rows = _within(_groups(file, data, piece, names), data, piece)
                yield file, rows


def _whole(lists: Iterable[Any]) -> Any:
    empty: Any = pa.array([], pa.list_(pa.string()))
    return pa.concat_arrays([empty, *lists])


def _leaves(file: pq.ParquetFile, columns: Collection[str], of_rules: str | None) -> list[str]:
    """The columns of a file as its reader names them; of the rules one field alone."""
    names = [name for name in file.schema_arrow.names if name in columns]
    if of_rules is not None:
        paths = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
        names += [p for p in paths if p.startswith("rules.") and p.endswith(f".{of_rules}")]
    return names


def _groups(file: pq.ParquetFile, data: DataFile, piece: Piece, names: list[str]) -> pa.Table:
    """The row groups of a file that can hold rows of a piece."""
    if data.rows <= PIECE_ROWS or (
        data.offset_min >= piece.first and data.offset_max < piece.until
    ):
        return file.read(columns=names, use_threads=False)
    bounds = enumerate(_bounds(file))
    inside = [i for i, (low, high) in bounds if low < piece.until and high >= piece.first]
    return file.read_row_groups(inside, columns=names, use_threads=False)


def _bounds(file: pq.ParquetFile) -> Iterator[tuple[int, int]]:
    """The lowest and highest offset of each row group."""
    footer = file.metadata
    column = [footer.schema.column(i).path for i in range(footer.num_columns)].index(OFFSET)
    for index in range(footer.num_row_groups):
        statistics = footer.row_group(index).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            yield 0, _OFFSET_MAX  # written by someone else: it may hold anything
        else:
            yield cast("int", statistics.min), cast("int", statistics.max)


def _within(rows: pa.Table, data: DataFile, piece: Piece) -> pa.Table:
    if data.offset_min >= piece.first and data.offset_max < piece.until:
        return rows
    offsets = rows.column(OFFSET).to_numpy()
    return rows.filter(pa.array((offsets >= piece.first) & (offsets < piece.until)))


def places(own: Integers, wanted: Integers) -> pa.Array[Any] | None:
    """Where each of the wanted offsets stands among a table's own, null where it does not.

    None where both are the same in the same order, as they mostly are.
    """
    if np.array_equal(own, wanted):
        return None
    order = np.argsort(own, kind="stable")
    at = np.searchsorted(own, wanted, sorter=order)
    at = order[np.minimum(at, len(own) - 1)] if len(own) else np.zeros_like(wanted)
    known = own[at] == wanted if len(own) else np.zeros(len(wanted), np.bool_)
    return pa.array(at, pa.int64(), mask=~known)
