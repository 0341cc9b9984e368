"""Repeated ids found exactly, within a horizon of time, in bounded memory.

The *first* of an id is the record that was accepted; a later record with the same id is its
duplicate while no more than the horizon lies between their ingest times (the clock never goes
back: where it does, the latest time seen so far counts). Duplicates do not prolong anything; the
first record after the horizon is a new first.

Ids are kept as keyed 64-bit fingerprints with the offset of the first: the newest in a table, older
ones in run files. Equal fingerprints are settled by reading the id at that offset from the log, so
that no chance is involved, and what comes out is a function of the log alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.errors import DamageError, StorageFullError
from tidegate.events.aside import Aside
from tidegate.events.copied import Copied, Head
from tidegate.events.fingerprints import (
    NEW,
    Integers,
    Rows,
    Table,
    Words,
    buffers,
    compile_kernels,
    hash_strings,
    read_key,
    zeros,
)
from tidegate.events.held import Held, read, unpacked
from tidegate.events.runs import (
    Run,
    Shelf,
    open_run,
    sync_runs,
)
from tidegate.events.timeline import Timeline, Unwritten

Lookup = Callable[[Sequence[int]], Sequence[str]]

TABLE_IDS = 1 << 19

_ALL_BITS = (1 << 64) - 1
_ROOM_FROM = 16  # a table this part full; to copy fewer ids takes no time worth speaking of


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """For each record the offset of its first if it is a duplicate, else -1; int64, shape (n,)."""

    first: Integers

    @property
    def duplicate(self) -> npt.NDArray[np.bool_]:
        """Which records are duplicates, shape (n,)."""
        return self.first >= 0


def warm_up() -> None:
    """Compile the kernels, or load them from the cache on disk, so that no batch waits for it."""
    compile_kernels()


@dataclass(slots=True, eq=False)
class _Batch:
    """Records on their way, of which the first `done` were decided on."""

    ids: pa.StringArray
    rows: Rows
    done: int = 0

    @property
    def finished(self) -> bool:
        return self.done == len(self.rows.offsets)

    def live(self, at: Integers, found: Integers, *, horizon: int) -> npt.NDArray[np.bool_]:
        """Whether each offset found lies within the horizon of the row that it was found for."""
        offsets, now = self.rows.offsets, self.rows.now
        own = np.minimum(np.searchsorted(offsets, found), len(offsets) - 1)
        inside: npt.NDArray[np.bool_] = now[at] - now[own] <= horizon
        return np.where(found >= offsets[0], inside, found >= self.rows.floors[at])

    def settle(self, at: Integers, found: Integers, lookup: Lookup) -> None:
        """Read the ids found, and where they are truly equal, keep the offset as known."""
        here = self.ids.take(at)
        same = pc.equal(here, self._texts(found, lookup)).to_numpy(zero_copy_only=False)
        self.rows.known[at[same]] = found[same]

    def _texts(self, found: Integers, lookup: Lookup) -> pa.StringArray:
        """The ids at these offsets: from the log, and this batch's own."""
        unique, inverse = np.unique(found, return_inverse=True)
        split = int(np.searchsorted(unique, self.rows.offsets[0]))
        logged = pa.array(lookup(unique[:split].tolist()) if split else [], pa.string())
        if len(logged) != split:
            raise ValueError(f"lookup gave {len(logged)} ids for {split} offsets")
        own = self.ids.take(np.searchsorted(self.rows.offsets, unique[split:]))
        return pa.concat_arrays([logged, own]).take(inverse)


class Dedupe:
    """The ids of a stream within `horizon` microseconds of ingest time.

    One thread at a time. After an error of `update`, call it again with the same records: those
    already decided are not decided anew.
    """

    def __init__(self, folder: Path, *, horizon: int, key: bytes, lookup: Lookup) -> None:
        """What is needed to begin; use `open` or `restore`."""
        self._folder = folder
        self._horizon = horizon
        self._key = read_key(key)
        self._lookup = lookup
        self._mask = _ALL_BITS  # tests weaken the fingerprints here
        self._now, self._last, self._floor, self._target = 0, -1, 0, 0
        self._runs: list[Run] = []
        self._unsynced: list[Run] = []
        self._room: Words | None = None  # for the next copy
        self._has_room = False  # or a copy has it, or it is being made
        self._marking = Lock()  # of the two: a thread that writes snapshots changes them too
        self._shelves: list[Shelf] = []
        self._aside: Aside | None = None
        self._spare: Future[Table] | None = None  # an empty one for when that in use is full
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="ids")
        self._unfinished: _Batch | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        horizon: int,
        key: bytes,
        lookup: Lookup,
        table_ids: int = TABLE_IDS,
    ) -> Self:
        """An empty one, keeping its run files in `folder`, which is made if need be.

        `horizon` is in microseconds, both ends within; `key` has 16 secret bytes, one per
        installation; `lookup(offsets)` reads the ids at those offsets, which ascend, from the log.
        `table_ids` is how many ids are kept in memory before they become a run.
        """
        if horizon < 0 or table_ids < 1:
            raise ValueError("the horizon is at least 0 and the table holds at least one id")
        warm_up()
        folder.mkdir(parents=True, exist_ok=True)
        self = cls(folder, horizon=horizon, key=key, lookup=lookup)
        self._begin(table_ids)
        return self

    def _begin(self, table_ids: int) -> None:
        self._table_ids = table_ids
        self._table = Table(table_ids, horizon=self._horizon)
        self._timeline = Timeline(capacity=table_ids)

    @property
    def ids_held(self) -> int:
        """Ids held, in memory and in runs; some may have expired."""
        here = sum(table.accepted for table in self._tables)
        return here + sum(run.count for run in self._runs)

    @property
    def _tables(self) -> list[Table]:
        """The tables that ids are looked for in."""
        aside = self._aside
        return [self._table] if aside is None else [self._table, aside.table]

    @property
    def bytes_held(self) -> int:
        """Memory held, an upper bound: what was never written costs none."""
        count = len(self._tables) + (self._spare is not None)
        here = count * self._table.bytes_held + self._timeline.tail.nbytes
        here += 16 * self._table_ids  # the room of a copy
        return here + sum(shelf.bytes_held for shelf in self._shelves)

    def update(self, ids: pa.StringArray, *, offsets: Integers, ingest_times: Integers) -> Seen:
        """Which records repeat an earlier one, of this call or before, within the horizon.

        Offsets ascend from call to call, ingest times are UTC microseconds; both int64, shape
        (n,). How the records are cut into calls changes nothing.
        Raises: ValueError on offsets that do not ascend, nulls or a wrong length;
        StorageFullError if a run cannot be written, be it that of an earlier call; DamageError if
        one cannot be read.
        """
        batch = self._batch(ids, offsets, ingest_times)
        rows = batch.rows
        if not len(rows.offsets):
            return Seen(rows.firsts)
        mark = self._timeline.at
        try:
            self._take_run(wait=False)
            rows.floors[:] = self._timeline.floors(rows.now - self._horizon)
            self._decide(batch)
        except BaseException:
            self._timeline.at, self._unfinished = mark, batch
            raise
        self._unfinished = None
        self._now, self._last = int(rows.now[-1]), int(rows.offsets[-1])
        self._drop_expired()
        if self._aside is None and 2 * self._table.accepted > self._table_ids:
            self._prepared()
        if not self._has_room and _ROOM_FROM * self._table.accepted > self._table_ids:
            self._has_room = True
            self._threads.submit(self._make_room)
        return Seen(rows.firsts)

    def find(self, ids: pa.StringArray, *, ingest_time: int) -> Integers:
        """The offset of each id's first as of `ingest_time`, -1 where there is none; shape (n,).

        Nothing is remembered of what is asked. Raises: as `update`.
        """
        if not len(ids):
            return np.empty(0, dtype=np.int64)
        offsets = np.arange(len(ids), dtype=np.int64) + self._last + 1
        batch = self._batch(ids, offsets, np.full(len(ids), ingest_time, dtype=np.int64))
        mark = self._timeline.at
        try:
            batch.rows.floors[:] = self._timeline.floors(batch.rows.now - self._horizon)
        finally:
            self._timeline.at = mark
        self._probe_runs(batch)
        self._settle(batch, self._table.hits(batch.rows, 0))
        return batch.rows.known

    def _batch(self, ids: pa.StringArray, offsets: Integers, times: Integers) -> _Batch:
        data, bounds = buffers(ids)
        offsets = np.array(offsets, dtype=np.int64)
        _check_shape(len(ids), offsets, times, above=self._last)
        fingerprints = hash_strings(data, bounds, key=self._key)
        if self._mask != _ALL_BITS:
            fingerprints &= np.uint64(self._mask)
        now = np.maximum(np.maximum.accumulate(np.asarray(times, np.int64)), self._now)
        floors, known, firsts = marks = np.empty((3, len(offsets)), dtype=np.int64)
        marks.fill(NEW)
        rows = Rows(data, bounds, fingerprints, offsets, now, floors, known, firsts)
        batch = _Batch(ids, rows)
        return batch if self._unfinished is None else _resume(batch, self._unfinished)

    def _decide(self, batch: _Batch) -> None:
        while True:
            self._note_floor(batch)
            if self._table.full:
                self._spill()
            if batch.finished:
                return
            self._probe_runs(batch)
            self._walk(batch, settled=False)
            if not batch.finished and not self._table.full:
                self._settle(batch, self._table.hits(batch.rows, batch.done))
                self._walk(batch, settled=True)

    def _note_floor(self, batch: _Batch) -> None:
        """Keep from which offset on ids are live as of the last row done, exactly."""
        if not batch.done:
            return
        rows, row = batch.rows, batch.done - 1
        self._target = int(rows.now[row]) - self._horizon
        self._floor = int(rows.floors[row])
        if self._floor >= rows.offsets[0]:
            self._floor = int(rows.offsets[np.searchsorted(rows.now, self._target)])

    def _walk(self, batch: _Batch, *, settled: bool) -> None:
        tail, size = self._timeline.tail, self._timeline.size
        batch.done, self._timeline.size = self._table.admit(
            batch.rows, batch.done, settled=settled, tail=tail, size=size
        )

    def _probe_runs(self, batch: _Batch) -> None:
        for shelf in self._shelves:
            hits = shelf.probe(batch.rows.fingerprints, batch.done)
            if len(hits):
                self._settle(batch, hits)
        if self._aside is not None:
            self._settle(batch, self._aside.table.hits(batch.rows, batch.done, own=True))

    def _settle(self, batch: _Batch, hits: Integers) -> None:
        live = batch.live(hits[:, 0], hits[:, 1], horizon=self._horizon)
        if live.any():
            batch.settle(hits[live, 0], hits[live, 1], self._lookup)

    def _spill(self) -> None:
        """Make room: let go what has expired, and where that is not half, have a run written."""
        self._take_run(wait=True)
        self._drop_expired()
        all_live = int(self._timeline.changes[0, 0]) >= self._floor  # that is the oldest id's
        self._timeline.expire(self._target)
        if not all_live:
            live = self._table.live(self._floor)
            if 2 * len(live) <= self._table_ids:
                self._table.refill(live)
                return
        self._set_aside()

    def _set_aside(self) -> None:
        """Have the table written, and go on with an empty one."""
        full, self._table, self._spare = self._table, self._prepared().result(), None
        changes, (shelf, place) = Unwritten(self._timeline.changes.copy()), self._place()
        self._timeline.move(changes)
        self._aside = Aside(
            full,
            changes,
            folder=self._folder,
            floor=self._floor,
            shelf=shelf,
            place=place,
            threads=self._threads,
        )

    def _prepared(self) -> Future[Table]:
        """An empty table, all of its memory there: a first look at it takes a hundred decisions."""
        if self._spare is None:
            self._spare = self._threads.submit(
                lambda: Table(self._table_ids, horizon=self._horizon).cleared()
            )
        return self._spare

    def _take_run(self, *, wait: bool) -> None:
        """Go on with the run of what is set aside, if it is written; `wait` until it is."""
        if self._aside is None:
            return
        run = self._aside.run(wait=wait)
        if run is None:
            return
        self._timeline.replace(self._aside.changes, run)
        self._runs.append(run)
        with self._marking:
            self._unsynced.append(run)
        self._spare = self._threads.submit(self._aside.table.cleared)
        self._aside = None
        self._drop_expired()

    def _place(self) -> tuple[Shelf, int]:
        for shelf in self._shelves:
            place = shelf.free
            if place is not None:
                return shelf, place
        self._shelves.append(Shelf(run_ids=self._table_ids))
        return self._shelves[-1], 0

    def _drop_expired(self) -> None:
        while self._runs and self._runs[0].last_offset < self._floor:
            self._drop(self._runs.pop(0))

    def _drop(self, run: Run) -> None:
        self._timeline.forget(run)
        with self._marking:
            self._unsynced = [held for held in self._unsynced if held is not run]
        for shelf in self._shelves:
            shelf.drop(run)

    def close(self) -> None:
        """Close the run files; closing twice is fine."""
        with suppress(StorageFullError):
            self._take_run(wait=True)
        self._aside = None
        self._threads.shutdown()
        while self._runs:
            self._drop(self._runs.pop())

    @property
    def is_writing(self) -> bool:
        """Whether a run is being written, which a copy would have to wait for."""
        return self._aside is not None and self._aside.is_writing

    def copy(self) -> Copied:
        """The ids as they are now, for a snapshot; the same after the same records.

        What takes long is left to who writes it. It names the runs and has the ids in memory.
        Raises: StorageFullError; ValueError while an `update` that failed is unfinished.
        """
        if self._unfinished is not None:
            raise ValueError("the last update failed: repeat it before taking a snapshot")
        self._take_run(wait=True)
        changes = self._timeline.changes
        head = Head(
            key_check=_key_check(self._key),
            horizon=self._horizon,
            table_ids=self._table_ids,
            mask=self._mask,
            now=self._now,
            last=self._last,
            accepted=self._table.accepted,
            runs=[run.name for run in self._runs],
        )
        with self._marking:
            room, self._room = self._room, None
        if room is None:
            room = zeros(self._table_ids, 2)
        return Copied(
            head,
            pairs=self._table.live(self._floor, room=room),
            changes=changes[np.searchsorted(changes[:, 1], self._target) :].copy(),
            sync=partial(self._sync, list(self._unsynced)),
            done=partial(self._take_back, room),
        )

    def snapshot(self) -> bytes:
        """What `restore` needs to go on from here, about 8 bytes for an id in memory.

        Raises: as `copy`.
        """
        return self.copy().written()

    def _make_room(self) -> None:
        """Have room for a copy, all of its memory there: that takes longer than to copy."""
        room = zeros(self._table_ids, 2)
        room.fill(0)
        self._take_back(room)

    def _take_back(self, room: Words) -> None:
        """Keep the room of a copy for the next one."""
        with self._marking:
            self._room = room

    def _sync(self, runs: Sequence[Run]) -> None:
        """Make runs durable; called by the thread that writes a snapshot."""
        if runs:
            sync_runs(self._folder, [run.name.name for run in runs])
            with self._marking:
                self._unsynced = [u for u in self._unsynced if all(u is not run for run in runs)]

    @classmethod
    def restore(
        cls, data: bytes, folder: Path, *, horizon: int, key: bytes, lookup: Lookup
    ) -> Self:
        """One that goes on where `snapshot` was taken; arguments as for `open`.

        Raises: DamageError if the snapshot or a run that it names is missing, torn or corrupted
        (the message names the file), or was made with another horizon or key: then use an older
        one, or read the log again from further back.
        """
        warm_up()
        held = read(data)
        self = cls(folder, horizon=horizon, key=key, lookup=lookup)
        if (held.horizon, held.key_check) != (horizon, _key_check(self._key)):
            raise DamageError("the dedupe snapshot was made with another horizon or key")
        self._begin(held.table_ids)
        try:
            self._restore(held)
        except BaseException:
            self.close()
            raise
        return self

    def _restore(self, held: Held) -> None:
        self._mask, self._now, self._last = held.mask, held.now, held.last
        for name in held.runs:
            shelf, place = self._place()
            self._runs.append(open_run(self._folder, name, shelf=shelf, place=place))
        pairs = np.empty((held.ids, 2), dtype=np.uint64)
        pairs[:, 0] = np.frombuffer(held.fingerprints, dtype="<u8")
        pairs[:, 1] = unpacked(held.offsets, held.ids)
        self._table.refill(pairs)
        self._table.accepted = held.accepted
        changes = [unpacked(b, held.changes) for b in (held.change_offsets, held.change_times)]
        self._timeline.restore(self._runs, np.column_stack(changes))
        self._target = self._now - self._horizon
        self._floor = int(self._timeline.floors(np.array([self._target]))[0])

    def prune(self, keep: Iterable[str]) -> None:
        """Delete the run files that this object does not refer to, but for those named in `keep`.

        What kept snapshots refer to is to be kept; see `run_names`.
        """
        wanted = {run.name.name for run in self._runs} | set(keep)
        for path in (*self._folder.glob("*.run"), *self._folder.glob("*.tmp")):
            if path.name not in wanted:
                path.unlink(missing_ok=True)


def _key_check(key: Words) -> int:
    return int(hash_strings(*buffers(pa.array(["tidegate dedupe"])), key=key)[0])


def _check_shape(count: int, offsets: Integers, times: Integers, *, above: int) -> None:
    if offsets.shape != (count,) or times.shape != (count,):
        raise ValueError(f"{count} ids, {offsets.shape} offsets, {times.shape} ingest times")
    if count and (offsets[0] <= above or np.count_nonzero(offsets[1:] <= offsets[:-1])):
        raise ValueError(f"offsets ascend and lie above {above}; saw {offsets[0]} first")


def _resume(batch: _Batch, unfinished: _Batch) -> _Batch:
    done = unfinished.done
    rows, earlier = batch.rows, unfinished.rows
    if not np.array_equal(rows.offsets[:done], earlier.offsets[:done]):
        raise ValueError("the last update failed: repeat it with the same records")
    batch.done = done
    rows.firsts[:done] = earlier.firsts[:done]
    return batch
