"""The state of one entity: the rows and running aggregates of each of its keys.

Keys are spread over shards by a seeded hash. A shard's state lies in three segments of memory:
records of keys, the table that finds them, and a heap of rows, texts and tables of values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tidegate.events.fingerprints import Integers, read_key
from tidegate.features.amend import FOUND, amend
from tidegate.features.batch import (
    ALONE,
    SHARDS,
    Reader,
    Results,
    Writer,
)
from tidegate.features.compaction import next_sparse
from tidegate.features.intake import name_keys
from tidegate.features.joint import Joint, Member, Passed
from tidegate.features.layout import (
    PLAIN,
    SPAN,
    lay_out,
    offset_word,
    words_of,
)
from tidegate.features.memory import (
    DIRECTORY,
    KEYS,
    ROWS,
    Words,
    compile_kernels,
)
from tidegate.features.plan import EntityPlan
from tidegate.features.segments import Shard
from tidegate.features.shards import (
    READING,
    WRITING,
    advance,
    gaze,
    sweep,
)
from tidegate.features.snapshot import Part, SnapshotJob, mark_of, read_shards
from tidegate.features.threads import Threads
from tidegate.sql.columns import Columns, array_of, place_of
from tidegate.sql.expression import Evaluated

Secret: TypeAlias = bytes  # in a class that has a property of that name

_PASS = 1 << 18  # rows taken at once: many, so that keys are met more than once in a pass
_PIECE_WORDS = 1 << 17  # of a snapshot: what updates may wait for while it is copied
_OFTEN = 1024  # rows between looks at how sparse shards are


class EntityState:
    """All that the calls of one entity need to know of the past; a batch goes in, results come out.

    One thread at a time may call it. `key` is 16 secret bytes that seed all hashing: who does not
    know them cannot choose keys or values that collide. What comes out never depends on them, on
    `threads`, nor on how the stream was cut into batches. One that is `lasting` is laid out for
    events that come a few at a time, else for a stretch of history that is gone through once.
    Raises: ValueError if `key` is not 16 bytes long.
    """

    def __init__(
        self, plan: EntityPlan, *, key: bytes, threads: int = 1, lasting: bool = True
    ) -> None:
        compile_kernels()
        self.plan = plan
        words = read_key(key).view(np.int64)
        self._layout = lay_out(plan, (int(words[0]), int(words[1])))
        self._directory = np.zeros((SHARDS, DIRECTORY), dtype=np.int64)
        record = self._layout.record
        self._shards = [Shard(facts, record, lasting=lasting) for facts in self._directory]
        self._threads = Threads(threads)
        self._writer = Writer(self._layout)
        self._reader = Reader(self._layout, self._directory)
        self._joint = join([self])
        self._job: SnapshotJob | None = None
        self._lock = Lock()
        self._since = 0

    @property
    def keys(self) -> int:
        """Keys that are held."""
        return int(self._directory[:, KEYS].sum())

    @property
    def rows(self) -> int:
        """Rows that are held, over all keys."""
        return int(self._directory[:, ROWS].sum())

    @property
    def bytes(self) -> int:
        """Memory of all keys and rows."""
        return sum(s.bytes for s in self._shards)

    @property
    def kept_bytes(self) -> int:
        """Memory of what changed since a snapshot began that does not have it yet."""
        return 8 * sum(shard.kept_words for shard in self._shards)

    @property
    def bytes_per_row(self) -> int:
        """Memory of a stored row, before what blocks leave free (a fifth on average)."""
        return 8 * self._layout.width

    @property
    def bytes_per_key(self) -> int:
        """Memory of a key, rows apart; its entry in the table counted at half full."""
        return 8 * self._layout.record + 16

    def fill(self, words: Mapping[int, int]) -> None:
        """Have words stand for the nulls of some calls, by their numbers.

        Their values are one word each: whole numbers, doubles by their bits, or microseconds.
        """
        self._writer.fill(words)
        self._reader.forget()

    def update(
        self, events: pa.RecordBatch, *, times: Integers, newest: Integers
    ) -> list[Evaluated]:
        """Take in a batch of events; gives what each call is for each of them, in order of calls.

        `times` is the event time of each row, `newest` the greatest event time of the stream up to
        and with it; int64 microseconds, shape (n,).
        """
        taken = self.take(Columns(events), times=times, newest=newest)
        return [Evaluated(array_of(values), errors) for values, errors in taken.found()]

    def take(self, columns: Columns, *, times: Integers, newest: Integers) -> Results:
        """As `update`, from columns that may not be in a batch yet; the results are written once.

        What comes out may be read by kernels before it is made arrays of.
        """
        n = columns.rows
        if n <= ALONE:
            return take_together([self], self._joint, columns, times=times, newest=newest)[0]
        if n <= _PASS:
            return self._take(columns, times, newest)
        parts = [
            self._take(columns.within(i, _PASS), times[i : i + _PASS], newest[i : i + _PASS])
            for i in range(0, n, _PASS)
        ]
        return _joined(parts)

    def _take(self, columns: Columns, times: Integers, newest: Integers) -> Results:
        n, wide = columns.rows, columns.rows > ALONE
        batch = self._reader.read(columns, times, newest, self._threads.run)
        charts: Words = np.array([batch.charted], dtype=np.int64)

        def load(first: int, last: int) -> None:
            self._reader.load(batch, first, last)

        def advance_shards(first: int, last: int) -> None:
            _advance([self], charts, batch.times, batch.newest, first, last)

        self._threads.run(load, n, wide=wide)
        with self._lock:
            self._threads.run(advance_shards, SHARDS, wide=wide)
            results = self._writer.write(batch, self._directory, self._threads.run)
            self._compact(n)
            return results

    def _compact(self, n: int) -> None:
        """Now and then, compact the shards that are sparse; one at a time where events are few."""
        self._since += n
        if self._since < _OFTEN:
            return
        self._since = 0
        sparse = list[Shard]()
        s = next_sparse(self._directory, 0)
        while s < SHARDS:
            sparse.append(self._shards[s])
            s = next_sparse(self._directory, s + 1) if n > ALONE else SHARDS
        if not sparse:
            return

        def compact(first: int, last: int) -> None:
            for shard in sparse[first:last]:
                shard.compact(self._layout)

        self._threads.run(compact, len(sparse), wide=len(sparse) > 1)

    def peek(self, keys: pa.RecordBatch, *, time: int, newest: int) -> list[Evaluated]:
        """What each call would give for each key at `time`, without an event; changes nothing.

        `keys` has the key columns of the plan. A frame that ends at the current row has none.
        """
        if not len(keys):
            return [Evaluated(array_of(values), {}) for values in self._writer.empty().columns]
        batch = self._reader.names(Columns(keys))
        horizon = newest - int(self._layout.program[SPAN])
        with self._lock:
            while True:
                stopped = gaze(
                    self._directory,
                    self._layout.program,
                    batch.ids,
                    time,
                    horizon,
                    batch.out,
                    batch.status,
                    batch.n,
                )
                if stopped < 0:
                    break
                self._shards[stopped >> 2].grow(stopped & 3)
            results = self._writer.write(batch, self._directory, self._threads.run)
        return [Evaluated(array_of(values), errors) for values, errors in results.found()]

    def amend(self, events: pa.RecordBatch, *, times: Integers, changed: Collection[str]) -> int:
        """Let rows that are kept have other values in the columns `changed`; gives how many do.

        The rows are found by the keys, the times and the log offsets in `events`, which has all
        columns of the plan; they are corrected in that order. Rows that are freed stay so.
        """
        n = len(events)
        if n == 0:
            return 0
        batch = self._reader.read(Columns(events), times, times, self._threads.run)
        self._reader.load(batch, 0, n)
        bits, progress = words_of(self._layout, changed), np.zeros(2, dtype=np.int64)
        word = offset_word(self._layout)
        given = (self._layout.program, batch.rows, batch.ids, batch.order, self._reader.texts)
        with self._lock:
            while True:
                stopped = amend(self._directory, *given, batch.times, bits, word, n, progress)
                if stopped < 0:
                    return int(progress[FOUND])
                self._shards[stopped >> 2].grow(stopped & 3)

    def expire(self, newest: int) -> None:
        """Free all keys that no window can reach once the stream's newest event is at `newest`.

        Updates free them as well, two for each event; this is for a stream that stands still.
        """
        horizon = newest - int(self._layout.program[SPAN])
        with self._lock:
            self._threads.run(
                lambda a, b: sweep(self._directory, a, b, self._layout.program, horizon),
                SHARDS,
                wide=self.keys > ALONE,
            )
            self._since = _OFTEN
            self._compact(ALONE + 1)

    def begin_snapshot(self) -> SnapshotJob:
        """A snapshot of the state as it is now, to be copied while updates go on.

        Raises: RuntimeError if one that was begun before is not copied yet.
        """
        with self._lock:
            if self._job is not None and not self._job.done:
                raise RuntimeError("a snapshot of these windows is being taken already")
            for shard in self._shards:
                shard.begin_copy(self._layout)
            self._job = SnapshotJob(
                keys=self._directory[:, KEYS].tolist(),
                marks=self._marks,
                piece=lambda: np.full(_PIECE_WORDS, 0, dtype=np.int64),
                copy=lambda s, piece: self._shards[s].copy_next(self._layout, piece),
                lock=self._lock,
            )
            return self._job

    def snapshot(self) -> Iterator[memoryview]:
        """The state as bytes, to be written in this order; only what is live."""
        return self.begin_snapshot().buffers()

    @classmethod
    def restore(
        cls,
        plan: EntityPlan,
        buffers: Iterable[Any],
        *,
        key: Secret,
        threads: int = 1,
        lasting: bool = True,
    ) -> EntityState:
        """The state that a snapshot was taken of, to the bit.

        The buffers may be cut differently from how they were given.
        Raises: DamageError if they are no snapshot, or not one of this plan and key.
        """
        state = cls(plan, key=key, threads=threads, lasting=lasting)
        state._fill(read_shards(buffers, marks=state._marks, shards=SHARDS))
        return state

    def _fill(self, shards: Iterator[tuple[int, list[Part]]]) -> None:
        """Fill the shards while those after them are read."""
        underway: deque[Future[None]] = deque()
        for shard, (keys, parts) in zip(self._shards, shards, strict=True):
            underway.append(self._threads.begin(shard.fill, keys, parts, layout=self._layout))
            if len(underway) > self._threads.count:
                underway.popleft().result()
        for filling in underway:
            filling.result()

    @property
    def _marks(self) -> tuple[int, int]:
        program = self._layout.program
        batch = pa.record_batch([pa.array([0], pa.int64())], names=["mark"])
        named = np.empty(3, dtype=np.int64)
        described = np.array([PLAIN, *place_of(batch.column(0))], dtype=np.int64)
        name_keys(described, program, 1, 0, 1, named)
        return mark_of(self.plan), int(named[2]) & (2**63 - 1)


def join(
    states: Sequence[EntityState],
    names: Sequence[str] | None = None,
    places: Words | None = None,
) -> Joint:
    """What states need for `take_together`, as long as they fill nulls with the same words.

    For `take_found` others see to the `places` of columns of these `names`.
    """
    return Joint([Member(s._reader, s._writer, s._directory) for s in states], names, places)


def take_together(
    states: Sequence[EntityState],
    joint: Joint,
    columns: Columns,
    *,
    times: Integers,
    newest: Integers,
) -> list[Results]:
    """What `take` gives of each state, for at most `ALONE` rows: one kernel does all of it.

    Each call of a kernel costs as much as some rows, and while it takes rows of one state in it
    asks for the memory of the next. `joint` is of these states.
    """
    if not columns.rows:
        return [state._writer.empty() for state in states]
    joint.find(columns)
    return joint.results(take_found(states, joint, columns.rows, times=times, newest=newest))


def take_found(
    states: Sequence[EntityState], joint: Joint, rows: int, *, times: Integers, newest: Integers
) -> Passed:
    """As `take_together`, of columns whose places are known; there are some rows."""
    charts, slab = joint.begin(rows)
    since, latest = np.ascontiguousarray(times), np.ascontiguousarray(newest)
    for state in states:
        state._lock.acquire()
    try:
        _advance(states, charts, since, latest, 0, SHARDS, READING | WRITING)
        passed = joint.end(slab)
        for state in states:
            state._compact(rows)
        return passed
    finally:
        for state in states:
            state._lock.release()


def _advance(
    states: Sequence[EntityState],
    charts: Words,
    times: Integers,
    newest: Integers,
    first: int,
    last: int,
    steps: int = 0,
) -> None:
    """Take the rows of the shards [first, last) in, and do what `steps` says besides."""
    entity = 0
    while True:
        stopped = advance(charts, times, newest, entity, SHARDS, first, last, steps)
        if stopped < 0:
            return
        # What is read stays so, and what comes before the shard is done.
        entity, first, steps = stopped >> 16, (stopped & 0xFFFF) >> 2, steps & WRITING
        states[entity]._shards[first].grow(stopped & 3)


def _joined(parts: Sequence[Results]) -> Results:
    """The results of passes, one behind the other."""
    errors: dict[int, dict[int, str]] = {}
    for i, part in enumerate(parts):
        for c, wrong in part.errors.items():
            rows = errors.setdefault(c, {})
            rows.update({row + i * _PASS: why for row, why in wrong.items()})
    columns = zip(*(part.columns for part in parts), strict=True)
    return Results([pa.concat_arrays(list(map(array_of, each))) for each in columns], errors)
