"""A small stream of store events for the tests of window queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.schema import Schema
from tidegate.sql.source import SourceText
from tidegate.tables import LATE_ROWS, events_schema
from tidegate.windows import Closed, WindowQuery, WindowState, compile_query

SECOND = 1_000_000
MINUTE = 60 * SECOND
SHOP = Schema.of(
    [
        ("id", "text"),
        ("event_type", "text"),
        ("store_id", "bigint?"),
        ("category", "text?"),
        ("discount", "double?"),
        ("price", "decimal(10,2)?"),
        ("qty", "bigint?"),
        ("priority_shipping", "boolean?"),
        ("ts", "timestamp"),
    ],
    id="id",
    event_time="ts",
)
_ADDED = {"extra": None, "ingest_time": 0, "source": "test"}
_BLANK = {"event_type": "sale_event", **dict.fromkeys(SHOP.names[2:-1])}


def compiled(sql: str, *, lateness: int = 0) -> WindowQuery:
    return compile_query("q", SourceText(sql, "q.sql"), SHOP, lateness=lateness)


def events(rows: Iterable[Mapping[str, Any]], *, first: int = 0) -> pa.RecordBatch:
    """Events from partial rows; ids and offsets count from `first`."""
    schema = events_schema(SHOP)
    full = [
        {**_BLANK, **_ADDED, "id": f"e{first + i}", "log_offset": first + i, **r}
        for i, r in enumerate(rows)
    ]
    return pa.RecordBatch.from_pylist(full, schema=schema)


def watermarks(batch: pa.RecordBatch, *, lateness: int) -> npt.NDArray[np.int64]:
    times = batch.column("ts").view(pa.int64()).to_numpy()
    marks: npt.NDArray[np.int64] = np.maximum.accumulate(times) - lateness
    return marks


def run(
    query: WindowQuery,
    batch: pa.RecordBatch,
    *,
    cuts: Sequence[int] = (),
    restore_at: Sequence[int] = (),
) -> Closed:
    """The batch through a fresh state in the pieces given, restored before some of them."""
    state = WindowState(query)
    marks = watermarks(batch, lateness=query.lateness)
    parts = []
    for number, (begin, end) in enumerate(_pieces(cuts, batch.num_rows)):
        if number in restore_at:
            state = WindowState.restore(query, state.snapshot())
        piece = batch.slice(begin, end - begin)
        parts.append(state.update(piece, watermarks=marks[begin:end]))
    parts.append(state.advance(2**61, log_offset=batch.num_rows))
    assert state.rows_held == state.open_windows == 0
    return joined(query, parts)


def _pieces(cuts: Sequence[int], rows: int) -> Iterator[tuple[int, int]]:
    bounds = [0, *sorted(c % (rows + 1) for c in cuts), rows]
    return pairwise(bounds)


def joined(query: WindowQuery, parts: Sequence[Closed]) -> Closed:
    rows = pa.Table.from_batches([p.rows for p in parts], query.schema)
    late = pa.Table.from_batches([p.late for p in parts], LATE_ROWS)
    errors = [e for p in parts for e in p.errors]
    return Closed(_batch(rows), _batch(late), errors)


def _batch(table: pa.Table) -> pa.RecordBatch:
    arrays = [pa.concat_arrays(c.chunks) for c in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)
