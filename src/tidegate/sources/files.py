"""Files as sources: NDJSON, JSON, CSV and Parquet, plain or gzipped, in blocks of records.

NDJSON and JSON records are the file's own bytes. CSV and Parquet rows become JSON objects on the
way, typed by the declared columns where that is plain; what does not fit stays text, so that
decoding names the column and what was seen. An empty CSV field is a missing value.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tidegate.errors import RequestError
from tidegate.events.body import split_body, split_ndjson
from tidegate.records import Records
from tidegate.schema import Kind, Schema

BLOCK_BYTES = 1 << 20
WHOLE_BYTES_MAX = 256 << 20  # a JSON document that is not one record a line is read as a whole
_ROWS = 4_096
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_FIELD_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Records, and how many bytes of the file have been read so far."""

    records: Records
    bytes_read: int


def read_file(path: Path, *, schema: Schema, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The records of a file, whatever of the known formats it is.

    The format is told by the content, and for CSV by the name (`.csv`, `.csv.gz`).
    Raises: RequestError if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _blocks(path, file, schema, block_bytes)
    except (OSError, EOFError, csv.Error, pa.ArrowException) as error:
        raise RequestError(f"{path}: {error}", code="unreadable_file") from error


def check_readable(path: Path) -> None:
    """Raises: RequestError if a file cannot be read, before anything is taken of it."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}", code="unreadable_file") from error


def _blocks(path: Path, file: IO[bytes], schema: Schema, block_bytes: int) -> Iterator[Block]:
    magic = file.read(4)
    file.seek(0)
    if magic == _PARQUET:
        source = _parquet(file)
    else:
        plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if magic[:2] == _GZIP else file
        name = path.name.lower().removesuffix(".gz")
        source = _csv(plain, schema) if name.endswith(".csv") else _json(plain, block_bytes)
    for records in source:
        yield Block(records, file.tell())


# -- JSON ------------------------------------------------------------------------------------------


def _json(file: IO[bytes], block_bytes: int) -> Iterator[Records]:
    head = file.read(block_bytes)
    if _is_one_per_line(head):
        yield from _ndjson(file, head, block_bytes)
        return
    body = head + file.read(WHOLE_BYTES_MAX + 1 - len(head))
    if len(body) > WHOLE_BYTES_MAX:
        raise RequestError(
            "a JSON document this large must have one record a line (NDJSON)", code="too_large"
        )
    yield from split_body(body, content_type=None, records_max=len(body) + 1).cut(block_bytes)


def _is_one_per_line(head: bytes) -> bool:
    """Whether the first line that says anything is a JSON object by itself, or is broken anyway."""
    first = next((line for line in head.splitlines() if line.strip()), b"")
    try:
        msgspec.json.decode(first, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return not head.lstrip().startswith((b"[", b"{"))
    return True


def _ndjson(file: IO[bytes], head: bytes, block_bytes: int) -> Iterator[Records]:
    rest = head
    while True:
        chunk = file.read(block_bytes)
        end = rest.rfind(b"\n") + 1 if chunk else len(rest)
        # A line without end is cut: it would be too long for an event at any length.
        end = len(rest) if len(rest) > WHOLE_BYTES_MAX else end
        if end and len(records := split_ndjson(rest[:end])):
            yield records
        if not chunk:
            return
        rest = rest[end:] + chunk


# -- CSV -------------------------------------------------------------------------------------------


def _csv(file: IO[bytes], schema: Schema) -> Iterator[Records]:
    csv.field_size_limit(_FIELD_BYTES_MAX)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _csv_rows(csv.reader(text), schema)
    finally:
        text.detach()  # the file is its opener's to close


def _csv_rows(rows: Iterator[list[str]], schema: Schema) -> Iterator[Records]:
    header = next(rows, [])
    write = [_writer(schema, name) for name in header]
    batch: list[bytes] = []
    for row in rows:
        if row:
            batch.append(_row(header, write, row))
        if len(batch) == _ROWS:
            yield Records.of(batch)
            batch = []
    if batch:
        yield Records.of(batch)


def _row(header: list[str], write: list[Callable[[str], bytes]], row: list[str]) -> bytes:
    """A row as a JSON object; one with too few or too many fields stays as it is: a dead letter."""
    try:
        if len(row) == len(header):
            fields = zip(header, write, row, strict=True)
            pairs = [_text(name) + b":" + put(value) for name, put, value in fields if value]
            return b"{" + b",".join(pairs) + b"}"
    except UnicodeEncodeError:
        pass  # a byte that is no UTF-8: the row is refused as it came
    return ",".join(row).encode("utf-8", "surrogateescape").replace(b"\n", b" ")


def _text(value: str) -> bytes:
    return msgspec.json.encode(value)


def _writer(schema: Schema, name: str) -> Callable[[str], bytes]:
    """How the values of a column are written in JSON."""
    column = schema.by_name.get(name)
    match column.type.kind if column else Kind.TEXT:
        case Kind.BIGINT:
            return lambda v: v.encode() if _INTEGER.fullmatch(v) else _text(v)
        case Kind.DOUBLE:
            return lambda v: v.encode() if _NUMBER.fullmatch(v) else _text(v)
        case Kind.BOOLEAN:
            return lambda v: v.lower().encode() if v.lower() in ("true", "false") else _text(v)
        case Kind.JSON:
            return _document
        case _:
            return _text


def _document(value: str) -> bytes:
    try:
        msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return _text(value)
    return value.encode().replace(b"\n", b" ")


# -- Parquet ---------------------------------------------------------------------------------------


def _parquet(file: IO[bytes]) -> Iterator[Records]:
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=_ROWS):
            rows = _in_microseconds(batch).to_pylist()
            yield Records.of([msgspec.json.encode(row) for row in rows])


def _in_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Times in UTC microseconds, which is what Python's own can hold."""
    fields = [
        f.with_type(pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f
        for f in batch.schema
    ]
    return batch.cast(pa.schema(fields), safe=False)
