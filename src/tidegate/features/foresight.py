"""Memory asked for ahead of its use, so that the waits for it overlap."""

from __future__ import annotations

from typing import Any

from tidegate.events.fingerprints import inline
from tidegate.features.distinct import SHORT, foresee_distinct
from tidegate.features.history import CHUNK_BITS, Rows, at, rows_of
from tidegate.features.inputs import (
    DIRECTORY_AT,
    HORIZONS,
    IDS,
    PROGRAM,
    RESULTS,
    ROWS_AT,
    ROWS_IN,
    WORK,
    Batch,
)
from tidegate.features.keys import home_of
from tidegate.features.layout import (
    BASE,
    CALLS,
    COUNT,
    DISTINCTS,
    DISTINCTS_AT,
    FRAMES,
    HEADER,
    RECORD,
    WIDTH,
)
from tidegate.features.memory import (
    DIRECTORY,
    HEAP,
    RECORDS,
    TABLE,
    TABLE_BITS,
    Words,
    prefetch,
    unfolded,
    words_at,
)

# Rows and keys whose memory is asked for together, ahead of its use: enough for the waits to
# overlap, few enough for all of it to stay near the processor.
TILE = 32
LINE = 64
_LEAVING = 3  # rows that are asked for ahead of their leaving a frame
_TOLD_APART = 2  # of them, those whose values are looked for in tables
NEAR = 2048  # rows
AHEAD = 24  # rows between asking for memory and its use where each row's is known at once


@inline
def foresee_slots(directory: int, shards: int, ids: Words, lo: int, hi: int) -> None:
    """Ask for the slots of the tables in which names [lo, hi), of any shards, have their keys."""
    for k in range(lo, hi):
        hashed = ids[3 * k + 2]
        shard = words_at(directory + 8 * DIRECTORY * (hashed & (shards - 1)))
        prefetch(shard[TABLE] + 8 * home_of(hashed, shard[TABLE_BITS]))


@inline
def _ask(first: int, last: int) -> None:
    """Ask for the memory from an address on to before the last one."""
    for line in range(first, last, LINE):
        prefetch(line)
    prefetch(last - 1)


@inline
def foresee_keys(
    directory: int, shards: int, program: Words, batch: Batch, lo: int, hi: int, words: int
) -> None:
    """Ask for the first words of the records of the keys of rows [lo, hi), of any shards."""
    for k in range(lo, hi):
        prefetch(batch.address + 8 * k * program[WIDTH])
        hashed = batch.ids[3 * k + 2]
        shard = words_at(directory + 8 * DIRECTORY * (hashed & (shards - 1)))
        table, bits = words_at(shard[TABLE]), shard[TABLE_BITS]
        slot = home_of(hashed, bits)
        while table[slot] != 0 and (table[slot] ^ hashed) >> 32 != 0:
            slot = (slot + 1) & ((1 << bits) - 1)
        if table[slot] != 0:
            record = shard[RECORDS] + 8 * (table[slot] & 0xFFFFFFFF) * program[RECORD]
            _ask(record, record + 8 * words)


# Steps of asking for what the groups of a batch need, which go on ahead of the group that is taken
# through its frames: what one asks for tells the next where to look. Many groups go together: the
# code of a step, and what the processor learns from it, would be gone again after a few rows.
# Words of `asked` say up to which place each step is done, then up to which of the listed rows, up
# to which place groups are known, and how many shards there are.
RECORD_STEP, GIVEN_STEP, PLACES_STEP, ROWS_STEP, TABLES_STEP, LISTED, KNOWN, SHARDS = range(8)
ASKED = 8


@inline
def _ask_record(chart: Words, shard: Words, program: Words, r: int, k: int) -> None:
    """Ask for the record at r, and for the first row of its group, k."""
    record, row = shard[RECORDS] + 8 * r, chart[ROWS_AT] + 8 * program[WIDTH] * k
    _ask(record, record + 8 * program[RECORD])
    _ask(row, row + 8 * program[WIDTH])


@inline
def _ask_places(chart: Words, shard: Words, program: Words, r: int, k: int) -> None:
    """Ask for what says where the rows and values of a group lie.

    That is the list of its chunks, and the pair of its first row's value in each table.
    """
    c, count, records = program[DISTINCTS_AT], program[DISTINCTS], words_at(shard[RECORDS])
    rows = rows_of(shard, program, records, r)
    if rows.chunked > 0:
        chunks, base = shard[HEAP] + 8 * rows.block, records[r + BASE] - rows.origin
        prefetch(chunks + 8 * (base >> CHUNK_BITS))
        prefetch(chunks + 8 * ((base + records[r + COUNT]) >> CHUNK_BITS))
        for frame in range(program[FRAMES]):
            s = records[r + HEADER + 2 * frame]
            prefetch(chunks + 8 * ((s - rows.origin) >> CHUNK_BITS))
    given = words_at(chart[ROWS_AT] + 8 * program[WIDTH] * k)
    for d in range(count):
        table = records[r + program[c + d] + 1]
        if table != 0:
            foresee_distinct(rows, table, given[program[c + count + 2 * d]])


@inline
def _ask_rows(chart: Words, shard: Words, program: Words, r: int, k: int) -> None:  # noqa: ARG001 - as all steps
    """Ask for the rows that a group's frames begin with, the oldest, and the next to come.

    Of a frame it is as many as may leave it, and all of them where its values are looked through.
    """
    records, heap = words_at(shard[RECORDS]), shard[HEAP]
    if records[r + COUNT] == 0:
        return
    rows = rows_of(shard, program, records, r)
    base, size = records[r + BASE], 8 * rows.width
    last = base + records[r + COUNT]
    oldest, end = heap + 8 * at(rows, base), heap + 8 * at(rows, last - 1) + 2 * size
    if rows.chunked == 0 and end - oldest <= 16 * LINE:
        _ask(oldest, end)
        return
    _ask(end - size, end)
    _ask(oldest, oldest + _LEAVING * size + 8)
    for frame in range(program[FRAMES]):
        s = records[r + HEADER + 2 * frame]
        if s < last:
            start = heap + 8 * at(rows, s)
            _ask(start, start + _LEAVING * size + 8)
    _ask_short(rows, program, records, r, last, end)


@inline
def _ask_short(rows: Rows, program: Words, records: Words, r: int, last: int, end: int) -> None:
    """Ask for the rows before `last` of frames that are short enough to be looked through."""
    c, count = program[DISTINCTS_AT], program[DISTINCTS]
    for d in range(count):
        s = records[r + HEADER + 2 * program[c + count + 2 * d + 1]]
        if records[r + program[c + d] + 1] == 0 and s < last:
            start = rows.shard[HEAP] + 8 * at(rows, s)
            _ask(start, min(end, start + 8 * SHORT * rows.width))


@inline
def _ask_tables(chart: Words, shard: Words, program: Words, r: int, k: int) -> None:  # noqa: ARG001 - as all steps
    """Ask for the pairs of the values that leave first for a group's rows."""
    records, count, c = words_at(shard[RECORDS]), program[DISTINCTS], program[DISTINCTS_AT]
    for d in range(count):
        table = records[r + program[c + d] + 1]
        if table != 0:
            rows, word = rows_of(shard, program, records, r), program[c + count + 2 * d]
            s = records[r + HEADER + 2 * program[c + count + 2 * d + 1]]
            last = records[r + BASE] + records[r + COUNT] - 1
            for p in range(s, min(s + _TOLD_APART, last)):
                foresee_distinct(rows, table, rows.heap[at(rows, p) + word])


def _step(number: int, ask: Any) -> Any:
    """A step: it asks for what the groups before a place need that it has not asked for yet."""

    @unfolded
    def go(chart: Words, asked: Words, until: int) -> None:
        n, program, ids = chart[ROWS_IN], words_at(chart[PROGRAM]), words_at(chart[IDS])
        firsts, found = words_at(chart[WORK] + 8 * n), words_at(chart[WORK] + 8 * 3 * n)
        until = min(until, asked[KNOWN])
        for g in range(asked[number], until):
            r, k = found[g], firsts[g]
            if r >= 0:
                s = ids[3 * k + 2] & (asked[SHARDS] - 1)
                ask(chart, words_at(chart[DIRECTORY_AT] + 8 * DIRECTORY * s), program, r, k)
        asked[number] = max(asked[number], until)

    return go


_step_records = _step(RECORD_STEP, _ask_record)
_step_places = _step(PLACES_STEP, _ask_places)
_step_rows = _step(ROWS_STEP, _ask_rows)
_step_tables = _step(TABLES_STEP, _ask_tables)


@unfolded
def _step_given(chart: Words, asked: Words, until: int) -> None:
    """Ask for the rows of the batch that the groups before a place have, and their results."""
    n, program = chart[ROWS_IN], words_at(chart[PROGRAM])
    row, results = 8 * program[WIDTH], 8 * program[CALLS]
    ends, found = words_at(chart[WORK] + 8 * 2 * n), words_at(chart[WORK] + 8 * 3 * n)
    listed = words_at(chart[WORK] + 8 * 4 * n)
    until = min(until, asked[KNOWN])
    for g in range(asked[GIVEN_STEP], until):
        if found[g] >= 0:
            for x in range(asked[LISTED], ends[g]):
                k = listed[x]
                prefetch(chart[ROWS_AT] + row * k)
                prefetch(chart[ROWS_AT] + row * (k + 1) - 8)
                prefetch(chart[HORIZONS] + 8 * k)
                for line in range(0, results, LINE):
                    prefetch(chart[RESULTS] + results * k + line)
            asked[LISTED] = ends[g]
    asked[GIVEN_STEP] = max(asked[GIVEN_STEP], until)


@inline
def foresee_span(chart: Words, asked: Words, g: int) -> None:
    """Ask for what all known groups need, but for the values in tables of those from place g on.

    These are known when the rows are here that are asked for now.
    """
    _step_places(chart, asked, asked[KNOWN])
    _step_rows(chart, asked, asked[KNOWN])
    _step_tables(chart, asked, g)


@inline
def foresee_groups(chart: Words, asked: Words, g: int) -> None:
    """Ask for what the groups before place g need, of a batch that is larger than what is near."""
    _step_records(chart, asked, g)
    _step_given(chart, asked, g)
    _step_places(chart, asked, g)
    _step_rows(chart, asked, g)
    _step_tables(chart, asked, g)


@inline
def begin_foresight(asked: Words, g: int, shards: int) -> None:
    """Let nothing be asked for yet of the groups from place g on."""
    for step in range(KNOWN + 1):
        asked[step] = g
    asked[SHARDS] = shards
