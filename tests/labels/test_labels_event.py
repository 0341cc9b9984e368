"""An event on its way with a label: every value comes back as it was."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidegate.labels.event import from_json, to_json
from tidegate.schema import Schema

SCHEMA = Schema.of(
    [
        *(("id", "text"), ("at", "timestamp"), ("n", "bigint?"), ("d", "double?")),
        *(("m", "decimal(18,4)?"), ("ok", "boolean?"), ("doc", "json?"), ("t", "text?")),
    ],
    id="id",
    event_time="at",
)

rows = st.fixed_dictionaries(
    {
        "id": st.text(),
        "at": st.datetimes(),
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "d": st.none() | st.floats(),
        "m": st.none() | st.decimals(-(10**13), 10**13, places=4),
        "ok": st.none() | st.booleans(),
        "doc": st.none() | st.just('{"a":[1,2.50]}'),
        "t": st.none() | st.text(),
    }
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return repr(a) == repr(b)


@given(st.lists(rows, max_size=5))
def test_events_come_back_from_json_to_the_bit(given_rows: list[dict[str, Any]]) -> None:
    events = pa.RecordBatch.from_pylist(given_rows, schema=SCHEMA.arrow)
    written = msgspec.json.encode(to_json(events, SCHEMA))
    again = from_json(msgspec.json.decode(written), SCHEMA)
    assert again.schema.names == events.schema.names
    assert again.schema.types == events.schema.types
    for a, b in zip(events.to_pylist(), again.to_pylist(), strict=True):
        assert all(same(a[name], b[name]) for name in a), (a, b)


def test_what_another_version_declared_otherwise_is_null() -> None:
    row = {"id": "a", "at": 5, "n": "seven", "d": "x", "m": "1.23456789", "ok": 3, "old": 1}
    found = from_json([row, {"id": "b", "n": 7, "m": "2"}], SCHEMA).to_pylist()
    assert (found[0]["n"], found[0]["d"], found[0]["t"]) == (None, None, None)
    assert (found[1]["n"], found[1]["m"], found[1]["at"]) == (7, Decimal("2.0000"), None)
