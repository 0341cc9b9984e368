"""Rows and settings for the tests of sinks."""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tidegate.project.sinks import ObjectsSink as ObjectsSettings
from tidegate.schema import Schema
from tidegate.sinks.objects import Objects
from tidegate.tables import DECISIONS, WINDOW_COLUMNS, events_schema

START = dt.datetime(2023, 6, 6, 20, 24, 45, 754948)  # noqa: DTZ001 - UTC without a zone

STREAM = Schema.of(
    [
        ("id", "text"),
        ("event_type", "text?"),
        ("store_id", "bigint?"),
        ("price", "decimal(10,2)?"),
        ("discount", "double?"),
        ("priority_shipping", "boolean?"),
        ("is_return", "boolean?"),
        ("ts", "timestamp"),
    ],
    id="id",
    event_time="ts",
)


def event(n: int) -> dict[str, Any]:
    """The n-th event, at offset n; some of its columns are null now and then."""
    time = START + dt.timedelta(seconds=n)
    return {
        "id": f"event-{n}",
        "event_type": [None, "sale_event", "inventory_event"][n % 3],
        "store_id": n % 10 or None,
        "price": Decimal(n) / 4,
        "discount": float(n),
        "priority_shipping": n % 2 == 0,
        "is_return": None if n % 4 else False,
        "ts": time,
        "extra": None,
        "ingest_time": time,
        "source": "test",
        "log_offset": n,
        "record": b'{"id": "event-%d", "note": "\xc3\xa9"}' % n,
    }


def captured(count: int) -> pa.Table:
    """Accepted events with their bytes, as a capture feed gives them."""
    schema = events_schema(STREAM).append(pa.field("record", pa.binary()))
    return pa.Table.from_pylist([event(n) for n in range(count)], schema=schema)


def decisions(count: int) -> pa.Table:
    """A decision for each event: approve, review and block in turn."""
    hit = {"name": "rush", "action": "review", "mode": "live", "reason": "Discount of 60 %"}
    rows = [
        {
            "event_id": f"event-{n}",
            "event_time": event(n)["ts"],
            "action": ["approve", "review", "block"][n % 3],
            "score": None,
            "rules": [hit] if n % 3 else [],
            "version": "v1",
            "log_offset": n,
            "decided_at": event(n)["ingest_time"],
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=DECISIONS)


def window_rows(ends: int) -> pa.Table:
    """Two rows for each window end, five minutes apart; both closed by one record."""
    own = [
        pa.field("store_id", pa.int64()),
        pa.field("ids", pa.list_(pa.string())),
        pa.field("total", pa.decimal128(10, 2)),
        pa.field("WindowEnd", pa.timestamp("us")),
    ]
    rows = []
    for n in range(ends):
        end = dt.datetime(2023, 6, 7, 10, 10) + dt.timedelta(minutes=5 * n)  # noqa: DTZ001 - UTC
        shared = {"WindowEnd": end, "window_end": end, "log_offset": 100 * n + 7}
        shared["window_start"] = end - dt.timedelta(minutes=5)
        rows += [
            {"store_id": 6, "ids": [f"a{n}", f"b{n}"], "total": Decimal("12.50"), **shared},
            {"store_id": None, "ids": [f"c{n}"], "total": None, **shared},
        ]
    return pa.Table.from_pylist(rows, schema=pa.schema([*own, *WINDOW_COLUMNS]))


CAPTURE_PATH = (
    "all-events/{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"
)
WINDOW_PATH = "suspicious-events/{yyyy-MM-dd}/{HH-mm}"
FRAUD_PATH = "fraud-events/event_type={event_type}/dt={yyyy}_{MM}_{dd}"


def settings(
    url: str, *, path: str = CAPTURE_PATH, form: str = "capture", **more: Any
) -> ObjectsSettings:
    """A sink for objects at `url`."""
    return ObjectsSettings(
        **{
            "name": "objects",
            "type": "objects",
            "table": "events",
            "url": url,
            "format": form,
            "path": path,
            "namespace": "shop",
            "event_hub": "store-events",
            **more,
        }
    )


def opened(written: ObjectsSettings, rows: pa.Table, folder: Path, **environment: str) -> Objects:
    """The sink for these settings and rows like these."""
    return Objects.open(
        written,
        columns=rows.column_names,
        id_column="id",
        folder=folder,
        environment=environment,
    )


S3_SECRETS = {"key": "STORE_KEY", "secret": "STORE_SECRET"}
S3_ENVIRONMENT = {"STORE_KEY": "user-key", "STORE_SECRET": "hush-hush"}

NewBucket = Callable[[], str]


def require_s3() -> None:
    """Skip on a laptop without what S3 needs; in CI everything must be there."""
    for module in ("moto", "s3fs"):
        if importlib.util.find_spec(module) is None:
            reason = f"{module} is not installed: pip install tidegate[s3] 'moto[s3]'"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
