"""Window queries: a stream's worth of rows, beside a GROUP BY of DuckDB over all rows at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.corpus import blocks, store_file
from benchmarks.process import EXAMPLE
from benchmarks.result import Result
from tidegate.events.body import split_ndjson
from tidegate.program import Program
from tidegate.project.project import load
from tidegate.tables import events_schema
from tidegate.windows.state import WindowState

_QUERY = "suspicious_orders"
_SQL = """
SELECT
  store_id,
  list(id ORDER BY log_offset) AS ids,
  time_bucket(INTERVAL 5 MINUTE, ts) + INTERVAL 5 MINUTE AS "WindowEnd",
  time_bucket(INTERVAL 5 MINUTE, ts) AS "WindowStart"
FROM events
WHERE discount > 50 AND priority_shipping AND event_type = 'sale_event'
GROUP BY store_id, time_bucket(INTERVAL 5 MINUTE, ts)
"""


def measure(*, events: int, rounds: int) -> Iterator[Result]:
    """The results of this benchmark, as they come."""
    program = Program.compile(load(EXAMPLE))
    batches = list(_events(program, events))
    table = pa.Table.from_batches(batches)
    pairs = []
    for _ in range(rounds):
        ours, closed = _stream(program, batches)
        duck, rows = _duckdb(table)
        if closed != rows:
            raise SystemExit(f"{closed} rows came of the stream and {rows} of DuckDB")
        pairs.append((events / ours, events / duck))
    yield Result.beside(
        "windows.suspicious_orders",
        f"{events:,} events in blocks as they come, {rows:,} rows out",
        pairs,
        unit="events/s",
        peer="DuckDB, one GROUP BY over all of them on all cores",
        note="Tidegate runs on one thread and emits each window as it closes",
    )


def _events(program: Program, count: int) -> Iterator[pa.RecordBatch]:
    """Batches as the engine hands them to window queries."""
    offset = 0
    for block in blocks(store_file(count)):
        events = program.intake.decoder.decode(split_ndjson(block)).events
        n = events.num_rows
        offsets = pa.array(np.arange(offset, offset + n))
        times = pa.array(np.zeros(n, dtype=np.int64)).cast(pa.timestamp("us"))
        columns = [*events.columns, times, pa.array(["file"] * n), offsets]
        yield pa.RecordBatch.from_arrays(columns, schema=events_schema(program.schema))
        offset += n


def _stream(program: Program, batches: Sequence[pa.RecordBatch]) -> tuple[float, int]:
    """Seconds, and rows emitted; at the end time passes, so that all windows close."""
    query = next(q for q in program.windows if q.name == _QUERY)
    state = WindowState(query)
    times = [b["ts"].cast(pa.int64()).to_numpy() for b in batches]
    begun, closed = time.perf_counter(), 0
    for batch, at in zip(batches, times, strict=True):
        closed += state.update(batch, watermarks=at - query.lateness).rows.num_rows
    last = int(max(t.max() for t in times))
    closed += state.advance(last + 3_600_000_000, log_offset=0).rows.num_rows
    return time.perf_counter() - begun, closed


def _duckdb(table: pa.Table) -> tuple[float, int]:
    connection = duckdb.connect()
    connection.register("events", table)
    begun = time.perf_counter()
    rows = connection.sql(_SQL).to_arrow_table().num_rows
    return time.perf_counter() - begun, rows
