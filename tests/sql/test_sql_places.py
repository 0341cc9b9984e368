"""Where columns lie, as a compiled function finds it and as Arrow's objects tell it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidegate.sql.columns import Columns, place_of
from tidegate.sql.places import places_in

COLUMNS: dict[str, pa.Array[Any]] = {
    "plain": pa.array(np.arange(50)),
    "some": pa.array([None if i % 3 else i for i in range(50)], pa.int64()),
    "flag": pa.array([i % 2 == 0 for i in range(50)]),
    "text": pa.array([None if i == 7 else f"é{i}" for i in range(50)]),
    "money": pa.array(range(50), pa.decimal128(18, 2)),
    "none": pa.nulls(50),
    "late": pa.array(np.arange(60)).slice(10),
}


@pytest.mark.parametrize(("first", "rows"), [(0, 50), (8, 20), (13, 1), (50, 0)])
def test_places_are_those_that_arrow_tells(first: int, rows: int) -> None:
    batch = pa.record_batch(COLUMNS).slice(first, rows)
    told = {name: place_of(batch.column(name)) for name in batch.schema.names}
    assert places_in(batch) == told


def test_nulls_that_nobody_counted_yet_are_counted() -> None:
    some = COLUMNS["some"]
    present = some.buffers()[0]
    assert present is not None
    uncounted = pa.Array.from_buffers(pa.int64(), 50, some.buffers(), -1)
    batch = pa.record_batch({"all": uncounted, "counted": some})
    assert {valid for _, valid, _, _ in places_in(batch).values()} == {present.address}
    # Of the first row alone none is null.
    assert {valid for _, valid, _, _ in places_in(batch.slice(0, 1)).values()} == {0}


def test_a_batch_without_columns_has_no_places() -> None:
    assert places_in(pa.record_batch({})) == {}


def test_what_is_made_stands_before_what_the_batch_has() -> None:
    columns = Columns(pa.record_batch(COLUMNS))
    other = pa.array(np.arange(50))
    columns.put("plain", other)
    assert columns.place("text") == place_of(COLUMNS["text"])
    assert columns.place("plain") == place_of(other)
    columns.put("text", other)
    assert columns.places(["text", "late"]) == [*place_of(other), *place_of(COLUMNS["late"])]
    with pytest.raises(KeyError):
        columns.place("nowhere")
