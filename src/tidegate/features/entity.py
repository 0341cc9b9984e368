"""The state of one entity: the rows and running aggregates of each of its keys.

Keys are spread over shards by a seeded hash. A shard's state lies in three segments of memory:
records of keys, the table that finds them, and a heap of rows, texts and tables of values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tidegate.events.fingerprints import Integers, read_key
from tidegate.features.amend import FOUND, amend
from tidegate.features.batch import (
    ALONE,
    NO_BYTES,
    NOTHING,
    SHARDS,
    Batch,
    Found,
    Reader,
    Scratch,
    Writer,
)
from tidegate.features.compaction import relocate, settle
from tidegate.features.intake import name_keys
from tidegate.features.keys import rebuild_table
from tidegate.features.layout import (
    DISTINCTS,
    FRONTIER,
    NEVER,
    PLAIN,
    RUN,
    SPAN,
    TEXTS,
    Layout,
    lay_out,
    offset_word,
    words_of,
)
from tidegate.features.memory import (
    CLASSES,
    COPIES,
    COPY_DONE,
    COPY_END,
    COPY_NEXT,
    DIRECTORY,
    FREE,
    HEAP,
    HEAP_MAX,
    HEAP_TOP,
    HEAP_USED,
    KEPT,
    KEPT_TOP,
    KEYS,
    NEED,
    RECORDS,
    RECORDS_MAX,
    RECORDS_USED,
    ROWS,
    TABLE,
    TABLE_BITS,
    Segment,
    Words,
    compile_kernels,
)
from tidegate.features.packing import KEPT_RECORD, PART, pack
from tidegate.features.plan import EntityPlan
from tidegate.features.shards import (
    HEAP_FULL,
    READING,
    TABLE_FULL,
    WRITING,
    advance,
    gaze,
    sweep,
)
from tidegate.features.snapshot import Part, SnapshotJob, mark_of, read_shards
from tidegate.features.threads import Threads
from tidegate.features.unpacking import unpack
from tidegate.sql.columns import Bytes, Columns, array_of, place_of
from tidegate.sql.expression import Evaluated

Secret: TypeAlias = bytes  # in a class that has a property of that name

_PASS = 1 << 18  # rows taken at once: many, so that keys are met more than once in a pass
_BITS = 6
_HEAP_WORDS = 512
_GROWN_WORDS = 1 << 16  # at least, once a segment grows: pages that are not written cost nothing
_SPARSE_WORDS = 4096  # less is not worth moving
_PIECE_WORDS = 1 << 17  # of a snapshot: what updates may wait for while it is copied
_OFTEN = 1024  # rows between looks at how sparse shards are


class _Shard:
    """The segments of a shard, and their addresses in its row of the directory."""

    def __init__(self, facts: Words, record: int, *, lasting: bool) -> None:
        self.facts, self.record, self.lasting = facts, record, lasting
        self.table = self._segment(1 << _BITS)
        self.records = self._segment(16 * record)
        self.heap = self._segment(_HEAP_WORDS)
        facts[:] = 0
        facts[TABLE_BITS] = _BITS
        facts[RECORDS_USED] = facts[HEAP_TOP] = 1  # 0 stands for none
        self.records.words[RUN] = -1
        self.records.words[FRONTIER] = NEVER
        self.look()

    def _segment(self, words: int) -> Segment:
        return Segment(words, large=self.lasting)

    def look(self) -> None:
        facts = self.facts
        facts[TABLE], facts[RECORDS] = self.table.address, self.records.address
        facts[HEAP], facts[HEAP_MAX] = self.heap.address, len(self.heap.words)
        facts[RECORDS_MAX] = min(len(self.records.words) // self.record, 1 << 31)

    def grow(self, why: int) -> None:
        """Make the room for whose lack a kernel stopped."""
        if why == HEAP_FULL:
            self.heap.grow(max(_GROWN_WORDS, int(self.facts[HEAP_TOP] + self.facts[NEED])))
        elif why == TABLE_FULL:
            bits = int(self.facts[TABLE_BITS]) + 1
            larger = self._segment(1 << bits)
            rebuild_table(self.table.words, bits, larger.words, self.facts)
            self.table, self.facts[TABLE_BITS] = larger, bits
        else:
            self.records.grow(max(_GROWN_WORDS, len(self.records.words) + 16 * self.record))
        self.look()

    def compact(self, layout: Layout) -> None:
        """Move what is held to a heap without gaps; results given before must have been read."""
        facts, old = self.facts, self.heap
        settle(facts)
        self.heap = self._segment(int(facts[HEAP_USED]) + _HEAP_WORDS)
        facts[HEAP_TOP], facts[HEAP_USED] = 1, 0
        facts[FREE : FREE + CLASSES] = 0
        self.look()
        relocate(facts, layout.program, old.address)

    def begin_copy(self, layout: Layout) -> None:
        """Have the state as it is now copied by `copy_next`, whatever changes from here on."""
        facts, used = self.facts, int(self.facts[RECORDS_USED])
        texts = int(facts[ROWS] * layout.program[TEXTS])
        self.copies = Segment(used)
        # Room for all keys to change before they are copied, row by row; what is not written costs
        # nothing.
        apart = used * (self.record + KEPT_RECORD) + int(facts[ROWS]) * PART
        self.kept = Segment(1 + apart + int(facts[HEAP_TOP]) + texts)
        facts[COPIES], facts[KEPT], facts[KEPT_TOP] = self.copies.address, self.kept.address, 1
        facts[COPY_NEXT], facts[COPY_END] = self.record, used * self.record
        facts[COPY_DONE] = 0

    @property
    def kept_words(self) -> int:
        """Words of the keys that changed before they were copied."""
        return max(0, int(self.facts[KEPT_TOP]) - 1)

    def copy_next(self, layout: Layout, piece: Words) -> Words | None:
        """A piece more of the copy, in `piece` if it has room for any, None when that is all."""
        size = pack(self.facts, layout.program, piece)
        if size < 0:
            piece = Segment(-size).words  # large pages are quicker to fill
            size = pack(self.facts, layout.program, piece)
        if size > 0:
            return piece[:size]
        self.facts[[COPY_NEXT, COPY_END, COPY_DONE, KEPT_TOP]] = 0
        del self.copies, self.kept
        return None

    def fill(self, keys: int, parts: Sequence[Part], *, layout: Layout) -> None:
        """Take in what a snapshot has of this shard, which is empty."""
        words = sum(len(data) for _, data in parts)
        bits = max(_BITS, (2 * keys).bit_length())
        self.table, self.facts[TABLE_BITS] = self._segment(1 << bits), bits
        self.records.grow((keys + 1) * self.record)
        # More than can be needed; what is not written costs nothing.
        tables = int(layout.program[DISTINCTS])
        rows = words // layout.width
        self.heap.grow(_HEAP_WORDS + 4 * words + 64 * keys + tables * (64 * rows + 1024 * keys))
        self.look()
        for _, data in parts:
            unpack(self.facts, layout.program, data)

    @property
    def bytes(self) -> int:
        """Memory in use, without the parts of segments that nothing has reached yet."""
        words = (1 << int(self.facts[TABLE_BITS])) + int(self.facts[HEAP_TOP])
        return 8 * (words + int(self.facts[RECORDS_USED]) * self.record)


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
        self._shards = [_Shard(facts, record, lasting=lasting) for facts in self._directory]
        self._threads = Threads(threads)
        self._reader = Reader(self._layout, Scratch(self._layout.width, len(plan.calls)))
        self._writer = Writer(self._layout)
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

    def update(
        self, events: pa.RecordBatch, *, times: Integers, newest: Integers
    ) -> list[Evaluated]:
        """Take in a batch of events; gives what each call is for each of them, in order of calls.

        `times` is the event time of each row, `newest` the greatest event time of the stream up to
        and with it; int64 microseconds, shape (n,).
        """
        found = self.take(Columns(events), times=times, newest=newest)
        return [Evaluated(array_of(values), errors) for values, errors in found]

    def take(self, columns: Columns, *, times: Integers, newest: Integers) -> list[Found]:
        """As `update`, from columns that may not be in a batch yet; the results are written once.

        What comes out may be read by kernels before it is made arrays of.
        """
        n = columns.rows
        if n <= _PASS:
            return self._take(columns, times, newest)
        parts = [
            self._take(columns.within(i, _PASS), times[i : i + _PASS], newest[i : i + _PASS])
            for i in range(0, n, _PASS)
        ]
        return [_joined(results) for results in zip(*parts, strict=True)]

    def _take(self, columns: Columns, times: Integers, newest: Integers) -> list[Found]:
        n = columns.rows
        if n == 0:
            return self._writer.empty()
        if n <= ALONE:
            return self._take_few(self._reader.begin(columns, times, newest))
        batch = self._reader.read(columns, times, newest, self._threads.run)
        self._threads.run(lambda first, last: self._reader.load(batch, first, last), n)
        with self._lock:
            self._threads.run(lambda first, last: self._advance(first, last, batch), SHARDS)
            results = self._writer.write(batch, self._directory, self._threads.run)
            self._compact(n)
            return results

    def _take_few(self, batch: Batch) -> list[Found]:
        """Rows that are not worth several calls: one kernel reads, takes in and writes."""
        slab, words = self._writer.begin(batch.n)
        with self._lock:
            self._advance(0, SHARDS, batch, READING | WRITING, words, slab.memory)
            results = self._writer.end(batch, slab, words, self._directory)
            self._compact(batch.n)
            return results

    def _compact(self, n: int) -> None:
        """Now and then, compact the shards that are sparse; one at a time where events are few."""
        self._since += n
        if self._since < _OFTEN:
            return
        self._since = 0
        sparse = self._sparse()[: None if n > ALONE else 1]
        if not sparse:
            return

        def compact(first: int, last: int) -> None:
            for shard in sparse[first:last]:
                shard.compact(self._layout)

        self._threads.run(compact, len(sparse), wide=len(sparse) > 1)

    def _sparse(self) -> list[_Shard]:
        """The shards much of whose heap lies in blocks that are free."""
        top, used = self._directory[:, HEAP_TOP], self._directory[:, HEAP_USED]
        return [
            self._shards[s] for s in np.flatnonzero((top > _SPARSE_WORDS) & (2 * top > 3 * used))
        ]

    def peek(self, keys: pa.RecordBatch, *, time: int, newest: int) -> list[Evaluated]:
        """What each call would give for each key at `time`, without an event; changes nothing.

        `keys` has the key columns of the plan. A frame that ends at the current row has none.
        """
        if not len(keys):
            return [Evaluated(array_of(values), {}) for values, _ in self._writer.empty()]
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
            found = self._writer.write(batch, self._directory, self._threads.run)
        return [Evaluated(array_of(values), errors) for values, errors in found]

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

    def _advance(
        self,
        first: int,
        last: int,
        batch: Batch,
        steps: int = 0,
        words: Words = NOTHING,
        slab: Bytes = NO_BYTES,
    ) -> None:
        """Take the rows of the shards [first, last) in, and do what `steps` says besides."""
        reader = self._reader
        while True:
            stopped = advance(
                self._directory,
                self._layout.program,
                batch.chart,
                reader.described,
                reader.slots,
                reader.places,
                reader.shape,
                batch.times,
                batch.newest,
                words,
                slab,
                first,
                last,
                steps,
            )
            if stopped < 0:
                return
            first, steps = stopped >> 2, steps & WRITING  # what is read stays so
            self._shards[first].grow(stopped & 3)


def _joined(parts: Sequence[Found]) -> Found:
    errors: dict[int, str] = {}
    for i, (_, wrong) in enumerate(parts):
        errors.update({row + i * _PASS: why for row, why in wrong.items()})
    return pa.concat_arrays([array_of(values) for values, _ in parts]), errors
