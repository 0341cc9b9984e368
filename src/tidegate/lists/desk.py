"""Putting values on lists, taking them off, showing what is there, beside a server or without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from tidegate.clock import Clock, SystemClock
from tidegate.controls import ListRecord
from tidegate.datafolder import DataFolder
from tidegate.errors import RequestError
from tidegate.eventlog.contract import EventLog
from tidegate.ingest import Taker, log_of, steering
from tidegate.lists.values import canonical, micros_of
from tidegate.logged import records_of
from tidegate.pipeline import Pipeline
from tidegate.project.project import Project
from tidegate.project.values import suggestion
from tidegate.schema import ColumnType
from tidegate.warehouse import checkpoint
from tidegate.warehouse.query import query

BLOCK_VALUES, BLOCK_CHARACTERS = 10_000, 1 << 20  # of one record of the log
REASON_MAX, AUTHOR_MAX = 10_000, 200  # characters
VALUES_MAX = 100_000_000  # of one file
WAIT_SECONDS = 30.0
_STEP_SECONDS = 0.005
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - times are UTC without a zone

_CURRENT = """
SELECT value, until, reason, author, "at" FROM list_changes
WHERE list = $name AND log_offset < $position
QUALIFY row_number() OVER (PARTITION BY value ORDER BY log_offset DESC) = 1 AND change = 'add'
ORDER BY value
"""


@dataclass(frozen=True, slots=True)
class ValueEntry:
    """A value on a list: for events before `until` (UTC), or for all; who put it there, and why."""

    value: str
    until: datetime | None
    reason: str
    author: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """Values that were put on a list or taken off, at log offset `offset` and on.

    `finished` is False where events were not decided that far yet when the time was over. `beside`
    says who decides, where that is another process.
    """

    values: int
    offset: int
    finished: bool
    beside: str | None


class ListDesk:
    """The lists of one project; `tidegate.open(folder).lists`.

    `pipeline` is the one that this process runs, if it runs the project.
    """

    def __init__(
        self, project: Project, *, clock: Clock | None = None, pipeline: Pipeline | None = None
    ) -> None:
        self._project = project
        self._clock = clock or SystemClock()
        self._pipeline = pipeline
        self._folder = DataFolder(project.data)

    @property
    def declared(self) -> Mapping[str, ColumnType]:
        """The lists that there are, with the types of their values."""
        running = {} if self._pipeline is None else self._pipeline.engine.program.lists
        return {**{each.name: each.type for each in self._project.lists}, **running}

    def add(
        self,
        name: str,
        values: Iterable[str],
        *,
        until: str | None = None,
        reason: str = "",
        author: str = "",
    ) -> Changed:
        """Put values on a list; a value that is there gets the new end.

        They count for events before `until`, a date or time as in `2027-01-01`, UTC if it has no
        zone. Raises: RequestError for a list that there is not, or naming a value that cannot be
        on it; then nothing is changed.
        """
        return self._change(name, "add", values, _until(until), reason, author)

    def remove(
        self, name: str, values: Iterable[str], *, reason: str = "", author: str = ""
    ) -> Changed:
        """Take values off a list; those that are not there change nothing. Raises: as `add`."""
        return self._change(name, "remove", values, None, reason, author)

    def load(
        self,
        name: str,
        path: Path,
        *,
        until: str | None = None,
        reason: str = "",
        author: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> Changed:
        """Put the lines of a file on a list, empty ones apart; `progress` is told values of all.

        The whole file is looked at before anything is changed.
        Raises: RequestError as `add`, naming the line, or if the file cannot be read.
        """
        type_, end = self._type_of(name), _until(until)
        count = sum(1 for _ in _lines(path, type_))
        if not count:
            raise RequestError(f"{path}: there is no value in it", code="no_values")
        return self._append(
            name, "add", _lines(path, type_), end, _told(reason, author), (count, progress)
        )

    def entries(self, name: str) -> list[ValueEntry]:
        """What is on a list now, by value, what has ended among it.

        Raises: RequestError for a list that there is not.
        """
        type_ = self._type_of(name)
        noted = checkpoint.read(self._folder.tables)
        position = noted.position if noted else 0
        found: dict[str, ValueEntry] = {}
        if (self._folder.tables / "list_changes" / "_delta_log").is_dir():
            asked: dict[str, object] = {"name": name, "position": position}
            rows = query(self._folder.tables, _CURRENT, parameters=asked).arrow().to_pylist()
            found = {row["value"]: ValueEntry(**row) for row in rows}
        with self._log() as log:
            _follow(found, log, name, position)
        return sorted(found.values(), key=lambda e: (_order(e.value, type_), e.value))

    # -- changing --------------------------------------------------------------------------------

    def _type_of(self, name: str) -> ColumnType:
        declared = self.declared
        if name not in declared:
            hint = suggestion(name, [*declared]) if declared else "tidegate.toml declares none"
            raise RequestError(f"there is no list `{name[:100]}`; {hint}", code="unknown_list")
        return declared[name]

    def _change(
        self,
        name: str,
        change: Literal["add", "remove"],
        values: Iterable[str],
        until: int | None,
        reason: str,
        author: str,
    ) -> Changed:
        type_ = self._type_of(name)
        texts = [_canonical(value, type_, name) for value in values]
        if not texts:
            raise RequestError("there is no value to put there or to take off", code="no_values")
        return self._append(name, change, texts, until, _told(reason, author), (len(texts), None))

    def _append(
        self,
        name: str,
        change: Literal["add", "remove"],
        values: Iterable[str],
        until: int | None,
        told: tuple[str, str],
        counted: tuple[int, Callable[[int, int], None] | None],
    ) -> Changed:
        total, progress = counted
        offset, done = -1, 0
        with self._taker() as taker:
            for block in _blocks(values):
                record = ListRecord(name, change, tuple(block), until, *told)
                last = taker.append([record], source="list")
                offset = last if offset < 0 else offset
                done += len(block)
                if progress is not None:
                    progress(done, total)
            finished = _decided(taker, last)
        return Changed(values=done, offset=offset, finished=finished, beside=taker.beside)

    def _taker(self) -> AbstractContextManager[Taker]:
        return steering(self._project, pipeline=self._pipeline, clock=self._clock)

    def _log(self) -> AbstractContextManager[EventLog]:
        return log_of(self._project, pipeline=self._pipeline)


def _decided(taker: Taker, offset: int) -> bool:
    """Wait until events are decided beyond an offset; False when the time is over."""
    deadline = time.monotonic() + WAIT_SECONDS
    while taker.reached() <= offset:
        if time.monotonic() > deadline:
            return taker.finish(timeout_seconds=WAIT_SECONDS)  # whoever decided may be gone
        time.sleep(_STEP_SECONDS)
    return True


def _follow(found: dict[str, ValueEntry], log: EventLog, name: str, position: int) -> None:
    """Take over the changes that the table does not have yet."""
    for entry in log.controls(max(position, log.first_offset)):
        at = _EPOCH + timedelta(microseconds=entry.ingest_time)
        for _, record in records_of([entry]):
            if not isinstance(record, ListRecord) or record.name != name:
                continue
            until = None if record.until is None else _EPOCH + timedelta(microseconds=record.until)
            for value in record.values:
                found.pop(value, None)
                if record.change == "add":
                    found[value] = ValueEntry(value, until, record.reason, record.author, at)


def _blocks(values: Iterable[str]) -> Iterator[list[str]]:
    """Values in blocks that fit a record of the log."""
    block: list[str] = []
    characters = 0
    for value in values:
        if len(block) == BLOCK_VALUES or characters + len(value) > BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
        block.append(value)
        characters += len(value)
    if block:
        yield block


def _lines(path: Path, type_: ColumnType) -> Iterator[str]:
    """The values of a file, one on each line. Raises: RequestError."""
    try:
        with path.open(encoding="utf-8", newline=None) as file:
            for number, line in enumerate(file, start=1):
                if number > VALUES_MAX:
                    raise RequestError(f"{path}: more than {VALUES_MAX} lines", code="too_many")
                if text := line.rstrip("\n").strip():
                    yield _canonical(text, type_, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise RequestError(f"{path}: {why}", code="unreadable_file") from error


def _canonical(value: str, type_: ColumnType, where: str) -> str:
    try:
        return canonical(value, type_)
    except ValueError as error:
        shown = value if len(value) <= 60 else f"{value[:59]}…"
        message = f"{where}: `{shown}` is no {type_}: {error}"
        raise RequestError(message, code="wrong_value") from error


def _until(text: str | None) -> int | None:
    try:
        return None if text is None else micros_of(text)
    except ValueError as error:
        raise RequestError(f"`until` is `{text}`: {error}"[:300], code="wrong_value") from error


def _told(reason: str, author: str) -> tuple[str, str]:
    for name, text, most in (("reason", reason, REASON_MAX), ("author", author, AUTHOR_MAX)):
        if len(text) > most:
            raise RequestError(f"the {name} has more than {most} characters", code="too_long")
    return reason, author


def _order(value: str, type_: ColumnType) -> Sequence[float]:
    """Numbers by their value, all else by its text."""
    if type_.kind not in ("bigint", "double", "decimal"):
        return ()
    try:
        return (float(value),)
    except ValueError:
        return ()
