"""How bodies and blocks are split into records."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.errors import RequestError
from tidegate.events.body import split_body, split_ndjson
from tidegate.records import Records

LINES = "application/x-ndjson"


def split(body: bytes, content_type: str | None = None, records_max: int = 1_000) -> list[bytes]:
    return list(split_body(body, content_type=content_type, records_max=records_max))


PRETTY = b'{\n  "id": "a",\n  "is_return": \n}'


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b"", []),
        (b" \r\n\t", []),
        (b"[]", []),
        (b"[ ]\n", []),
        (b'{"a":1}', [b'{"a":1}']),
        (b' {"a":1}\n', [b'{"a":1}']),
        (b'{\n"a":1\n}\n', [b'{\n"a":1\n}']),
        (b'\xef\xbb\xbf{"a":1}', [b'{"a":1}']),
        (PRETTY, [PRETTY]),
        (b'[{"a":1} ,\n {"b":"],[\\""}]', [b'{"a":1}', b'{"b":"],[\\""}']),
        (b'[1, "a b", [2, 3], null]', [b"1", b'"a b"', b"[2, 3]", b"null"]),
        (b'[{"a":1},', [b'[{"a":1},']),
        (b'[{"a":1},\n{"b":}\n]', [b'[{"a":1},\n{"b":}\n]']),
        (b'{"a":1}\r\n\r\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\n{"b":\n{"c":3}', [b'{"a":1}', b'{"b":', b'{"c":3}']),
        (b"not json", [b"not json"]),
        (b"[" * 5_000, [b"[" * 5_000]),
        (b"\xff\xfe\x00", [b"\xff\xfe\x00"]),
    ],
)
def test_a_body_is_an_object_an_array_or_lines(body: bytes, records: list[bytes]) -> None:
    assert split(body) == records


@pytest.mark.parametrize("content_type", [LINES, "application/jsonl; charset=utf-8", "text/NDJSON"])
def test_a_content_type_of_lines_is_taken_at_its_word(content_type: str) -> None:
    assert split(b'{"a":\n\n[1,2]\n', content_type) == [b'{"a":', b"[1,2]"]


@pytest.mark.parametrize("body", [b"[1,2,3]", b"{}\n{}\n{}"])
def test_more_records_than_allowed_are_refused(body: bytes) -> None:
    assert len(split(body, records_max=3)) == 3
    with pytest.raises(RequestError, match="more than 2 records") as caught:
        split(body, records_max=2)
    assert caught.value.code == "too_many_records"


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@given(st.lists(values), st.sampled_from([None, 0, 2]), st.booleans())
def test_the_records_of_an_array_are_its_elements(
    elements: list[object], indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")
    assert [json.loads(r) for r in split(body)] == json.loads(body)


@settings(max_examples=50)
@given(
    st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=4),
    st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
)
def test_the_records_of_lines_are_its_objects(objects: list[object], end: bytes) -> None:
    body = end.join(json.dumps(o).encode() for o in objects)
    assert [json.loads(r) for r in split(body)] == objects


def assert_only_blanks_are_left_out(records: Records, gaps: bytes) -> None:
    last = 0
    for start, end in zip(records.starts.tolist(), records.ends.tolist(), strict=True):
        assert last <= start < end
        assert not records.payload[last:start].strip(gaps)
        last = end
    assert not records.payload[last:].strip(gaps)


@settings(max_examples=300)
@given(st.binary(max_size=80), st.sampled_from([None, LINES]))
def test_records_and_blanks_make_up_any_body(body: bytes, content_type: str | None) -> None:
    records = split_body(body, content_type=content_type, records_max=100)
    # An array's brackets and commas lie between its elements.
    assert_only_blanks_are_left_out(records, b" \t\r\n\xef\xbb\xbf" + b"[],")


@settings(max_examples=300)
@given(st.text('{}[]",:\\1 \r\n', max_size=40).map(str.encode))
def test_lines_are_what_lies_between_line_ends(block: bytes) -> None:
    lines = [line.removesuffix(b"\r") for line in block.split(b"\n")]
    assert list(split_ndjson(block)) == [line for line in lines if line.strip(b" \t\r\n")]


@pytest.mark.parametrize(
    "body", [b"[" + b"1," * 2_000_000 + b"1]", b"\n \n" * 200_000, b'{"a":"' * 500_000]
)
def test_splitting_takes_time_in_proportion_to_the_body(body: bytes) -> None:
    start = time.process_time()  # others may have the processor meanwhile
    split(body, records_max=10_000_000)
    assert time.process_time() - start < 3
