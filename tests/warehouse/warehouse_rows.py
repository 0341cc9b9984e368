"""Outcomes made from offsets alone, and the plain Python lists that the tables must equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidegate.clock import SystemClock
from tidegate.decisions.decided import DecisionRows
from tidegate.decisions.featured import FeatureRows
from tidegate.outcome import Outcome
from tidegate.schema import Schema
from tidegate.tables import (
    AUDIT,
    DEAD_LETTERS,
    DECISIONS,
    DUPLICATES,
    LATE_ROWS,
    WINDOW_COLUMNS,
    events_schema,
    features_schema,
)
from tidegate.warehouse import Warehouse

SCHEMA = Schema.of(
    [("id", "text"), ("ts", "timestamp"), ("store", "bigint?"), ("price", "decimal(10,2)?")],
    id="id",
    event_time="ts",
)
WINDOW = pa.schema(
    [
        pa.field("store", pa.int64()),
        pa.field("ids", pa.list_(pa.string())),
        *WINDOW_COLUMNS,
    ]
)
WINDOWS = {"rush": WINDOW}
SPENT: pa.Field[Any] = pa.field("spent", pa.float64())
FEATURES = pa.schema([SPENT, pa.field("seen", pa.int64())])
SCHEMAS: dict[str, pa.Schema] = {
    "events": events_schema(SCHEMA),
    "decisions": DECISIONS,
    "dead_letters": DEAD_LETTERS,
    "duplicates": DUPLICATES,
    "late_rows": LATE_ROWS,
    "features": features_schema(FEATURES),
    "rush": WINDOW,
    "audit": AUDIT,
}
HOUR = 3_600_000_000
Row = dict[str, Any]


def rows_at(offset: int) -> dict[str, list[Row]]:
    """What follows from one record of the log: the rows by table."""
    time = 1_700_000_000_000_000 + offset * HOUR
    if offset % 7 == 3:
        return {"dead_letters": [_dead_letter(offset, time)]}
    if offset % 7 == 5:
        return {"duplicates": [_duplicate(offset, time)]}
    rows = {
        "events": [_event(offset, time)],
        "decisions": [_decision(offset, time)],
        "features": [_features(offset, time)],
    }
    if offset % 13 == 6:
        rows["audit"] = [_audited(offset, time)]
    if offset % 5 == 0:
        rows["rush"] = [_window(offset, time, store) for store in range(offset % 3 + 1)]
    if offset % 11 == 0:
        rows["late_rows"] = [_late(offset, time)]
    return rows


def _audited(offset: int, time: int) -> Row:
    told = {"subject": f"key {offset}", "author": "ann", "detail": "{}"}
    return {"at": time, "action": "key.add", **told, "log_offset": offset}


def _event(offset: int, time: int) -> Row:
    return {
        "id": f"e{offset}",
        "ts": time,
        "store": offset if offset % 2 else None,
        "price": Decimal(offset).scaleb(-2),
        "extra": None,
        "ingest_time": time + 1,
        "source": "http",
        "log_offset": offset,
    }


def _decision(offset: int, time: int) -> Row:
    hit = {"name": "r", "action": "review", "mode": "live", "reason": f"because {offset}"}
    return {
        "event_id": f"e{offset}",
        "event_time": time,
        "action": "review",
        "score": None,
        "rules": [hit] * (offset % 3),
        "version": "v1",
        "log_offset": offset,
        "decided_at": time + 2,
    }


def _features(offset: int, time: int) -> Row:
    return {
        "event_id": f"e{offset}",
        "event_time": time,
        "spent": offset / 3,
        "seen": offset if offset % 2 else None,
        "log_offset": offset,
    }


def _dead_letter(offset: int, time: int) -> Row:
    return {
        "log_offset": offset,
        "reason": "not_json",
        "column": None,
        "message": "no value",
        "source": "http",
        "ingest_time": time,
        "record": b"\xff\x00{" + str(offset).encode(),
    }


def _duplicate(offset: int, time: int) -> Row:
    return {
        "log_offset": offset,
        "event_id": f"e{offset - 1}",
        "first_offset": offset - 1,
        "source": "http",
        "ingest_time": time,
    }


def _window(offset: int, time: int, store: int) -> Row:
    return {
        "store": store,
        "ids": [f"e{offset}", None],
        "window_start": time - HOUR,
        "window_end": time,
        "log_offset": offset,
    }


def _late(offset: int, time: int) -> Row:
    return {
        "window_query": "rush",
        "event_id": f"e{offset}",
        "event_time": time - HOUR,
        "window_start": time - HOUR,
        "window_end": time,
        "watermark": time,
        "log_offset": offset,
    }


def outcome(first: int, until: int) -> Outcome:
    """The outcome of the offsets `first <= o < until`."""
    batches = {name: batch(name, first, until) for name in SCHEMAS}
    return Outcome(
        first,
        until,
        events=batches["events"],
        decided=DecisionRows(batches["decisions"]),
        dead_letters=batches["dead_letters"],
        duplicates=batches["duplicates"],
        late_rows=batches["late_rows"],
        windows={"rush": batches["rush"]},
        featured=FeatureRows(batches["features"]),
        controls={"audit": batches["audit"]},
    )


def batch(table: str, first: int, until: int) -> pa.RecordBatch:
    """The rows of one table for a stretch of offsets."""
    return pa.RecordBatch.from_pylist(expected(first, until)[table], schema=SCHEMAS[table])


def expected(first: int, until: int) -> dict[str, list[Row]]:
    """The oracle: the rows of every table for a stretch of offsets, as plain lists."""
    found: dict[str, list[Row]] = {name: [] for name in SCHEMAS}
    for offset in range(first, until):
        for name, rows in rows_at(offset).items():
            found[name] += rows
    return found


def held(warehouse: Warehouse, *, rows_max: int = 1_000_000) -> dict[str, list[Row]]:
    """What the tables hold, read through their feeds, as plain lists."""
    return {name: held_by(warehouse, name, rows_max=rows_max) for name in SCHEMAS}


def held_by(warehouse: Warehouse, name: str, *, rows_max: int = 1_000_000) -> list[Row]:
    feed = warehouse.feed(name)
    offset, found = 0, []
    while offset < feed.end():
        delivery = feed.read(offset, until=feed.end(), rows_max=rows_max)
        found += plain(delivery.rows)
        offset = delivery.next_offset
    return found


def plain(rows: pa.Table) -> list[Row]:
    """Rows as dictionaries; times as microseconds."""
    for index, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            rows = rows.set_column(index, field.name, rows.column(index).cast(pa.int64()))
    return rows.to_pylist()


def opened(root: Path, **settings: Any) -> Warehouse:
    """A warehouse of the test's project."""
    arguments: dict[str, Any] = {"schema": SCHEMA, "windows": WINDOWS, "features": FEATURES}
    arguments["clock"] = SystemClock()
    return Warehouse.open(root, **(arguments | settings))


def write_all(warehouse: Warehouse, cuts: Iterable[int]) -> None:
    """Write from the first cut to the last, one write for each stretch between two."""
    for first, until in pairwise(cuts):
        warehouse.write([outcome(first, until)])


def unchanged(found: Mapping[str, list[Row]], until: int) -> bool:
    """Whether tables hold exactly the rows below `until`, in order."""
    return found == expected(0, until)
