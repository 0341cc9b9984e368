"""Numbers and times against Python's own readers, through the whole decoder."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.events.decode import Decoder
from tidegate.events.times import TIME_MAX, TIME_MIN
from tidegate.events.values import shown
from tidegate.records import Records
from tidegate.schema import Schema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decoder(type_: str) -> Decoder:
    schema = Schema.of([("v", type_)], id="v", event_time="v")
    return Decoder(schema, record_bytes_max=1_000)


DECODERS = {t: decoder(t) for t in ("double", "bigint", "decimal(18,6)", "timestamp")}


def column(type_: str, written: list[str]) -> Any:
    decoded = DECODERS[type_].decode(Records.of([f'{{"v":{w}}}'.encode() for w in written]))
    assert not decoded.dead
    return decoded.events["v"]


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


digits = st.text("0123456789", min_size=1, max_size=25)
floats = st.floats(allow_nan=False, allow_infinity=False)
spellings = st.one_of(
    floats.map(repr),
    floats.map("{:.17g}".format),
    st.floats(-1000, 1000).map(repr),
    st.builds("1{}.{}".format, digits, digits),
    st.builds("0.{}".format, digits),
    st.builds("1{}e{}".format, digits, st.integers(-330, 280)),
    # Half way between two doubles, where rounding is hardest.
    st.integers(2**53, 2**54).map(lambda m: str(2 * m + 1)),
)


@settings(max_examples=400)
@given(st.lists(spellings, min_size=1, max_size=20))
@example(["-0.0", "-0", "5e-324", "2.2250738585072011e-308", "1e23", "9007199254740993"])
def test_doubles_are_rounded_as_python_rounds_them(written: list[str]) -> None:
    seen = [bits(v) for v in column("double", written).to_pylist()]
    assert seen == [bits(float(w)) for w in written]


@settings(max_examples=200)
@given(floats)
def test_doubles_agree_with_msgspec_and_json(value: float) -> None:
    written = json.dumps(value)
    (seen,) = column("double", [written]).to_pylist()
    assert bits(seen) == bits(json.loads(written)) == bits(msgspec.json.decode(written, type=float))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
@example([2**63 - 1, -(2**63), 10**18, -(10**18), 0])
def test_all_integers_of_64_bits_come_through(values: list[int]) -> None:
    assert column("bigint", [str(v) for v in values]).to_pylist() == values


@given(st.decimals(-(10**12) + 1, 10**12 - 1, places=6), st.sampled_from(["{}", '"{:f}"']))
def test_decimals_are_exact(value: Decimal, form: str) -> None:
    assert column("decimal(18,6)", [form.format(value)]).to_pylist() == [value]


zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m)))
moments = st.datetimes(
    EPOCH.replace(year=1, day=3, tzinfo=None),
    EPOCH.replace(year=9999, tzinfo=None),
    timezones=st.one_of(st.none(), zones),
)


@settings(max_examples=400)
@given(moments, st.sampled_from("T "), st.sampled_from(["minutes", "seconds", "auto"]))
def test_times_are_what_fromisoformat_says(moment: datetime, between: str, detail: str) -> None:
    written = moment.isoformat(between, detail)
    expected = datetime.fromisoformat(written)
    expected = expected if expected.tzinfo else expected.replace(tzinfo=UTC)
    (seen,) = column("timestamp", [f'"{written}"']).cast(pa.int64()).to_pylist()
    assert seen == (expected - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("written", "microseconds"),
    [
        ("0001-01-01", TIME_MIN),
        ("9999-12-31T23:59:59.999999999Z", TIME_MAX),
        ("2000-02-29 12:00+0530", 951_805_800_000_000),
        ("2000-02-29T12:00-05", 951_843_600_000_000),
        ("1970-01-01T00:00:00.5", 500_000),
    ],
)
def test_times_reach_from_year_1_to_9999_in_every_spelling(written: str, microseconds: int) -> None:
    assert column("timestamp", [f'"{written}"']).cast(pa.int64()).to_pylist() == [microseconds]


@given(st.text(max_size=200))
def test_what_is_shown_of_a_value_is_short_and_printable(text: str) -> None:
    seen = shown(json.dumps(text, ensure_ascii=False).encode(errors="replace"))
    assert seen.isprintable()
    assert len(seen) <= 70 * len("\\U00000000")


def test_a_number_as_long_as_a_record_may_be_is_read_in_no_time() -> None:
    long = Decoder(
        Schema.of([("v", "double"), ("d", "decimal(18,2)?")], id="v", event_time="v"),
        record_bytes_max=10_000_000,
    )
    records = [b'{"v":0.' + b"1" * 2_000_000 + b"}", b'{"v":0,"d":1' + b"0" * 2_000_000 + b"}"]
    decoded = long.decode(Records.of(records))
    assert math.isclose(decoded.events["v"][0].as_py(), 1 / 9)
    assert [d.column for d in decoded.dead] == ["d"]
