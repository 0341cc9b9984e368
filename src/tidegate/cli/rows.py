"""Rows for people and for other programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from tidegate.errors import RequestError
from tidegate.warehouse.query import QueryResult

SHOWN_ROWS_MAX = 100
_NUMBERS = (int, float)


def write(result: QueryResult, kind: str, output: Path | None) -> None:
    """Write the rows as `table`, `json` (one object a line), `csv` or `parquet`."""
    if kind == "table":
        _table(result)
        return
    if kind == "parquet" and output is None and sys.stdout.isatty():
        raise RequestError("Parquet is no text: name a file with --output", code="no_output")
    with _opened(output) as file:
        {"json": _json, "csv": _csv, "parquet": _parquet}[kind](result, file)


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with output.open("wb") as file:
        yield file


def _json(result: QueryResult, file: IO[bytes]) -> None:
    encoder = msgspec.json.Encoder()
    for batch in result.batches():
        file.write(b"".join(encoder.encode(row) + b"\n" for row in batch.to_pylist()))


def _csv(result: QueryResult, file: IO[bytes]) -> None:
    file.write(_csv_line(result.schema.names))
    for batch in result.batches():
        for row in batch.to_pylist():
            file.write(_csv_line([_cell(v, missing="") for v in row.values()]))


class _Line:
    """What `csv` writes a line to."""

    text = ""

    def write(self, text: str) -> None:
        """Keep the line."""
        self.text = text


def _csv_line(cells: Sequence[str]) -> bytes:
    line = _Line()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.text.encode()


def _parquet(result: QueryResult, file: IO[bytes]) -> None:
    with pq.ParquetWriter(file, result.schema) as writer:
        for batch in result.batches():
            writer.write_batch(batch)


def _table(result: QueryResult) -> None:
    rows = result.arrow()
    shown = rows.slice(0, SHOWN_ROWS_MAX).to_pylist()
    print_table(result.schema.names, [list(row.values()) for row in shown])
    if rows.num_rows > SHOWN_ROWS_MAX:
        sys.stdout.write(f"… {rows.num_rows} rows in all; --format csv writes every one\n")


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their names; numbers stand on the right."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(names):
        numeric = any(isinstance(row[i], _NUMBERS) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_plain(_cell(value, missing="∅")) for value in row))
    console.print(table, markup=False)


def print_letter(row: dict[str, Any]) -> None:
    """Print a dead letter with its bytes, what cannot be shown escaped."""
    console = Console(highlight=False, soft_wrap=True)
    place = f"id {row['log_offset']}  {row['reason']}  {row['source']}  {row['ingest_time']}"
    console.print(place, style="bold", markup=False)
    console.print(f"  {row['message']}", markup=False)
    shown = row["record"][:2_000].decode("utf-8", "backslashreplace")
    for line in shown.splitlines() or [""]:
        console.print("  │ " + _plain(line).plain, markup=False)
    if len(row["record"]) > 2_000:
        console.print(f"  │ … {len(row['record'])} bytes in all", markup=False)


def _cell(value: object, *, missing: str) -> str:
    match value:
        case None:
            return missing
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case list() | dict():
            return msgspec.json.encode(value).decode()
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def _plain(text: str) -> Any:
    """Text that can do nothing to the terminal: control characters are shown, not sent."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))
