"""Rows for people and for other programs."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from tidegate.cli.terminal import answers, plain, say
from tidegate.errors import QueryError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_ROWS_MAX = 100
_SHORT = 40  # characters of a cell that is never broken: an id with room to spare
_BYTES_SHOWN_MAX = 2_000
_GAP = "  "
_ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=str)
SUFFIXES = {".json": "json", ".ndjson": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}  # fmt: skip  # noqa: E501


class Result(Protocol):
    """Rows to be written: those of a query, or of a table at hand."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, once."""


class Shown:
    """The rows of a table at hand."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.schema = table.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, once."""
        yield from self._table.to_batches()


def write(result: Result, kind: str | None, output: Path | None) -> None:
    """Write the rows as `table`, `json` (one object a line), `csv` or `parquet`.

    Without a kind, the ending of the output's name says it. A file is there whole or not at all.
    Raises: QueryError where a row cannot be computed; RequestError if the file cannot be written.
    """
    kind = kind or SUFFIXES.get(output.suffix.lower() if output else "", "table")
    if kind == "parquet" and output is None and sys.stdout.isatty():
        raise RequestError("Parquet is no text: name a file with --output", code="no_output")
    with _opened(output) as file:
        _WRITERS[kind](result, file)


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    in_place = output.exists() and not output.is_file()  # a pipe, a device
    draft = output if in_place else output.with_name(f".{output.name}.draft")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(output)
    except OSError as error:
        raise RequestError(f"cannot write {output}: {error.strerror}", code="no_output") from error
    finally:
        if not in_place:
            draft.unlink(missing_ok=True)


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch; names may be there twice, so they are no mappings."""
    try:
        columns = [column.to_pylist() for column in batch.columns]
    except (ValueError, OverflowError) as error:
        hint = "a time that only SQL can hold? CAST it to VARCHAR"
        raise QueryError(f"a value cannot be shown: {error} ({hint})") from error
    return zip(*columns, strict=True)


def _json(result: Result, file: IO[bytes]) -> None:
    names = result.schema.names
    for batch in result.batches():
        rows = (dict(zip(names, row, strict=True)) for row in _rows(batch))
        file.write(b"".join(_ENCODER.encode(row) + b"\n" for row in rows))


def _csv(result: Result, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(result.schema.names)
    for batch in result.batches():
        writer.writerows([_cell(v, missing="") for v in row] for row in _rows(batch))
    text.detach()


def _parquet(result: Result, file: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, result.schema) as writer:
        for batch in result.batches():
            writer.write_batch(batch)


def _table(result: Result, file: IO[bytes]) -> None:
    shown: list[Sequence[Any]] = []
    total = 0
    for batch in result.batches():
        shown += _rows(batch.slice(0, SHOWN_ROWS_MAX - len(shown)))
        total += batch.num_rows
    console = answers()
    if file is not sys.stdout.buffer:
        text = io.TextIOWrapper(file, encoding="utf-8", write_through=True)
        console = Console(file=text, width=console.width, highlight=False)
    print_table(result.schema.names, shown, console=console)
    if total > SHOWN_ROWS_MAX:
        more = f"… {total} rows in all, the first {SHOWN_ROWS_MAX} shown; --format csv has them all"
        console.print(more, soft_wrap=True)
    if file is not sys.stdout.buffer:
        text.detach()


_WRITERS: Mapping[str, Callable[[Result, IO[bytes]], None]] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
}


def print_table(
    names: Sequence[str], rows: Sequence[Sequence[Any]], *, console: Console | None = None
) -> None:
    """Print rows under their names; numbers stand on the right.

    Only long cells are broken. Where the short ones alone are wider than the terminal, each row is
    shown as a block of lines, a line for each column.
    """
    console = console or answers()
    cells = [[_cell(value, missing="∅") for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    needed = sum(min(width, _SHORT) for width in widths) + len(_GAP) * (len(names) - 1)
    if needed > console.width:
        _blocks(console, names, cells)
        return
    table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="bold")
    numbers = [any(map(_is_number, column)) for column in zip(*rows, strict=True)]
    for name, width, number in zip(names, widths, numbers or [False] * len(names), strict=True):
        table.add_column(
            plain(name),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=width <= _SHORT,
        )
    for row in cells:
        table.add_row(*map(plain, row))
    _without_trailing_blanks(console, table)


def _without_trailing_blanks(console: Console, table: Table) -> None:
    for line in console.render_lines(table, pad=False):
        bold = any(segment.style and segment.style.bold for segment in line)
        text = "".join(segment.text for segment in line).rstrip()
        console.print(plain(text), style="bold" if bold else None, soft_wrap=True)


def _blocks(console: Console, names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Rows under each other, one line for each column."""
    width = max(map(cell_len, names))
    for number, row in enumerate(cells, start=1):
        console.print(f"row {number}", style="bold")
        for name, cell in zip(names, row, strict=True):
            console.print(plain(f"  {name:<{width}}  {cell}"), soft_wrap=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def print_letter(row: dict[str, Any]) -> None:
    """Print a dead letter with its bytes, what cannot be shown escaped."""
    came = f"{row['ingest_time']:%Y-%m-%d %H:%M:%S}"
    say(f"id {row['log_offset']}  {row['reason']}  {row['source']}  {came}", style="bold")
    say(f"  {row['message']}")
    record = row["record"]
    if isinstance(record, str):  # a pseudonym
        say(f"  │ {record}")
        return
    shown = record[:_BYTES_SHOWN_MAX].decode("utf-8", "backslashreplace")
    for line in shown.splitlines() or [""]:
        say(f"  │ {line}")
    if len(row["record"]) > _BYTES_SHOWN_MAX:
        say(f"  │ … {len(row['record'])} bytes in all")


def _cell(value: object, *, missing: str) -> str:
    match value:
        case None:
            return missing
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case list() | dict():
            return _ENCODER.encode(value).decode()
        case bool():
            return str(value).lower()
        case _:
            return str(value)
