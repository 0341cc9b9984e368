"""What runs over a batch: rows to their keys, and a key's rows through its frames.

Each shard finds the keys of its rows and takes each key's rows in turn, in log order: those in
order of time as one run, each late one alone. Within a run, each accumulator goes through all rows
before the next one does.

A kernel that needs more memory stops between two keys, says how much in `NEED`, and goes on from
there when it is called again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import BYTES, GIVEN, INT, WORDS
from tidegate.features.emission import ERRORS, NULLS, PLAN, ROOM, Target, columns_from
from tidegate.features.foresight import (
    ASKED,
    KNOWN,
    NEAR,
    TILE,
    begin_foresight,
    foresee_groups,
    foresee_keys,
    foresee_slots,
    foresee_span,
)
from tidegate.features.history import first_from, free_deferred, rows_of
from tidegate.features.inputs import (
    BOUNDS,
    COLUMNS,
    DESCRIBED,
    DIRECTORY_AT,
    HORIZONS,
    IDS,
    LOT,
    ORDER,
    PLACES,
    PLANNED,
    PROGRAM,
    RANKS,
    RESULTS,
    ROWS_AT,
    ROWS_IN,
    SHAPE,
    SLAB,
    SLOTS,
    STATES,
    TOGETHER,
    WORK,
    Batch,
    Run,
    charted,
    part,
)
from tidegate.features.intake import (
    Part,
    Source,
    describe,
    list_groups,
    names_of,
    ranks_of,
    rows_from,
)
from tidegate.features.keys import create_key, empty_key, find_key, foresee_sweep, sweep_keys
from tidegate.features.late import glance, take_late
from tidegate.features.layout import (
    BASE,
    CALLS,
    COUNT,
    FRONTIER,
    NEVER,
    RECORD,
    RUN,
    SPAN,
    TEXTS,
    WIDTH,
)
from tidegate.features.lots import take_lots
from tidegate.features.memory import (
    DIRECTORY,
    DONE_GROUPS,
    DONE_ROWS,
    GROUPS,
    HEAP_MAX,
    HEAP_TOP,
    KEYS,
    NEED,
    RECORDS,
    RECORDS_FREE,
    RECORDS_MAX,
    RECORDS_USED,
    ROWS,
    TABLE_BITS,
    Words,
    bytes_at,
    kernel,
    words_at,
)
from tidegate.features.packing import keep_key
from tidegate.features.runs import need_of, take_in_order

# What a kernel does besides: read columns before it takes their rows in, write results after.
READING, WRITING = 1, 2

# Rows of a key in a batch from which on its record is taken to be near when a row comes.
_OFTEN = 4

_SWEPT = 2  # records that are looked at for each row, whether their keys are idle

# What a kernel stopped for.
FINISHED, TABLE_FULL, RECORDS_FULL, HEAP_FULL = range(4)


@inline
def _group(
    shard: Words, program: Words, batch: Batch, directory: int, shards: int, lo: int, hi: int
) -> int:
    """Group the rows [lo, hi) by key, keys in order of appearance; makes records for new keys.

    Scratch: the group of each row; for each group its first row, then how many it has until they
    are listed, then its record, -1 where there are fewer groups than rows.
    """
    width, records = program[RECORD], words_at(shard[RECORDS])
    work, n = words_at(batch.work), batch.n
    if shard[DONE_ROWS] == hi - lo:
        return FINISHED  # they are listed, too
    many = hi - lo > _OFTEN * shard[KEYS]
    while shard[DONE_ROWS] < hi - lo:
        done = shard[DONE_ROWS]
        k = lo + done
        if done % TILE == 0 and done > 0 and not many:
            ahead = min(k + TILE, hi)
            foresee_slots(directory, shards, batch.ids, k, ahead)
            foresee_keys(directory, shards, program, batch, k, ahead, RUN + 1)
        id0, id1, hashed = batch.ids[3 * k], batch.ids[3 * k + 1], batch.ids[3 * k + 2]
        r, slot = find_key(shard, width, id0, id1, hashed)
        if r < 0:
            if batch.rows[k * program[WIDTH]] < batch.horizons[k]:
                r = 0  # the row is seen by no other: the record of nobody will do
            elif 5 * (shard[KEYS] + 1) > 3 << shard[TABLE_BITS]:
                return TABLE_FULL
            elif shard[RECORDS_FREE] == 0 and shard[RECORDS_USED] >= shard[RECORDS_MAX]:
                return RECORDS_FULL
            else:
                r = create_key(shard, width, id0, id1, hashed, slot)
        g = records[r + RUN]
        if g < 0:
            g = lo + shard[GROUPS]
            shard[GROUPS] += 1
            records[r + RUN] = g
            work[n + g], work[2 * n + g], work[3 * n + g] = k, 0, r
        work[k] = g
        work[2 * n + g] += 1
        shard[DONE_ROWS] += 1
    for g in range(3 * n + lo + shard[GROUPS], 3 * n + hi):
        work[g] = -1
    list_groups(shard[GROUPS], work, n, lo, hi)
    return FINISHED


@inline
def _key(shard: Words, program: Words, r: int, batch: Batch, run: Run) -> None:
    """Take the rows of one key, in log order, through its frames.

    A row before its horizon goes with the record of nobody: it sees what a key would see that has
    no other row, and no horizon. All runs go one way, since the code of it is long.
    """
    records, width, kept = words_at(shard[RECORDS]), program[WIDTH], shard[ROWS]
    x = 0
    while x < run.size:
        k, to = run.of[x], r
        y, time = x + 1, batch.rows[k * width]
        if time >= batch.horizons[k] and time < records[r + FRONTIER]:
            take_late(shard, program, records, r, batch, part(run, x, y))
            x = y
            continue
        if time < batch.horizons[k]:
            batch.horizons[k], kept, to = NEVER, shard[ROWS], 0
            group = _blank(program, records)
        else:
            group = records[RUN]
            while y < run.size:
                later = batch.rows[run.of[y] * width]
                if later < time or later < batch.horizons[run.of[y]]:
                    break
                time, y = later, y + 1
        take_in_order(shard, program, records, to, batch, part(run, x, y))
        if to == 0:
            empty_key(shard, program, records, 0)
            shard[ROWS] = kept
            _blank(program, records)
            records[RUN] = group
        x = y


@inline
def _blank(program: Words, records: Words) -> int:
    """Clear the record of nobody; the group that it had."""
    group = records[RUN]
    for w in range(program[RECORD]):
        records[w] = 0
    return int(group)


@inline
def _shard(shard: Words, program: Words, batch: Batch, lo: int, hi: int) -> int:
    """Take the rows [lo, hi), which are grouped, through one shard; says why it stopped."""
    records, work, n = words_at(shard[RECORDS]), words_at(batch.work), batch.n
    starts, ends = words_at(batch.work + 8 * (5 * n + lo)), words_at(batch.work + 8 * (6 * n + lo))
    while shard[DONE_GROUPS] < shard[GROUPS]:
        done = shard[DONE_GROUPS]
        g = lo + done
        if done % TILE == 0 and n > NEAR:
            foresee_groups(batch.chart, batch.asked, g + TILE)
        r, end = work[3 * n + g], work[2 * n + g]
        if r < 0:  # it was in a lot
            shard[DONE_GROUPS] += 1
            continue
        start = work[2 * n + g - 1] if done > 0 else lo
        listed = batch.work + 8 * (4 * n + start)
        run = Run(listed, words_at(listed), end - start, starts, ends)
        need = need_of(program, records, r, batch, run)
        if shard[HEAP_TOP] + need > shard[HEAP_MAX]:
            shard[NEED] = need
            return HEAP_FULL
        keep_key(shard, program, r)
        _key(shard, program, r, batch, run)
        records[r + RUN] = -1
        shard[DONE_GROUPS] += 1
    sweep_keys(shard, program, batch.horizons[n], _SWEPT * (hi - lo))
    shard[DONE_ROWS] = shard[DONE_GROUPS] = shard[GROUPS] = 0
    return FINISHED


# Shards that have few rows each go together, as a span. While one is taken through its frames, the
# memory of the next ones is underway: their keys' records two ahead, their rows one ahead.


@inline
def _end(bounds: Words, first: int, last: int, together: int) -> int:
    """Where a span ends that begins with a shard and has so many rows, unless that shard has."""
    end = first + 1
    while end < last and bounds[end + 1] - bounds[first] <= together:
        end += 1
    return min(end, last)


@inline
def _foresee(
    directory: int, shards: int, first: int, last: int, bounds: Words, program: Words, batch: Batch
) -> None:
    """Ask for the records of the keys of a span, as far as they are used together."""
    if first < last:
        lo, hi = bounds[first], min(bounds[first] + TILE, bounds[last])
        foresee_keys(directory, shards, program, batch, lo, hi, program[RECORD])


@inline
def _gather(
    directory: int, shards: int, first: int, last: int, bounds: Words, program: Words, batch: Batch
) -> int:
    """Group the rows of a span; as `advance`."""
    end, why = last, FINISHED
    for s in range(first, last):
        shard = words_at(directory + 8 * DIRECTORY * s)
        if shard[DONE_ROWS] == 0 and bounds[s] < bounds[s + 1]:
            free_deferred(shard)
        why = _group(shard, program, batch, directory, shards, bounds[s], bounds[s + 1])
        if why != FINISHED:
            end = s
            break
    for s in range(first, end):
        shard = words_at(directory + 8 * DIRECTORY * s)
        foresee_sweep(shard, program, _SWEPT * (bounds[s + 1] - bounds[s]))
    return -1 if why == FINISHED else int(4 * end + why)


@inline
def _settle(
    directory: int, first: int, last: int, bounds: Words, program: Words, batch: Batch
) -> int:
    """Take the rows of a span, which are grouped, through their frames; as `advance`."""
    take_lots(directory, first, last, bounds, program, batch)
    for s in range(first, last):
        shard = words_at(directory + 8 * DIRECTORY * s)
        if bounds[s] < bounds[s + 1]:
            stopped = _shard(shard, program, batch, bounds[s], bounds[s + 1])
            if stopped != FINISHED:
                return int(4 * s + stopped)
    return -1


@inline
def _take(chart: Words, shards: int, first: int, last: int, program: Words, batch: Batch) -> int:
    """Take the rows of the shards [first, last) through their frames; as `advance`."""
    directory, bounds, together = chart[DIRECTORY_AT], words_at(chart[BOUNDS]), chart[TOGETHER]
    begun, end = first, first
    after = _end(bounds, first, last, together)
    _foresee(directory, shards, end, after, bounds, program, batch)
    begin_foresight(batch.asked, bounds[first], shards)
    while begun < last:
        later = _end(bounds, after, last, together)
        _foresee(directory, shards, after, later, bounds, program, batch)
        lacking = _gather(directory, shards, end, after, bounds, program, batch)
        grouped = end if lacking < 0 else lacking >> 2
        batch.asked[KNOWN] = bounds[after if lacking < 0 else grouped]
        if batch.n <= NEAR:
            foresee_span(chart, batch.asked, bounds[end])
        stopped = _settle(directory, begun, grouped, bounds, program, batch)
        if stopped >= 0 or lacking >= 0:
            return stopped if stopped >= 0 else lacking
        begun, end, after = end, after, later
    return -1


@inline
def facts_of(directory: Any, s: int) -> Words:
    """The directory's row of shard s."""
    return words_at(directory.ctypes.data + 8 * DIRECTORY * s)


@inline
def _read(chart: Words, shards: int, times: Words, newest: Words) -> None:
    """Write the rows of a batch in the order of their shards, from columns and times."""
    directory, program = chart[DIRECTORY_AT], words_at(chart[PROGRAM])
    given, shape = words_at(chart[DESCRIBED]), words_at(chart[SHAPE])
    n, named, ids = chart[ROWS_IN], words_at(chart[WORK]), words_at(chart[IDS])
    ranks, horizons = words_at(chart[RANKS]), words_at(chart[HORIZONS])
    describe(given, words_at(chart[SLOTS]), words_at(chart[PLACES]), chart[COLUMNS])
    names_of(given, program, shape[4], 0, n, named)
    foresee_slots(directory, shards, named, 0, n)
    ranks_of(named, shards, words_at(chart[BOUNDS]), words_at(chart[ORDER]), ranks, n)
    source = Source(times, newest, named, horizons, ids)
    part = Part(0, n, words_at(chart[ROWS_AT]), ranks, program[WIDTH])
    rows_from(given, shape, program, source, part)
    horizons[n] = newest[n - 1] - program[SPAN]


@inline
def _open(chart: Words, shards: int, copy: Words, lot: int, asked: Words) -> None:
    """Ask for what the first span of an entity needs, while others are taken in."""
    program, bounds = words_at(chart[PROGRAM]), words_at(chart[BOUNDS])
    end, batch = (
        _end(bounds, 0, shards, chart[TOGETHER]),
        charted(chart, program[TEXTS], copy, lot, asked),
    )
    _foresee(chart[DIRECTORY_AT], shards, 0, end, bounds, program, batch)


@inline
def _write(chart: Words, places: Words) -> None:
    """Write the results of a batch as Arrow's buffers; `places` is scratch."""
    calls, planned = words_at(chart[PROGRAM])[CALLS], words_at(chart[PLANNED])
    for call in range(calls):
        planned[PLAN * call + NULLS] = planned[PLAN * call + ERRORS] = 0
    results, to = (chart[RESULTS], chart[STATES]), Target(chart[SLAB], calls, places)
    columns_from(results, words_at(chart[RANKS]), 0, chart[ROWS_IN], planned, to)


@kernel(types.int64(WORDS, GIVEN, GIVEN, *(INT,) * 5))
def advance(
    charts: Words,
    times: Words,
    newest: Words,
    entity: int,
    shards: int,
    first: int,
    last: int,
    steps: int,
) -> int:
    """Take the rows of the shards [first, last) of an entity, and of those after it, in.

    A chart tells of each entity's batch; all have the same rows, and `shards` shards. Gives -1 when
    done, else `(entity << 16) + 4 * shard + why` for a shard that stopped for lack of memory. Of
    few rows it reads columns and writes results as well (`steps`), since each call costs as much as
    some rows.
    """
    scratch = np.empty(8 + ASKED + ROOM + LOT, dtype=np.int64)
    copy, asked = words_at(scratch.ctypes.data), words_at(scratch.ctypes.data + 64)
    places = words_at(scratch.ctypes.data + 64 + 8 * ASKED)
    lot = scratch.ctypes.data + 64 + 8 * (ASKED + ROOM)
    since, latest = words_at(times.ctypes.data), words_at(newest.ctypes.data)
    if steps & READING:
        for e in range(entity, len(charts)):
            _read(words_at(charts[e]), shards, since, latest)
        for e in range(entity, len(charts)):
            _open(words_at(charts[e]), shards, copy, lot, asked)
    for e in range(entity, len(charts)):
        chart = words_at(charts[e])
        program = words_at(chart[PROGRAM])
        batch = charted(chart, program[TEXTS], copy, lot, asked)
        stopped = _take(chart, shards, first, last, program, batch)
        if stopped >= 0:
            return (e << 16) + stopped
        if steps & WRITING:
            _write(chart, places)
        first = 0
    scratch[0] = 0  # what is not used any more may be freed
    return -1


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
        0,
        nothing,
        nothing,
        nothing,
        0,
        0,
        words_at(out.ctypes.data),
        bytes_at(status.ctypes.data),
        words_at(scratch.ctypes.data),
        0,
        nothing,
        nothing,
    )
    for i in range(n):
        s = ids[3 * i + 2] & (len(directory) - 1)
        shard = facts_of(directory, s)
        records = words_at(shard[RECORDS])
        r = find_key(shard, laid[RECORD], ids[3 * i], ids[3 * i + 1], ids[3 * i + 2])[0]
        r = max(r, 0)  # the record of nobody has no rows
        need = need_of(laid, records, r, batch, Run(0, nothing, 0, nothing, nothing))
        if shard[HEAP_TOP] + need > shard[HEAP_MAX]:
            shard[NEED] = need
            return int(4 * s + HEAP_FULL)
        rows, base = rows_of(shard, laid, records, r), records[r + BASE]
        p = first_from(rows, time + 1, base, base + records[r + COUNT])
        glance(shard, laid, records, r, p, 0, time, horizon, batch, i)
    scratch[0] = 0  # what is not used any more may be freed
    return -1


@kernel(types.void(types.int64[:, ::1], INT, INT, WORDS, INT))
def sweep(directory: Any, first: int, last: int, program: Words, horizon: int) -> None:
    """Free all keys of the shards [first, last) whose rows all lie before the horizon."""
    laid = words_at(program.ctypes.data)
    for s in range(first, last):
        shard = facts_of(directory, s)
        free_deferred(shard)
        sweep_keys(shard, laid, horizon, shard[RECORDS_USED])
