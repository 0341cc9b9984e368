"""A run: rows of one key in order of time, stored and taken through all frames."""

from __future__ import annotations

import numpy as np

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import operation
from tidegate.features.aggregates import run_any
from tidegate.features.columns import DESCRIPTION, is_null, text_of
from tidegate.features.distinct import slots_of
from tidegate.features.history import (
    CHUNK,
    CHUNK_BITS,
    Rows,
    at,
    make_room,
    rows_of,
    trim,
    words_of_chunk,
)
from tidegate.features.inputs import Batch, Run
from tidegate.features.layout import (
    A_KIND,
    ACCUMULATOR,
    ACCUMULATORS_AT,
    BASE,
    CALLS,
    CAPACITY,
    COUNT,
    DISTINCTS,
    DISTINCTS_AT,
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
    ORIGIN,
    R_LAG_EXISTS,
    TEXTS,
    TEXTS_AT,
    WIDTH,
)
from tidegate.features.memory import ROWS, Words, allocate, bytes_at, unfolded, words_at
from tidegate.features.packing import guard_rows, spared

_63 = np.uint64(63)


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
    rows: Rows, program: Words, f: int, p: int, batch: Batch, run: Run, s: int, e: int, same: int
) -> bool:
    """For each row of a run, numbered from p on, where its RANGE frame starts and ends.

    Gives whether another frame that ends as far before its rows ends at the same ones: if `same`
    is not 0, this is such a frame, whose ends are there.
    """
    heap, start, end = rows.heap, program[f + F_START], program[f + F_END]
    exclude = program[f + F_EXCLUDE]
    if rows.chunked == 0:
        return bool(_block_ends(rows, (start, end, exclude), p, batch, run, s, e, same))
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
    return False


@unfolded
def _block_ends(
    rows: Rows,
    frame: tuple[int, int, int],
    p: int,
    batch: Batch,
    run: Run,
    s: int,
    e: int,
    same: int,
) -> bool:
    """The same where the rows lie in one block: where they do is stepped along, not worked out."""
    heap, width, (start, end, exclude) = rows.heap, rows.width, frame
    zero = rows.block - rows.origin * width
    horizons, of, starts, ends = batch.horizons, run.of, run.starts, run.ends
    own = zero + p * width
    for x in range(run.size):
        starts[x] = max(heap[own] - start, horizons[of[x]])
        own += width
    _reach(heap, width, zero + s * width, s, starts, run.size)
    if end == 0:
        for x in range(run.size):
            ends[x] = p + x + 1 - exclude
        return False
    if not same:
        own = zero + p * width
        for x in range(run.size):
            ends[x] = heap[own] - end + 1
            own += width
        _reach(heap, width, zero + e * width, e, ends, run.size)
    spans = 0
    for x in range(run.size):
        spans |= ends[x] - starts[x]
        ends[x] = max(starts[x], ends[x])
    return spans >= 0


@unfolded
def _reach(heap: Words, width: int, place: int, p: int, limits: Words, size: int) -> None:
    """In the place of each limit, which is a time, put the first row from p on that is not earlier.

    Row p lies at `place`; limits never fall, and the row of the run that a limit belongs to is not
    earlier than it. How many rows pass before a limit is met nobody can foretell: of eight limits
    it is found out together, so that there is one branch for all of them.
    """
    x = 0
    while x + 8 <= size:
        l0, l1, l2, l3 = limits[x], limits[x + 1], limits[x + 2], limits[x + 3]
        l4, l5, l6, l7 = limits[x + 4], limits[x + 5], limits[x + 6], limits[x + 7]
        p0 = p1 = p2 = p3 = p4 = p5 = p6 = p
        time = heap[place]
        while time < l7:
            p0, p1, p2, p3 = p0 + (time < l0), p1 + (time < l1), p2 + (time < l2), p3 + (time < l3)
            p4, p5, p6 = p4 + (time < l4), p5 + (time < l5), p6 + (time < l6)
            p += 1
            place += width
            time = heap[place]
        limits[x], limits[x + 1], limits[x + 2], limits[x + 3] = p0, p1, p2, p3
        limits[x + 4], limits[x + 5], limits[x + 6], limits[x + 7] = p4, p5, p6, p
        x += 8
    _reach_one_by_one(heap, width, place, p, limits, x, size)


@unfolded
def _reach_one_by_one(
    heap: Words, width: int, place: int, p: int, limits: Words, x: int, size: int
) -> None:
    """The same for few limits, from number x on: each step passes a row or meets a limit.

    There is no branch on which it is. (Of comparisons the compiler makes one; times are so far from
    what fits a word that they do not overflow.)
    """
    limit = limits[x]
    while x < size:
        following = limits[x + 1]  # behind the last one lies other scratch
        limits[x] = p
        earlier = int(np.int64((np.uint64(heap[place]) - np.uint64(limit)) >> _63))
        p += earlier
        place += width * earlier
        x += 1 - earlier
        limit += (following - limit) * (1 - earlier)


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


@unfolded
def need_of(program: Words, records: Words, r: int, batch: Batch, run: Run) -> int:
    """Words of heap that a run of rows of a key may take at most."""
    width, count, capacity = program[WIDTH], records[r + COUNT], records[r + CAPACITY]
    more = run.size
    dead = records[r + BASE] - records[r + ORIGIN]
    words = 0
    if capacity < 0 or dead + count + more > capacity:
        words = (
            2
            * width
            * (min(count + more, CHUNK) + more + 2 * CHUNK * ((count + more) >> CHUNK_BITS > 0))
        )
        words += (3 * ((dead + count + more) >> CHUNK_BITS) + 64) * words_of_chunk(program)
        if capacity < 0:
            words += 2 * width * CHUNK
    slots = 64
    while slots < 2 * (count + more) + 2:
        slots *= 2
    for d in range(program[DISTINCTS]):
        table = records[r + program[program[DISTINCTS_AT] + d] + 1]
        if table == 0 or slots_of(table) < slots:
            words += 8 * slots
    for t in range(program[TEXTS]):
        for x in range(more):
            i = batch.order[run.of[x]]
            if not is_null(batch.texts, t * DESCRIPTION, i):
                words += 2 * (3 + (text_of(batch.texts, t * DESCRIPTION, i)[1] >> 3)) + 4
    return words


@inline
def take_in_order(
    shard: Words, program: Words, records: Words, r: int, batch: Batch, run: Run
) -> None:
    """Take a run of rows, none of them late, through all frames."""
    make_room(shard, program, records, r, run.size)
    p = records[r + BASE] + records[r + COUNT]
    _append(shard, program, records, r, batch, run)
    rows = rows_of(shard, program, records, r)
    least, end_before, e_before = p + run.size, -1, 0
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
        s, e = records[held], records[held + 1]
        shared = False
        if program[f + F_ROWS]:
            _rows_ends(rows, program, f, p, batch, run, s)
        else:
            same = int(end_before == program[f + F_END] and e_before == e)
            shared = _range_ends(rows, program, f, p, batch, run, s, e, same)
        end_before, e_before = (program[f + F_END] if shared else -1), e
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
