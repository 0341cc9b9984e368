"""The cards example, its labels coming apart from the payments, as they do in life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

import tidegate
from chargebacks import table
from shops import running
from tidegate.pipeline import Pipeline
from tidegate.project.examples import new
from tidegate.project.project import Project, load
from tidegate.records import Records
from tidegate.testing import cards
from tidegate.testing.clock import ManualClock
from waiting import PATIENCE_SECONDS

DAYS = 10


def project(folder: Path) -> Project:
    """The example, whose column of fraud takes labels."""
    new(folder, example="cards")
    file = folder / "tidegate.toml"
    file.write_text(file.read_text() + '\n[labels]\ncolumn = "is_fraud"\n')
    return load(folder)


def days() -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Day by day: the events without their labels, and the labels, which come the next morning."""
    records: dict[str, tuple[list[bytes], list[bytes]]] = {}
    for block in cards.generate_ndjson(DAYS, seed=3, customers=60, terminals=30):
        for line in block.splitlines():
            row: dict[str, Any] = msgspec.json.decode(line)
            events, labels = records.setdefault(str(row["event_time"])[:10], ([], []))
            label = row.pop("is_fraud", None)
            events.append(msgspec.json.encode(row))
            if label is not None:
                labels.append(msgspec.json.encode({"event_id": row["id"], "label": label}))
    yield from records.values()


def whole() -> list[bytes]:
    """The events with their labels in them."""
    blocks = cards.generate_ndjson(DAYS, seed=3, customers=60, terminals=30)
    return [line for block in blocks for line in block.splitlines()]


def submit(pipeline: Pipeline, records: list[bytes]) -> None:
    pipeline.door.submit(Records.of(records), source="test")
    assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS), pipeline.failure


def known_later(found: pa.Table) -> list[tuple[Any, ...]]:
    """The features that look at what was known of a terminal seven days before, bit for bit."""
    names = [n for n in found.column_names if n.startswith("terminal_")]
    assert len(names) == 6
    columns = [found.column(n).to_pylist() for n in ("event_id", *names)]
    spelt = [[v.hex() if isinstance(v, float) else v for v in column] for column in columns]
    return list(zip(*spelt, strict=True))


def test_labels_of_the_next_morning_give_the_features_of_labels_known_at_once(
    tmp_path: Path,
) -> None:
    """Frames that end seven days before see each label in time, however it came."""
    clock = ManualClock(1_600_000_000_000_000)
    at_once, later = project(tmp_path / "at_once"), project(tmp_path / "later")
    with running(at_once, clock) as pipeline:
        submit(pipeline, whole())
    bank = tidegate.open(later.root)
    told = 0
    for events, labels in days():
        with running(later, clock) as pipeline:
            submit(pipeline, events)
        (tmp_path / "labels.ndjson").write_bytes(b"\n".join(labels))
        taken = bank.label_files([tmp_path / "labels.ndjson"])
        assert (taken.accepted, taken.refused) == (len(labels), ())
        told += len(labels)
    seen, wanted = (known_later(table(p, "features")) for p in (later, at_once))
    assert seen == wanted
    assert any(row[1] > 0 for row in wanted)
    assert bank.query("SELECT count(*) AS n FROM labels").arrow().to_pylist() == [{"n": told}]
    assert bank.verify().equal
