"""A lot: rows of different keys, one of each, that go through all frames together.

Of a batch of few events hardly any two are of one key. What it takes to set about an accumulator is
done once for the rows of a lot then, and not for each of them; and while one of them waits for its
memory, the processor is at the next.
"""

from __future__ import annotations

from tidegate.events.fingerprints import inline
from tidegate.features.aggregates import lot_any
from tidegate.features.history import Rows, at, make_room, rows_of, trim
from tidegate.features.inputs import LOT_MAX, Batch, Lot, Run, lot_at
from tidegate.features.layout import (
    A_KIND,
    ACCUMULATOR,
    ACCUMULATORS_AT,
    BASE,
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
    LAGS,
    LOOK_BACK,
    RUN,
    WIDTH,
)
from tidegate.features.memory import (
    DIRECTORY,
    DONE_GROUPS,
    GROUPS,
    HEAP_MAX,
    HEAP_TOP,
    RECORDS,
    ROWS,
    Words,
    unfolded,
    words_at,
)
from tidegate.features.packing import guard_rows, keep_key, spared
from tidegate.features.runs import need_of, put, read_lags

_LEAST = 3  # rows of a lot that are worth it


@inline
def take_lots(
    directory: int, first: int, last: int, bounds: Words, program: Words, batch: Batch
) -> None:
    """Take rows of the shards [first, last), which are grouped, through all frames, as one lot.

    They are those whose key has no other, that are in order of time, and for which there is room.
    Their groups are marked as taken by -1 in the place of a record; the others are left.
    """
    work, n = words_at(batch.work), batch.n
    if not _LEAST <= bounds[last] - bounds[first] <= LOT_MAX:
        return
    lot, size = lot_at(batch.lot, 0), 0
    for s in range(first, last):
        facts = directory + 8 * DIRECTORY * s
        shard = words_at(facts)
        records, top = words_at(shard[RECORDS]), shard[HEAP_TOP]
        for g in range(bounds[s] + shard[DONE_GROUPS], bounds[s] + shard[GROUPS]):
            begun = work[2 * n + g - 1] if g > bounds[s] else g
            listed = batch.work + 8 * (4 * n + begun)
            run = Run(listed, words_at(listed), 1, words_at(0), words_at(0))
            k, r = run.of[0], work[3 * n + g]
            if work[2 * n + g] - begun == 1 and _is_ready(program, records, r, batch, k):
                need = need_of(program, records, r, batch, run)
                if top + need <= shard[HEAP_MAX]:
                    top += need
                    lot.shards[size], lot.records[size], lot.rows[size] = facts, r, k
                    lot.numbers[size] = g
                    size += 1
    if size >= _LEAST:
        for x in range(size):
            work[3 * n + lot.numbers[x]] = -1
        _take(program, batch, lot_at(batch.lot, size))


@inline
def _is_ready(program: Words, records: Words, r: int, batch: Batch, k: int) -> bool:
    """Whether row k is in order of time for the key at word r, which is not taken yet."""
    if r < 0:
        return False
    time = batch.rows[k * program[WIDTH]]
    return bool(time >= batch.horizons[k] and time >= records[r + FRONTIER])


@inline
def _take(program: Words, batch: Batch, lot: Lot) -> None:
    _store(program, batch, lot)
    for frame in range(program[FRAMES]):
        f, held = program[FRAMES_AT] + FRAME * frame, HEADER + 2 * frame
        _find_ends(program, f, held, batch, lot)
        for number in range(program[f + F_FIRST], program[f + F_LAST]):
            a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
            lot_any(program[a + A_KIND], program, a, batch, lot)
    for x in range(lot.size):
        _finish(program, batch, lot, x)


@unfolded
def _store(program: Words, batch: Batch, lot: Lot) -> None:
    """Store the rows behind those that their keys have."""
    for x in range(lot.size):
        shard, r = words_at(lot.shards[x]), lot.records[x]
        records = words_at(shard[RECORDS])
        keep_key(shard, program, r)
        make_room(shard, program, records, r, 1)
        lot.numbers[x] = p = records[r + BASE] + records[r + COUNT]
        rows = rows_of(shard, program, records, r)
        put(rows, at(rows, p), batch, lot.rows[x])
        records[r + COUNT] += 1
        shard[ROWS] += 1


@unfolded
def _find_ends(program: Words, f: int, held: int, batch: Batch, lot: Lot) -> None:
    """Where the frame that is described from word f on starts and ends for each row."""
    for x in range(lot.size):
        shard, r = words_at(lot.shards[x]), lot.records[x]
        records = words_at(shard[RECORDS])
        rows, own = rows_of(shard, program, records, r), lot.numbers[x]
        s, e = records[r + held], records[r + held + 1]
        horizon = batch.horizons[lot.rows[x]]
        lot.begun[x], lot.ended[x] = s, e
        if program[f + F_ROWS]:
            s, e = _rows_ends(rows, program, f, own, horizon, s)
        else:
            s, e = _range_ends(rows, program, f, own, horizon, s, e)
        lot.starts[x], lot.ends[x] = records[r + held], records[r + held + 1] = s, e


@inline
def _range_ends(
    rows: Rows, program: Words, f: int, own: int, horizon: int, s: int, e: int
) -> tuple[int, int]:
    heap, time = rows.heap, rows.heap[at(rows, own)]
    lower, end = max(time - program[f + F_START], horizon), program[f + F_END]
    while heap[at(rows, s)] < lower:  # which the row itself is not
        s += 1
    if end == 0:
        return s, own + 1 - program[f + F_EXCLUDE]
    e = max(s, e)
    while heap[at(rows, e)] <= time - end:
        e += 1
    return s, e


@inline
def _rows_ends(
    rows: Rows, program: Words, f: int, own: int, horizon: int, s: int
) -> tuple[int, int]:
    lower = max(rows.heap[at(rows, own)] - program[LOOK_BACK], horizon)
    s = max(s, own - program[f + F_START])
    while s < own and rows.heap[at(rows, s)] < lower:
        s += 1
    e = own - program[f + F_END] + 1
    if program[f + F_EXCLUDE] and e > own:
        e = own
    return s, max(s, e)


@unfolded
def _finish(program: Words, batch: Batch, lot: Lot, x: int) -> None:
    """Read what lies behind a row, and free what no frame can reach any more."""
    shard, r, k, own = words_at(lot.shards[x]), lot.records[x], lot.rows[x], lot.numbers[x]
    records = words_at(shard[RECORDS])
    rows, horizon = rows_of(shard, program, records, r), batch.horizons[k]
    base, time = records[r + BASE], rows.heap[at(rows, own)]
    if program[LAGS] > 0:
        lower = max(time - program[LOOK_BACK], horizon)
        read_lags(rows, program, base, own, lower, batch, k)
    records[r + FRONTIER] = time
    least = own + 1
    for frame in range(program[FRAMES]):
        least = min(least, records[r + HEADER + 2 * frame])
    while base < least and rows.heap[at(rows, base)] < horizon:
        base += 1
    base = spared(shard, program, r, records[r + BASE], base)
    guard_rows(shard, program, records, r, records[r + BASE], base)
    trim(shard, program, records, r, base)
    records[r + RUN] = -1
