"""A project opened from Python or the command line: query, ingest, dead letters, reconciliation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pyarrow as pa

from tidegate.access.pii import hiding_of
from tidegate.backtest.backtest import backtest
from tidegate.backtest.candidate import candidate_of
from tidegate.backtest.result import Backtested
from tidegate.backtest.study import FEATURES, Question
from tidegate.clock import Clock, SystemClock
from tidegate.datafolder import DataFolder
from tidegate.deliveries import open_sinks
from tidegate.entities import current, entity_of, explained
from tidegate.errors import InputError, RequestError
from tidegate.evaluator import Evaluator
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.frames import Events, declared_columns
from tidegate.hiding import Hiding
from tidegate.ingest import Taker, taking
from tidegate.labelled import Labelled, label, label_blocks, label_file
from tidegate.lists.desk import ListDesk
from tidegate.lists.history import Changes
from tidegate.program import Program
from tidegate.project.project import Project, load
from tidegate.reconcile.comparison import Reconciliation
from tidegate.reconcile.stages import Reconciler, SinkState
from tidegate.records import Records
from tidegate.replay import TABLE, Replayed, Stretch, file_history, replay, table_history
from tidegate.sinks.ledger import Ledger
from tidegate.sources.files import Block, check_readable, read_file
from tidegate.targets import target_of
from tidegate.verify import Verified, verify
from tidegate.versions import Versions
from tidegate.warehouse.query import QueryResult, TableInfo, query, tables

FINISH_SECONDS = 600.0
_FEATURE_ROWS = 131_072

# A dead letter that was sent again has successors whose source names it.
_UNSENT = """
SELECT d.* EXCLUDE (ingest_date) FROM dead_letters AS d
ANTI JOIN (
  SELECT source FROM events UNION ALL
  SELECT source FROM duplicates UNION ALL
  SELECT source FROM dead_letters
) AS s ON s.source = 'resend:' || d.log_offset
ORDER BY d.log_offset
"""

_LIST_CHANGES = """
SELECT log_offset, list, change, value, until FROM list_changes ORDER BY log_offset
"""

# Others may have written between our first and our last offset, but not under our sources.
_BECAME = """
SELECT
  (SELECT count(*) FROM events WHERE {ours}) AS events,
  (SELECT count(*) FROM dead_letters WHERE {ours}) AS dead_letters,
  (SELECT count(*) FROM duplicates WHERE {ours}) AS duplicates
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was taken, and what became of it.

    `finished` is False where the records are safe in the log and not all in the tables yet; the
    counts are then those of the tables so far. `beside` says who decided, where that was another
    process, in words such as `tidegate run at http://127.0.0.1:8700 (process 4711)`.
    """

    records: int
    events: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    finished: bool = True
    beside: str | None = None


class Workspace:
    """A project's folder and what lies in its data folder.

    >>> import tidegate
    >>> shop = tidegate.open("shop")                                   # doctest: +SKIP
    >>> shop.query("SELECT count(*) FROM events").arrow()              # doctest: +SKIP
    """

    def __init__(self, project: Project, *, clock: Clock | None = None) -> None:
        self.project = project
        self._clock = clock

    def query(self, sql: str, *, dialect: str = "duckdb", clear: bool = True) -> QueryResult:
        """The rows of one SELECT over all tables.

        It is in DuckDB's SQL, or in that of `bigquery`, `athena`, `trino`, `tsql`, `snowflake` or
        `spark`.
        Unless `clear`, columns marked `pii` are shown as pseudonyms.
        Raises: QueryError with DuckDB's message; InputError if there are no tables yet.
        """
        tables = self._tables()
        return query(tables, sql, dialect=dialect, hiding=None if clear else self.hiding)

    @property
    def hiding(self) -> Hiding | None:
        """What is hidden from those who may not see columns marked `pii`; None if none is."""
        if not self.project.stream.schema.pii:
            return None  # and there need be no data folder
        return hiding_of(self.project, folder=DataFolder(self.project.data))

    @property
    def lists(self) -> ListDesk:
        """The lists of the project: to put values there, take them off and show them."""
        return ListDesk(self.project, clock=self._clock)

    @property
    def versions(self) -> Versions:
        """The versions of the project: to publish, compare and take back."""
        return Versions(self.project, clock=self._clock)

    def tables(self) -> list[TableInfo]:
        """The tables there are, with rows, files and bytes. Raises: InputError if none are."""
        return tables(self._tables())

    def ingest(
        self, paths: Iterable[Path | str], *, progress: Callable[[Path, Block], None] | None = None
    ) -> Taken:
        """Take the records of files: NDJSON, JSON, CSV, Parquet, or gzip of them.

        `progress` is called for each block as it is read. If another process runs the project, the
        records go into its log and it decides on them. To take a file again changes nothing, as
        long as its ids are within the dedupe horizon.
        Raises: RequestError if a file cannot be read; those that are missing are told before
        anything is taken.
        """
        files = [Path(path) for path in paths]
        for path in files:
            check_readable(path)
        with taking(self.project, clock=self._clock) as taker:
            return self._take(
                taker,
                (
                    (block.records, f"file:{path.name}")
                    for path in files
                    for block in _told(path, self._blocks(path), progress)
                ),
            )

    def label(
        self,
        labels: Mapping[str, object] | Iterable[Mapping[str, object]],
        *,
        source: str = "python",
        author: str = "",
    ) -> Labelled:
        """Say what events truly were: each with `event_id`, `label`, `source` and `known_at`.

        A label is `fraud` or `legitimate`, True or False. `known_at` is now where it is missing,
        and `source` the one given. What cannot be read is in `refused`, with the reason, and is not
        kept. The events need not have come yet.

        >>> shop.label({"event_id": "p1", "label": "fraud"}, source="chargeback")
        ... # doctest: +SKIP
        """
        rows = [labels] if isinstance(labels, Mapping) else labels
        blocks = ((records, source) for records in label_blocks(rows))
        return self._label(blocks, author=author)

    def label_files(
        self,
        paths: Iterable[Path | str],
        *,
        source: str | None = None,
        author: str = "",
        progress: Callable[[Path, Block], None] | None = None,
    ) -> Labelled:
        """The same from files: NDJSON, JSON, CSV, Parquet, or gzip of them.

        Raises: RequestError if a file cannot be read; those that are missing are told before
        anything is taken.
        """
        files = [Path(path) for path in paths]
        for path in files:
            check_readable(path)
        blocks = (
            (block.records, source or f"file:{path.name}")
            for path in files
            for block in _told(path, label_file(path), progress)
        )
        return self._label(blocks, author=author)

    def _label(self, blocks: Iterable[tuple[Records, str]], *, author: str) -> Labelled:
        clock, seconds = self._clock, FINISH_SECONDS
        return label(self.project, blocks, author=author, clock=clock, timeout_seconds=seconds)

    def dead_letters(self, *, clear: bool = True) -> pa.Table:
        """The dead letters that were not sent again, oldest first.

        Columns: `log_offset` (the id), `reason`, `column`, `message`, `source`, `ingest_time`,
        `record` (the bytes as they came). Where columns are marked `pii`, records and messages are
        pseudonyms unless `clear`. Raises: InputError if there are no tables yet.
        """
        return self.query(_UNSENT, clear=clear).arrow()

    def resend(self, *, ids: Sequence[int] | None = None, reason: str | None = None) -> Taken:
        """Send dead letters again, for instance after the project was mended.

        Those given by id (their log offsets), of one reason, or all that were not sent again yet.
        Raises: RequestError if an id is none of them; InputError if there are no tables yet.
        """
        self._tables()
        with taking(self.project, clock=self._clock) as taker:
            # What an earlier call sent may still wait in the log: it must not be sent twice.
            if not taker.finish(timeout_seconds=FINISH_SECONDS):
                return Taken(records=0, finished=False, beside=taker.beside)
            chosen = self._chosen(ids=ids, reason=reason)
            blocks = ((Records.of([r]), f"resend:{offset}") for offset, r in chosen)
            return self._take(taker, blocks)

    def reconcile(self, *, progress: Callable[[int, int], None] | None = None) -> Reconciliation:
        """Each stage compared with the one before it, down to the missing ids.

        Works beside a running server. `progress` is told how many steps of how many are done.
        Raises: DamageError if the log cannot be read; InputError if there are no tables yet;
        UnreachableError if a sink cannot be read back.
        """
        self._tables()
        folder = DataFolder(self.project.data)
        program = Program.compile(self.project)
        log, ledger = SqliteLog.open(folder.log), Ledger(folder.ledger)
        try:
            opened = open_sinks(program, folder=folder.root, environment=os.environ)
            # Taken before anything is read: what a sink delivers from now on is not looked at.
            offsets = {name: position.offset for name, position in ledger.positions().items()}
            sinks = [
                SinkState(name, d.settings, d.sink, offsets.get(name, 0))
                for name, d in opened.items()
            ]
            return Reconciler(folder.tables, log, program.schema, sinks=sinks).run(
                progress=progress
            )
        finally:
            ledger.close()
            log.close()

    def features(self, events: Events) -> pa.Table:
        """The features of events, row by row, each seeing itself and those before it.

        `events` are an Arrow table or batch, a pandas or Polars frame, or a list of dicts, with the
        stream's columns, in the order in which they came; nothing is read from or written to the
        data folder. Columns: `event_id`, `event_time`, and the features; one that could not be
        computed for a row is null there.
        Raises: InputError if the project has no features, or naming the column or row at fault.

        >>> import tidegate
        >>> cards = tidegate.open("cards")                                 # doctest: +SKIP
        >>> cards.features([{"id": "p1", "ts": "2023-06-07T12:00:00Z", "card": "4711"}])
        ... # doctest: +SKIP
        """
        program = Program.compile(self.project)
        if program.features is None:
            raise InputError(f"`{self.project.root}` has no `[features]` in tidegate.toml")
        rows = declared_columns(events, program)
        threads = os.cpu_count() or 1
        evaluator = Evaluator(program, key=os.urandom(16), threads=threads, lasting=False)
        # Labels find the entries of an event by its offset, so that features keep it.
        rows = rows.append_column("log_offset", pa.array(range(rows.num_rows), pa.int64()))
        batches = rows.combine_chunks().to_batches(max_chunksize=_FEATURE_ROWS)
        found = [c.values for b in batches if (c := evaluator.compute(b)) is not None]
        values = pa.Table.from_batches(found, schema=program.features.schema)
        schema = program.schema
        whose = [rows.column(schema.id).cast(pa.string()), rows.column(schema.event_time)]
        names = ["event_id", "event_time", *values.column_names]
        return pa.Table.from_arrays([*whose, *values.columns], names=names)

    def entity(self, *entities: str | Mapping[str, object], clear: bool = True) -> pa.Table:
        """The features of entities as of the newest event, a row for each.

        An entity is given as `{"card": "4711"}` or `"card=4711"`; see `entities.current`.
        Computed anew from the table of events, also while a server runs. Unless `clear`, features
        that carry what is marked `pii` are shown as pseudonyms.
        Raises: InputError without features, tables or events; RequestError for columns or values
        that there are not, or where no window is kept by such an entity.
        """
        program = Program.compile(self.project)
        wanted = [entity_of(e, program.schema) if isinstance(e, str) else e for e in entities]
        tables = self._tables()
        return current(program, tables, wanted, hiding=None if clear else self.hiding)

    def explain(self) -> tuple[pa.Table, pa.Table]:
        """What the features keep of each entity, and what shares it; see `entities.explained`.

        Raises: InputError without features.
        """
        return explained(Program.compile(self.project))

    def replay(
        self,
        source: str | Path | Sequence[str | Path] | None = None,
        *,
        to: str | Path | None = TABLE,
        clear: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Replayed:
        """Features and decisions over history, by the project as its files are now.

        `source` is a table with the stream's columns, by default that of the events, or one or more
        files. `to` is a table in the data folder, which takes the place of an earlier replay's, or
        a file ending in `.parquet`, `.ndjson` or `.jsonl`, which has pseudonyms for what is marked
        `pii` unless `clear`; None keeps no rows. `progress` is told how much of how much is done.
        A running server is not disturbed.
        Over the table of events, rules see each list as it was; over all else, as it is now.
        Raises: InputError, RequestError (what is to be read or written), StorageFullError.
        """
        program = Program.compile(self.project)
        target = target_of(to, self.project.data, program, hiding=None if clear else self.hiding)
        history = self._history(source, program)
        clock = self._clock or SystemClock()
        lists = self._list_changes(program, as_now=source not in (None, "events"))
        return replay(program, history, target, clock=clock, lists=lists, progress=progress)

    def _list_changes(self, program: Program, *, as_now: bool) -> Changes:
        """The changes of lists, where rules ask for any."""
        tables = self.project.data / "tables"
        there = (tables / "list_changes" / "_delta_log").is_dir()
        if not (program.list_answers.questions and there):
            return Changes()
        rows = query(tables, _LIST_CHANGES).arrow()
        return Changes.as_now(rows) if as_now else Changes(rows)

    def backtest(
        self,
        rules: Path | str,
        *,
        first: date | None = None,
        until: date | None = None,
        amount: str | None = None,
        label_column: str | None = None,
        features: str = FEATURES,
        with_replay: bool = False,
        with_hits: bool = False,
        shadow_as_live: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Backtested:
        """The rules of a file beside those of the project, over history and the labels.

        Evaluated are the stored events and features from the day `first` on and before `until`
        (UTC); `with_replay` computes the features anew first. `amount` and `label_column` name
        columns of the events, `features` the table with the features. `shadow_as_live` lets the
        file's shadow rules decide. `with_hits` lists each hit. `progress` is told how much of how
        much is done, of the replay and then of the backtest.
        Raises: ProjectError with the file's mistakes; InputError, RequestError (columns, features
        or labels that are not there), StorageFullError.
        """
        tables, current = self._tables(), Program.compile(self.project)
        candidate = candidate_of(Path(rules), self.project, shadow_as_live=shadow_as_live)
        asked = Question(
            name=Path(rules).name,
            first=first,
            until=until,
            features=features,
            amount=amount,
            label_column=label_column,
            with_hits=with_hits,
        )
        if not with_replay:
            return backtest(tables, current, candidate, asked, progress=progress)
        asked = replace(asked, features="backtest_features")
        self.replay(to=asked.features, progress=progress)
        try:
            return backtest(tables, current, candidate, asked, progress=progress)
        finally:
            shutil.rmtree(tables / asked.features, ignore_errors=True)

    def _history(
        self, source: str | Path | Sequence[str | Path] | None, program: Program
    ) -> Iterator[Stretch]:
        if source is None:
            source = "events"
        given = [source] if isinstance(source, str | Path) else list(source)
        paths = [Path(item) for item in given]
        if len(given) == 1 and isinstance(given[0], str) and not paths[0].exists():
            table = self._tables() / given[0]
            if "/" not in given[0] and not paths[0].suffix:
                return table_history(table, program)
        for path in paths:
            check_readable(path)
        return file_history(paths, program)

    def verify(
        self, *, first: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> Verified:
        """Decisions and features computed again from the log, compared with those in the tables.

        From the beginning of the log, or the newest snapshot at or before the offset `first`; where
        the log was trimmed, from the oldest good snapshot. Works beside a running server.
        `progress` is told how many offsets of how many are done.
        Raises: DamageError if the log cannot be read or nothing is there to begin from; InputError
        if there are no tables yet or `first` lies beyond them.
        """
        self._tables()
        folder = DataFolder(self.project.data)
        log = SqliteLog.open(folder.log)
        try:
            return verify(
                Program.compile(self.project),
                folder=folder,
                log=log,
                clock=self._clock or SystemClock(),
                first=first,
                progress=progress,
            )
        finally:
            log.close()

    def _tables(self) -> Path:
        """The folder of the tables. Raises: InputError if nothing has run here yet."""
        root = self.project.data / "tables"
        if next(root.glob("*/_delta_log"), None) is None:
            folder = self.project.root
            raise InputError(
                f"`{folder}` has no tables yet: `tidegate run {folder}` or "
                f"`tidegate ingest {folder} FILE` makes them"
            )
        return root

    def _blocks(self, path: Path) -> Iterator[Block]:
        return read_file(path, schema=self.project.stream.schema)

    def _chosen(self, *, ids: Sequence[int] | None, reason: str | None) -> list[tuple[int, bytes]]:
        letters = self.dead_letters().select(["log_offset", "reason", "record"]).to_pylist()
        waiting = {letter["log_offset"] for letter in letters}
        if unknown := sorted(set(ids or ()) - waiting):
            raise RequestError(f"no dead letter waits under id {unknown[0]}", code="unknown_id")
        return [
            (letter["log_offset"], letter["record"])
            for letter in letters
            if (ids is None or letter["log_offset"] in ids) and reason in (None, letter["reason"])
        ]

    def _take(self, taker: Taker, blocks: Iterable[tuple[Records, str]]) -> Taken:
        sources: set[str] = set()
        offsets: list[range] = []
        try:
            offsets.extend(taker.take(_noted(blocks, sources)))
        except InputError as error:
            before = sum(map(len, offsets))
            raise RequestError(
                f"{error} ({before} records before that were taken)", code="unreadable_file"
            ) from error
        if not offsets:
            return Taken(records=0, beside=taker.beside)
        finished = taker.finish(timeout_seconds=FINISH_SECONDS)
        became = self._became(range(offsets[0].start, offsets[-1].stop), sources)
        return Taken(
            records=sum(map(len, offsets)),
            events=became["events"],
            dead_letters=became["dead_letters"],
            duplicates=became["duplicates"],
            finished=finished,
            beside=taker.beside,
        )

    def _became(self, offsets: range, sources: set[str]) -> dict[str, int]:
        """How many events, dead letters and duplicates the tables have of what was taken."""
        names = ", ".join("'" + source.replace("'", "''") + "'" for source in sorted(sources))
        between = f"log_offset >= {offsets.start} AND log_offset < {offsets.stop}"
        sql = _BECAME.format(ours=f"{between} AND source IN ({names})")
        (row,) = self.query(sql).arrow().to_pylist()
        return dict(row)


def open(folder: Path | str) -> Workspace:  # noqa: A001 - read as `tidegate.open`
    """The project in a folder. Raises: ProjectError with all its mistakes."""
    return Workspace(load(Path(folder)))


def _told(
    path: Path, blocks: Iterable[Block], progress: Callable[[Path, Block], None] | None
) -> Iterator[Block]:
    for block in blocks:
        if progress is not None:
            progress(path, block)
        yield block


def _noted(
    blocks: Iterable[tuple[Records, str]], sources: set[str]
) -> Iterator[tuple[Records, str]]:
    for records, source in blocks:
        sources.add(source)
        yield records, source
