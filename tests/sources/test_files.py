"""Files of every known format give the same events."""

import gzip
import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import RequestError
from tidegate.events.decode import Decoded, Decoder
from tidegate.records import Records
from tidegate.schema import Schema
from tidegate.sources.files import read_file

SCHEMA = Schema.of(
    [
        ("id", "text"),
        ("ts", "timestamp"),
        ("store_id", "bigint?"),
        ("price", "double?"),
        ("fee", "decimal(9,2)?"),
        ("gift", "boolean?"),
        ("tags", "json?"),
    ],
    id="id",
    event_time="ts",
)
DECODER = Decoder(SCHEMA, record_bytes_max=1 << 18)
BEGIN = datetime.fromisoformat("2023-06-06T20:24:45.754948")
ROWS: list[dict[str, object]] = [
    {
        "id": f"e{i}",
        "ts": BEGIN + timedelta(seconds=i),
        "store_id": None if i % 5 == 0 else i,
        "price": i + 0.25,
        "fee": Decimal(i) / 4,
        "gift": i % 2 == 0,
        "tags": '{"a":[1,2]}',
    }
    for i in range(50)
]


def as_json(row: dict[str, object]) -> str:
    return json.dumps(row | {"ts": str(row["ts"]), "fee": str(row["fee"]), "tags": {"a": [1, 2]}})


def decoded(path: Path, block_bytes: int = 1 << 20) -> list[Decoded]:
    blocks = read_file(path, schema=SCHEMA, block_bytes=block_bytes)
    return [DECODER.decode(b.records) for b in blocks]


def events(path: Path, block_bytes: int = 1 << 20) -> list[dict[str, object]]:
    results = decoded(path, block_bytes)
    assert not [d for r in results for d in r.dead]
    rows = [row for r in results for row in r.events.to_pylist()]
    return [{k: "".join(v.split()) if k == "tags" else v for k, v in r.items()} for r in rows]


def expected() -> list[dict[str, object]]:
    return [r | {"extra": None} for r in ROWS]


def test_ndjson_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text("\n".join(map(as_json, ROWS)))
    assert events(path) == expected()


@pytest.mark.parametrize("block_bytes", [1, 64, 1_000, 100_000])
def test_the_size_of_blocks_changes_nothing(tmp_path: Path, block_bytes: int) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text("\r\n\n".join(map(as_json, ROWS)) + "\n")
    assert events(path, block_bytes) == expected()


def test_a_json_array_is_its_elements(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[\n" + ",\n".join(map(as_json, ROWS)) + "\n]\n")
    assert events(path, 256) == expected()


def test_a_pretty_printed_object_is_one_record(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(json.loads(as_json(ROWS[0])), indent=2))
    assert events(path) == expected()[:1]


def test_gzip_is_told_by_content(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(gzip.compress("\n".join(map(as_json, ROWS)).encode()))
    assert events(path) == expected()


def csv_of(rows: list[dict[str, object]]) -> str:
    def field(value: object) -> str:
        return "" if value is None else '"' + str(value).replace('"', '""') + '"'

    lines = [",".join(ROWS[0])] + [",".join(map(field, row.values())) for row in rows]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("packed", [False, True])
def test_csv_is_typed_by_the_declared_columns(tmp_path: Path, *, packed: bool) -> None:
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    data = csv_of(ROWS).encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    assert events(path) == expected()


def test_a_csv_value_of_the_wrong_type_is_a_dead_letter_that_names_the_column(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,ts,store_id\ne1,2023-06-06 20:24:45,seven\n")
    (dead,) = decoded(path)[0].dead
    assert (dead.reason, dead.column) == ("wrong_type", "store_id")
    assert "seven" in dead.message


@pytest.mark.parametrize("row", [b"e1,2023-06-06 20:24:45", b"e1,2023,7,8", b"\xff,2023,7"])
def test_a_csv_row_that_does_not_fit_is_a_dead_letter_with_its_bytes(
    tmp_path: Path, row: bytes
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,ts,store_id\n" + row + b"\n")
    (block,) = read_file(path, schema=SCHEMA)
    assert block.records[0] == row
    assert len(DECODER.decode(block.records).dead) == 1


def test_parquet_rows_become_events(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist(ROWS)
    zoned = table.set_column(1, "ts", table["ts"].cast(pa.timestamp("ns", "UTC")))
    pq.write_table(zoned.set_column(6, "tags", pa.array([{"a": [1, 2]}] * len(ROWS))), path)
    assert events(path) == expected()


def test_bytes_read_grow_to_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text("\n".join(map(as_json, ROWS)))
    read = [b.bytes_read for b in read_file(path, schema=SCHEMA, block_bytes=1_000)]
    assert read == sorted(read)
    assert read[-1] == path.stat().st_size


def test_a_torn_gzip_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson.gz"
    path.write_bytes(gzip.compress(b'{"id":"e1"}\n' * 100)[:-9])
    with pytest.raises(RequestError, match=r"a\.ndjson\.gz"):
        decoded(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        decoded(tmp_path / "nowhere.ndjson")


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 40))
def test_cut_blocks_hold_the_same_records(parts: list[bytes], bytes_max: int) -> None:
    records = Records.of(parts)
    blocks = list(records.cut(bytes_max))
    assert [r for b in blocks for r in b] == parts
    assert all(len(b.payload) <= bytes_max or len(b) == 1 for b in blocks)


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "a.ndjson"
    path.write_bytes(data)
    if data.startswith((b"\x1f\x8b", b"PAR1")):
        with pytest.raises(RequestError):
            decoded(path, 16)
    else:
        assert all(r.events.num_rows + len(r.dead) > 0 for r in decoded(path, 16))
