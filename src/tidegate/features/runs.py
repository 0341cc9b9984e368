"""A run: rows of one key in order of time, stored and taken through all frames."""

from __future__ import annotations

import numpy as np

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import operation
from tidegate.features.aggregates import run_any
from tidegate.features.columns import DESCRIPTION, is_null, text_of
from tidegate.features.history import Rows, at, make_room, rows_of, trim
from tidegate.features.inputs import Batch, Run
from tidegate.features.layout import (
    A_KIND,
    ACCUMULATOR,
    ACCUMULATORS_AT,
    BASE,
    CALLS,
    COUNT,
    F_END,
    F_EXCLUDE,
    F_FIRST,
    F_LAST,
    F_ROWS,
    F_START,
    FRAME,
    FRAMES,
    FRAMES_AT,
    FRONTIER,
    HEADER,
    LAG,
    LAGS,
    LAGS_AT,
    LOOK_BACK,
    R_LAG_EXISTS,
    TEXTS,
    TEXTS_AT,
)
from tidegate.features.memory import ROWS, Words, allocate, bytes_at, unfolded, words_at
from tidegate.features.packing import guard_rows, spared


@unfolded
def _append(shard: Words, program: Words, records: Words, r: int, batch: Batch, run: Run) -> None:
    """Store the rows that `run` lists behind those kept; there is room for them."""
    rows = rows_of(shard, program, records, r)
    p = records[r + BASE] + records[r + COUNT]
    for x in range(run.size):
        put(rows, at(rows, p + x), batch, run.of[x])
    records[r + COUNT] += run.size
    shard[ROWS] += run.size


@unfolded
def put(rows: Rows, there: int, batch: Batch, k: int) -> None:
    """Write row k of the batch to a place in the heap, its texts to blocks of their own."""
    heap, program, width = rows.heap, rows.program, rows.width
    for w in range(width):
        heap[there + w] = batch.rows[k * width + w]
    for t in range(program[TEXTS]):
        w = program[program[TEXTS_AT] + t]
        heap[there + w] = keep_text(rows, batch.texts, t * DESCRIPTION, heap[there + w])


@inline
def keep_text(rows: Rows, texts: Words, c: int, i: int) -> int:
    """A block `link, bytes, text` with the text of row i, 0 for null."""
    if is_null(texts, c, i):
        return 0
    start, size = text_of(texts, c, i)
    heap, whole = rows.heap, (size + 7) >> 3
    place = allocate(rows.shard, 2 + whole)
    heap[place + 1] = size
    for k in range(size >> 3):
        heap[place + 2 + k] = words_at(start + 8 * k)[0]
    _tail(heap, place + 1 + whole, start, size)
    return place


@inline
def _tail(heap: Words, place: int, start: int, size: int) -> None:
    """The bytes after the last whole word, read one by one: none may be read behind the text."""
    rest = size & 7
    if rest > 0:
        word = np.int64(0)
        source = bytes_at(start + size - rest)
        for k in range(rest):
            word |= np.int64(source[k]) << (8 * k)
        heap[place] = word


@unfolded
def _range_ends(
    rows: Rows, program: Words, f: int, p: int, batch: Batch, run: Run, s: int, e: int
) -> None:
    """For each row of a run, numbered from p on, where its RANGE frame starts and ends."""
    heap, start, end = rows.heap, program[f + F_START], program[f + F_END]
    exclude = program[f + F_EXCLUDE]
    if rows.chunked == 0:
        _block_ends(rows, (start, end, exclude), p, batch, run, s, e)
        return
    for x in range(run.size):
        own = p + x
        time = heap[at(rows, own)]
        lower, upper = max(time - start, batch.horizons[run.of[x]]), time - end
        while s < own and heap[at(rows, s)] < lower:
            s += 1
        e = max(s, e)
        if end == 0:
            e = own + 1
        else:
            while e <= own and heap[at(rows, e)] <= upper:
                e += 1
        if exclude and e > own:
            e = own
        run.starts[x], run.ends[x] = s, e


@unfolded
def _block_ends(
    rows: Rows, frame: tuple[int, int, int], p: int, batch: Batch, run: Run, s: int, e: int
) -> None:
    """The same where the rows lie in one block: where they do is stepped along, not worked out."""
    heap, width, (start, end, exclude) = rows.heap, rows.width, frame
    zero = rows.block - rows.origin * width
    own, first, last = zero + p * width, zero + s * width, zero + e * width
    horizons, of, starts, ends = batch.horizons, run.of, run.starts, run.ends
    for x in range(run.size):
        time = heap[own]
        lower, upper = max(time - start, horizons[of[x]]), time - end
        while first < own and heap[first] < lower:
            first += width
            s += 1
        if end == 0:
            ends[x] = p + x + 1 - exclude
        else:
            if e < s:
                e, last = s, first
            while last <= own and heap[last] <= upper:
                last += width
                e += 1
            if exclude and last > own:
                e, last = p + x, own
            ends[x] = e
        starts[x] = s
        own += width


@inline
def _rows_ends(rows: Rows, program: Words, f: int, p: int, batch: Batch, run: Run, s: int) -> None:
    """For each row of a run, numbered from p on, where its ROWS frame starts and ends."""
    heap, start, end = rows.heap, program[f + F_START], program[f + F_END]
    exclude, look_back = program[f + F_EXCLUDE], program[LOOK_BACK]
    for x in range(run.size):
        own = p + x
        lower = max(heap[at(rows, own)] - look_back, batch.horizons[run.of[x]])
        s = max(s, own - start)
        while s < own and heap[at(rows, s)] < lower:
            s += 1
        e = own - end + 1
        if exclude and e > own:
            e = own
        run.starts[x], run.ends[x] = s, max(s, e)


@inline
def read_lags(
    rows: Rows, program: Words, base: int, own: int, lower: int, batch: Batch, k: int
) -> None:
    """What rows before number `own` give to the LAG calls of row k of the batch."""
    for lag in range(program[LAGS]):
        c = program[LAGS_AT] + LAG * lag
        p = own - program[c + 2]
        row = at(rows, p) if p >= base else 0
        there = p >= base and rows.heap[row] >= lower
        to = k * program[CALLS] + program[c + 1]
        batch.out[to] = 0
        if program[c] == R_LAG_EXISTS:
            batch.out[to], batch.status[to] = (1 if there else 0), 1
        elif there and (rows.heap[row + program[c + 4]] & program[c + 5]) == 0:
            batch.out[to], batch.status[to] = rows.heap[row + program[c + 3]], 1
        else:
            batch.status[to] = 0


@inline
def take_in_order(
    shard: Words, program: Words, records: Words, r: int, batch: Batch, run: Run
) -> None:
    """Take a run of rows, none of them late, through all frames."""
    make_room(shard, program, records, r, run.size)
    p = records[r + BASE] + records[r + COUNT]
    _append(shard, program, records, r, batch, run)
    rows = rows_of(shard, program, records, r)
    least = p + run.size
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
        s, e = records[held], records[held + 1]
        if program[f + F_ROWS]:
            _rows_ends(rows, program, f, p, batch, run, s)
        else:
            _range_ends(rows, program, f, p, batch, run, s, e)
        for number in range(program[f + F_FIRST], program[f + F_LAST]):
            a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
            op = operation(program, a, r)
            kind = program[a + A_KIND]
            run_any(kind, records, rows, op, program, a, s, e, batch, run)
        last = run.size - 1
        records[held], records[held + 1] = run.starts[last], run.ends[last]
        least = min(least, run.starts[last])
    base, look_back = records[r + BASE], program[LOOK_BACK]
    if program[LAGS] > 0:
        for x in range(run.size):
            lower = max(rows.heap[at(rows, p + x)] - look_back, batch.horizons[run.of[x]])
            read_lags(rows, program, base, p + x, lower, batch, run.of[x])
    newest = run.of[run.size - 1]
    records[r + FRONTIER] = rows.heap[at(rows, p + run.size - 1)]
    while base < least and rows.heap[at(rows, base)] < batch.horizons[newest]:
        base += 1
    base = spared(shard, program, r, records[r + BASE], base)
    guard_rows(shard, program, records, r, records[r + BASE], base)
    trim(shard, program, records, r, base)
