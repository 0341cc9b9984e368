"""Where the rows of a replay go: a table, a file, or nowhere."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tidegate.access.pii import Rows, hidden
from tidegate.errors import RequestError
from tidegate.hiding import Hiding
from tidegate.program import Program
from tidegate.project.checks import TABLES
from tidegate.project.values import IDENTIFIER
from tidegate.warehouse.layout import Layout
from tidegate.warehouse.table import Table

FILES = (".parquet", ".ndjson", ".jsonl", ".json")

_MARK = "_replayed"  # in the folder of a table that a replay made; others are not replaced


class Target(Protocol):
    """What takes the rows of a replay; they count only once it is finished."""

    name: str

    def open(self, schema: pa.Schema) -> None:
        """Begin with rows of a schema."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Take rows."""

    def finish(self) -> None:
        """Let the rows count."""

    def discard(self) -> None:
        """Leave nothing behind; after `finish`, nothing is to do."""


class Nowhere:
    """Takes rows and keeps none: what counts is the summary."""

    name = ""

    def open(self, schema: pa.Schema) -> None:
        """Nothing to begin."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Nothing to keep."""

    def finish(self) -> None:
        """Nothing to finish."""

    def discard(self) -> None:
        """Nothing to leave."""


class ToTable:
    """A table in the data folder; an earlier replay's table of that name gives way to it."""

    def __init__(self, data: Path, name: str, program: Program) -> None:
        self.name = name
        self._place = data / "tables" / name
        self._draft = data / f"{name}.replay.draft"
        self._aside = data / f"{name}.replay.old"
        taken = {*TABLES, *(q.name for q in program.windows)}
        if IDENTIFIER.fullmatch(name) is None or name in taken:
            hint = "a name has `a` to `z`, `0` to `9` and `_`; a file ends in " + ", ".join(FILES)
            raise RequestError(f"a replay cannot be written to `{name}`: {hint}", code="no_output")
        if self._place.exists() and not (self._place / _MARK).exists():
            message = f"`{name}` is a table that no replay has made; name another"
            raise RequestError(message, code="no_output")

    def open(self, schema: pa.Schema) -> None:
        """Begin with rows of a schema. Raises: InputError, StorageFullError."""
        for left in (self._draft, self._aside):
            shutil.rmtree(left, ignore_errors=True)
        self._draft.parent.mkdir(parents=True, exist_ok=True)
        layout = Layout(self.name, schema, "event_time", "event_date")
        self._table = Table.create(self._draft, layout, offset=0, retention_us=60_000_000)
        (self._draft / _MARK).touch()

    def write(self, rows: pa.RecordBatch) -> None:
        """Commit rows. Raises: StorageFullError."""
        end = int(rows["log_offset"][-1].as_py()) + 1
        self._table.append([rows], next_offset=end)

    def finish(self) -> None:
        """Put the table in its place, durably."""
        self._table.sync()
        self._place.parent.mkdir(exist_ok=True)
        if self._place.exists():
            self._place.rename(self._aside)
        self._draft.rename(self._place)
        shutil.rmtree(self._aside, ignore_errors=True)

    def discard(self) -> None:
        """Leave no draft behind."""
        shutil.rmtree(self._draft, ignore_errors=True)


class ToFile:
    """A Parquet or NDJSON file; it is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._draft = path.with_name(f".{path.name}.draft")
        self._is_parquet = path.suffix.lower() == ".parquet"
        self._writer: pq.ParquetWriter | None = None
        self._file: IO[bytes] | None = None
        self._encoder = msgspec.json.Encoder(decimal_format="number")

    def open(self, schema: pa.Schema) -> None:
        """Begin with rows of a schema. Raises: RequestError if the file cannot be written."""
        try:
            self._file = self._draft.open("wb")
        except OSError as error:
            message = f"cannot write {self._path}: {error.strerror}"
            raise RequestError(message, code="no_output") from error
        if self._is_parquet:
            self._writer = pq.ParquetWriter(self._file, schema)

    def write(self, rows: pa.RecordBatch) -> None:
        """Write rows."""
        if self._writer is not None:
            self._writer.write_batch(rows)
        elif self._file is not None:
            lines = (self._encoder.encode(row) + b"\n" for row in rows.to_pylist())
            self._file.write(b"".join(lines))

    def finish(self) -> None:
        """Let the file take its place."""
        if self._writer is not None:
            self._writer.close()
        if self._file is not None:
            self._file.close()
        self._draft.replace(self._path)

    def discard(self) -> None:
        """Leave no draft behind."""
        if self._writer is not None:
            with suppress(pa.ArrowException, OSError):
                self._writer.close()
        if self._file is not None:
            self._file.close()
        self._draft.unlink(missing_ok=True)


class Hidden:
    """A target that is given pseudonyms in the place of what is marked."""

    def __init__(self, target: Target, hiding: Hiding) -> None:
        self.name = target.name
        self.columns: tuple[str, ...] = ()  # that are hidden, once it is open
        self._target, self._hiding = target, hiding
        self.finish, self.discard = target.finish, target.discard

    def open(self, schema: pa.Schema) -> None:
        """Begin with rows of a schema; what is hidden is text. Raises: as the target."""
        self.columns = tuple(n for n in schema.names if n in self._hiding.elsewhere)
        self._target.open(self._shown(schema.empty_table()).schema)

    def write(self, rows: pa.RecordBatch) -> None:
        """Take rows. Raises: as the target."""
        self._target.write(self._shown(rows))

    def _shown(self, rows: Rows) -> Rows:
        return hidden(rows, self.columns, self._hiding.key)


def target_of(
    to: Path | str | None, data: Path, program: Program, *, hiding: Hiding | None = None
) -> Target:
    """Where the rows go: a file by its ending, else a table; nowhere for None.

    What `hiding` says is hidden in a file; a table keeps the values, as all tables do.
    Raises: RequestError if a name cannot be taken.
    """
    if to is None:
        return Nowhere()
    if isinstance(to, Path) or Path(to).suffix.lower() in FILES or "/" in to:
        path = Path(to)
        if path.suffix.lower() not in FILES:
            message = f"cannot write {path}: its name must end in {', '.join(FILES)}"
            raise RequestError(message, code="no_output")
        return ToFile(path) if hiding is None else Hidden(ToFile(path), hiding)
    return ToTable(data, to, program)
