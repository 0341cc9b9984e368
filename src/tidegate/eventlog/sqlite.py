"""The event log in one SQLite file: a row for each entry, a commit for all who wait."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tidegate.errors import DamageError, LockedError, StorageFullError, TransientError
from tidegate.eventlog import layout, scan, state, wal
from tidegate.eventlog.commit import Call, CommitQueue
from tidegate.eventlog.contract import Append, DamagedEntry, Entry, EntryKind, Prepared
from tidegate.eventlog.faults import translated
from tidegate.eventlog.insert import insert, insert_alone
from tidegate.eventlog.pool import Pool
from tidegate.eventlog.rows import Packed, pack
from tidegate.eventlog.upkeep import Upkeep
from tidegate.records import Records

# Bytes that share one commit at most, so that a commit under load stays short.
COMMIT_BYTES_MAX = 16 << 20
# The WAL is folded into the file when it has grown by this much, or when writes pause.
CHECKPOINT_BYTES = 64 << 20
# Its own file stays for that long: to write over it takes half as long as to let it grow again,
# since the file system has to note the growth as well.
_WAL_KEPT_SECONDS = 60.0
# Readers can keep the WAL from starting over; beyond this size writers wait for them.
WAL_BYTES_MAX = 4 * CHECKPOINT_BYTES

_PAGE_BYTES = 32768
_POLL_SECONDS = 0.02
_FOLDING_SECONDS = 0.005
_UPKEEP_SECONDS = 1.0
_FREE_AND_ALL = ("freelist_count", "page_count")
# Pages given back in one step, and about how many a step of trimming writes.
_SHRINK_PAGES = 256
_TRIM_PAGES = 64


class SqliteLog:
    """An `EventLog` in one SQLite file; threads and processes may share it.

    Open it once per process and share it between threads; not across a fork.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with SqliteLog.open(Path(folder) / "log.sqlite") as log:
    ...         log.append(Records.of([b"one", b"two"]), source="http", ingest_time=0)
    ...         log.append(Records.of([b"three"]), source="http", ingest_time=1)
    ...         [list(entry.records) for entry in log.read(1)]
    0
    2
    [[b'one', b'two'], [b'three']]
    """

    def __init__(self, path: Path, writer: sqlite3.Connection | None, readers: Pool) -> None:
        self._path = path
        self._writer = writer
        self._readers = readers
        self._write_lock = threading.Lock()
        self._queue = CommitQueue(self._commit, bytes_max=COMMIT_BYTES_MAX)
        self._upkeep = Upkeep(self._tidy, pause_seconds=_UPKEEP_SECONDS)
        self._grown = threading.Condition()
        self._closed = False
        self._looked_at = -_POLL_SECONDS  # for what other processes have appended
        self._tail = scan.Tail(None, 0)
        # Positions since the last write of them, and who is known to the file.
        self._moved: dict[str, int] = {}
        self._consumers: dict[str, int] = {}
        self._positions_lock = threading.Lock()
        self._wal_bytes = 0  # written since the WAL last started over
        self._checkpoint_at = CHECKPOINT_BYTES
        self._commits = self._commits_tidied = 0
        self._paused_at = time.monotonic()  # when writes had last been going on

    @classmethod
    def open(cls, path: Path) -> SqliteLog:
        """The log at `path`, created if there is none; its folder must exist.

        A damaged log opens as long as some of it can be read: what is whole is read, appends are
        refused if the damage touches the log's end. Raises: InputError if the file is something
        else or of a newer format; DamageError if nothing can be read; StorageFullError;
        LockedError.
        """
        readers = Pool(lambda: layout.open_reader(path))
        try:
            writer: sqlite3.Connection | None = layout.open_writer(path)
        except DamageError:
            writer = None
        log = cls(path, writer, readers)
        try:
            log._recover()
            log._load()
        except BaseException:
            log.close()
            raise
        return log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def first_offset(self) -> int:
        """The offset of the oldest record kept; equals `next_offset` when the log is empty."""
        with self._reading() as conn:
            return scan.span(conn).first_offset

    @property
    def next_offset(self) -> int:
        """The offset that the next record will get."""
        with self._reading() as conn:
            return self._look(conn).next_offset

    def append(
        self,
        records: Records,
        *,
        source: str,
        ingest_time: int,
        kind: EntryKind = EntryKind.EVENTS,
    ) -> int:
        """Write the records and return the offset of the first, once they are durable."""
        return self.append_many([Append(records, source, ingest_time, kind)])[0]

    def prepare(self, entry: Append) -> Packed:
        """Do what an append can do beforehand, in any thread: check, compress, sum."""
        return pack(entry)

    def append_many(self, entries: Sequence[Append | Prepared]) -> list[int]:
        """Write several entries in one commit and return the first offset of each."""
        if not entries:
            return []
        return self._queue.submit(Call([_packed(entry) for entry in entries]))

    def read(self, offset: int, *, bytes_max: int = 16 << 20) -> list[Entry]:
        """The entries from the one holding `offset` on, at least one if there is any."""
        known = self._tail.next_offset
        with self._reading() as conn:
            try:
                entries = scan.read(conn, offset, bytes_max=bytes_max)
                return entries or self._nothing_at(conn, offset, known)
            except (DamageError, sqlite3.DatabaseError) as error:
                start = scan.damage_start(conn, offset)
                raise DamageError(
                    f"`{self._path}` is damaged from offset {start} on: {error}", offset=start
                ) from error

    def controls(self, offset: int) -> list[Entry]:
        """The control entries from `offset` on, found without reading what lies between."""
        with self._reading() as conn:
            found = scan.controls(conn, offset)
        return [self.read(first, bytes_max=1)[0] for first in found]

    def follow(self, offset: int, *, timeout_seconds: float) -> bool:
        """Wait until a record at `offset` is there; False when time runs out or the log closes.

        Appends of this process wake it at once, those of other processes are looked for.
        """
        give_up = time.monotonic() + timeout_seconds
        while self._tail.next_offset <= offset:
            if self._closed:
                return False
            now = time.monotonic()
            if now - self._looked_at >= _POLL_SECONDS:
                self._looked_at = now
                with self._reading() as conn:
                    self._look(conn)
            left = give_up - time.monotonic()
            with self._grown:
                if self._tail.next_offset > offset:
                    return True
                if left <= 0 or self._closed:
                    return False
                self._grown.wait(min(left, self._looked_at + _POLL_SECONDS - now))
        return True

    def positions(self) -> Mapping[str, int]:
        """The position of each consumer, by name."""
        with self._reading() as conn, self._positions_lock:
            return self._merged(state.read_positions(conn))

    def set_position(self, consumer: str, offset: int) -> None:
        """Declare that `consumer` needs nothing before `offset`.

        A consumer's first position is durable on return; later ones are written together about
        once a second, when the log is trimmed, and when it is closed.
        """
        if offset > self._tail.next_offset and offset > self.next_offset:
            raise ValueError(f"position {offset} of `{consumer}` lies beyond the end of the log")
        with self._positions_lock:
            known = consumer in self._consumers
            if known and offset > self._consumers[consumer]:
                self._consumers[consumer] = self._moved[consumer] = offset
        if not known:
            self._add_consumer(consumer, offset)
        self._upkeep.wake()

    def forget(self, consumer: str) -> None:
        """Remove a consumer that is gone for good, so that it holds nothing back."""
        with self._writing() as conn, layout.transaction(conn):
            state.remove_position(conn, consumer)
        with self._positions_lock:
            self._consumers.pop(consumer, None)
            self._moved.pop(consumer, None)

    def trim(self, *, before_time: int) -> int:
        """Remove entries older than `before_time` that every consumer has passed.

        Their space is used again; the file shrinks when more than half of it is free.
        """
        while self._trim_some(before_time):
            pass
        while self._shrink_some():
            pass
        return self.first_offset

    def verify(self) -> Iterator[DamagedEntry]:
        """Read the whole log and yield what is damaged, in order of offsets."""
        with self._reading() as conn:
            at, end = scan.span(conn).first_offset, self._look(conn).next_offset
            if reason := state.damage(conn):
                yield DamagedEntry(at, reason)
        while at < end:
            try:
                at = self.read(at)[-1].next_offset
            except DamageError as error:
                yield DamagedEntry(at, str(error))
                with self._reading() as conn:
                    at = scan.resume(conn, at, end=end)
            except ValueError:  # trimmed while we read
                at = max(at, self.first_offset)

    def close(self) -> None:
        """Wait for running appends and release the files; closing twice is fine."""
        self._queue.drain()
        with self._grown:
            already, self._closed = self._closed, True
            self._grown.notify_all()
        if already:
            return
        self._upkeep.close()
        if self._commits or self._moved:
            # What is lost if the disk is full: positions of the last second, and they may be.
            with suppress(TransientError, DamageError), self._writing() as conn:
                self._write_state(conn)
        # The last connection to close folds the WAL into the file: let it be one that may write.
        self._readers.close()
        with self._write_lock:
            if self._writer is not None:
                self._writer.close()
            self._writer = None

    # Reading

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the log at one moment."""
        offset = self._tail.next_offset
        with (
            translated(self._path, offset=offset),
            self._readers.connection() as conn,
            scan.snapshot(conn),
        ):
            yield conn

    def _recover(self) -> None:
        """Look after the WAL that a crash left: fold it away, find out what it lost."""
        left = wal.beside(self._path)
        if self._writer is None or not left.exists() or left.stat().st_size == 0:
            return
        with suppress(StorageFullError, DamageError), self._writing() as conn:
            with layout.transaction(conn):  # so that nobody commits meanwhile
                first, end = state.read_span(conn).first_offset, self._end(conn).next_offset
                if lost := self._lost(left):
                    shutil.copy(left, left.with_name(left.name + "-damaged"))
                # A span that reaches further than the rows is how a log knows what it lacks.
                state.write_span(conn, state.Span(first, end + lost))
            conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._tail = scan.Tail(None, 0)  # to be looked at anew: the span may reach further now

    def _lost(self, left: Path) -> int:
        """Durable commits that are lost. Raises: LockedError where others fold the WAL for long."""
        give_up = time.monotonic() + layout.LOCK_SECONDS_MAX
        with self._readers.connection() as reader:
            while (frames := reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]) < 0:
                # Another process is at it: how many frames there are is not told meanwhile.
                if time.monotonic() > give_up:
                    raise LockedError(f"`{self._path}` is in use: its WAL is being folded")
                time.sleep(_FOLDING_SECONDS)
        return wal.lost_commits(left, valid_frames=frames, page_bytes=_PAGE_BYTES)

    def _load(self) -> None:
        with self._reading() as conn:
            self._look(conn)
            with suppress(DamageError):  # said again to whoever needs the positions
                self._consumers = state.read_positions(conn)

    def _look(self, conn: sqlite3.Connection) -> scan.Tail:
        """The end of the log as this connection sees it."""
        known = self._tail
        if known.row is not None and scan.last_row(conn) == known.row:
            return known
        seen = scan.tail(conn)
        self._publish(seen)
        return seen

    def _publish(self, tail: scan.Tail) -> None:
        with self._grown:
            if tail.next_offset >= self._tail.next_offset:
                self._tail = tail
                self._grown.notify_all()

    def _nothing_at(self, conn: sqlite3.Connection, offset: int, known: int) -> list[Entry]:
        """What it means that no row holds `offset`: the end, a mistake or damage."""
        first, following = scan.span(conn).first_offset, max(known, self._look(conn).next_offset)
        if offset == following:
            return []
        if offset < first or offset > following:
            raise ValueError(f"offset {offset} is not in the log, which has {first} to {following}")
        raise DamageError(f"no entry holds offset {offset}")

    # Writing

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The one connection that writes, for us alone among the threads."""
        with self._write_lock, translated(self._path, offset=self._tail.next_offset):
            if self._writer is None:
                if self._closed:
                    raise ValueError(f"the log `{self._path}` is closed")
                self._writer = layout.open_writer(self._path)
            yield self._writer

    def _commit(self, calls: Sequence[Call]) -> None:
        with self._writing() as conn:
            # Before the commit, not after it: whoever is durable should hear so at once.
            if self._wal_bytes >= self._checkpoint_at:
                self._checkpoint_under_load(conn)
            tail = insert_alone(conn, calls, self._tail)
            if tail is None:
                with layout.transaction(conn):
                    tail = insert(conn, calls, self._end(conn))
            self._publish(tail)
            self._wal_bytes += sum(call.bytes for call in calls) + 2 * _PAGE_BYTES
            self._commits += 1
        self._upkeep.wake()

    def _end(self, conn: sqlite3.Connection) -> scan.Tail:
        """The end of the log to append at, within a write transaction."""
        known = self._tail
        tail = self._look(conn)
        if tail.damaged_from is None and tail.next_offset >= known.next_offset:
            return tail
        start = tail.next_offset if tail.damaged_from is None else tail.damaged_from
        raise DamageError(
            f"`{self._path}` is damaged at its end, from offset {start} on; nothing is appended "
            "behind the damage",
            offset=start,
        )

    def _add_consumer(self, consumer: str, offset: int) -> None:
        with self._writing() as conn:
            with layout.transaction(conn):
                before = state.read_positions(conn)
                position = max(offset, before.get(consumer, 0))
                state.add_position(conn, consumer, position)
            with self._positions_lock:
                self._consumers[consumer] = position
            self._wal_bytes += _PAGE_BYTES

    def _merged(self, durable: dict[str, int]) -> dict[str, int]:
        return {name: max(at, self._moved.get(name, 0)) for name, at in durable.items()}

    # Upkeep

    def _tidy(self) -> bool:
        """Write positions; once writes have paused, fold the WAL away. True if all is done."""
        try:
            with self._writing() as conn:
                idle, self._commits_tidied = self._commits == self._commits_tidied, self._commits
                if self._moved:
                    self._write_state(conn)
                if not idle:
                    self._paused_at = time.monotonic()
                return idle and self._fold(conn)
        except TransientError:
            return False  # tried again a little later
        except (DamageError, ValueError):
            return True  # nothing to tidy here; the next append or read says what is wrong

    def _fold(self, conn: sqlite3.Connection) -> bool:
        """Fold the WAL into the file, then let go of its own file; True once both are done."""
        if self._wal_bytes and not self._checkpoint(conn, "PASSIVE", 50):
            return False
        is_long_ago = time.monotonic() - self._paused_at >= _WAL_KEPT_SECONDS
        return is_long_ago and self._checkpoint(conn, "TRUNCATE", 50)

    def _checkpoint_under_load(self, conn: sqlite3.Connection) -> None:
        late = self._wal_bytes >= WAL_BYTES_MAX
        # What is in the WAL is durable: no append fails because it cannot be folded away now.
        with suppress(sqlite3.Error, DamageError):
            if self._checkpoint(conn, "RESTART" if late else "PASSIVE", 100):
                return
        self._checkpoint_at = self._wal_bytes + CHECKPOINT_BYTES // 4

    def _checkpoint(self, conn: sqlite3.Connection, mode: str, wait_ms: int) -> bool:
        """Fold the WAL into the file; False if readers kept some of it back."""
        self._write_state(conn)
        conn.execute(f"PRAGMA busy_timeout = {wait_ms}")
        try:
            busy, pages, folded = conn.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            conn.execute(f"PRAGMA busy_timeout = {round(layout.LOCK_SECONDS_MAX * 1000)}")
        if busy or pages != folded:
            return False
        self._wal_bytes, self._checkpoint_at = 0, CHECKPOINT_BYTES
        return True

    def _write_state(self, conn: sqlite3.Connection) -> None:
        """Make the span and the moved positions durable."""
        with self._positions_lock:
            moved = dict(self._moved)
        with layout.transaction(conn):
            following = self._end(conn).next_offset
            state.write_span(conn, state.Span(state.read_span(conn).first_offset, following))
            state.move_positions(conn, moved)
        self._wal_bytes += 2 * _PAGE_BYTES
        with self._positions_lock:
            for name in [n for n, at in moved.items() if self._moved.get(n) == at]:
                del self._moved[name]

    def _trim_some(self, before_time: int) -> bool:
        """Remove a bounded part of what may go; False if that is nothing."""
        with self._writing() as conn:
            self._write_state(conn)
            with layout.transaction(conn):
                span = state.read_span(conn)
                limit = min(state.read_positions(conn).values(), default=span.first_offset)
                cut = scan.old(conn, span.first_offset, limit=limit, before_time=before_time)
                conn.execute("DELETE FROM entries WHERE first_offset < ?", (cut,))
                state.write_span(conn, state.Span(cut, max(cut, span.next_offset)))
            self._wal_bytes += _TRIM_PAGES * _PAGE_BYTES
            return cut > span.first_offset

    def _shrink_some(self) -> bool:
        """Give back some of the file's free pages while they are more than half of it."""
        with self._writing() as conn:
            free, pages = (conn.execute(f"PRAGMA {p}").fetchone()[0] for p in _FREE_AND_ALL)
            if free <= max(pages // 2, _SHRINK_PAGES):
                return False
            conn.execute(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})").fetchall()
            self._wal_bytes += _SHRINK_PAGES * _PAGE_BYTES
            return True


def _packed(entry: Append | Prepared) -> Packed:
    if isinstance(entry, Packed):
        return entry
    if isinstance(entry, Append):
        return pack(entry)
    raise ValueError("the entry was prepared for another log")
