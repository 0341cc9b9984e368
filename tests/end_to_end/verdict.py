"""What must be true of a shop after all that was done to it, found without its own code paths."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import polars as pl
import pyarrow as pa

import tidegate
from tidegate.clock import SystemClock
from tidegate.engine import Engine, Work
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.events.dedupe import Dedupe
from tidegate.features.state import FeatureState
from tidegate.lookup import LoggedIds
from tidegate.program import Program
from tidegate.project.project import load
from tidegate.recovery import first_program

from .shop import readable

LATENESS = timedelta(minutes=4)
FIVE_MINUTES = timedelta(minutes=5)
BEGINNING = datetime.fromisoformat("2023-01-01T00:00:00")
LATE = """
SELECT event_id, window_end FROM late_rows WHERE window_query = 'suspicious_orders'
"""


def check(folder: Path, acknowledged: Sequence[bytes]) -> None:
    """Every promise about a shop that was stopped in good order."""
    shop = tidegate.open(folder)
    events = shop.query("SELECT * FROM events ORDER BY log_offset").polars()
    every_acknowledged_event_is_there_once(shop, events, acknowledged)
    every_event_has_one_decision(shop, events)
    windows_are_right(shop, events)
    sinks_hold_each_event_once(shop, events, folder / "data" / "objects")
    assert (found := shop.reconcile()).equal, found
    assert (verified := shop.verify()).equal, verified.differences
    features_are_as_computed_in_one_go(shop)
    the_log_gives_the_same_again(shop, folder)


def every_acknowledged_event_is_there_once(
    shop: tidegate.Workspace, events: pl.DataFrame, acknowledged: Sequence[bytes]
) -> None:
    assert events["id"].is_unique().all()
    sent = {found for record in acknowledged if (found := readable(record)) is not None}
    assert len(sent) > 100
    assert not sent - set(events["id"])
    broken = {record for record in acknowledged if readable(record) is None}
    letters = shop.query("SELECT record FROM dead_letters").arrow()["record"].to_pylist()
    assert not broken - set(letters)


def every_event_has_one_decision(shop: tidegate.Workspace, events: pl.DataFrame) -> None:
    decisions = shop.query("SELECT event_id, log_offset FROM decisions").polars()
    assert decisions["event_id"].is_unique().all()
    assert set(decisions.iter_rows()) == set(events.select("id", "log_offset").iter_rows())


def features_are_as_computed_in_one_go(shop: tidegate.Workspace) -> None:
    """Those of the newest version, by one state over all events of the table at once."""
    program = Program.compile(shop.project)
    if program.features is None:
        return
    sql = "SELECT e.*, d.version FROM events AS e JOIN decisions AS d ON e.id = d.event_id"
    events = shop.query(f"{sql} ORDER BY e.log_offset").arrow()
    (batch,) = events.combine_chunks().to_batches()
    newest = np.maximum.accumulate(batch["ts"].cast(pa.int64()).to_numpy())
    state = FeatureState(program.features, key=bytes(16), threads=2)
    computed = state.update(batch, newest=newest).values
    named = [*computed.schema.names, "log_offset"]
    kept = shop.query("SELECT * FROM features ORDER BY log_offset").arrow().select(named)
    rows = zip(events["version"].to_pylist(), _bits(computed), strict=True)
    wanted = [row for version, row in rows if version == program.version]
    assert wanted, "the newest version has decided nothing"
    assert _bits(kept.drop_columns(["log_offset"]))[-len(wanted) :] == wanted


def _bits(rows: Any) -> list[tuple[Any, ...]]:
    lists = [column.to_pylist() for column in rows.columns]
    spelt = [[v.hex() if isinstance(v, float) else v for v in values] for values in lists]
    return list(zip(*spelt, strict=True))


def windows_are_right(shop: tidegate.Workspace, events: pl.DataFrame) -> None:
    """Windows that have closed hold what a plain walk over the events, in log order, puts there."""
    groups: dict[tuple[datetime, int | None], list[str]] = {}
    late, newest = [], BEGINNING
    for e in events.to_dicts():
        newest = max(newest, e["ts"])
        if e["event_type"] != "sale_event" or not (e["discount"] or 0) > 50:
            continue
        if e["priority_shipping"]:
            # (start, end]: an event on the stroke belongs to the window that ends there.
            end = BEGINNING + -((BEGINNING - e["ts"]) // FIVE_MINUTES) * FIVE_MINUTES
            if newest - LATENESS > end:
                late.append((e["id"], end))
            else:
                groups.setdefault((end, e["store_id"]), []).append(e["id"])
    rows = shop.query("SELECT * FROM suspicious_orders").arrow().to_pylist()
    emitted = {(r["WindowEnd"], r["store_id"]): r["ids"] for r in rows}
    assert len(emitted) == len(rows)
    assert emitted == {k: ids for k, ids in groups.items() if k[0] < newest - LATENESS}
    assert emitted, "too few events for a window to close"
    kept = shop.query(LATE).arrow().to_pylist()
    assert Counter((r["event_id"], r["window_end"]) for r in kept) == Counter(late)


def sinks_hold_each_event_once(
    shop: tidegate.Workspace, events: pl.DataFrame, objects: Path
) -> None:
    bodies = [
        json.loads(record["Body"])["id"]
        for path in objects.glob("all-events/**/*.avro")
        for record in _avro(path)
    ]
    assert Counter(bodies) == Counter(events["id"].to_list())
    fraud = [json.loads(p.read_bytes())["id"] for p in objects.glob("fraud-events/**/*.json")]
    hit = shop.query("SELECT event_id FROM decisions WHERE action <> 'approve'").polars()
    assert Counter(fraud) == Counter(hit["event_id"].to_list())
    rows = [
        (row["store_id"], tuple(row["ids"]))
        for path in objects.glob("suspicious-events/**/*.json")
        for row in json.loads(path.read_bytes())
    ]
    table = shop.query("SELECT store_id, ids FROM suspicious_orders").arrow().to_pylist()
    assert Counter(rows) == Counter((r["store_id"], tuple(r["ids"])) for r in table)


def _avro(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        return [dict(r) for r in fastavro.reader(file)]  # type: ignore[arg-type] # untyped


def the_log_gives_the_same_again(shop: tidegate.Workspace, folder: Path) -> None:
    """The log read anew, in other pieces, by another engine, decides the same bit for bit."""
    again = _replayed(folder)
    for table, batches in again.items():
        # A version may have brought columns, which are null in the rows before it.
        frames = [pl.DataFrame(pl.from_arrow(b)) for b in batches]
        fresh = pl.concat(frames, how="diagonal")
        order = ["log_offset", *(["window_end"] if "window_end" in fresh.columns else [])]
        kept = shop.query(f'SELECT * FROM "{table}"').polars().select(fresh.columns)
        without = [c for c in fresh.columns if c != "decided_at"]
        left, right = (
            f.select(without).sort(order, maintain_order=True).to_dicts() for f in (fresh, kept)
        )
        assert _bag(left) == _bag(right), table


def _bag(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(map(repr, rows))


def _replayed(folder: Path) -> dict[str, list[Any]]:
    log = SqliteLog.open(folder / "data" / "log.sqlite")
    # What the log began with: the project's files may have changed since.
    program = first_program(log) or Program.compile(load(folder))
    dedupe = Dedupe.open(
        folder / "again",
        horizon=program.project.stream.dedupe_horizon_us,
        key=bytes(16),
        lookup=LoggedIds(log, program.schema),
    )
    engine = Engine(
        program, dedupe, clock=SystemClock(), history=partial(_history, tidegate.open(folder))
    )
    tables: dict[str, list[Any]] = {}
    while entries := log.read(engine.offset, bytes_max=300_000):
        for outcome in engine.process([Work(e) for e in entries]):
            for name, batch in outcome.tables().items():
                tables.setdefault(name, []).append(batch)
    log.close()
    dedupe.close()
    return tables


def _history(
    shop: tidegate.Workspace, first: int, until: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The accepted events of a stretch, by SQL."""
    named = ", ".join(f'"{c}"' for c in [*columns, "log_offset"])
    sql = f"SELECT {named} FROM events WHERE log_offset >= {first} AND log_offset < {until}"
    yield from shop.query(f"{sql} ORDER BY log_offset").batches()
