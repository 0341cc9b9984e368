"""What runs over a batch: rows to their keys, a key's rows through its frames, results out.

The rows of a batch are first put in the order of their shards. Then each shard finds the keys of
its rows and takes each key's rows in turn, in log order: those in order of time as one run, each
late one alone. Within a run, each accumulator goes through all rows before the next one does.

A kernel that needs more memory stops between two keys, says how much in `NEED`, and goes on from
there when it is called again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.aggregates import (
    Operation,
    drop_table,
    foresee_distinct,
    glance_distinct,
    include,
    move_count,
    move_distinct,
    move_double,
    move_first,
    move_greatest,
    move_integer,
    move_last,
    move_least,
    move_true,
    move_variance,
    operation,
    read_count,
    read_double,
    read_greatest,
    read_integer,
    read_least,
    read_position,
    read_rows,
    read_true,
    read_variance,
    shift_position,
    tabulate,
)
from tidegate.features.columns import (
    BYTES,
    DESCRIPTION,
    GIVEN,
    INT,
    WORDS,
    foresee,
    identify,
    is_null,
    rehash,
    text_of,
    word_of,
)
from tidegate.features.history import (
    CHUNK,
    CHUNK_BITS,
    Rows,
    at,
    capacity_of,
    first_from,
    free_deferred,
    free_rows,
    insert,
    make_room,
    rows_of,
    trim,
)
from tidegate.features.layout import (
    A_BASE,
    A_FIRST,
    A_KIND,
    A_LAST,
    ACCUMULATOR,
    ACCUMULATORS_AT,
    BASE,
    BLOCK,
    BOOLEAN,
    C_LIMIT,
    C_OUT,
    C_READ,
    C_SCALE,
    CALL,
    CALLS_AT,
    CAPACITY,
    COUNT,
    COUNT_,
    DECIMAL,
    DISTINCT,
    DISTINCTS,
    DISTINCTS_AT,
    DOUBLE,
    F_END,
    F_EXCLUDE,
    F_FIRST,
    F_LAST,
    F_ROWS,
    F_START,
    FIRST_,
    FRAME,
    FRAMES,
    FRAMES_AT,
    FRONTIER,
    GREATEST,
    HASHED_KEYS,
    HEADER,
    ID0,
    ID1,
    INTEGER,
    KEY0,
    KEY1,
    LAGS,
    LAGS_AT,
    LAST_,
    LEAST,
    LOOK_BACK,
    ORIGIN,
    R_LAG_EXISTS,
    RECORD,
    ROWS_,
    RUN,
    SPAN,
    TEXT,
    TEXTS,
    TEXTS_AT,
    TRUE,
    VARIANCE,
    WIDTH,
)
from tidegate.features.memory import (
    COPIES,
    COPY_END,
    COPY_NEXT,
    CURSOR,
    DIRECTORY,
    DONE_GROUPS,
    DONE_ROWS,
    GROUPS,
    HEAP,
    HEAP_MAX,
    HEAP_TOP,
    KEPT,
    KEPT_TOP,
    KEYS,
    NEED,
    RECORDS,
    RECORDS_FREE,
    RECORDS_MAX,
    RECORDS_USED,
    ROWS,
    TABLE,
    TABLE_BITS,
    Words,
    allocate,
    bytes_at,
    kernel,
    prefetch,
    unfolded,
    words_at,
)

NEVER = -(1 << 62)
_FREED = NEVER - 1  # the frontier of a record that is no key's
LAG = 6

# Rows and keys whose memory is asked for together, ahead of its use: enough for the waits to
# overlap, few enough for all of it to stay near the processor.
TILE = 32
_LINE = 64
_AHEAD = 24  # rows between asking for memory and its use where each row's is known at once

# What a kernel stopped for.
FINISHED, TABLE_FULL, RECORDS_FULL, HEAP_FULL = range(4)


class Batch(NamedTuple):
    """A batch of n rows in the order of their shards.

    `rows` has their words and lies at `address`, `ids` has three words of each (identity, hash),
    `horizons` the horizon of each and after them the newest, `order` their places in the batch as
    it was given, by which `texts` describes columns. `out` and `status` take a word and a byte for
    each call and row. `work` is the address of scratch for 7 n words, `copy` scratch for an
    accumulator.
    """

    n: int
    address: int
    rows: Words
    ids: Words
    horizons: Words
    order: Words
    texts: Words
    work: int
    out: Words
    status: Any
    copy: Words


class Run(NamedTuple):
    """Rows of one key, in log order; `starts` and `ends` are scratch for the frame of each."""

    address: int
    of: Words
    size: int
    starts: Words
    ends: Words


@inline
def _part(run: Run, first: int, last: int) -> Run:
    """The rows from the first to before the last."""
    address = run.address + 8 * first
    return Run(address, words_at(address), last - first, run.starts, run.ends)


# Keys of a shard: an open-addressing table of (32 bits of the hash, record).


@inline
def _home(entry: int, bits: int) -> int:
    return int(np.int64(np.uint64(entry) >> np.uint64(64 - bits)))


@inline
def _find(shard: Words, width: int, id0: int, id1: int, hashed: int) -> tuple[int, int]:
    """Where a key's record begins (-1: none), and the slot where it is or would be."""
    table, bits = words_at(shard[TABLE]), shard[TABLE_BITS]
    records = words_at(shard[RECORDS])
    mask, slot = (1 << bits) - 1, _home(hashed, bits)
    while table[slot] != 0:
        if (table[slot] ^ hashed) >> 32 == 0:
            r = (table[slot] & 0xFFFFFFFF) * width
            if records[r + ID0] == id0 and records[r + ID1] == id1:
                return r, slot
        slot = (slot + 1) & mask
    return -1, slot


@inline
def _create(shard: Words, width: int, id0: int, id1: int, hashed: int, slot: int) -> int:
    """A record for a new key; there is room in the records and in the table."""
    records = words_at(shard[RECORDS])
    index = shard[RECORDS_FREE]
    if index != 0:
        shard[RECORDS_FREE] = records[index * width + BLOCK]
    else:
        index = shard[RECORDS_USED]
        shard[RECORDS_USED] += 1
    r = index * width
    _keep_out(shard, index, r)
    for k in range(width):
        records[r + k] = 0
    records[r + ID0], records[r + ID1] = id0, id1
    records[r + FRONTIER], records[r + RUN] = NEVER, -1
    words_at(shard[TABLE])[slot] = ((hashed >> 32) << 32) | index
    shard[KEYS] += 1
    return int(r)


@inline
def _forget(shard: Words, program: Words, r: int) -> None:
    """Free a key: its rows, tables, record and entry."""
    records, width = words_at(shard[RECORDS]), program[RECORD]
    _keep(shard, program, r)
    _empty(shard, program, records, r)
    hashed = _hash(program, records[r + ID0], records[r + ID1])
    slot = _find(shard, width, records[r + ID0], records[r + ID1], hashed)[1]
    table, bits = words_at(shard[TABLE]), shard[TABLE_BITS]
    mask = (1 << bits) - 1
    gap, i = slot, (slot + 1) & mask
    while table[i] != 0:  # move entries back over the gap (Knuth, 6.4 R)
        if ((i - _home(table[i], bits)) & mask) >= ((i - gap) & mask):
            table[gap] = table[i]
            gap = i
        i = (i + 1) & mask
    table[gap] = 0
    records[r + FRONTIER], records[r + BLOCK] = _FREED, shard[RECORDS_FREE]
    shard[RECORDS_FREE] = r // width
    shard[KEYS] -= 1


@inline
def _empty(shard: Words, program: Words, records: Words, r: int) -> None:
    rows = rows_of(shard, program, records, r)
    for k in range(program[DISTINCTS]):
        drop_table(records, r + program[program[DISTINCTS_AT] + k], rows)
    free_rows(shard, program, records, r)


@inline
def _sweep(shard: Words, program: Words, horizon: int, steps: int) -> None:
    """Free keys whose rows all lie before the horizon, looking at so many records."""
    records, width = words_at(shard[RECORDS]), program[RECORD]
    for _ in range(min(steps, shard[RECORDS_USED] - 1)):
        index = shard[CURSOR] + 1
        if index >= shard[RECORDS_USED]:
            index = 1
        shard[CURSOR] = index
        prefetch(shard[RECORDS] + 8 * ((index + 8) * width + FRONTIER))
        frontier = records[index * width + FRONTIER]
        if frontier != _FREED and frontier < horizon:
            _forget(shard, program, index * width)


# A run: rows of one key in order of time.


@inline
def _append(shard: Words, program: Words, records: Words, r: int, batch: Batch, run: Run) -> None:
    """Store the rows that `run` lists behind those kept; there is room for them."""
    rows = rows_of(shard, program, records, r)
    p = records[r + BASE] + records[r + COUNT]
    for x in range(run.size):
        _put(rows, at(rows, p + x), batch, run.of[x])
    records[r + COUNT] += run.size
    shard[ROWS] += run.size


@inline
def _put(rows: Rows, there: int, batch: Batch, k: int) -> None:
    """Write row k of the batch to a place in the heap, its texts to blocks of their own."""
    heap, program, width = rows.heap, rows.program, rows.width
    for w in range(width):
        heap[there + w] = batch.rows[k * width + w]
    for t in range(program[TEXTS]):
        w = program[program[TEXTS_AT] + t]
        heap[there + w] = _keep_text(rows, batch.texts, t * DESCRIPTION, heap[there + w])


@inline
def _keep_text(rows: Rows, texts: Words, c: int, i: int) -> int:
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


@inline
def _range_ends(
    rows: Rows, program: Words, f: int, p: int, batch: Batch, run: Run, s: int, e: int
) -> None:
    """For each row of a run, numbered from p on, where its RANGE frame starts and ends."""
    heap, start, end = rows.heap, program[f + F_START], program[f + F_END]
    exclude = program[f + F_EXCLUDE]
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


def _runner(move: Any, read: Any) -> Any:
    """A function that takes an accumulator through a run and writes what its calls give."""

    @unfolded
    def go(
        acc: Words,
        rows: Rows,
        op: Operation,
        program: Words,
        a: int,
        s: int,
        e: int,
        batch: Batch,
        run: Run,
    ) -> None:
        b, n = op.base, batch.n
        c = program[CALLS_AT] + CALL * program[a + A_FIRST]
        last = program[CALLS_AT] + CALL * program[a + A_LAST]
        # What is stored could be the program, for all that the compiler knows: read it before.
        column, what = program[c + C_OUT] * n, program[c + C_READ]
        limit, scale = program[c + C_LIMIT], program[c + C_SCALE]
        for x in range(run.size):
            k, s2, e2 = run.of[x], run.starts[x], run.ends[x]
            move(acc, b, rows, op, s, e, s2, e2)
            s, e = s2, e2
            word, state = read(acc, b, rows, op, s, e, what, limit, scale)
            batch.out[column + k], batch.status[column + k] = word, state
            for d in range(c + CALL, last, CALL):
                word, state = read(
                    acc,
                    b,
                    rows,
                    op,
                    s,
                    e,
                    program[d + C_READ],
                    program[d + C_LIMIT],
                    program[d + C_SCALE],
                )
                to = program[d + C_OUT] * n + k
                batch.out[to], batch.status[to] = word, state

    return go


@inline
def _stay(acc: Words, b: int, rows: Rows, op: Operation, s: int, e: int, s2: int, e2: int) -> None:
    """Nothing to keep up."""


_run_rows = _runner(_stay, read_rows)
_run_count = _runner(move_count, read_count)
_run_integer = _runner(move_integer, read_integer)
_run_double = _runner(move_double, read_double)
_run_variance = _runner(move_variance, read_variance)
_run_least = _runner(move_least, read_least)
_run_greatest = _runner(move_greatest, read_greatest)
_run_distinct = _runner(move_distinct, read_count)
_run_true = _runner(move_true, read_true)
_run_first = _runner(move_first, read_position)
_run_last = _runner(move_last, read_position)


@unfolded
def _run_any(
    kind: int,
    acc: Words,
    rows: Rows,
    op: Operation,
    program: Words,
    a: int,
    s: int,
    e: int,
    batch: Batch,
    run: Run,
) -> None:
    if kind == ROWS_:
        _run_rows(acc, rows, op, program, a, s, e, batch, run)
    elif kind == COUNT_:
        _run_count(acc, rows, op, program, a, s, e, batch, run)
    elif kind == INTEGER:
        _run_integer(acc, rows, op, program, a, s, e, batch, run)
    elif kind == DOUBLE:
        _run_double(acc, rows, op, program, a, s, e, batch, run)
    elif kind == VARIANCE:
        _run_variance(acc, rows, op, program, a, s, e, batch, run)
    elif kind == LEAST:
        _run_least(acc, rows, op, program, a, s, e, batch, run)
    elif kind == GREATEST:
        _run_greatest(acc, rows, op, program, a, s, e, batch, run)
    elif kind == DISTINCT:
        _run_distinct(acc, rows, op, program, a, s, e, batch, run)
    elif kind == TRUE:
        _run_true(acc, rows, op, program, a, s, e, batch, run)
    elif kind == FIRST_:
        _run_first(acc, rows, op, program, a, s, e, batch, run)
    elif kind == LAST_:
        _run_last(acc, rows, op, program, a, s, e, batch, run)


@inline
def _run_once(
    kind: int,
    acc: Words,
    rows: Rows,
    op: Operation,
    program: Words,
    a: int,
    s: int,
    e: int,
    batch: Batch,
    run: Run,
) -> None:
    """The same where it is not worth code of its own."""
    _run_any(kind, acc, rows, op, program, a, s, e, batch, run)


@inline
def _lag(rows: Rows, program: Words, base: int, own: int, lower: int, batch: Batch, k: int) -> None:
    """What rows before number `own` give to the LAG calls of row k of the batch."""
    for lag in range(program[LAGS]):
        c = program[LAGS_AT] + LAG * lag
        p = own - program[c + 2]
        row = at(rows, p) if p >= base else 0
        there = p >= base and rows.heap[row] >= lower
        to = program[c + 1] * batch.n + k
        batch.out[to] = 0
        if program[c] == R_LAG_EXISTS:
            batch.out[to], batch.status[to] = (1 if there else 0), 1
        elif there and (rows.heap[row + program[c + 4]] & program[c + 5]) == 0:
            batch.out[to], batch.status[to] = rows.heap[row + program[c + 3]], 1
        else:
            batch.status[to] = 0


@inline
def _in_order(shard: Words, program: Words, records: Words, r: int, batch: Batch, run: Run) -> None:
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
            _run_any(kind, records, rows, op, program, a, s, e, batch, run)
        last = run.size - 1
        records[held], records[held + 1] = run.starts[last], run.ends[last]
        least = min(least, run.starts[last])
    base, look_back = records[r + BASE], program[LOOK_BACK]
    if program[LAGS] > 0:
        for x in range(run.size):
            lower = max(rows.heap[at(rows, p + x)] - look_back, batch.horizons[run.of[x]])
            _lag(rows, program, base, p + x, lower, batch, run.of[x])
    newest = run.of[run.size - 1]
    records[r + FRONTIER] = rows.heap[at(rows, p + run.size - 1)]
    while base < least and rows.heap[at(rows, base)] < batch.horizons[newest]:
        base += 1
    trim(shard, program, records, r, base)


# One row that is late, or none: the frames around a time anywhere in a key's history.


def _glancer(move: Any, read: Any, size: int) -> Any:
    """A function that reads an accumulator at another frame and leaves it as it is."""

    @inline
    def go(
        acc: Words,
        rows: Rows,
        op: Operation,
        program: Words,
        a: int,
        s: int,
        e: int,
        s2: int,
        e2: int,
        batch: Batch,
        k: int,
    ) -> None:
        for w in range(size):
            batch.copy[w] = acc[op.base + w]
        move(batch.copy, 0, rows, op, s, e, s2, e2)
        first = program[CALLS_AT] + CALL * program[a + A_FIRST]
        last = program[CALLS_AT] + CALL * program[a + A_LAST]
        for c in range(first, last, CALL):
            to = program[c + C_OUT] * batch.n + k
            word, state = read(
                batch.copy,
                0,
                rows,
                op,
                s2,
                e2,
                program[c + C_READ],
                program[c + C_LIMIT],
                program[c + C_SCALE],
            )
            batch.out[to], batch.status[to] = word, state

    return go


_glance_rows = _glancer(_stay, read_rows, 0)
_glance_count = _glancer(move_count, read_count, 1)
_glance_integer = _glancer(move_integer, read_integer, 3)
_glance_double = _glancer(move_double, read_double, 6)
_glance_variance = _glancer(move_variance, read_variance, 8)
_glance_least = _glancer(move_least, read_least, 2)
_glance_greatest = _glancer(move_greatest, read_greatest, 2)
_glance_true = _glancer(move_true, read_true, 2)
_glance_first = _glancer(move_first, read_position, 1)
_glance_last = _glancer(move_last, read_position, 1)


@inline
def _glance_any(
    kind: int,
    acc: Words,
    rows: Rows,
    op: Operation,
    program: Words,
    a: int,
    s: int,
    e: int,
    s2: int,
    e2: int,
    batch: Batch,
    k: int,
) -> None:
    if kind == ROWS_:
        _glance_rows(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == COUNT_:
        _glance_count(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == INTEGER:
        _glance_integer(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == DOUBLE:
        _glance_double(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == VARIANCE:
        _glance_variance(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == LEAST:
        _glance_least(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == GREATEST:
        _glance_greatest(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == TRUE:
        _glance_true(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == FIRST_:
        _glance_first(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == LAST_:
        _glance_last(acc, rows, op, program, a, s, e, s2, e2, batch, k)
    elif kind == DISTINCT:
        # Integers come back exactly, so that the table itself may go there and back.
        count = glance_distinct(acc, op.base, rows, op, s, e, s2, e2)
        for c in range(program[a + A_FIRST], program[a + A_LAST]):
            to = program[program[CALLS_AT] + CALL * c + C_OUT] * batch.n + k
            batch.out[to], batch.status[to] = count, 1


@inline
def _frame_at(
    rows: Rows, program: Words, f: int, base: int, p: int, own: int, time: int, horizon: int
) -> tuple[int, int]:
    """The frame of an event at `time` whose place is p; `own` is 1 if it is stored there."""
    end, until = program[f + F_END], p + own
    if program[f + F_EXCLUDE]:
        until = p
    if program[f + F_ROWS]:
        lower = max(time - program[LOOK_BACK], horizon)
        s = max(p - program[f + F_START], first_from(rows, lower, base, p))
        e = p - end + 1
    else:
        s = first_from(rows, max(time - program[f + F_START], horizon), base, until)
        e = until if end == 0 else first_from(rows, time - end + 1, base, until)
    return s, max(s, min(e, until))


@inline
def _glance(
    shard: Words,
    program: Words,
    records: Words,
    r: int,
    p: int,
    own: int,
    time: int,
    horizon: int,
    batch: Batch,
    k: int,
) -> None:
    """What the calls give at `time`, whose place is p; the key stays as it is."""
    rows, base = rows_of(shard, program, records, r), records[r + BASE]
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
        s, e = records[held], records[held + 1]
        s2, e2 = _frame_at(rows, program, f, base, p, own, time, horizon)
        for number in range(program[f + F_FIRST], program[f + F_LAST]):
            a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
            op, kind = operation(program, a, r), program[a + A_KIND]
            _glance_any(kind, records, rows, op, program, a, s, e, s2, e2, batch, k)
    _lag(rows, program, base, p, max(time - program[LOOK_BACK], horizon), batch, k)


@inline
def _target(
    program: Words, f: int, s: int, e: int, p: int, time: int, frontier: int, last: int
) -> tuple[int, int, int]:
    """Where the newest row's frame lies after row p came in, and how it got there.

    Gives (s, e, way): way 0, the frame did not contain the row's place, which lies behind it; 1,
    it lies before; 2, inside. `last` is the newest row's number now.
    """
    by_rows, start = program[f + F_ROWS], program[f + F_START]
    reach = program[LOOK_BACK] if by_rows else start
    young = time >= frontier - reach
    if not by_rows:
        contained = young and time <= frontier - program[f + F_END]
        if p < s or (p == s and (contained or not young)):
            return (s if contained else s + 1), e + 1, 1
        return s, (e + 1 if contained else e), (2 if p < e else 0)
    end = last - program[f + F_END] + 1
    if program[f + F_EXCLUDE]:
        end = min(end, last)
    if p > s:
        first, way = max(last - start, s), (2 if p < e else 0)
    else:
        first, way = (s if p == s and young and s >= last - start else s + 1), 1
    return first, max(first, end), way


@inline
def _late(shard: Words, program: Words, records: Words, r: int, batch: Batch, run: Run) -> None:
    """Store a row behind the frontier, let the newest frames know, give what it sees itself."""
    k = run.of[0]
    time, horizon = batch.rows[k * program[WIDTH]], batch.horizons[k]
    frontier = records[r + FRONTIER]
    make_room(shard, program, records, r, 1)
    rows, base = rows_of(shard, program, records, r), records[r + BASE]
    p = first_from(rows, time + 1, base, base + records[r + COUNT])
    insert(shard, program, records, r, p)
    _put(rows, at(rows, p), batch, k)
    last = base + records[r + COUNT] - 1
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
        s, e = records[held], records[held + 1]
        s2, e2, way = _target(program, f, s, e, p, time, frontier, last)
        s, e = (s + 1 if way == 1 else s), (e + 1 if way > 0 else e)
        for number in range(program[f + F_FIRST], program[f + F_LAST]):
            a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
            op, kind = operation(program, a, r), program[a + A_KIND]
            if way > 0 and kind >= LEAST and kind != DISTINCT and kind != TRUE:
                shift_position(records, op.base, p)
            if way == 2:
                include(records, kind, rows, op, s, e, op.base, p)
            if s2 != s or e2 != e:
                run.starts[0], run.ends[0] = s2, e2
                _run_once(kind, records, rows, op, program, a, s, e, batch, run)
        records[held], records[held + 1] = s2, e2
    _glance(shard, program, records, r, p, 1, time, horizon, batch, k)


# A shard's part of a batch.


@inline
def _hash(program: Words, id0: int, id1: int) -> int:
    return rehash(id0, id1, program[KEY0], program[KEY1], program[HASHED_KEYS])


@inline
def _foresee_keys(
    directory: int, shards: int, program: Words, batch: Batch, lo: int, hi: int
) -> None:
    """Ask for the memory in which the keys of rows [lo, hi), of any shards, will be found."""
    for k in range(lo, hi):
        hashed = batch.ids[3 * k + 2]
        shard = words_at(directory + 8 * DIRECTORY * (hashed & (shards - 1)))
        prefetch(shard[TABLE] + 8 * _home(hashed, shard[TABLE_BITS]))
        prefetch(batch.address + 8 * k * program[WIDTH])
    for k in range(lo, hi):
        hashed = batch.ids[3 * k + 2]
        shard = words_at(directory + 8 * DIRECTORY * (hashed & (shards - 1)))
        table, bits = words_at(shard[TABLE]), shard[TABLE_BITS]
        slot = _home(hashed, bits)
        while table[slot] != 0 and (table[slot] ^ hashed) >> 32 != 0:
            slot = (slot + 1) & ((1 << bits) - 1)
        if table[slot] != 0:
            record = shard[RECORDS] + 8 * (table[slot] & 0xFFFFFFFF) * program[RECORD]
            prefetch(record)
            prefetch(record + 8 * RUN)


@inline
def _foresee_records(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for the records of the next groups of a shard."""
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        record = shard[RECORDS] + 8 * work[g]
        for line in range(_LINE, 8 * program[RECORD], _LINE):
            prefetch(record + line)


@inline
def _foresee_rows(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for the rows that the frames of the next groups begin with, and for those behind."""
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    records, heap = words_at(shard[RECORDS]), shard[HEAP]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        r = work[g]
        if records[r + COUNT] > 0:
            rows = rows_of(shard, program, records, r)
            base, count = records[r + BASE], records[r + COUNT]
            end = heap + 8 * (at(rows, base + count - 1) + 2 * rows.width)
            if rows.chunked == 0 and 8 * count * rows.width <= 16 * _LINE:
                for line in range(heap + 8 * at(rows, base), end, _LINE):
                    prefetch(line)
            else:
                for frame in range(program[FRAMES]):
                    s = records[r + HEADER + 2 * frame]
                    if s < base + count:
                        prefetch(heap + 8 * at(rows, s))
                        prefetch(heap + 8 * at(rows, s) + _LINE)
            prefetch(end - 1)
            for d in range(program[DISTINCTS]):
                table = records[r + program[program[DISTINCTS_AT] + d] + 1]
                if table != 0:
                    prefetch(heap + 8 * table)


@inline
def _foresee_tables(shard: Words, program: Words, batch: Batch, lo: int) -> None:
    """Ask for what the next groups' first rows, and those that leave for them, find in tables."""
    work, first = words_at(batch.work + 8 * (3 * batch.n + lo)), shard[DONE_GROUPS]
    firsts = words_at(batch.work + 8 * (batch.n + lo))
    records, count = words_at(shard[RECORDS]), program[DISTINCTS]
    for g in range(first, min(first + TILE, shard[GROUPS])):
        r = work[g]
        for d in range(count):
            c = program[DISTINCTS_AT]
            table = records[r + program[c + d] + 1]
            if table != 0:
                rows, word = rows_of(shard, program, records, r), program[c + count + 2 * d]
                s = records[r + HEADER + 2 * program[c + count + 2 * d + 1]]
                foresee_distinct(rows, table, batch.rows[firsts[g] * rows.width + word])
                foresee_distinct(rows, table, rows.heap[at(rows, s) + word])


@inline
def _group(
    shard: Words, program: Words, batch: Batch, directory: int, shards: int, lo: int, hi: int
) -> int:
    """Chain the rows [lo, hi) by key, keys in order of appearance; makes records for new keys.

    Scratch: next row of the same key, then for each group its first and last row and its record.
    """
    width, records = program[RECORD], words_at(shard[RECORDS])
    work, n = words_at(batch.work), batch.n
    while shard[DONE_ROWS] < hi - lo:
        done = shard[DONE_ROWS]
        k = lo + done
        if done % TILE == 0 and done > 0:
            _foresee_keys(directory, shards, program, batch, k, min(k + TILE, hi))
        id0, id1, hashed = batch.ids[3 * k], batch.ids[3 * k + 1], batch.ids[3 * k + 2]
        r, slot = _find(shard, width, id0, id1, hashed)
        if r < 0:
            if batch.rows[k * program[WIDTH]] < batch.horizons[k]:
                r = 0  # the row is seen by no other: the record of nobody will do
            elif 5 * (shard[KEYS] + 1) > 3 << shard[TABLE_BITS]:
                return TABLE_FULL
            elif shard[RECORDS_FREE] == 0 and shard[RECORDS_USED] >= shard[RECORDS_MAX]:
                return RECORDS_FULL
            else:
                r = _create(shard, width, id0, id1, hashed, slot)
        g, work[k] = records[r + RUN], -1
        if g < 0:
            g = lo + shard[GROUPS]
            shard[GROUPS] += 1
            records[r + RUN] = g
            work[n + g], work[3 * n + g] = k, r
        else:
            work[work[2 * n + g]] = k
        work[2 * n + g] = k
        shard[DONE_ROWS] += 1
    return FINISHED


@inline
def _need(shard: Words, program: Words, records: Words, r: int, batch: Batch, run: Run) -> int:
    """Words of heap that a run of rows of a key may take at most."""
    width, count, capacity = program[WIDTH], records[r + COUNT], records[r + CAPACITY]
    more, heap = run.size, words_at(shard[HEAP])
    dead = records[r + BASE] - records[r + ORIGIN]
    words = 0
    if capacity < 0 or dead + count + more > capacity:
        words = (
            2
            * width
            * (min(count + more, CHUNK) + more + 2 * CHUNK * ((count + more) >> CHUNK_BITS > 0))
        )
        words += 3 * ((dead + count + more) >> CHUNK_BITS) + 64
        if capacity < 0:
            words += 2 * width * CHUNK
    for d in range(program[DISTINCTS]):
        table = records[r + program[program[DISTINCTS_AT] + d] + 1]
        slots = 64
        while slots < 2 * (count + more) + 2:
            slots *= 2
        if table == 0 or heap[table] < slots:
            words += 8 * slots
    for t in range(program[TEXTS]):
        for x in range(more):
            i = batch.order[run.of[x]]
            if not is_null(batch.texts, t * DESCRIPTION, i):
                words += 2 * (3 + (text_of(batch.texts, t * DESCRIPTION, i)[1] >> 3)) + 4
    return words


@inline
def _alone(shard: Words, program: Words, records: Words, batch: Batch, run: Run) -> None:
    """A row before its horizon: what a key would see that has no other row, and no horizon."""
    batch.horizons[run.of[0]] = NEVER
    group = records[RUN]
    for w in range(program[RECORD]):
        records[w] = 0
    kept = shard[ROWS]
    _in_order(shard, program, records, 0, batch, run)
    _empty(shard, program, records, 0)
    shard[ROWS] = kept
    for w in range(program[RECORD]):
        records[w] = 0
    records[RUN] = group


@inline
def _key(shard: Words, program: Words, r: int, batch: Batch, run: Run) -> None:
    """Take the rows of one key, in log order, through its frames."""
    records, width = words_at(shard[RECORDS]), program[WIDTH]
    x = 0
    while x < run.size:
        k = run.of[x]
        y, time = x + 1, batch.rows[k * width]
        if time < batch.horizons[k]:
            _alone(shard, program, records, batch, _part(run, x, y))
        elif time < records[r + FRONTIER]:
            _late(shard, program, records, r, batch, _part(run, x, y))
        else:
            while y < run.size:
                later = batch.rows[run.of[y] * width]
                if later < time or later < batch.horizons[run.of[y]]:
                    break
                time, y = later, y + 1
            _in_order(shard, program, records, r, batch, _part(run, x, y))
        x = y


@inline
def _shard(shard: Words, program: Words, batch: Batch, lo: int, hi: int) -> int:
    """Take the rows [lo, hi), which are grouped, through one shard; says why it stopped."""
    records, work, n = words_at(shard[RECORDS]), words_at(batch.work), batch.n
    starts, ends = words_at(batch.work + 8 * (5 * n + lo)), words_at(batch.work + 8 * (6 * n + lo))
    while shard[DONE_GROUPS] < shard[GROUPS]:
        done = shard[DONE_GROUPS]
        if done % TILE == 0 and done > 0:
            _foresee_records(shard, program, batch, lo)
            _foresee_rows(shard, program, batch, lo)
            _foresee_tables(shard, program, batch, lo)
        g = lo + done
        r, k, m = work[3 * n + g], work[n + g], 0
        while k >= 0:
            work[4 * n + lo + m] = k
            m, k = m + 1, work[k]
        listed = batch.work + 8 * (4 * n + lo)
        run = Run(listed, words_at(listed), m, starts, ends)
        need = _need(shard, program, records, r, batch, run)
        if shard[HEAP_TOP] + need > shard[HEAP_MAX]:
            shard[NEED] = need
            return HEAP_FULL
        _keep(shard, program, r)
        _key(shard, program, r, batch, run)
        records[r + RUN] = -1
        shard[DONE_GROUPS] += 1
    _sweep(shard, program, batch.horizons[n], 2 * (hi - lo))
    shard[DONE_ROWS] = shard[DONE_GROUPS] = shard[GROUPS] = 0
    return FINISHED


@inline
def _span(
    directory: int, shards: int, first: int, last: int, bounds: Words, program: Words, batch: Batch
) -> int:
    """Take the rows of the shards [first, last), that together are few or one; as `advance`."""
    lo, end, why = bounds[first], last, FINISHED
    _foresee_keys(directory, shards, program, batch, lo, min(lo + TILE, bounds[last]))
    for s in range(first, last):
        shard = words_at(directory + 8 * DIRECTORY * s)
        if shard[DONE_ROWS] == 0 and bounds[s] < bounds[s + 1]:
            free_deferred(shard)
        why = _group(shard, program, batch, directory, shards, bounds[s], bounds[s + 1])
        if why != FINISHED:
            end = s
            break
    for s in range(first, end):
        _foresee_records(words_at(directory + 8 * DIRECTORY * s), program, batch, bounds[s])
    for s in range(first, end):
        _foresee_rows(words_at(directory + 8 * DIRECTORY * s), program, batch, bounds[s])
    if program[DISTINCTS] > 0:
        for s in range(first, end):
            _foresee_tables(words_at(directory + 8 * DIRECTORY * s), program, batch, bounds[s])
    for s in range(first, end):
        shard, stopped = words_at(directory + 8 * DIRECTORY * s), FINISHED
        if bounds[s] < bounds[s + 1]:
            stopped = _shard(shard, program, batch, bounds[s], bounds[s + 1])
        if stopped != FINISHED:
            return int(4 * s + stopped)
    return -1 if why == FINISHED else int(4 * end + why)


# What Python calls.


@inline
def _facts(directory: Any, s: int) -> Words:
    """The directory's row of shard s."""
    return words_at(directory.ctypes.data + 8 * DIRECTORY * s)


@kernel(types.void(WORDS, WORDS, INT, INT, INT, WORDS))
def name_keys(columns: Words, program: Words, keys: int, first: int, last: int, ids: Words) -> None:
    """Identity (two words) and hash of the keys of rows [first, last), into `ids`."""
    given = words_at(columns.ctypes.data)
    for i in range(first, last):
        a, b, h = identify(given, keys, i, program[KEY0], program[KEY1])
        ids[3 * i], ids[3 * i + 1], ids[3 * i + 2] = a, b, h


@kernel(types.void(WORDS, INT, WORDS, WORDS, WORDS, INT))
def place(ids: Words, shards: int, bounds: Words, order: Words, ranks: Words, n: int) -> None:
    """Put rows in the order of their shards: `order[k]` is the row at k, `ranks` the inverse.

    Shard s has the places from `bounds[s]` to before `bounds[s + 1]`.
    """
    mask = shards - 1
    for s in range(shards + 2):
        bounds[s] = 0
    for i in range(n):
        bounds[(ids[3 * i + 2] & mask) + 2] += 1
    for s in range(2, shards + 1):
        bounds[s] += bounds[s - 1]
    for i in range(n):
        s = (ids[3 * i + 2] & mask) + 1
        k = bounds[s]
        bounds[s] = k + 1
        order[k], ranks[i] = i, k


@kernel(
    types.void(*(WORDS, WORDS, GIVEN, GIVEN, WORDS, WORDS, WORDS, INT, INT), *(WORDS, WORDS, WORDS))
)
def load(
    columns: Words,
    shape: Words,
    times: Words,
    newest: Words,
    program: Words,
    order: Words,
    named: Words,
    first: int,
    last: int,
    rows: Words,
    horizons: Words,
    ids: Words,
) -> None:
    """Fill the places [first, last) with rows, horizons and the names of keys.

    `shape` is (flags, values, filters, words): first come the value columns whose nulls count,
    then the filters, then the columns of the words.
    """
    flags, values, filters, words = shape[0], shape[1], shape[2], shape[3]
    width, span = program[WIDTH], program[SPAN]
    given = words_at(columns.ctypes.data)
    for k in range(first, last):
        if k + _AHEAD < last:  # the rows of a shard lie far apart in the batch
            i = order[k + _AHEAD]
            prefetch(times.ctypes.data + 8 * i)
            prefetch(newest.ctypes.data + 8 * i)
            prefetch(named.ctypes.data + 24 * i)
            for w in range(words):
                foresee(given, DESCRIPTION * (values + filters + w), i)
        i, row = order[k], k * width
        rows[row], horizons[k] = times[i], newest[i] - span
        for w in range(3):
            ids[3 * k + w] = named[3 * i + w]
        for f in range(flags):
            rows[row + 1 + f] = 0
        for v in range(values):
            if is_null(given, DESCRIPTION * v, i):
                rows[row + 1 + v // 62] |= np.int64(1) << (v % 62)
        for v in range(values, values + filters):
            c = DESCRIPTION * v
            if not is_null(given, c, i) and word_of(given, c, i, 0, 0) != 0:
                rows[row + 1 + v // 62] |= np.int64(1) << (v % 62)
        for w in range(words):
            c = DESCRIPTION * (values + filters + w)
            there = row + 1 + flags + w
            if is_null(given, c, i):
                rows[there] = 0 if given[c] != TEXT else i
            else:
                rows[there] = word_of(given, c, i, program[KEY0], program[KEY1])


@kernel(
    types.int64(
        types.int64[:, ::1],
        INT,
        INT,
        WORDS,
        WORDS,
        WORDS,
        WORDS,
        WORDS,
        WORDS,
        WORDS,
        WORDS,
        WORDS,
        BYTES,
        INT,
    )
)
def advance(
    directory: Any,
    first: int,
    last: int,
    bounds: Words,
    program: Words,
    rows: Words,
    ids: Words,
    horizons: Words,
    order: Words,
    texts: Words,
    work: Words,
    out: Words,
    status: Any,
    n: int,
) -> int:
    """Take the rows of the shards [first, last) through their frames.

    Gives -1 when done, else `4 * shard + why` for a shard that stopped for lack of memory.
    """
    scratch = np.empty(8, dtype=np.int64)
    batch = Batch(
        n,
        rows.ctypes.data,
        words_at(rows.ctypes.data),
        words_at(ids.ctypes.data),
        words_at(horizons.ctypes.data),
        words_at(order.ctypes.data),
        words_at(texts.ctypes.data),
        work.ctypes.data,
        words_at(out.ctypes.data),
        bytes_at(status.ctypes.data),
        words_at(scratch.ctypes.data),
    )
    laid = words_at(program.ctypes.data)
    table, s = directory.ctypes.data, first
    while s < last:
        # Shards that have few rows each go together, so that the waits for their memory overlap.
        end = s + 1
        while end < last and bounds[end + 1] - bounds[s] <= TILE:
            end += 1
        stopped = _span(table, len(directory), s, end, bounds, laid, batch)
        if stopped >= 0:
            return stopped
        s = end
    scratch[0] = 0  # what is not used any more may be freed
    return -1


@kernel(types.void(WORDS, INT, WORDS, WORDS))
def rebuild_table(old: Words, bits: int, new: Words, shard: Words) -> None:
    """Enter the entries of a table into a larger one of 2^bits slots."""
    mask = (1 << bits) - 1
    for k in range(1 << shard[TABLE_BITS]):
        if old[k] != 0:
            slot = _home(old[k], bits)
            while new[slot] != 0:
                slot = (slot + 1) & mask
            new[slot] = old[k]


@inline
def _emit_valid(states: Any, ranks: Words, n: int, valid: Any) -> tuple[int, int]:
    """Write the bits of what is valid; how many nulls there are, errors among them."""
    nulls, errors, byte = 0, 0, 0
    for i in range(n):
        state = int(states[ranks[i]])
        there = state & 1
        nulls += 1 - there
        errors += state >> 1
        byte |= there << (i & 7)
        if i & 7 == 7:
            valid[i >> 3] = byte
            byte = 0
    if n & 7 != 0:
        valid[n >> 3] = byte
    return nulls, errors


@inline
def _emit_byte(
    given: Words, states: Any, ranks: Words, first: int, last: int, values: Words
) -> tuple[int, int]:
    """Write up to eight words; the bits of what is valid, and how many errors there are."""
    byte, errors = 0, 0
    for i in range(first, last):
        state = int(states[ranks[i]])
        there = state & 1
        values[i] = given[ranks[i]] if there else 0
        byte |= there << (i - first)
        errors += state >> 1
    return byte, errors


@inline
def _emit_words(
    given: int, states: Any, ranks: Words, n: int, valid: Any, values: Words
) -> tuple[int, int]:
    """Write words and the bits of what is valid; how many nulls there are, errors among them."""
    there, errors, words, whole = 0, 0, words_at(given), n & ~7
    for first in range(0, whole, 8):
        if first + _AHEAD + 8 <= n:
            for i in range(first + _AHEAD, first + _AHEAD + 8):
                prefetch(given + 8 * ranks[i])
        byte, wrong = _emit_byte(words, states, ranks, first, first + 8, values)
        valid[first >> 3] = byte
        there, errors = there + _ones(byte), errors + wrong
    if whole < n:
        byte, wrong = _emit_byte(words, states, ranks, whole, n, values)
        valid[whole >> 3] = byte
        there, errors = there + _ones(byte), errors + wrong
    return n - there, errors


@inline
def _ones(byte: int) -> int:
    """How many bits of a byte are set."""
    pairs = byte - ((byte >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return (fours + (fours >> 4)) & 0xF


@inline
def _emit_decimals(given: Words, states: Any, ranks: Words, n: int, values: Words) -> None:
    for i in range(n):
        k = ranks[i]
        word = given[k] if states[k] == 1 else 0
        values[2 * i], values[2 * i + 1] = word, word >> 63


@inline
def _emit_booleans(given: Words, states: Any, ranks: Words, n: int, values: Any) -> None:
    for i in range(n):
        if i & 7 == 0:
            values[i >> 3] = 0
        if states[ranks[i]] == 1:
            values[i >> 3] |= (given[ranks[i]] & 1) << (i & 7)


@kernel(types.void(WORDS, BYTES, WORDS, INT, WORDS, INT, INT, BYTES))
def emit(
    out: Words, status: Any, ranks: Words, n: int, plan: Words, first: int, last: int, slab: Any
) -> None:
    """Write the results of the calls [first, last) as Arrow's buffers, rows in the batch's order.

    `plan` has five words for each: its form, where in `slab` validity and values begin; then come
    out the number of nulls and of errors.
    """
    top = slab.ctypes.data
    for c in range(first, last):
        form, address = plan[5 * c], out.ctypes.data + 8 * c * n
        given, place = words_at(address), words_at(ranks.ctypes.data)
        states = bytes_at(status.ctypes.data + c * n)
        valid, to = bytes_at(top + plan[5 * c + 1]), top + plan[5 * c + 2]
        if form in (BOOLEAN, DECIMAL):
            found = _emit_valid(states, place, n, valid)
            if form == BOOLEAN:
                _emit_booleans(given, states, place, n, bytes_at(to))
            else:
                _emit_decimals(given, states, place, n, words_at(to))
        else:
            found = _emit_words(address, states, place, n, valid, words_at(to))
        plan[5 * c + 3], plan[5 * c + 4] = found
    slab[len(slab) - 1] = 0  # what is not used any more may be freed


@kernel(types.int64(types.int64[:, ::1], WORDS, WORDS, WORDS, INT, types.int32[::1]))
def measure(directory: Any, ids: Words, ranks: Words, places: Words, n: int, bounds: Any) -> int:
    """The bounds of the texts at `places` in the heaps of their rows' shards; how long they are."""
    total = 0
    bounds[0] = 0
    for i in range(n):
        if places[i] != 0:
            shard = directory[ids[3 * ranks[i] + 2] & (len(directory) - 1)]
            total += words_at(shard[HEAP])[places[i] + 1]
        bounds[i + 1] = total
    return total


@kernel(types.void(types.int64[:, ::1], WORDS, WORDS, WORDS, INT, types.int32[::1], BYTES))
def spell(
    directory: Any, ids: Words, ranks: Words, places: Words, n: int, bounds: Any, data: Any
) -> None:
    """Write the texts at `places` between their bounds."""
    for i in range(n):
        if places[i] != 0:
            shard = directory[ids[3 * ranks[i] + 2] & (len(directory) - 1)]
            text, start = bytes_at(shard[HEAP] + 8 * (places[i] + 2)), np.int64(bounds[i])
            for k in range(np.int64(bounds[i + 1]) - start):
                data[start + k] = text[k]


@kernel(types.int64(types.int64[:, ::1], WORDS, WORDS, INT, INT, WORDS, BYTES, INT))
def gaze(
    directory: Any,
    program: Words,
    ids: Words,
    time: int,
    horizon: int,
    out: Words,
    status: Any,
    n: int,
) -> int:
    """What the calls would give at `time` for each key; stops as `advance` does."""
    scratch = np.empty(8, dtype=np.int64)
    nothing, laid = words_at(0), words_at(program.ctypes.data)
    batch = Batch(
        n,
        0,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        0,
        words_at(out.ctypes.data),
        bytes_at(status.ctypes.data),
        words_at(scratch.ctypes.data),
    )
    for i in range(n):
        s = ids[3 * i + 2] & (len(directory) - 1)
        shard = _facts(directory, s)
        records = words_at(shard[RECORDS])
        r = _find(shard, laid[RECORD], ids[3 * i], ids[3 * i + 1], ids[3 * i + 2])[0]
        r = max(r, 0)  # the record of nobody has no rows
        need = _need(shard, laid, records, r, batch, Run(0, nothing, 0, nothing, nothing))
        if shard[HEAP_TOP] + need > shard[HEAP_MAX]:
            shard[NEED] = need
            return int(4 * s + HEAP_FULL)
        rows, base = rows_of(shard, laid, records, r), records[r + BASE]
        p = first_from(rows, time + 1, base, base + records[r + COUNT])
        _glance(shard, laid, records, r, p, 0, time, horizon, batch, i)
    scratch[0] = 0  # what is not used any more may be freed
    return -1


@kernel(types.void(types.int64[:, ::1], INT, INT, WORDS, INT))
def sweep(directory: Any, first: int, last: int, program: Words, horizon: int) -> None:
    """Free all keys of the shards [first, last) whose rows all lie before the horizon."""
    laid = words_at(program.ctypes.data)
    for s in range(first, last):
        shard = _facts(directory, s)
        free_deferred(shard)
        _sweep(shard, laid, horizon, shard[RECORDS_USED])


# Blocks of sizes that nobody asks for any more stay free; where much is free, all that is held
# moves to a new heap without gaps.


@inline
def _move_words(shard: Words, old: Words, place: int, words: int, size: int) -> int:
    """A block of `size` words in the heap, with words of the old one; its place."""
    heap, there = words_at(shard[HEAP]), allocate(shard, size)
    for k in range(words):
        heap[there + k] = old[place + k]
    return there


@inline
def _move_block(shard: Words, program: Words, old: Words, records: Words, r: int) -> None:
    width, capacity, count = program[WIDTH], records[r + CAPACITY], records[r + COUNT]
    start = records[r + BASE] - records[r + ORIGIN]
    if capacity > 0:
        # No larger than it was, so that the new heap is sure to have room.
        size = min(capacity, count + (count >> 3)) * width
        place = records[r + BLOCK] + start * width
        records[r + BLOCK] = _move_words(shard, old, place, count * width, size)
        records[r + CAPACITY] = capacity_of(size, width)
        records[r + ORIGIN] = records[r + BASE]
    elif capacity < 0:
        held = (start + count + CHUNK - 1) >> CHUNK_BITS
        directory = _move_words(shard, old, records[r + BLOCK], held, -capacity)
        records[r + BLOCK], heap, size = directory, words_at(shard[HEAP]), CHUNK * width
        for k in range(held):
            heap[directory + k] = _move_words(shard, old, heap[directory + k], size, size)


@kernel(types.void(WORDS, WORDS, INT))
def relocate(facts: Words, plan: Words, address: int) -> None:
    """Move all blocks of a shard from the heap at an address to its present one, which is empty."""
    shard, program, old = words_at(facts.ctypes.data), words_at(plan.ctypes.data), words_at(address)
    records, width = words_at(shard[RECORDS]), program[RECORD]
    for index in range(1, shard[RECORDS_USED]):
        r = index * width
        if records[r + FRONTIER] == _FREED:
            continue
        _move_block(shard, program, old, records, r)
        rows = rows_of(shard, program, records, r)
        for p in range(records[r + BASE], records[r + BASE] + records[r + COUNT]):
            for t in range(program[TEXTS]):
                at_text = at(rows, p) + program[program[TEXTS_AT] + t]
                place = rows.heap[at_text]
                if place != 0:
                    words = 2 + ((old[place + 1] + 7) >> 3)
                    rows.heap[at_text] = _move_words(shard, old, place, words, words)
        for d in range(program[DISTINCTS]):
            b = r + program[program[DISTINCTS_AT] + d] + 1
            if records[b] != 0:
                words = 2 + 2 * old[records[b]]
                records[b] = _move_words(shard, old, records[b], words, words)


@kernel(types.void(WORDS))
def settle(facts: Words) -> None:
    """Free what the last results still referred to."""
    free_deferred(words_at(facts.ctypes.data))


# Snapshots: for each key its record, its rows, then for each text of each row its length and bytes.
#
# Keys are copied in the order of their records, a piece at a time, while updates go on. A key that
# is about to change before its turn is kept first, so that an update waits for the keys that it
# touches and for no others. `COPIES` has a word for each record: 0 while it is as it was when the
# snapshot began, else where it is kept, or -1 where it was no key's.


@inline
def _keep(shard: Words, program: Words, r: int) -> None:
    """Let a snapshot underway have the key at word r as it is, before it changes or goes."""
    if shard[COPY_NEXT] <= r < shard[COPY_END]:
        copies, index = words_at(shard[COPIES]), r // program[RECORD]
        if copies[index] == 0:
            kept, to = words_at(shard[KEPT]), shard[KEPT_TOP]
            end = _pack_key(shard, program, words_at(shard[RECORDS]), r, kept, to + 1)
            kept[to], copies[index] = end - to - 1, to
            shard[KEPT_TOP] = end


@inline
def _keep_out(shard: Words, index: int, r: int) -> None:
    """Let a snapshot underway pass over a record that was no key's when it began."""
    if shard[COPY_NEXT] <= r < shard[COPY_END]:
        copies = words_at(shard[COPIES])
        if copies[index] == 0:
            copies[index] = -1


@inline
def _packed(shard: Words, program: Words, records: Words, r: int) -> int:
    """Words that a key takes in a snapshot."""
    words = program[RECORD] + records[r + COUNT] * program[WIDTH]
    if program[TEXTS] > 0:
        rows = rows_of(shard, program, records, r)
        for p in range(records[r + BASE], records[r + BASE] + records[r + COUNT]):
            for t in range(program[TEXTS]):
                place = rows.heap[at(rows, p) + program[program[TEXTS_AT] + t]]
                words += 1 if place == 0 else 1 + ((rows.heap[place + 1] + 7) >> 3)
    return int(words)


@inline
def _behind(rows: Rows, p: int, end: int) -> int:
    """How many of the rows from p to before `end` lie behind each other."""
    if rows.chunked == 0:
        return end - p
    return int(min(end - p, CHUNK - ((p - rows.origin) & (CHUNK - 1))))


@inline
def _pack_rows(rows: Rows, base: int, count: int, out: Words, to: int) -> int:
    p, end = base, base + count
    while p < end:
        piece = _behind(rows, p, end)
        start, size = at(rows, p), piece * rows.width
        for k in range(size):
            out[to + k] = rows.heap[start + k]
        to, p = to + size, p + piece
    return to


@inline
def _pack_texts(rows: Rows, base: int, count: int, out: Words, to: int) -> int:
    heap, program = rows.heap, rows.program
    for p in range(base, base + count):
        for t in range(program[TEXTS]):
            place = heap[at(rows, p) + program[program[TEXTS_AT] + t]]
            out[to] = -1 if place == 0 else heap[place + 1]
            to += 1
            if place != 0:
                whole = (heap[place + 1] + 7) >> 3
                for k in range(whole):
                    out[to + k] = heap[place + 2 + k]
                to += whole
    return to


@inline
def _pack_key(shard: Words, program: Words, records: Words, r: int, out: Words, to: int) -> int:
    """Write a key from word `to` of `out` on; gives where that ends."""
    width, base, count = program[RECORD], records[r + BASE], records[r + COUNT]
    for k in range(width):
        out[to + k] = records[r + k]
    # Where things lie is not part of the state, only that they are there.
    out[to + BLOCK] = out[to + CAPACITY] = 0
    out[to + ORIGIN], out[to + RUN] = base, -1
    for d in range(program[DISTINCTS]):
        table = to + program[program[DISTINCTS_AT] + d] + 1
        out[table] = 1 if out[table] != 0 else 0
    rows = rows_of(shard, program, records, r)
    to = _pack_rows(rows, base, count, out, to + width)
    return _pack_texts(rows, base, count, out, to)


@inline
def _to_copy(shard: Words, program: Words, r: int) -> int:
    """Words that the record at word r takes in the snapshot underway, 0 if it was no key's."""
    records, copy = words_at(shard[RECORDS]), words_at(shard[COPIES])[r // program[RECORD]]
    if copy > 0:
        return int(words_at(shard[KEPT])[copy])
    if copy < 0 or records[r + FRONTIER] == _FREED:
        return 0
    return _packed(shard, program, records, r)


@inline
def _copy(shard: Words, program: Words, r: int, size: int, out: Words, to: int) -> None:
    """Write the key at word r as it was when the snapshot began."""
    copy = words_at(shard[COPIES])[r // program[RECORD]]
    if copy > 0:
        kept = words_at(shard[KEPT])
        for k in range(size):
            out[to + k] = kept[copy + 1 + k]
    else:
        _pack_key(shard, program, words_at(shard[RECORDS]), r, out, to)


@kernel(types.int64(WORDS, WORDS, WORDS))
def pack(facts: Words, plan: Words, piece: Words) -> int:
    """Copy the next keys of a shard, as many as fit, behind two words: how many, and their words.

    Gives the words that were written, or 0 when no key is left. Where `piece` has no room for the
    next key, gives less than 0: how long it must be, negated.
    """
    shard, program = words_at(facts.ctypes.data), words_at(plan.ctypes.data)
    out, keys, to, size = words_at(piece.ctypes.data), 0, 2, 0
    while shard[COPY_NEXT] < shard[COPY_END]:
        r = shard[COPY_NEXT]
        size = _to_copy(shard, program, r)
        if to + size > len(piece):
            break
        if size > 0:
            _copy(shard, program, r, size, out, to)
            keys, to = keys + 1, to + size
        shard[COPY_NEXT] = r + program[RECORD]
    out[0], out[1] = keys, to - 2
    if keys > 0:
        return to
    return -(2 + size) if shard[COPY_NEXT] < shard[COPY_END] else 0


@inline
def _unpack_rows(rows: Rows, base: int, count: int, data: Words, i: int) -> int:
    p, end = base, base + count
    while p < end:
        piece = _behind(rows, p, end)
        start, size = at(rows, p), piece * rows.width
        for k in range(size):
            rows.heap[start + k] = data[i + k]
        i, p = i + size, p + piece
    return i


@inline
def _unpack_texts(rows: Rows, base: int, count: int, data: Words, i: int) -> int:
    heap, program = rows.heap, rows.program
    for p in range(base, base + count):
        for t in range(program[TEXTS]):
            size, place = data[i], 0
            i += 1
            if size >= 0:
                whole = (size + 7) >> 3
                place = allocate(rows.shard, 2 + whole)
                heap[place + 1] = size
                for k in range(whole):
                    heap[place + 2 + k] = data[i + k]
                i += whole
            heap[at(rows, p) + program[program[TEXTS_AT] + t]] = place
    return i


@inline
def _tables(program: Words, records: Words, r: int, rows: Rows) -> None:
    """Make again the tables of distinct values, from the rows of their frames."""
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
        for number in range(program[f + F_FIRST], program[f + F_LAST]):
            a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
            b = r + program[a + A_BASE]
            if program[a + A_KIND] == DISTINCT and records[b + 1] != 0:
                records[b + 1] = 0
                op = operation(program, a, r)
                tabulate(records, b, rows, op, records[held], records[held + 1])


@kernel(types.int64(WORDS, WORDS, GIVEN, INT, INT))
def unpack(facts: Words, plan: Words, given: Words, i: int, keys: int) -> int:
    """Read so many keys from word i of `data` on into an empty shard that has room for them."""
    shard, program = words_at(facts.ctypes.data), words_at(plan.ctypes.data)
    records, width, data = words_at(shard[RECORDS]), program[RECORD], words_at(given.ctypes.data)
    for _ in range(keys):
        id0, id1 = data[i + ID0], data[i + ID1]
        hashed = _hash(program, id0, id1)
        r = _create(shard, width, id0, id1, hashed, _find(shard, width, id0, id1, hashed)[1])
        for k in range(width):
            records[r + k] = data[i + k]
        count, base = records[r + COUNT], records[r + BASE]
        records[r + COUNT] = 0
        make_room(shard, program, records, r, count)
        rows = rows_of(shard, program, records, r)
        i = _unpack_rows(rows, base, count, data, i + width)
        records[r + COUNT] = count
        shard[ROWS] += count
        i = _unpack_texts(rows, base, count, data, i)
        _tables(program, records, r, rows)
    return i
