"""The rows of a query as the body of an answer: JSON, CSV or Arrow, bounded in rows and bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from tidegate.errors import QueryError
from tidegate.warehouse.query import QueryResult

FORMATS = ("json", "csv", "arrow")
_SLICE_ROWS = 256  # Arrow is measured a slice at a time
_ENCODE = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


class ResultTooLargeError(QueryError):
    """Not even the first rows of a result fit into an answer."""


@dataclass(slots=True)
class Answer:
    """A body, how many rows it holds, and whether there would have been more."""

    body: bytes = b""
    rows: int = 0
    truncated: bool = False


@dataclass(slots=True)
class _Bounds:
    rows_max: int
    bytes_max: int
    bytes: int = 0
    answer: Answer = field(default_factory=Answer)

    def takes(self, size: int, *, rows: int = 1) -> bool:
        """Whether so much more fits; if not, the answer is cut off here."""
        if self.bytes + size > self.bytes_max and not self.answer.rows:
            raise ResultTooLargeError(
                f"the first row alone takes {size} bytes, {self.bytes_max} are allowed: "
                "select fewer columns, or shorten them"
            )
        if self.bytes + size > self.bytes_max:
            self.answer.truncated = True
            return False
        self.bytes += size
        self.answer.rows += rows
        return True


def encode(result: QueryResult, kind: str, *, rows_max: int, bytes_max: int) -> Answer:
    """The rows in one of `FORMATS`, cut off after `rows_max` rows or before `bytes_max` bytes.

    What is counted is the rows; names and types come on top. JSON gives `columns`, `rows` and
    `notes` without the closing brace, so that the caller can add what it knows.
    Raises: QueryError where a row cannot be computed or shown; ResultTooLargeError.
    """
    bounds = _Bounds(rows_max, bytes_max)
    bounds.answer.body = _ENCODERS[kind](result, bounds)
    return bounds.answer


def _batches(result: QueryResult, bounds: _Bounds) -> Iterator[pa.RecordBatch]:
    """The batches of what may be in the answer; notes whether there are more rows."""
    left = bounds.rows_max
    for batch in result.batches():
        if batch.num_rows > left:
            bounds.answer.truncated = True
            yield batch.slice(0, left)
            return
        left -= batch.num_rows
        yield batch


def _rows(result: QueryResult, bounds: _Bounds) -> Iterator[tuple[Any, ...]]:
    for batch in _batches(result, bounds):
        try:
            columns = [column.to_pylist() for column in batch.columns]
        except (ValueError, OverflowError) as error:
            hint = "a time that only SQL can hold? CAST it to VARCHAR"
            raise QueryError(f"a value cannot be shown: {error} ({hint})") from error
        yield from zip(*columns, strict=True)


def _json(result: QueryResult, bounds: _Bounds) -> bytes:
    columns = [
        {"name": name, "type": kind}
        for name, kind in zip(result.schema.names, result.types, strict=True)
    ]
    pieces = []
    for row in _rows(result, bounds):
        piece = _ENCODE(row)
        if not bounds.takes(len(piece) + 1):
            break
        pieces.append(piece)
    notes = b',"notes":' + _ENCODE(result.notes) if result.notes else b""
    return b'{"columns":%b,"rows":[%b]%b' % (_ENCODE(columns), b",".join(pieces), notes)


def _csv(result: QueryResult, bounds: _Bounds) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(result.schema.names)
    pieces = [text.getvalue().encode()]
    for row in _rows(result, bounds):
        text.seek(0)
        text.truncate()
        writer.writerow([_cell(value) for value in row])
        piece = text.getvalue().encode()
        if not bounds.takes(len(piece)):
            break
        pieces.append(piece)
    return b"".join(pieces)


def _cell(value: object) -> object:
    match value:
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case list() | dict():
            return _ENCODE(value).decode()
        case bool():
            return str(value).lower()
        case _:
            return value


def _arrow(result: QueryResult, bounds: _Bounds) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, result.schema) as writer:
        for part in _parts(result, bounds):
            if not bounds.takes(part.nbytes, rows=part.num_rows):
                break
            writer.write_batch(part)
    return sink.getvalue().to_pybytes()


def _parts(result: QueryResult, bounds: _Bounds) -> Iterator[pa.RecordBatch]:
    """The rows in small batches; one by one where they are large beside what may be taken."""
    for batch in _batches(result, bounds):
        rows = _SLICE_ROWS if batch.nbytes * 8 < bounds.bytes_max else 1
        for first in range(0, batch.num_rows, rows):
            yield batch.slice(first, rows)


_ENCODERS = {"json": _json, "csv": _csv, "arrow": _arrow}
