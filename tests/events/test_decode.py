"""What a decoder makes of good records and of bad ones."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.events.decode import DeadReason, Decoder
from tidegate.records import Records
from tidegate.schema import Schema

SCHEMA = Schema.of(
    [
        ("id", "text"),
        ("store_id", "bigint?"),
        ("price", "double?"),
        ("paid", "decimal(6,2)?"),
        ("gift", "boolean?"),
        ("ts", "timestamp?"),
        ("basket", "json?"),
    ],
    id="id",
    event_time="ts",
)
DECODER = Decoder(SCHEMA, record_bytes_max=2_000)

SAMPLE = (
    b'{\n  "id": "2a3fda24-1c6b-4b93-8a8a-cc97097ec08a",\n  "event_type": "sale_event",\n'
    b'  "store_id": 7,\n  "contact_me": "github.com/miztiik",\n  "is_return": \n}'
)

R = DeadReason
BAD: list[tuple[bytes, DeadReason, str | None, str]] = [
    (SAMPLE, R.NOT_JSON, None, "key `is_return` has no value at byte 149 (line 6, column 15)"),
    (b'{"id":"a","store_id": ,"x":1}', R.NOT_JSON, "store_id",
     "key `store_id` has no value at byte 21 (line 1, column 22)"),
    (b'{"id":', R.NOT_JSON, "id", "key `id` has no value at byte 6 (line 1, column 7)"),
    (b'{"id":"a"', R.NOT_JSON, None, "unexpected end at byte 9 (line 1, column 10)"),
    (b'{"id":"a",\n}', R.NOT_JSON, None,
     "trailing comma in object at byte 11 (line 2, column 1)"),
    (b'{"id":"a"} x', R.NOT_JSON, None, "trailing characters at byte 11 (line 1, column 12)"),
    (b'{"id":"a\x01"}', R.NOT_JSON, None, "invalid character at byte 8 (line 1, column 9)"),
    (b'{"id":01}', R.NOT_JSON, None, "invalid number at byte 7 (line 1, column 8)"),
    (b"{'id':1}", R.NOT_JSON, None,
     "object keys must be strings at byte 1 (line 1, column 2)"),
    (b"  ", R.NOT_JSON, None, "nothing but blanks at byte 2 (line 1, column 3)"),
    (b"\xef\xbb\xbf{}", R.NOT_JSON, None, "a byte order mark at byte 0 (line 1, column 1)"),
    (b"[1", R.NOT_JSON, None, "unexpected end at byte 2 (line 1, column 3)"),
    (b" [1,\n2]", R.NOT_OBJECT, None, "expected a JSON object, saw array [1,\\n2]"),
    (b'["\\ud800"]', R.NOT_UTF8, None,
     "half of a surrogate pair (`\\ud800` to `\\udfff`) stands alone"),
    (b'"a"', R.NOT_OBJECT, None, 'expected a JSON object, saw text "a"'),
    (b"null", R.NOT_OBJECT, None, "expected a JSON object, saw null"),
    (b'{"id":"\xff"}', R.NOT_UTF8, "id",
     "column `id`: not UTF-8 text, byte 0xff at byte 7 (line 1, column 8)"),
    (b'{"id":"a","x":"\xed\xa0\x80"}', R.NOT_UTF8, None,
     "not UTF-8 text, byte 0xed at byte 15 (line 1, column 16)"),
    (b"\xff\xfe{\x00", R.NOT_UTF8, None,
     "not UTF-8 text, byte 0xff at byte 0 (line 1, column 1)"),
    (b'{"id":"\\ud800"}', R.NOT_UTF8, None,
     "half of a surrogate pair (`\\ud800` to `\\udfff`) stands alone"),
    (b'{"id":"a","x":{"y":"\\udc00"}}', R.NOT_UTF8, None,
     "half of a surrogate pair (`\\ud800` to `\\udfff`) stands alone"),
    (b'{"id":"a","x":' + b"[" * 200, R.TOO_DEEP, None,
     "nested more than 128 deep at byte 141 (line 1, column 142)"),
    (b'{"id":"' + b"a" * 2000 + b'"}', R.TOO_LONG, None, "2009 bytes, the limit is 2000"),
    (b"{}", R.MISSING_COLUMN, "id", "column `id`: expected text, but it is absent"),
    (b'{"id":null}', R.MISSING_COLUMN, "id", "column `id`: expected text, but it is null"),
    (b'{"id":"a","id":null}', R.MISSING_COLUMN, "id", "column `id`: expected text, but it is null"),
    (b'{"id":7}', R.WRONG_TYPE, "id", "column `id`: expected text, saw number 7"),
    (b'{"id":"a","store_id":"abc"}', R.WRONG_TYPE, "store_id",
     'column `store_id`: expected bigint, saw text "abc"'),
    (b'{"id":"a","store_id":1.0}', R.WRONG_TYPE, "store_id",
     "column `store_id`: expected bigint, saw number 1.0"),
    (b'{"id":"a","store_id":1e3}', R.WRONG_TYPE, "store_id",
     "column `store_id`: expected bigint, saw number 1e3"),
    (b'{"id":"a","store_id":true}', R.WRONG_TYPE, "store_id",
     "column `store_id`: expected bigint, saw boolean true"),
    (b'{"id":"a","store_id":"' + b"x" * 100 + b'"}', R.WRONG_TYPE, "store_id",
     f'column `store_id`: expected bigint, saw text "{"x" * 59}…'),
    (b'{"id":"a","store_id":"\xe2\x80\xae"}', R.WRONG_TYPE, "store_id",
     'column `store_id`: expected bigint, saw text "\\u202e"'),
    (b'{"id":"a","price":"1"}', R.WRONG_TYPE, "price",
     'column `price`: expected double, saw text "1"'),
    (b'{"id":"a","gift":1}', R.WRONG_TYPE, "gift", "column `gift`: expected boolean, saw number 1"),
    (b'{"id":"a","gift":"true"}', R.WRONG_TYPE, "gift",
     'column `gift`: expected boolean, saw text "true"'),
    (b'{"id":"a","paid":"1e2"}', R.WRONG_TYPE, "paid",
     'column `paid`: expected decimal(6,2), saw text "1e2"'),
    (b'{"id":"a","paid":[1]}', R.WRONG_TYPE, "paid",
     "column `paid`: expected decimal(6,2), saw array [1]"),
    (b'{"id":"a","ts":1686083085}', R.WRONG_TYPE, "ts",
     "column `ts`: expected timestamp, saw number 1686083085"),
    (b'{"id":"a","store_id":9223372036854775808}', R.OUT_OF_RANGE, "store_id",
     "column `store_id`: beyond the 64 bits of bigint, saw number 9223372036854775808"),
    (b'{"id":"a","price":-1e309}', R.OUT_OF_RANGE, "price",
     "column `price`: beyond the range of double, saw number -1e309"),
    (b'{"id":"a","paid":1.005}', R.OUT_OF_RANGE, "paid",
     "column `paid`: more fractional digits than decimal(6,2) holds, saw number 1.005"),
    (b'{"id":"a","paid":"10000"}', R.OUT_OF_RANGE, "paid",
     'column `paid`: beyond the digits of decimal(6,2), saw text "10000"'),
    (b'{"id":"a","paid":1e99999999999999999999}', R.OUT_OF_RANGE, "paid",
     "column `paid`: beyond the digits of decimal(6,2), saw number 1e99999999999999999999"),
    (b'{"id":"a","ts":"yesterday"}', R.BAD_TIME, "ts",
     'column `ts`: not an ISO 8601 time, saw text "yesterday"'),
    (b'{"id":"a","ts":"2023-02-29"}', R.BAD_TIME, "ts",
     'column `ts`: no calendar or clock shows this time, saw text "2023-02-29"'),
    (b'{"id":"a","ts":"2023-01-01T23:59:60"}', R.BAD_TIME, "ts",
     'column `ts`: no calendar or clock shows this time, saw text "2023-01-01T23:59:60"'),
    (b'{"id":"a","ts":"2023-01-01T00:00+24"}', R.BAD_TIME, "ts",
     'column `ts`: no such zone, saw text "2023-01-01T00:00+24"'),
    (b'{"id":"a","ts":"0001-01-01T00:00+01"}', R.BAD_TIME, "ts",
     'column `ts`: outside the years 1 to 9999, saw text "0001-01-01T00:00+01"'),
]  # fmt: skip


@pytest.mark.parametrize(("record", "reason", "column", "message"), BAD)
def test_a_bad_record_names_its_reason_its_column_and_what_was_seen(
    record: bytes, reason: DeadReason, column: str | None, message: str
) -> None:
    (dead,) = DECODER.decode(Records.of([record])).dead
    assert (dead.reason, dead.column, dead.message) == (reason, column, message)


def test_every_reason_of_the_decoder_is_among_the_bad_records() -> None:
    assert {reason for _, reason, _, _ in BAD} == set(DeadReason) - {DeadReason.IN_FUTURE}


def one(record: bytes) -> dict[str, object]:
    (row,) = DECODER.decode(Records.of([record])).events.to_pylist()
    return {name: value for name, value in row.items() if value is not None}


def test_each_type_becomes_its_column() -> None:
    record = (
        b'{"id":"a","store_id":-7,"price":1,"paid":"12.50","gift":false,'
        b'"ts":"2023-06-06T20:24:45.754948","basket": {"a" : [1, 2]} }'
    )
    assert one(record) == {
        "id": "a",
        "store_id": -7,
        "price": 1.0,
        "paid": Decimal("12.50"),
        "gift": False,
        "ts": datetime(2023, 6, 6, 20, 24, 45, 754948),  # noqa: DTZ001
        "basket": '{"a" : [1, 2]}',
    }


@pytest.mark.parametrize("number", [b"1.50", b"150e-2", b"0.15e1", b'"1.500"', b'"01.5"'])
def test_a_decimal_is_exact_however_it_is_written(number: bytes) -> None:
    assert one(b'{"id":"a","paid":' + number + b"}")["paid"] == Decimal("1.50")


def test_digits_beyond_the_microsecond_are_cut_off() -> None:
    seen = one(b'{"id":"a","ts":"1969-12-31T23:59:59.999999999"}')["ts"]
    assert seen == datetime(1969, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001


def test_the_last_of_repeated_keys_wins_even_if_the_first_is_wrong() -> None:
    assert one(b'{"id":7,"x":1,"y":2,"id":"a","x":3}') == {"id": "a", "extra": '{"x":3,"y":2}'}


def test_unknown_fields_keep_their_order_and_exact_bytes() -> None:
    record = b'{"z": 1.50 ,"id":"a","b\\u0061":{"q":[ 1,2 ]},"\xc3\xa9":null}'
    assert one(record)["extra"] == '{"z":1.50,"ba":{"q":[ 1,2 ]},"é":null}'


def test_text_may_hold_any_unicode_character_even_nul() -> None:
    assert one(b'{"id":"\\u0000 \\ud83d\\ude00"}')["id"] == "\0 😀"


@pytest.mark.parametrize(
    ("unit", "number", "microseconds"),
    [
        ("s", b"1686083085.7549489", 1686083085754948),
        ("s", b"-1", -1_000_000),
        ("ms", b"1686083085754", 1686083085754000),
        ("us", b"1686083085754948", 1686083085754948),
        ("ns", b"-1", -1),
        ("ns", b"1.686083085754948e18", 1686083085754948),
    ],
)
def test_with_an_epoch_unit_a_time_may_be_a_number(
    unit: str, number: bytes, microseconds: int
) -> None:
    decoder = Decoder(SCHEMA, record_bytes_max=100, epoch_unit=unit)
    events = decoder.decode(Records.of([b'{"id":"a","ts":' + number + b"}"])).events
    assert events["ts"].cast(pa.int64()).to_pylist() == [microseconds]


@pytest.mark.parametrize("number", [b"1e11", b"1e999999999", b"9" * 50])
def test_a_number_outside_the_calendar_is_a_bad_time(number: bytes) -> None:
    decoder = Decoder(SCHEMA, record_bytes_max=100, epoch_unit="ms")
    (dead,) = decoder.decode(Records.of([b'{"id":"a","ts":' + number + b"0000}"])).dead
    assert dead.reason is DeadReason.BAD_TIME


def test_an_unknown_epoch_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown epoch unit `h`"):
        Decoder(SCHEMA, record_bytes_max=100, epoch_unit="h")


def test_columns_whose_names_need_escapes_are_read_too() -> None:
    schema = Schema.of([('a"b', "text"), ("c\\", "bigint?")], id='a"b', event_time="ts")
    decoded = Decoder(schema, record_bytes_max=99).decode(Records.of([b'{"a\\"b":"x","c\\\\":1}']))
    assert decoded.events.to_pylist() == [{'a"b': "x", "c\\": 1, "extra": None}]


def test_no_records_make_an_empty_batch_of_the_same_schema() -> None:
    decoded = DECODER.decode(Records.of([]))
    assert decoded.events.num_rows == 0
    assert decoded.events.schema == SCHEMA.arrow.append(pa.field("extra", pa.string()))


def test_events_of_the_longest_and_shortest_columns_are_valid_arrow() -> None:
    records = [b'{"id":"%d","gift":%s}' % (i, [b"true", b"null"][i % 2]) for i in range(1001)]
    events = DECODER.decode(Records.of(records)).events
    events.validate(full=True)
    assert events["gift"].to_pylist() == [None if i % 2 else True for i in range(1001)]


def test_bounds_may_be_read_only_or_strided() -> None:
    records = Records.of([b'{"id":"a"}', b'{"id":"b"}', b'{"id":"c"}'])
    starts, ends = np.repeat(records.starts, 2)[::2], records.ends.copy()
    ends.setflags(write=False)
    events = DECODER.decode(Records(records.payload, starts, ends)).events
    assert events["id"].to_pylist() == ["a", "b", "c"]


def test_threads_may_share_a_decoder() -> None:
    blocks = [Records.of([b'{"id":"%d-%d","n":1}' % (b, i) for i in range(500)]) for b in range(16)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(DECODER.decode, blocks))
    alone = [DECODER.decode(b) for b in blocks]
    assert all(t.events.equals(a.events) for t, a in zip(together, alone, strict=True))


@settings(max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=60), st.just(b'{"id":"a"}')), max_size=6))
def test_each_record_of_arbitrary_bytes_is_an_event_or_dead(records: list[bytes]) -> None:
    decoded = DECODER.decode(Records.of(records))
    assert sorted([*decoded.rows.tolist(), *(d.row for d in decoded.dead)]) == [
        *range(len(records))
    ]
    assert decoded.events.num_rows == len(decoded.rows)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@settings(max_examples=200)
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5), json_values, st.booleans())
def test_declared_columns_and_extra_make_up_the_whole_object(
    unknown: dict[str, object], basket: object, ascii_only: bool
) -> None:
    unknown = {k: v for k, v in unknown.items() if k not in SCHEMA.names}
    whole = {"id": "a", **unknown, "basket": basket}
    row = one(json.dumps(whole, ensure_ascii=ascii_only).encode())
    extra = json.loads(str(row.get("extra", "{}")))
    assert extra == unknown
    assert json.loads(str(row.get("basket", "null"))) == basket
