"""The law of the kernel: with it or without it, a decoder makes the same of every record."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.events.decode import Decoded, Decoder
from tidegate.events.record import RecordReader
from tidegate.records import Records
from tidegate.schema import Schema

SCHEMA = Schema.of(
    [
        ("id", "text"),
        ("name", "text?"),
        ("count", "bigint?"),
        ("amount", "double?"),
        ("price", "decimal(9,2)?"),
        ("whole", "decimal(18,0)?"),
        ("flag", "boolean?"),
        ("ts", "timestamp?"),
        ("details", "json?"),
        ("größe", "double?"),
    ],
    id="id",
    event_time="ts",
)
KEYS = [*SCHEMA.names, "extra", "other", "i", "idd", "", "naïve", 'q"', "\\", "\x7f", "other2"]

ODD_TEXTS = [
    '"a"',
    '""',
    '"caf\\u00e9 \\ud83d\\ude00"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\ud800\\u0041"',
    '"\\u0000"',
    '"\\/\\b\\f\\n\\r\\t\\"\\\\"',
    '"\\x"',
    '"\\u12g4"',
    '"tab\there"',
    '"é 漢 😀 \x7f\x80"',
    '"a longer text that takes more than eight bytes \\" and more"',
]
TEXTS = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=20).map(json.dumps),
    st.text(max_size=20).map(lambda t: json.dumps(t, ensure_ascii=False)),
)
DIGITS = st.text("0123456789", min_size=1, max_size=21)
ODD_NUMBERS = """
0 -0 0.0 -0.0 00 01 -01 - -a 1. .5 1.e1 1e 1e+ 1E+2 1e-2 0e99 1e5000 0.10 100e-2 1.50e1
9007199254740993 9223372036854775807 -9223372036854775808 9223372036854775808 +1 NaN
Infinity 1e22 1e23 123456789012345678e-5 1.000000000000000000000 9999999.99 10000000
253402300799 -62135596800 253402300800 1686083085 1e-400
"""
NUMBERS = st.one_of(
    st.integers(-(2**65), 2**65).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-1000, 1000, places=3, allow_nan=False).map(str),
    st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), DIGITS, DIGITS),
    st.builds("{}e{}".format, DIGITS, st.integers(-30, 30)),
    st.sampled_from(ODD_NUMBERS.split()),
)
ODD_TIMES = [
    '"2023-06-06T20:24:45.754948"',
    '"2023-06-06 20:24"',
    '"2023-06-06"',
    '"2023-06-06T20:24:45.754948123Z"',
    '"2023-06-06T20:24:45.7549481234"',
    '"2023-06-06T20:24:45.+01:00"',
    '"2023-06-06T20:24:45+01"',
    '"2023-06-06T20:24+0130"',
    '"2023-06-06T20:24-01:30"',
    '"2023-06-06T20:24-01:60"',
    '"2023-06-06T20:24+24"',
    '"2023-06-06T24:00"',
    '"2023-06-06T23:59:60"',
    '"2023-02-29"',
    '"2024-02-29"',
    '"1900-02-29"',
    '"2000-02-29T00:00:00Z"',
    '"0000-01-01"',
    '"0001-01-01T00:00:00+01:00"',
    '"9999-12-31T23:59:59-01:00"',
    '"2023-6-06"',
    '"2023-06-06Z"',
    '"2023-06-06T"',
    '"2023-06-06T2"',
    '"2023-06-06T20:24:"',
    '"2023-06-06T20:24:4"',
    '"2023-\\u00306-06"',
]
TIMES = st.one_of(
    st.datetimes().map(lambda t: f'"{t.isoformat()}"'),
    st.sampled_from(ODD_TIMES),
)
NESTED = st.recursive(
    st.one_of(TEXTS, NUMBERS, st.sampled_from(["true", "false", "null", "tru", "nul", "falsy"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: "[" + " ,".join(v) + "]"),
        st.lists(st.tuples(TEXTS, inner), max_size=3).map(
            lambda v: "{ " + ",".join(f"{k} : {x}" for k, x in v) + "\n}"
        ),
    ),
    max_leaves=6,
)
ODD_SHAPES = """
{} [] [1,] {1:2} [}] {] {"a":} {"a":1,} [[],{}] {"a":{},"b":[{}]} [1}2] {"a":1] true false null
tru nulL falsey {"a" 1} [1,2] [1,,2] {"a":"b"}} {,} [,]
"""
DEEP = ["[" * n + "]" * n for n in (59, 60, 61, 127, 128, 200)]
ODD = st.sampled_from([*ODD_SHAPES.split(), *DEEP, ""])
VALUES = st.one_of(TEXTS, NUMBERS, TIMES, NESTED, ODD, st.sampled_from(["true", "false", "null"]))
FITTING = {
    "id": TEXTS,
    "name": TEXTS,
    "count": NUMBERS,
    "amount": NUMBERS,
    "price": st.one_of(NUMBERS, NUMBERS.map(lambda n: f'"{n}"')),
    "whole": st.one_of(NUMBERS, NUMBERS.map(lambda n: f'"{n}"')),
    "flag": st.sampled_from(["true", "false"]),
    "ts": st.one_of(TIMES, NUMBERS),
    "details": NESTED,
}


@st.composite
def fields(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from(KEYS))
    value = draw(FITTING.get(key, VALUES) if draw(st.integers(0, 9)) else VALUES)
    blank = draw(st.sampled_from(["", " ", "\t\r\n"]))
    written = json.dumps(key, ensure_ascii=draw(st.booleans()))
    return f"{blank}{written}{blank}:{blank}{value}{blank}"


@st.composite
def record_bytes(draw: st.DrawFn) -> bytes:
    """An object that is mostly sound, sometimes with a few bytes of it changed."""
    members = draw(st.lists(fields(), max_size=8))
    if draw(st.integers(0, 4)):
        members.insert(0, '"id":"x"')
    record = ("{" + ",".join(members) + "}").encode(errors="surrogatepass")
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(record)))
        record = record[:at] + draw(st.binary(max_size=2)) + record[at + draw(st.integers(0, 2)) :]
    return record or b" "


def decoder(*, epoch_unit: str | None = None, kernel: bool = True) -> Decoder:
    made = Decoder(SCHEMA, record_bytes_max=600, epoch_unit=epoch_unit)
    if not kernel:
        made._plan = None
    return made


UNITS = (None, "s", "ms", "us", "ns")
WITH = {unit: decoder(epoch_unit=unit) for unit in UNITS}
WITHOUT = {unit: decoder(epoch_unit=unit, kernel=False) for unit in UNITS}


def bits(decoded: Decoded) -> tuple[bytes, list[int], object]:
    decoded.events.validate(full=True)
    return decoded.events.serialize().to_pybytes(), decoded.rows.tolist(), decoded.dead


@settings(max_examples=600)
@given(st.lists(record_bytes(), max_size=4), st.sampled_from(UNITS))
def test_a_record_is_decoded_alike_with_and_without_the_kernel(
    records: list[bytes], unit: str | None
) -> None:
    block = Records.of(records)
    assert bits(WITH[unit].decode(block)) == bits(WITHOUT[unit].decode(block))


YEARS = (1, 4, 100, 400, 1900, 1999, 2000, 2024, 9999)
DATES = [f'"{y:04}-{m:02}-{d}"' for y in YEARS for m in range(14) for d in (28, 29, 30, 31, 32)]
SEQUENCES = [
    b'"' + bytes([lead, second]) + b"\x80" * more + b'"'
    for lead in range(0x80, 0x100)
    for second in (0x22, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)
    for more in range(3)
]
ESCAPES = [
    f'"\\u{a}\\u{b}"'.encode()
    for a in ("0041", "d7ff", "d800", "dbff", "dc00", "dfff", "e000", "00e9", "0800", "D83D")
    for b in ("0041", "d7ff", "dbff", "dc00", "dfff", "e000", "DE00", "12g4", "123")
]
ODD_VALUES = [
    *(v.encode() for v in (*ODD_TEXTS, *ODD_TIMES, *DEEP, *DATES, "")),
    *ODD_NUMBERS.encode().split(),
    *ODD_SHAPES.encode().split(),
    *SEQUENCES,
    *ESCAPES,
]


@pytest.mark.parametrize("key", ["name", "count", "amount", "price", "ts", "flag", "details", "?"])
@pytest.mark.parametrize("unit", UNITS)
def test_odd_values_are_decoded_alike_in_every_column(key: str, unit: str | None) -> None:
    block = Records.of([b'{"id":"x","%s":%s}' % (key.encode(), v) for v in ODD_VALUES])
    assert bits(WITH[unit].decode(block)) == bits(WITHOUT[unit].decode(block))


@pytest.mark.parametrize("key", ["id", "name", "count", "?"])
def test_repeated_and_null_fields_are_decoded_alike(key: str) -> None:
    written = [b'"%s":%s' % (key.encode(), v) for v in (b"null", b"1", b'"a"', b"{}", b"oops")]
    pairs = [b'{"id":"x",%s,%s}' % (a, b) for a in written for b in written]
    alone = [b"{%s}" % w for w in [*written, b"", b",", b'"id":"x",']]
    block = Records.of([*pairs, *alone])
    assert bits(WITH[None].decode(block)) == bits(WITHOUT[None].decode(block))


PLAIN = [
    b'{"id": "a", "name": null, "count": -12, "amount": 68.84, "flag": true, "other": [1, {}]}',
    b'{"ts":"2023-06-06T20:24:45.754948Z","id":"caf\xc3\xa9","amount":0.30000000000000004}',
    b'{"id":"\\u00e9\\n","price":"12.50","whole":7,"details":{"a":[1,"\\u00e9"]}}',
    b'{ "id" : "b" , "x" : "unknown" , "count" : 999999999999999999 }',
]


def test_plain_records_never_take_the_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecordReader, "read", lambda _, record: pytest.fail(f"slow: {record!r}"))
    assert len(WITH[None].decode(Records.of(PLAIN)).rows) == len(PLAIN)


def test_a_record_is_read_alike_wherever_it_lies_in_its_block() -> None:
    """The last bytes of a block are read one by one, others eight at a time."""
    for record in PLAIN:
        first, last = WITH[None].decode(Records.of([record, record])).events.to_pylist()
        assert first == last
        for cut in range(len(record)):
            short = Records.of([record[:cut], record])
            assert WITH[None].decode(short).rows.tolist() == [1]


def test_bounds_that_break_their_contract_do_no_harm() -> None:
    record = b'{"id":"\\n\\n\\n\\n"}'
    size = len(record)
    starts = np.array([0, 0, 0, size, -5, 30, 60], dtype=np.int64)
    ends = np.array([size, size, size, 3, 2, 999, 61], dtype=np.int64)
    decoded = WITH[None].decode(Records(record * 3, starts, ends))
    assert len(decoded.rows) + len(decoded.dead) == len(starts)
    assert decoded.events["id"].to_pylist()[:3] == ["\n" * 4] * 3
