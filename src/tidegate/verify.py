"""Verification: decisions and features computed again from the log, compared bit for bit.

What is compared with is what the tables hold; `decided_at`, which says when the machine got to it,
is left out. New versions take over where the log says so. Works beside a running server, over the
records that every table has passed when it begins.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.clock import Clock
from tidegate.datafolder import DataFolder
from tidegate.engine import Engine, Work
from tidegate.errors import DamageError, InputError, TidegateError
from tidegate.eventlog.contract import EventLog
from tidegate.labels.history import Past
from tidegate.outcome import Outcome
from tidegate.past import written_past
from tidegate.program import Program
from tidegate.recovery import begun, first_program, restored
from tidegate.snapshots import Snapshot, Snapshots
from tidegate.warehouse import checkpoint
from tidegate.warehouse.feed import TableFeed, Written
from tidegate.warehouse.layout import fitted

SHOWN_MAX = 20
_COMPARED_ROWS = 65_536
_READ_BYTES = 8 << 20
_TABLES = ("decisions", "features")

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not as the log has it: `given` stands in the table, `computed` follows.

    `column` is None where the row is missing in the table (`given` is None) or does not belong
    there (`computed` is None).
    """

    table: str
    log_offset: int
    event_id: str
    column: str | None
    given: object
    computed: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verification found about offsets `first_offset <= o < next_offset`.

    `rows` counts what was compared, by table; `differing` the rows that differ, of which
    `differences` has the first, a few for each. `begun_at` is the offset of the snapshot from which
    was computed, or 0 for the beginning of the log, and `is_trimmed` says that the log no longer
    has its beginning.
    """

    first_offset: int
    next_offset: int
    rows: dict[str, int]
    differing: int
    differences: tuple[Difference, ...]
    begun_at: int
    is_trimmed: bool

    @property
    def equal(self) -> bool:
        """Whether everything came out as it was."""
        return not self.differing


def verify(
    program: Program,
    *,
    folder: DataFolder,
    log: EventLog,
    clock: Clock,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Verified:
    """Compute again what follows from the log from offset `first` on, and compare.

    The computation begins at the log's beginning, where `first` is 0; else, and where the log was
    trimmed, at a good snapshot: the newest at or before `first`, or the oldest there is.
    Raises: DamageError if the log cannot be read, or nothing is there to begin from; InputError if
    `first` lies beyond what the tables hold.
    """
    noted = checkpoint.read(folder.tables)
    until = noted.position if noted else 0
    if first > until or first < 0:
        raise InputError(f"the tables hold what lies below offset {until}, and none at {first}")
    with tempfile.TemporaryDirectory(prefix="tidegate-verify-") as scratch:
        engine = _engine(program, _Aside(folder, Path(scratch)), log, clock, first)
        begun_at = engine.offset
        comparison = _Comparison(folder.tables, max(first, begun_at), until)
        try:
            for outcomes in _outcomes(engine, log, until):
                comparison.add(outcomes)
                if progress is not None:
                    progress(min(engine.offset, until) - begun_at, until - begun_at)
        finally:
            engine.dedupe.close()
    return Verified(
        first_offset=max(first, begun_at),
        next_offset=until,
        rows=comparison.rows,
        differing=comparison.differing,
        differences=tuple(comparison.differences),
        begun_at=begun_at,
        is_trimmed=log.first_offset > 0,
    )


# -- the computation -------------------------------------------------------------------------------


class _Aside(DataFolder):
    """The data folder for an engine that must leave it alone: its index of ids lies elsewhere."""

    def __init__(self, folder: DataFolder, scratch: Path) -> None:
        super().__init__(folder.root)
        self.dedupe = scratch / "dedupe"
        self.dedupe.mkdir()
        for path in folder.dedupe.glob("*.run"):
            # The server may remove a file that no snapshot needs any more at any time.
            with suppress(FileNotFoundError):
                shutil.copyfile(path, self.dedupe / path.name)


def _engine(program: Program, folder: _Aside, log: EventLog, clock: Clock, first: int) -> Engine:
    """An engine at or before `first`, or as near to it as there is anything to begin from."""
    history = partial(_history, folder.tables)
    trimmed = log.first_offset
    if first == 0 and trimmed == 0:
        origin = first_program(log) or program
        return begun(origin, folder=folder, log=log, clock=clock, history=history)
    for snapshot in _candidates(Snapshots(folder.snapshots), first, trimmed):
        try:
            return restored(snapshot, folder=folder, log=log, clock=clock, history=history)
        except TidegateError:
            continue  # damaged, or removed by the server meanwhile: another one will do
    if trimmed:
        raise DamageError(
            f"the log begins at offset {trimmed}, and there is no good snapshot to begin from",
            offset=trimmed,
        )
    origin = first_program(log) or program
    return begun(origin, folder=folder, log=log, clock=clock, history=history)


def _candidates(snapshots: Snapshots, first: int, trimmed: int) -> Iterator[Snapshot]:
    """Snapshots to begin from, the best first: the newest before `first`, then the oldest."""
    usable = [s for s in snapshots.load(offset_max=2**62) if s.state.offset >= trimmed]
    yield from (s for s in usable if s.state.offset <= first)
    if trimmed:
        yield from (s for s in reversed(usable) if s.state.offset > first)


def _outcomes(engine: Engine, log: EventLog, until: int) -> Iterator[list[Outcome]]:
    """What follows from the log, up to `until` or a little beyond."""
    waiting: list[Outcome] = []
    while engine.offset < until:
        for outcome in engine.process([Work(e) for e in _read(log, engine.offset)]):
            waiting.append(outcome)
            # Before the next outcome, since a new version reads its history from the tables.
            if sum(o.events.num_rows for o in waiting) >= _COMPARED_ROWS:
                yield waiting
                waiting = []
            if outcome.next_offset >= until:
                break
    if waiting:
        yield waiting


def _read(log: EventLog, offset: int) -> Sequence[Any]:
    try:
        return log.read(offset, bytes_max=_READ_BYTES)
    except ValueError as error:
        raise DamageError(
            f"the log was trimmed beyond offset {offset} meanwhile: begin again", offset=offset
        ) from error


def _history(tables: Path, first: int, until: int, columns: Sequence[str]) -> Iterator[Past]:
    """The accepted events and the labels of a stretch, as their tables have them."""
    return written_past(tables, first, until, columns=columns)


# -- the comparison --------------------------------------------------------------------------------


class _Comparison:
    """Compares outcomes with the rows of the tables at offsets `first <= o < until`."""

    def __init__(self, tables: Path, first: int, until: int) -> None:
        self._first, self._until = first, until
        self.rows = dict.fromkeys(_TABLES, 0)
        self.differing = 0
        self.differences: list[Difference] = []
        self._feeds = {
            name: TableFeed(Written(tables / name), lambda: until)
            for name in _TABLES
            if (tables / name / "_delta_log").is_dir()
        }

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Compare consecutive outcomes; a version may change the columns, so stretch by stretch."""
        for _, alike in groupby(outcomes, key=_feature_schema):
            stretch = list(alike)
            first = max(self._first, stretch[0].first_offset)
            until = min(self._until, stretch[-1].next_offset)
            if first < until:
                for name in _TABLES:
                    self._compare(name, stretch, first, until)

    def _compare(self, name: str, stretch: Sequence[Outcome], first: int, until: int) -> None:
        batches = [b for o in stretch if (b := o.tables().get(name)) is not None]
        if not batches:
            return  # a version without features
        computed = _between(pa.Table.from_batches(batches), first, until)
        given = self._given(name, computed.schema, first, until)
        self.rows[name] += computed.num_rows
        here, there = _offsets(computed), _offsets(given)
        if not np.array_equal(here, there):
            again = np.concatenate([[False], there[1:] == there[:-1]])  # a row that is there twice
            self._only(name, computed, ~np.isin(here, there), is_given=False)
            self._only(name, given, ~np.isin(there, here) | again, is_given=True)
            computed, given = _at(computed, here, there), _at(given, there, here)
        self._cells(name, computed, given)

    def _given(self, name: str, schema: pa.Schema, first: int, until: int) -> pa.Table:
        """The rows of the table, in the columns and types of those that were computed."""
        feed, parts = self._feeds.get(name), [schema.empty_table()]
        if feed is not None:
            deliveries = feed.deliveries(first, until=until, rows_max=_COMPARED_ROWS)
            parts += [fitted(delivery.rows, schema) for delivery in deliveries]
        return pa.concat_tables(parts)

    def _only(
        self, name: str, rows: pa.Table, which: npt.NDArray[np.bool_], *, is_given: bool
    ) -> None:
        self.differing += int(which.sum())
        room = max(0, SHOWN_MAX - len(self.differences))
        for row in rows.filter(pa.array(which)).slice(0, room).to_pylist():
            sides = (row, None) if is_given else (None, row)
            place = name, row["log_offset"], row["event_id"]
            self.differences.append(Difference(*place, None, *sides))

    def _cells(self, name: str, computed: pa.Table, given: pa.Table) -> None:
        offsets, ids = _offsets(computed), computed.column("event_id")
        amiss = np.zeros(computed.num_rows, dtype=np.bool_)
        for column in computed.column_names:
            if column == "decided_at":
                continue
            left, right = given.column(column), computed.column(column)
            for row in _differing(left, right):
                amiss[row] = True
                if len(self.differences) < SHOWN_MAX:
                    place = name, int(offsets[row]), str(ids[row].as_py())
                    values = left[row].as_py(), right[row].as_py()
                    self.differences.append(Difference(*place, column, *values))
        self.differing += int(amiss.sum())


def _feature_schema(outcome: Outcome) -> pa.Schema | None:
    return None if outcome.featured is None else outcome.featured.schema


def _offsets(rows: pa.Table) -> Integers:
    return rows.column("log_offset").to_numpy()


def _at(rows: pa.Table, offsets: Integers, others: Integers) -> pa.Table:
    """The rows, one of each offset, whose offsets are among others too."""
    places = np.searchsorted(offsets, np.intersect1d(offsets, others))
    return rows.take(places.astype(np.int64))


def _between(rows: pa.Table, first: int, until: int) -> pa.Table:
    offsets = _offsets(rows)
    begin, end = (int(np.searchsorted(offsets, o)) for o in (first, until))
    return rows.slice(begin, end - begin)


def _differing(left: pa.ChunkedArray[Any], right: pa.ChunkedArray[Any]) -> list[int]:
    """The rows in which two columns of a type differ; doubles by their bits."""
    if pa.types.is_floating(left.type):
        sides = [_bits(side) for side in (left, right)]
        return np.flatnonzero(np.any(sides[0] != sides[1], axis=1)).tolist()
    if left.equals(right):
        return []
    pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
    return [row for row, (a, b) in enumerate(pairs) if a != b]


def _bits(column: pa.ChunkedArray[Any]) -> Integers:
    """For each row the bits of its double, 0 for null, and whether it is null; shape (n, 2)."""
    values = column.combine_chunks()
    doubles = values.fill_null(0.0).to_numpy(zero_copy_only=False)
    nulls = values.is_null().to_numpy(zero_copy_only=False)
    return np.stack([np.ascontiguousarray(doubles).view(np.int64), nulls.astype(np.int64)], axis=1)
