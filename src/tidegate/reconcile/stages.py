"""What the stages are, and where the keys of each side come from.

Works beside a running server: all sides are cut at the offset below which every table holds
everything. The log is read itself, record by record, with a reader of ids that shares nothing with
the decoder of the engine; the tables are read with SQL; sinks are read back from where they wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from tidegate.controls import VersionRecord, control_record, control_rows
from tidegate.errors import DamageError
from tidegate.eventlog.contract import Entry, EntryKind, EventLog
from tidegate.ids import IdReader
from tidegate.project.project import Project
from tidegate.project.sinks import Sink as SinkSettings
from tidegate.reconcile.comparison import (
    HOUR,
    Comparison,
    Reconciliation,
    Side,
    compare,
    merged,
)
from tidegate.records import Records
from tidegate.schema import Schema
from tidegate.sinks.contract import Sink
from tidegate.tables import CONTROL_TABLES
from tidegate.warehouse import checkpoint
from tidegate.warehouse.query import query

STRETCH = 1 << 21  # offsets compared at a time, which bounds the memory

Integers = npt.NDArray[np.int64]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class SinkState:
    """A sink of the project: its settings, the sink, and the offset below which it has delivered.

    The offset must be older than the reconciliation: what is delivered while it runs lies beyond.
    """

    name: str
    settings: SinkSettings
    sink: Sink
    offset: int


class Reconciler:
    """Compares the stages of one project over the records that every table has passed."""

    def __init__(
        self, tables: Path, log: EventLog, schema: Schema, *, sinks: Sequence[SinkState]
    ) -> None:
        self._tables = tables
        self._log = log
        self._schema = schema
        self._sinks = sinks
        self._ids = IdReader(schema.id)
        self._versions = _Versions()
        # Where no version has ever had features there is no such table, and no such comparison.
        self._has_features = self._has("features")

    def _has(self, table: str) -> bool:
        return (self._tables / table / "_delta_log").is_dir()

    def run(self, *, progress: Callable[[int, int], None] | None = None) -> Reconciliation:
        """All comparisons; `progress` is told how many steps of how many are done.

        Raises: DamageError if the log cannot be read.
        """
        while True:
            first = self._log.first_offset
            try:
                return self._run(first, progress)
            except ValueError:
                if self._log.first_offset == first:
                    raise  # else a server has just trimmed the log: what is left is compared

    def _run(self, first: int, progress: Callable[[int, int], None] | None) -> Reconciliation:
        noted = checkpoint.read(self._tables)
        until = max(noted.position if noted else 0, first)
        arrivals = _Arrivals()
        stretches = [
            (begin, min(begin + STRETCH, until)) for begin in range(first, until, STRETCH)
        ] or [(first, first)]
        steps = _Steps(len(stretches) + len(self._sinks), progress)
        parts = [steps.done(self._stretch(*s, arrivals)) for s in stretches]
        stages = [merged(list(same)) for same in zip(*parts, strict=True)]
        sinks = [steps.done(self._sink(s, first, until, arrivals)) for s in self._sinks]
        return Reconciliation(first, until, (*stages, *sinks), self._notes(first, until))

    def _stretch(self, begin: int, end: int, arrivals: _Arrivals) -> list[Comparison]:
        events, duplicates, decisions = (
            self._keys(select, begin, end)
            for select in (
                f"SELECT log_offset, {_quoted(self._schema.id)}::VARCHAR AS id FROM events",
                "SELECT log_offset, event_id AS id FROM duplicates",
                "SELECT log_offset, event_id AS id FROM decisions",
            )
        )
        dead = self._keys("SELECT log_offset, NULL::VARCHAR AS id FROM dead_letters", begin, end)
        logged, ids, done = self._logged(begin, end, dead.offsets(), arrivals)
        stages = [
            (
                "log = events + dead letters + duplicates",
                ("log", logged),
                ("tables", events.and_of(duplicates, dead).without_ids()),
            ),
            (
                "ids in the log = ids in the tables",
                ("log", ids),
                ("events + duplicates", events.and_of(duplicates)),
            ),
            ("events = decisions", ("events", events), ("decisions", decisions)),
            (
                "what people did = its tables",
                ("log", done),
                ("tables", self._keys(self._done, begin, end)),
            ),
        ]
        if self._has_features:
            features = self._keys("SELECT log_offset, event_id AS id FROM features", begin, end)
            wanted = events.chosen(self._versions.featured(events.offsets(), features.offsets()))
            stages.append(("events = features", ("events", wanted), ("features", features)))
        return [compare(name, a, b, hour_of=arrivals.hours) for name, a, b in stages]

    @property
    def _done(self) -> str:
        """The rows of what people did, each with the name of its table, as SQL."""
        there = [
            f"SELECT log_offset, '{name}' AS id FROM {name}"
            for name in CONTROL_TABLES
            if self._has(name)
        ]
        return " UNION ALL ".join(there or ["SELECT 0::BIGINT AS log_offset, '' AS id LIMIT 0"])

    def _logged(
        self, begin: int, end: int, dead: Integers, arrivals: _Arrivals
    ) -> tuple[Side, Side, Side]:
        """What the log has in a stretch.

        All records by offset, those that are not dead with their ids, and the rows that follow from
        what people did, each with the name of its table.
        """
        logged, ids, done = Side(), Side(), Side()
        for entry in self._entries(begin, end, arrivals):
            if entry.kind is EntryKind.EVENTS:
                offsets, records = _inside(entry, begin, end)
                alive = ~np.isin(offsets, dead)
                logged.add(offsets)
                ids.add(offsets[alive], self._read_ids(records, alive))
            elif entry.kind is EntryKind.CONTROL:
                for name, rows in _rows_of(entry):
                    offsets = rows[(rows >= begin) & (rows < end)]
                    done.add(offsets, pl.Series([name] * len(offsets), dtype=pl.String))
        return logged, ids, done

    def _entries(self, begin: int, end: int, arrivals: _Arrivals) -> Iterator[Entry]:
        """The log's entries that begin in the stretch, or reach into it."""
        at = begin
        while at < end:
            for entry in self._log.read(at):
                arrivals.add(entry)
                self._versions.add(entry)
                at = entry.next_offset
                if entry.first_offset < end:
                    yield entry

    def _read_ids(self, records: Records, which: npt.NDArray[np.bool_]) -> pl.Series:
        chosen = (r for r, wanted in zip(records, which.tolist(), strict=True) if wanted)
        return pl.Series([self._ids.read(r) for r in chosen], dtype=pl.String)

    def _sink(self, state: SinkState, first: int, until: int, arrivals: _Arrivals) -> Comparison:
        """What the sink should hold below its offset against what it holds there."""
        end = max(first, min(state.offset, until))
        wanted, held = Side(), Side()
        if end > first:
            wanted = self._keys(_expected(state.settings, self._schema), first, end)
            for found in _delivered(state):
                offsets = _offsets(found["log_offset"])
                inside = (offsets >= first) & (offsets < end)
                held.add(offsets[inside], _series(found["event_id"].filter(pa.array(inside))))
        name = f"sink {state.name}" + (f", up to offset {end}" if end < until else "")
        sides = (state.settings.table, wanted), (state.name, held)
        return compare(name, *sides, hour_of=arrivals.hours)

    def _keys(self, select: str, begin: int, end: int) -> Side:
        rows = self._rows(select, begin, end)
        side = Side()
        side.add(_offsets(rows["log_offset"]), _series(rows["id"]))
        return side

    def _rows(self, select: str, begin: int, end: int) -> pa.Table:
        sql = f"SELECT * FROM ({select}) WHERE log_offset >= {begin} AND log_offset < {end}"
        return query(self._tables, sql).arrow()

    def _notes(self, first: int, until: int) -> tuple[str, ...]:
        """What is worth knowing and no fault."""
        select = "SELECT log_offset, source FROM duplicates"
        sources = self._rows(select, first, until).group_by("source").aggregate([([], "count_all")])
        repeated = [
            f"{row['count_all']} duplicates from {row['source']}"
            for row in sorted(sources.to_pylist(), key=lambda r: str(r["source"]))
        ]
        behind = [
            f"sink {s.name} is on its way: offsets {max(s.offset, first)} to {until} are to come"
            for s in self._sinks
            if s.offset < until
        ]
        waiting = self._log.next_offset - until
        ahead = [f"{waiting} more records in the log, not in the tables yet"] if waiting else []
        return (*repeated, *behind, *ahead)


class _Versions:
    """Which offsets were decided by a version that has features, as the log's records tell."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._featured: list[bool] = []

    def add(self, entry: Entry) -> None:
        """Note the versions that an entry holds; entries come in order, an entry may come twice."""
        if entry.kind is not EntryKind.CONTROL:
            return
        for offset, record in enumerate(entry.records, start=entry.first_offset):
            match control_record(record, offset=offset):
                case VersionRecord(files=files) if not self._begins or offset > self._begins[-1]:
                    self._begins.append(offset)
                    project = Project.from_files(files, root=Path())
                    self._featured.append(project.features is not None)

    def featured(self, offsets: Integers, found: Integers) -> npt.NDArray[np.bool_]:
        """For each offset whether features belong to it, where features were `found` at some.

        Where the record of the first version has left the log, that version is taken to have had
        features if any were found under it.
        """
        first = self._begins[0] if self._begins else np.iinfo(np.int64).max
        known = np.array([bool(np.any(found < first)), *self._featured])
        answer: npt.NDArray[np.bool_] = known[np.searchsorted(self._begins, offsets, side="right")]
        return answer


class _Steps:
    """Counts steps and tells whoever wants to know."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0

    def done(self, result: _T) -> _T:
        """Count a step whose result this is."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)
        return result


class _Arrivals:
    """In which hour each offset arrived."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._times: list[int] = []

    def add(self, entry: Entry) -> None:
        """Note an entry; entries come in order, an entry may come twice."""
        if not self._firsts or entry.first_offset > self._firsts[-1]:
            self._firsts.append(entry.first_offset)
            self._times.append(entry.ingest_time)

    def hours(self, offsets: Integers) -> Integers:
        """The beginning of the hour in which each offset arrived, UTC microseconds."""
        if not self._firsts:
            return np.zeros(len(offsets), dtype=np.int64)
        at = np.searchsorted(np.array(self._firsts), offsets, side="right") - 1
        times = np.array(self._times, dtype=np.int64)[np.maximum(at, 0)]
        return times - times % HOUR


def _inside(entry: Entry, begin: int, end: int) -> tuple[Integers, Records]:
    """Offsets and records of an entry, those in a stretch."""
    inside = slice(max(0, begin - entry.first_offset), end - entry.first_offset)
    records = entry.records
    offsets = np.arange(entry.first_offset, entry.next_offset)[inside]
    return offsets, Records(records.payload, records.starts[inside], records.ends[inside])


def _rows_of(entry: Entry) -> Iterator[tuple[str, Integers]]:
    """The offsets of the rows that follow from control records, by table."""
    first = entry.first_offset
    records = [control_record(r, offset=first + i) for i, r in enumerate(entry.records)]
    rows = control_rows(records, first_offset=first, at=entry.ingest_time)
    for name, found in rows.items():
        yield name, found["log_offset"].to_numpy()


def _delivered(state: SinkState) -> Iterator[pa.Table]:
    """What the sink holds. Raises: DamageError where a file holds something else."""
    try:
        yield from state.sink.delivered()
    except (ValueError, LookupError, TypeError, EOFError, AttributeError) as error:
        message = f"sink `{state.name}` holds a file that is not as it was written: {error}"
        raise DamageError(message) from error


def _expected(settings: SinkSettings, schema: Schema) -> str:
    """The rows that a sink should hold, as SQL."""
    if settings.table == "events":
        return f"SELECT log_offset, {_quoted(schema.id)}::VARCHAR AS id FROM events"
    if settings.table == "decisions":
        actions = ", ".join(f"'{a}'" for a in settings.actions)
        # Not the bare column: a condition that DuckDB hands on to Arrow fails on files in which
        # another writer of Delta has kept text as views.
        chosen = f" WHERE concat(action) IN ({actions})" if actions else ""
        return f"SELECT log_offset, event_id AS id FROM decisions{chosen}"
    return f"SELECT log_offset, NULL::VARCHAR AS id FROM {_quoted(settings.table)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _offsets(column: pa.ChunkedArray[Any]) -> Integers:
    return column.to_numpy().astype(np.int64, copy=False)


def _series(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> pl.Series:
    return pl.Series(pl.from_arrow(column)).cast(pl.String)
