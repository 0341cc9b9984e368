"""The memory of a shard, in three segments: grown, compacted, copied and filled."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.features.compaction import relocate, settle
from tidegate.features.keys import rebuild_table
from tidegate.features.layout import DISTINCTS, FRONTIER, NEVER, RUN, TEXTS, Layout
from tidegate.features.memory import (
    CLASSES,
    COPIES,
    COPY_DONE,
    COPY_END,
    COPY_NEXT,
    FREE,
    HEAP,
    HEAP_MAX,
    HEAP_TOP,
    HEAP_USED,
    KEPT,
    KEPT_TOP,
    NEED,
    RECORDS,
    RECORDS_MAX,
    RECORDS_USED,
    ROWS,
    TABLE,
    TABLE_BITS,
    Segment,
    Words,
)
from tidegate.features.packing import KEPT_RECORD, PART, pack
from tidegate.features.shards import HEAP_FULL, TABLE_FULL
from tidegate.features.snapshot import Part
from tidegate.features.unpacking import unpack

_BITS = 6
_HEAP_WORDS = 512
_GROWN_WORDS = 1 << 16  # at least, once a segment grows: pages that are not written cost nothing


class Shard:
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
        """Tell the kernels where the segments lie and how much fits them."""
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
