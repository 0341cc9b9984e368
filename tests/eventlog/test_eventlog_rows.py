"""Rows hold entries without loss, and their checksum sees every change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import DamageError
from tidegate.eventlog.contract import Append, EntryKind
from tidegate.eventlog.rows import pack, pack_bounds, unpack, unpack_bounds
from tidegate.records import Records
from tidegate.testing.eventlog import blocks


def as_read(append: Append, *, first_offset: int = 5) -> tuple[object, ...]:
    """The row of the entry as a reader gets it: texts as bytes."""
    row = pack(append).row(first_offset)
    return tuple(v.encode() if isinstance(v, str) else v for v in row)


@given(records=blocks(), source=st.text(), ingest_time=st.integers(-(2**62), 2**62))
def test_an_entry_comes_back_from_its_row(records: Records, source: str, ingest_time: int) -> None:
    entry = unpack(as_read(Append(records, source, ingest_time, EntryKind.CONTROL)))
    assert (entry.first_offset, entry.kind) == (5, EntryKind.CONTROL)
    assert (entry.source, entry.ingest_time) == (source, ingest_time)
    assert entry.records.payload == records.payload
    assert list(entry.records) == list(records)


def test_bounds_of_lines_take_four_bytes_each_and_others_eight() -> None:
    lines = Records.of([b"a", b"", b"bcd"])
    assert len(pack_bounds(lines.starts, lines.ends)) == 12
    spaced = lines.starts + 1, lines.ends + 1
    assert len(pack_bounds(*spaced)) == 24


@given(lengths=st.lists(st.integers(0, 1000), min_size=1), gap=st.integers(0, 2))
def test_bounds_come_back_whatever_lies_between(lengths: list[int], gap: int) -> None:
    ends = np.cumsum(np.array(lengths, np.int64) + gap) - gap
    starts = ends - lengths
    back = unpack_bounds(pack_bounds(starts, ends), len(lengths))
    assert [b.tolist() for b in back] == [starts.tolist(), ends.tolist()]
    assert {b.dtype for b in back} == {np.dtype(np.int64)}


@pytest.mark.parametrize("field", range(8))
def test_a_change_of_any_field_is_seen(field: int) -> None:
    row = list(as_read(Append(Records.of([b"abc", b"de"]), "http", 7)))
    value = row[field]
    row[field] = value + 1 if isinstance(value, int) else bytes([value[0] ^ 1]) + value[1:]  # type: ignore[index]
    with pytest.raises(DamageError):
        unpack(tuple(row))


@pytest.mark.parametrize("field", range(8))
@pytest.mark.parametrize("value", [None, 1.5, "text", b"", 0, -1])
def test_a_field_of_another_value_or_type_is_seen(field: int, value: object) -> None:
    row = list(as_read(Append(Records.of([b"abc", b"de"]), "http", 7)))
    row[field] = value
    with pytest.raises(DamageError):
        unpack(tuple(row))


def test_a_byte_that_moves_from_one_field_into_the_next_is_seen() -> None:
    row = list(as_read(Append(Records.of([b"abc", b"de"]), "http", 7)))
    assert isinstance(row[2], bytes)
    assert isinstance(row[3], bytes)
    row[2], row[3] = row[2][:-1], row[2][-1:] + row[3]
    with pytest.raises(DamageError):
        unpack(tuple(row))


def test_an_entry_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.eventlog.rows.PAYLOAD_BYTES_MAX", 10)
    pack(Append(Records.of([bytes(10)]), "http", 0))
    with pytest.raises(ValueError, match="11 bytes"):
        pack(Append(Records.of([bytes(11)]), "http", 0))


@pytest.mark.parametrize(
    ("source", "ingest_time"), [("\ud800", 0), ("http", 2**63), ("http", -(2**63) - 1)]
)
def test_what_cannot_be_stored_is_refused(source: str, ingest_time: int) -> None:
    with pytest.raises(ValueError, match=r"surrogates|int64"):
        pack(Append(Records.of([b"a"]), source, ingest_time))
