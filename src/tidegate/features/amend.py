"""Corrects values of rows that are kept, and the running aggregates that have taken them in.

A row is found by its key, event time and log offset. Rows that are freed, or were never kept, are
passed over. What comes out is a function of the state and of the corrections in their order.
"""

from __future__ import annotations

from typing import Any

from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.accumulators import operation
from tidegate.features.aggregates import exclude, readmit
from tidegate.features.columns import DESCRIPTION, INT, WORDS, is_null, text_of
from tidegate.features.distinct import slots_of
from tidegate.features.history import Rows, at, first_from, forget_bests, rows_of
from tidegate.features.keys import find_key
from tidegate.features.layout import (
    A_FILTER,
    A_FILTER_AT,
    A_KIND,
    A_NULL,
    A_NULL_AT,
    A_VALUE,
    ACCUMULATOR,
    ACCUMULATORS_AT,
    BASE,
    COUNT,
    DISTINCTS,
    DISTINCTS_AT,
    F_FIRST,
    F_LAST,
    FRAME,
    FRAMES,
    FRAMES_AT,
    HEADER,
    RECORD,
    TEXTS,
    TEXTS_AT,
    WIDTH,
)
from tidegate.features.memory import (
    HEAP_MAX,
    HEAP_TOP,
    NEED,
    RECORDS,
    Words,
    kernel,
    release,
    words_at,
)
from tidegate.features.packing import guard_rows, keep_key
from tidegate.features.runs import keep_text
from tidegate.features.shards import HEAP_FULL, facts_of

DONE, FOUND = range(2)


@inline
def _row_of(rows: Rows, base: int, end: int, time: int, offset: int, word: int) -> int:
    """The number of the row with this time and log offset, -1 if there is none."""
    low = first_from(rows, time, base, end)
    high = first_from(rows, time + 1, low, end)
    last = high
    while low < high:  # among equal times the later in the log is the later
        middle = (low + high) >> 1
        if rows.heap[at(rows, middle) + word] < offset:
            low = middle + 1
        else:
            high = middle
    if low < last and rows.heap[at(rows, low) + word] == offset:
        return low
    return -1


@inline
def _is_touched(program: Words, a: int, changed: Words) -> bool:
    """Whether an accumulator takes in anything that changes."""
    null = changed[program[a + A_NULL_AT]] & program[a + A_NULL]
    kept = changed[program[a + A_FILTER_AT]] & program[a + A_FILTER]
    return bool((null | kept | changed[program[a + A_VALUE]]) != 0)


@inline
def _need(program: Words, records: Words, r: int, texts: Words, i: int) -> int:
    """Words of heap that row i of the corrections may take at most."""
    words, slots = 0, 64
    while slots < 2 * records[r + COUNT] + 2:
        slots *= 2
    for d in range(program[DISTINCTS]):
        table = records[r + program[program[DISTINCTS_AT] + d] + 1]
        if table == 0 or slots_of(table) < slots:
            words += 8 * slots
    for t in range(program[TEXTS]):
        if not is_null(texts, t * DESCRIPTION, i):
            words += 2 * (3 + (text_of(texts, t * DESCRIPTION, i)[1] >> 3)) + 4
    return words


@inline
def _write(rows: Rows, there: int, given: Words, k: int, changed: Words, texts: Words) -> None:
    """Write what changes of row k of the corrections over the row at a place in the heap."""
    heap, program, width = rows.heap, rows.program, rows.width
    for t in range(program[TEXTS]):
        w = program[program[TEXTS_AT] + t]
        if changed[w] != 0:
            old = heap[there + w]
            if old != 0:
                release(rows.shard, old, 2 + ((heap[old + 1] + 7) >> 3))
            heap[there + w] = keep_text(rows, texts, t * DESCRIPTION, given[k * width + w])
            given[k * width + w] = heap[there + w]
    for w in range(width):
        new = given[k * width + w] & changed[w]
        heap[there + w] = (heap[there + w] & ~changed[w]) | new


@inline
def _correct(
    shard: Words,
    program: Words,
    r: int,
    p: int,
    given: Words,
    k: int,
    changed: Words,
    texts: Words,
) -> None:
    """Correct row p of a key, and the aggregates of the frames that it lies in."""
    records = words_at(shard[RECORDS])
    rows = rows_of(shard, program, records, r)
    for entering in range(2):
        if entering:
            _write(rows, at(rows, p), given, k, changed, texts)
            forget_bests(rows, p, p + 1)
        for frame in range(program[FRAMES]):
            f, held = program[FRAMES_AT] + FRAME * frame, r + HEADER + 2 * frame
            s, e = records[held], records[held + 1]
            if p < s or p >= e:
                continue
            for number in range(program[f + F_FIRST], program[f + F_LAST]):
                a = program[ACCUMULATORS_AT] + ACCUMULATOR * number
                if _is_touched(program, a, changed):
                    op, kind = operation(program, a, r), program[a + A_KIND]
                    if entering:
                        readmit(records, kind, rows, op, s, e, op.base, p)
                    else:
                        exclude(records, kind, rows, op, op.base, p)


@kernel(
    types.int64(
        types.int64[:, ::1], WORDS, WORDS, WORDS, WORDS, WORDS, WORDS, WORDS, INT, INT, WORDS
    )
)
def amend(
    directory: Any,
    plan: Words,
    given: Words,
    ids: Words,
    order: Words,
    texts: Words,
    times: Words,
    changes: Words,
    word: int,
    n: int,
    progress: Words,
) -> int:
    """Correct rows, given in the order of their shards: in each the bits `changes` of its words.

    `word` is that of the log offset. Gives -1 when done, else `4 * shard + why` for a shard that
    stopped for lack of memory; `progress` says how many are done, and how many rows were found.
    """
    program, changed = words_at(plan.ctypes.data), words_at(changes.ctypes.data)
    rows_given, described = words_at(given.ctypes.data), words_at(texts.ctypes.data)
    while progress[DONE] < n:
        k = progress[DONE]
        s = ids[3 * k + 2] & (len(directory) - 1)
        shard = facts_of(directory, s)
        records, width = words_at(shard[RECORDS]), program[WIDTH]
        r = find_key(shard, program[RECORD], ids[3 * k], ids[3 * k + 1], ids[3 * k + 2])[0]
        p = -1
        if r >= 0:
            rows, base = rows_of(shard, program, records, r), records[r + BASE]
            offset = rows_given[k * width + word]
            p = _row_of(rows, base, base + records[r + COUNT], times[order[k]], offset, word)
        if p >= 0:
            need = _need(program, records, r, described, order[k])
            if shard[HEAP_TOP] + need > shard[HEAP_MAX]:
                shard[NEED] = need
                return int(4 * s + HEAP_FULL)
            keep_key(shard, program, r)
            guard_rows(shard, program, records, r, p, p + 1)
            _correct(shard, program, r, p, rows_given, k, changed, described)
            progress[FOUND] += 1
        progress[DONE] = k + 1
    return -1
