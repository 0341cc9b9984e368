"""What the stages are, and where the keys of each side come from.

Works beside a running server: all sides are cut at the offset below which every table holds
everything. The log is read itself, record by record, with a reader of ids that shares nothing with
the decoder of the engine; the tables are read with SQL; sinks are read back from where they wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from tidegate.eventlog.contract import Entry, EntryKind, EventLog
from tidegate.ids import IdReader
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
from tidegate.warehouse import checkpoint
from tidegate.warehouse.query import query

STRETCH = 1 << 21  # offsets compared at a time, which bounds the memory

Integers = npt.NDArray[np.int64]


class Reconciler:
    """Compares the stages of one project.

    `sinks` gives for each sink its settings, the sink, and the offset up to which it has delivered.
    """

    def __init__(
        self,
        tables: Path,
        log: EventLog,
        schema: Schema,
        *,
        sinks: Mapping[str, tuple[SinkSettings, Sink, int]],
    ) -> None:
        self._tables = tables
        self._log = log
        self._schema = schema
        self._sinks = sinks
        self._ids = IdReader(schema.id)

    def run(self, *, progress: Callable[[int, int], None] | None = None) -> Reconciliation:
        """All comparisons; `progress` is told how many of how many offsets are done.

        Raises: DamageError if the log cannot be read.
        """
        first, noted = self._log.first_offset, checkpoint.read(self._tables)
        until = noted.position if noted else first
        arrivals = _Arrivals()
        parts: list[list[Comparison]] = []
        for begin in range(first, max(until, first + 1), STRETCH):
            end = min(begin + STRETCH, until)
            parts.append(self._stretch(begin, end, arrivals))
            if progress is not None:
                progress(end - first, until - first)
        stages = [merged(list(same)) for same in zip(*parts, strict=True)]
        sinks = [self._sink(name, first, until, arrivals) for name in self._sinks]
        return Reconciliation(first, until, (*stages, *sinks), self._notes(first, until))

    def _stretch(self, begin: int, end: int, arrivals: _Arrivals) -> list[Comparison]:
        logged, logged_ids = Side(), Side()
        became, accepted, decided = Side(), Side(), Side()
        dead = self._rows("SELECT log_offset FROM dead_letters", begin, end)["log_offset"]
        became.add(_offsets(dead))
        for table, column in (("events", _quoted(self._schema.id)), ("duplicates", "event_id")):
            select = f"SELECT log_offset, {column}::VARCHAR AS id FROM {table}"
            rows = self._rows(select, begin, end)
            became.add(_offsets(rows["log_offset"]))
            accepted.add(_offsets(rows["log_offset"]), _series(rows["id"]))
        for offsets, records in self._logged(begin, end, arrivals):
            logged.add(offsets)
            alive = ~np.isin(offsets, _offsets(dead))
            logged_ids.add(offsets[alive], self._read_ids(records, alive))
        events = self._rows(
            f"SELECT log_offset, {_quoted(self._schema.id)}::VARCHAR AS id FROM events", begin, end
        )
        rows = self._rows("SELECT log_offset, event_id AS id FROM decisions", begin, end)
        decided.add(_offsets(rows["log_offset"]), _series(rows["id"]))
        known = Side()
        known.add(_offsets(events["log_offset"]), _series(events["id"]))
        hour_of = arrivals.hours
        return [
            compare(
                "log = events + dead letters + duplicates",
                ("log", logged),
                ("tables", became),
                hour_of=hour_of,
            ),
            compare(
                "ids in the log = ids in the tables",
                ("log", logged_ids),
                ("events + duplicates", accepted),
                hour_of=hour_of,
            ),
            compare(
                "events = decisions", ("events", known), ("decisions", decided), hour_of=hour_of
            ),
        ]

    def _sink(self, name: str, first: int, until: int, arrivals: _Arrivals) -> Comparison:
        settings, sink, offset = self._sinks[name]
        end = min(offset, until)
        wanted, held = Side(), Side()
        rows = self._rows(_expected(settings, self._schema), first, end)
        wanted.add(_offsets(rows["log_offset"]), _series(rows["id"]))
        for found in sink.delivered():
            offsets = found["log_offset"].to_numpy()
            inside = (offsets >= first) & (offsets < end)
            ids = found["event_id"].filter(pa.array(inside))
            held.add(offsets[inside], _series(ids))
        return compare(
            f"sink {name}, below offset {end}",
            (f"{settings.table}", wanted),
            (name, held),
            hour_of=arrivals.hours,
        )

    def _logged(
        self, begin: int, end: int, arrivals: _Arrivals
    ) -> Iterator[tuple[Integers, Records]]:
        """Offsets and records of the log's event entries in a stretch."""
        while begin < end:
            for entry in self._log.read(begin):
                arrivals.add(entry)
                begin = entry.next_offset
                if entry.kind is EntryKind.EVENTS and entry.first_offset < end:
                    inside = slice(0, end - entry.first_offset)
                    records = entry.records
                    offsets = np.arange(entry.first_offset, entry.next_offset)[inside]
                    bounds = records.starts[inside], records.ends[inside]
                    yield offsets, Records(records.payload, *bounds)

    def _read_ids(self, records: Records, which: npt.NDArray[np.bool_]) -> pl.Series:
        chosen = (r for r, wanted in zip(records, which.tolist(), strict=True) if wanted)
        return pl.Series([self._ids.read(r) for r in chosen], dtype=pl.String)

    def _rows(self, select: str, begin: int, end: int) -> pa.Table:
        sql = f"SELECT * FROM ({select}) WHERE log_offset >= {begin} AND log_offset < {end}"
        return query(self._tables, sql).arrow()

    def _notes(self, first: int, until: int) -> tuple[str, ...]:
        select = "SELECT log_offset, source FROM duplicates"
        sources = self._rows(select, first, until).group_by("source").aggregate([([], "count_all")])
        return tuple(
            f"{row['count_all']} duplicates from {row['source']}" for row in sources.to_pylist()
        )


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


def _expected(settings: SinkSettings, schema: Schema) -> str:
    """The rows that a sink should hold, as SQL."""
    if settings.table == "events":
        return f"SELECT log_offset, {_quoted(schema.id)}::VARCHAR AS id FROM events"
    if settings.table == "decisions":
        actions = ", ".join(f"'{a}'" for a in settings.actions)
        chosen = f" WHERE action IN ({actions})" if actions else ""
        return f"SELECT log_offset, event_id AS id FROM decisions{chosen}"
    return f"SELECT log_offset, NULL::VARCHAR AS id FROM {_quoted(settings.table)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _offsets(column: pa.ChunkedArray[Any]) -> Integers:
    return column.to_numpy().astype(np.int64, copy=False)


def _series(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> pl.Series:
    return pl.Series(pl.from_arrow(column)).cast(pl.String)
