"""Replay: features and decisions over history, by the evaluator that decides live.

History is the table of events of a project, another table with the declared columns, or files.
Reading, evaluating and writing overlap; the evaluator uses all processors.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidegate.clock import Clock
from tidegate.controls import ListRecord
from tidegate.datafolder import DataFolder
from tidegate.decisions.decided import Decisions, RuleCounts
from tidegate.errors import RequestError
from tidegate.evaluator import Evaluator, Underway, Verdict
from tidegate.frames import conformed
from tidegate.labels.history import LabelRows, Past
from tidegate.lists.history import Changes
from tidegate.past import end_of, past, written_past
from tidegate.program import Program
from tidegate.sources.files import read_file
from tidegate.tables import DECISIONS, FEATURE_PREFIX
from tidegate.targets import Hidden, Target
from tidegate.warehouse.feed import TableFeed, Written

BATCH_ROWS = 131_072
TABLE = "replay"

_PARQUET = b"PAR1"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay came to.

    `actions` counts decisions, `rules` the events that each rule hit, by name; `refused` counts
    records of files that are no events. `target` is the table or file with the rows, if any, and
    `hidden` are the columns that have pseudonyms there.
    """

    events: int
    refused: int
    seconds: float
    actions: Mapping[str, int]
    rules: Mapping[str, int]
    version: str
    target: str
    hidden: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Events with the declared columns and `log_offset`, or labels; how far the source is read.

    `done` of `total` counts whatever the source counts by: offsets, rows or bytes.
    """

    past: Past
    done: int
    total: int
    refused: int = 0


# -- where history comes from ----------------------------------------------------------------------


def table_history(path: Path, program: Program) -> Iterator[Stretch]:
    """The rows of a table in order of the log, as the table stands now.

    Among those of the table of events come the labels, where the program has a column for them.
    Raises: InputError if there is no such table, or a column is missing or of another type.
    """
    with_labels = path.name == "events" and program.project.labels.column is not None
    if path.name == "events":
        end = end_of(path.parent, with_labels=with_labels)
        names = program.schema.names
        found = written_past(path.parent, 0, end, columns=names, with_labels=with_labels)
    else:
        table = Written(path)
        end, feed = table.end(), TableFeed(table, table.end, columns=program.schema.names)
        found = past(feed, None, 0, end)
    for stretch in found:
        if isinstance(stretch, LabelRows):
            yield Stretch(stretch, _end(stretch.rows), end)
            continue
        for batch in _numbered(pa.Table.from_batches([stretch]), program):
            yield Stretch(batch, _end(stretch), end)


def _end(rows: pa.RecordBatch) -> int:
    return int(rows["log_offset"][-1].as_py() or 0) + 1


def file_history(paths: Sequence[Path], program: Program) -> Iterator[Stretch]:
    """The events of files, one after the other; `log_offset` counts them.

    Parquet is taken column by column, all else as records are taken at the door: those that are no
    events are counted. Repeated ids are not looked for.
    Raises: RequestError if a file cannot be read; InputError as `conformed`.
    """
    total = sum(_size(path) for path in paths)
    before = count = 0
    for path in paths:
        source = _parquet if _is_parquet(path) else _records
        for rows, done, refused in source(path, program):
            offsets = pa.array(np.arange(count, count + rows.num_rows))
            count += rows.num_rows
            for batch in _numbered(rows.append_column("log_offset", offsets), program):
                yield Stretch(batch, before + done, total, refused)
                refused = 0
        before += _size(path)


def _numbered(rows: pa.Table, program: Program) -> Iterator[pa.RecordBatch]:
    """The declared columns and the offset, as one batch; none where there are no rows."""
    if rows.num_rows:
        table = conformed(rows, program.schema)
        table = table.append_column("log_offset", rows.column("log_offset"))
        yield from table.combine_chunks().to_batches()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}", code="unreadable_file") from error


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _PARQUET


def _parquet(path: Path, program: Program) -> Iterator[tuple[pa.Table, int, int]]:
    try:
        # What is mapped is there already: reading ahead would hold up the first rows.
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            wanted = [n for n in file.schema_arrow.names if n in program.schema.names]
            rows, size, done = file.metadata.num_rows, _size(path), 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                done += batch.num_rows
                table = conformed(pa.Table.from_batches([batch]), program.schema)
                yield table, size * done // rows, 0
    except pa.ArrowException as error:
        raise RequestError(f"{path}: {error}", code="unreadable_file") from error


def _records(path: Path, program: Program) -> Iterator[tuple[pa.Table, int, int]]:
    """The events of a file of records, many blocks at a time."""
    waiting: list[pa.RecordBatch] = []
    refused = done = 0
    arrival = time.time_ns() // 1_000
    for block in read_file(path, schema=program.schema, block_bytes=8 << 20):
        taken = program.intake.admit(block.records, ingest_time=arrival)
        waiting.append(taken.events)
        refused, done = refused + len(taken.dead), block.bytes_read
        if sum(b.num_rows for b in waiting) >= BATCH_ROWS:
            yield pa.Table.from_batches(waiting), done, refused
            waiting, refused = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting), done, refused


# -- the replay itself -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """What has been seen so far."""

    events: int = 0
    refused: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)

    def add(self, decided: Decisions) -> None:
        hits: RuleCounts = Counter()
        decided.count(self.actions, hits)
        self.events += len(decided)
        for (name, _), count in hits.items():
            self.rules[name] += count


def replay(
    program: Program,
    history: Iterable[Stretch],
    target: Target,
    *,
    clock: Clock,
    lists: Changes | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Replayed:
    """Evaluate history from its beginning and write features and decisions, row by row.

    `lists` are the changes of lists along the offsets of the history. `progress` is told how much
    of how much is done. Where it fails, the target is left as it was.
    """
    begun = time.monotonic()
    # What seeds the hashing changes no value: only pseudonyms in reasons need the installation's.
    key = DataFolder(program.project.data).key() if program.pii else secrets.token_bytes(16)
    threads = threads or os.cpu_count() or 1
    evaluator, tally = Evaluator(program, key=key, threads=threads, lasting=False), _Tally()
    changes = lists or Changes()
    try:
        target.open(rows_schema(program))
        with ThreadPoolExecutor(1, "read") as reading, ThreadPoolExecutor(1, "write") as writing:
            run = _Run(evaluator, clock, tally, target, _Behind(writing))
            for stretch in _ahead(history, reading):
                if isinstance(stretch.past, LabelRows):
                    run.decide()
                    evaluator.label(stretch.past.rows)
                    continue
                tally.refused += stretch.refused
                for changed, events in changes.cut(stretch.past):
                    run.begin(events, changed)
                if progress is not None:
                    progress(stretch.done, stretch.total)
            run.end()
        target.finish()
    except BaseException:
        target.discard()
        raise
    return Replayed(
        events=tally.events,
        refused=tally.refused,
        seconds=time.monotonic() - begun,
        actions=dict(tally.actions),
        rules=dict(tally.rules),
        version=program.version,
        target=target.name,
        hidden=target.columns if isinstance(target, Hidden) else (),
    )


def rows_schema(program: Program) -> pa.Schema:
    """The columns of a replay's rows: whose, the features, the decision.

    A feature that has the name of another column is called `feature_` and its name.
    """
    taken = {f.name for f in (*_WHOSE, *_DECIDED)}
    features = [
        f.with_name(f"{FEATURE_PREFIX}{f.name}") if f.name.lower() in taken else f
        for f in program.feature_schema or ()
    ]
    return pa.schema([*_WHOSE, *features, *_DECIDED])


_WHOSE = [DECISIONS.field(name) for name in ("event_id", "event_time")]
_DECIDED = [DECISIONS.field(name) for name in ("action", "score", "rules", "version", "log_offset")]


class _Run:
    """Takes events through the evaluator: some are decided while the next ones' windows run."""

    def __init__(
        self, evaluator: Evaluator, clock: Clock, tally: _Tally, target: Target, writes: _Behind
    ) -> None:
        self._evaluator, self._clock, self._tally = evaluator, clock, tally
        self._target, self._writes = target, writes
        self._underway: Underway | None = None

    def begin(self, events: pa.RecordBatch, changes: Iterable[ListRecord]) -> None:
        """Begin with events and the changes of lists before them, then decide on those before."""
        begun = self._evaluator.begin(self._evaluator.labelled(events), changes)
        self.decide()
        self._underway = begun

    def decide(self) -> None:
        """Decide on what is under way, if anything is, and have it written."""
        underway, self._underway = self._underway, None
        if underway is not None:
            verdict = self._evaluator.decide(underway, decided_at=self._clock.now())
            rows = _rows(verdict, self._evaluator.program)
            self._writes.run(partial(self._target.write, rows))
            self._tally.add(verdict.decided)

    def end(self) -> None:
        """Let all be decided and written."""
        self.decide()
        self._writes.wait()


def _rows(verdict: Verdict, program: Program) -> pa.RecordBatch:
    """The rows of a replay."""
    decisions = verdict.decided.rows
    columns = [decisions[f.name] for f in _WHOSE]
    if verdict.featured is not None:
        columns += verdict.featured.rows.columns[len(_WHOSE) : -1]  # the offset comes last
    columns += [decisions[f.name] for f in _DECIDED]
    return pa.RecordBatch.from_arrays(columns, schema=rows_schema(program))


def _ahead(items: Iterable[_T], pool: ThreadPoolExecutor) -> Iterator[_T]:
    """The items, each made by the pool while the one before it is worked on."""
    iterator, nothing = iter(items), object()
    coming = pool.submit(next, iterator, nothing)
    while (item := coming.result()) is not nothing:
        coming = pool.submit(next, iterator, nothing)
        yield item  # type: ignore[misc] # all but the mark of the end are items


class _Behind:
    """Runs one task after the other beside the caller, who is never more than one ahead."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._running: Any = None

    def run(self, task: Callable[[], None]) -> None:
        self.wait()
        self._running = self._pool.submit(task)

    def wait(self) -> None:
        """Wait for the last task. Raises: what it raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()
