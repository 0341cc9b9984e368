"""Snapshots: each key as fragments of a record, rows, then the length and bytes of the rows' texts.

A fragment's `ORIGIN` is the number of its first row, and `RUN` how many rows it has; most keys are
one fragment, those that do not fit a piece of the copy are several, in the order of their rows.

Keys are copied in the order of their records, a piece at a time, while updates go on. A key that
is about to change before its turn is kept first, so that an update waits for the keys that it
touches and for no others. Of a key with many rows, or of one that is copied in part, only the
record is kept: its rows stay where they are, and `guard_rows` keeps those that are about to change
or go. `COPIES` has a word for each record: 0 while it is as it was when the snapshot began, else
where it is kept, or -1 where it was no key's.
"""

from __future__ import annotations

from numba import types

from tidegate.events.fingerprints import inline
from tidegate.features.columns import WORDS
from tidegate.features.history import CHUNK, Rows, at, rows_of
from tidegate.features.layout import (
    BASE,
    BLOCK,
    CAPACITY,
    COUNT,
    DISTINCTS,
    DISTINCTS_AT,
    FREED,
    FRONTIER,
    ORIGIN,
    RECORD,
    RUN,
    TEXTS,
    TEXTS_AT,
)
from tidegate.features.memory import (
    COPIES,
    COPY_DONE,
    COPY_END,
    COPY_NEXT,
    KEPT,
    KEPT_TOP,
    RECORDS,
    Words,
    kernel,
    words_at,
)

# What is kept of a key: how many words of a fragment follow, or -1 where only its record does, and
# before that lists of the rows kept so far: those before `LOW` and those from `HIGH` on. The rows
# between lie in the heap, by the numbers that they had.
FIRST_LOW, LAST_LOW, FIRST_HIGH, LOW, HIGH, KEPT_RECORD = range(1, 7)

# A part of such a list: the next part (0: none), its first row's number, how many rows, their
# words, then the rows and their texts.
NEXT, NUMBER, ROWS_KEPT, WORDS_KEPT, PART = range(5)

_AHEAD = 64  # rows kept at once where single rows go
_SPARED = 4096  # rows that may go in one step while a snapshot has not got them


@inline
def keep_key(shard: Words, program: Words, r: int) -> None:
    """Let a snapshot underway have the key at word r as it is, before it changes or goes."""
    if shard[COPY_NEXT] <= r < shard[COPY_END]:
        copies, index = words_at(shard[COPIES]), r // program[RECORD]
        if copies[index] == 0:
            copies[index] = _keep(shard, program, words_at(shard[RECORDS]), r)


@inline
def _keep(shard: Words, program: Words, records: Words, r: int) -> int:
    kept, to = words_at(shard[KEPT]), shard[KEPT_TOP]
    base, count = records[r + BASE], records[r + COUNT]
    done = shard[COPY_DONE] if r == shard[COPY_NEXT] else 0
    if done == 0 and count <= CHUNK:
        end = _write_record(program, records, r, base, count, kept, to + 1)
        end = _write_rows(rows_of(shard, program, records, r), base, count, kept, end)
        kept[to] = end - to - 1
    else:
        kept[to] = -1
        kept[to + FIRST_LOW] = kept[to + LAST_LOW] = kept[to + FIRST_HIGH] = 0
        kept[to + LOW], kept[to + HIGH] = base + done, base + count
        end = _write_record(program, records, r, base, count, kept, to + KEPT_RECORD)
    shard[KEPT_TOP] = end
    return int(to)


@inline
def _kept_apart(shard: Words, program: Words, r: int) -> int:
    """Where the record of the key at word r is kept whose rows lie in the heap; 0: it is not."""
    if shard[COPY_NEXT] <= r < shard[COPY_END]:
        place = words_at(shard[COPIES])[r // program[RECORD]]
        if place > 0 and words_at(shard[KEPT])[place] < 0:
            return int(place)
    return 0


@inline
def guard_rows(shard: Words, program: Words, records: Words, r: int, first: int, last: int) -> None:
    """Let a snapshot underway have the rows [first, last) of a kept key before they change or go.

    With them it has all before or all behind, whichever are fewer.
    """
    place = _kept_apart(shard, program, r)
    if place == 0:
        return
    kept = words_at(shard[KEPT])
    low, high = kept[place + LOW], kept[place + HIGH]
    first, last = max(first, low), min(last, high)
    if first < last:
        rows = rows_of(shard, program, records, r)
        if last - low <= high - first:
            _keep_low(shard, kept, place, rows, min(high, max(last, low + _AHEAD)))
        else:
            _keep_high(shard, kept, place, rows, first)


@inline
def _keep_low(shard: Words, kept: Words, place: int, rows: Rows, until: int) -> None:
    while kept[place + LOW] < until:
        low = kept[place + LOW]
        count = min(CHUNK, until - low)
        part = _keep_part(shard, kept, rows, low, count)
        if kept[place + FIRST_LOW] == 0:
            kept[place + FIRST_LOW] = part
        else:
            kept[kept[place + LAST_LOW] + NEXT] = part
        kept[place + LAST_LOW], kept[place + LOW] = part, low + count


@inline
def _keep_high(shard: Words, kept: Words, place: int, rows: Rows, first: int) -> None:
    while kept[place + HIGH] > first:
        high = kept[place + HIGH]
        count = min(CHUNK, high - first)
        part = _keep_part(shard, kept, rows, high - count, count)
        kept[part + NEXT] = kept[place + FIRST_HIGH]
        kept[place + FIRST_HIGH], kept[place + HIGH] = part, high - count


@inline
def _keep_part(shard: Words, kept: Words, rows: Rows, first: int, count: int) -> int:
    part = shard[KEPT_TOP]
    end = _write_rows(rows, first, count, kept, part + PART)
    kept[part + NEXT], kept[part + NUMBER], kept[part + ROWS_KEPT] = 0, first, count
    kept[part + WORDS_KEPT] = end - part - PART
    shard[KEPT_TOP] = end
    return int(part)


@inline
def spared(shard: Words, program: Words, r: int, base: int, wanted: int) -> int:
    """How far a kept key may be freed, of `wanted`: what is to be kept first is bounded."""
    place = _kept_apart(shard, program, r)
    if place == 0:
        return wanted
    return int(min(wanted, max(base, words_at(shard[KEPT])[place + LOW]) + _SPARED))


@inline
def is_awaited(shard: Words, r: int) -> bool:
    """Whether a snapshot has still to copy a key whose rows are too many to be kept at once."""
    if shard[COPY_NEXT] <= r < shard[COPY_END]:
        return bool(words_at(shard[RECORDS])[r + COUNT] > _SPARED)
    return False


@inline
def keep_out(shard: Words, index: int, r: int) -> None:
    """Let a snapshot underway pass over a record that was no key's when it began."""
    if shard[COPY_NEXT] <= r < shard[COPY_END]:
        copies = words_at(shard[COPIES])
        if copies[index] == 0:
            copies[index] = -1


# How fragments are written.


@inline
def _write_record(
    program: Words, records: Words, r: int, first: int, count: int, out: Words, to: int
) -> int:
    """Write the record of a fragment of so many rows from word `to` of `out` on; gives the end."""
    width = program[RECORD]
    for k in range(width):
        out[to + k] = records[r + k]
    # Where things lie is not part of the state, only that they are there.
    out[to + BLOCK] = out[to + CAPACITY] = 0
    out[to + ORIGIN], out[to + RUN] = first, count
    for d in range(program[DISTINCTS]):
        table = to + program[program[DISTINCTS_AT] + d] + 1
        out[table] = 1 if out[table] != 0 else 0
    return int(to + width)


@inline
def _write_rows(rows: Rows, first: int, count: int, out: Words, to: int) -> int:
    """Write rows, then their texts."""
    p, end = first, first + count
    while p < end:
        piece = behind(rows, p, end)
        start, size = at(rows, p), piece * rows.width
        for k in range(size):
            out[to + k] = rows.heap[start + k]
        to, p = to + size, p + piece
    if rows.program[TEXTS] > 0:
        for p in range(first, end):
            to = _write_texts(rows, at(rows, p), out, to)
    return to


@inline
def behind(rows: Rows, p: int, end: int) -> int:
    """How many of the rows from p to before `end` lie behind each other."""
    if rows.chunked == 0:
        return end - p
    return int(min(end - p, CHUNK - ((p - rows.origin) & (CHUNK - 1))))


@inline
def _write_texts(rows: Rows, row: int, out: Words, to: int) -> int:
    heap, program = rows.heap, rows.program
    for t in range(program[TEXTS]):
        place = heap[row + program[program[TEXTS_AT] + t]]
        out[to] = -1 if place == 0 else heap[place + 1]
        to += 1
        if place != 0:
            whole = (heap[place + 1] + 7) >> 3
            for k in range(whole):
                out[to + k] = heap[place + 2 + k]
            to += whole
    return to


@inline
def _fitting(rows: Rows, first: int, last: int, room: int) -> tuple[int, int]:
    """How many of the rows [first, last) fit so many words, and the words that one more takes."""
    program, size = rows.program, rows.width
    if program[TEXTS] == 0:
        return min(last - first, max(0, room) // size), size
    p, left, words = first, room, 0
    while p < last:
        words, row = size, at(rows, p)
        for t in range(program[TEXTS]):
            place = rows.heap[row + program[program[TEXTS_AT] + t]]
            words += 1 if place == 0 else 1 + ((rows.heap[place + 1] + 7) >> 3)
        if words > left:
            break
        left, p = left - words, p + 1
    return p - first, words


# How a piece of the copy is filled.


@inline
def _copy_words(given: Words, start: int, size: int, out: Words, to: int) -> int:
    for k in range(size):
        out[to + k] = given[start + k]
    return to + size


@inline
def _fragment(
    shard: Words, program: Words, r: int, place: int, out: Words, to: int, end: int
) -> tuple[int, int, int]:
    """Write what fits of the next rows of the key at word r; its record is kept at `place` or not.

    Gives where that ends, how many rows it has, and, where it would end behind `end` and nothing
    is written, the words that it takes.
    """
    records, kept, width = words_at(shard[RECORDS]), words_at(shard[KEPT]), program[RECORD]
    source, record = (kept, place + KEPT_RECORD) if place > 0 else (records, r)
    first = source[record + BASE] + shard[COPY_DONE]
    last = source[record + BASE] + source[record + COUNT]
    part = 0
    if place > 0 and first < kept[place + LOW]:
        part = kept[place + FIRST_LOW]
    elif place > 0 and first >= kept[place + HIGH] and first < last:
        part = kept[place + FIRST_HIGH]
    elif place > 0:
        last = min(last, kept[place + HIGH])
    if part > 0:
        count, words = kept[part + ROWS_KEPT], kept[part + WORDS_KEPT]
        if to + width + words > end:
            return to, 0, width + words
        after = _write_record(program, source, record, first, count, out, to)
        after = _copy_words(kept, part + PART, words, out, after)
        held = FIRST_LOW if first < kept[place + LOW] else FIRST_HIGH
        kept[place + held] = kept[part + NEXT]
        return after, count, 0
    rows = rows_of(shard, program, records, r)
    count, words = _fitting(rows, first, last, end - to - width)
    if to + width > end or (count == 0 and first < last):
        return to, 0, width + words
    after = _write_record(program, source, record, first, count, out, to)
    if place > 0:
        kept[place + LOW] = first + count
    return _write_rows(rows, first, count, out, after), count, 0


@inline
def _waits_for_room(shard: Words, program: Words, r: int, room: int) -> bool:
    """Whether the key at word r is to begin a piece of its own, though a part of it would fit."""
    records = words_at(shard[RECORDS])
    if shard[COPY_DONE] > 0 or records[r + COUNT] > CHUNK:
        return False
    rows, base, count = rows_of(shard, program, records, r), records[r + BASE], records[r + COUNT]
    return bool(_fitting(rows, base, base + count, room - program[RECORD])[0] < count)


@kernel(types.int64(WORDS, WORDS, WORDS))
def pack(facts: Words, plan: Words, piece: Words) -> int:
    """Copy the next keys of a shard, as many as fit, behind two words: how many end, and the words.

    Gives the words that were written, or 0 when no key is left. Where `piece` has no room for the
    next key or row, gives less than 0: how long it must be, negated.
    """
    shard, program = words_at(facts.ctypes.data), words_at(plan.ctypes.data)
    out, end, keys, to, lacking = words_at(piece.ctypes.data), len(piece), 0, 2, 0
    while shard[COPY_NEXT] < shard[COPY_END] and lacking == 0:
        r = shard[COPY_NEXT]
        place = words_at(shard[COPIES])[r // program[RECORD]]
        kept = words_at(shard[KEPT])
        ended = False
        if place < 0 or (place == 0 and words_at(shard[RECORDS])[r + FRONTIER] == FREED):
            shard[COPY_NEXT] = r + program[RECORD]
            continue
        if place > 0 and kept[place] > 0:
            if to + kept[place] > end:
                lacking = kept[place]
            else:
                to, ended = _copy_words(kept, place + 1, kept[place], out, to), True
        elif place == 0 and to > 2 and _waits_for_room(shard, program, r, end - to):
            break
        else:
            to, count, lacking = _fragment(shard, program, r, place, out, to, end)
            if lacking == 0:
                shard[COPY_DONE] += count
                records, record = words_at(shard[RECORDS]), r
                if place > 0:
                    records, record = kept, place + KEPT_RECORD
                ended = shard[COPY_DONE] == records[record + COUNT]
        if ended:
            keys += 1
            shard[COPY_DONE], shard[COPY_NEXT] = 0, r + program[RECORD]
    out[0], out[1] = keys, to - 2
    if to > 2:
        return to
    return -(2 + lacking) if lacking > 0 else 0
