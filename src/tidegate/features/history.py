"""The rows that a key keeps: in event-time order, ties in log order, one row after the other.

Up to `CHUNK` rows lie in one block; more lie in chunks of `CHUNK` rows each, which a directory
lists, so that a key with millions of rows is never copied whole. Behind its places the directory
has two words for each chunk and each extreme that is asked for: which row of the chunk is the best
(its place in it plus 1; 0: unknown, -1: none) and the rank of it. Rows have numbers that stay when
older rows are freed; a row that arrives late shifts the numbers of those behind it by one.
"""

from __future__ import annotations

from typing import NamedTuple

from tidegate.events.fingerprints import inline
from tidegate.features.layout import (
    BASE,
    BESTS,
    BLOCK,
    CAPACITY,
    COUNT,
    ORIGIN,
    TEXTS,
    TEXTS_AT,
    WIDTH,
)
from tidegate.features.memory import (
    DEFERRED,
    HEAP,
    ROWS,
    Words,
    allocate,
    class_of,
    class_size,
    release,
    words_at,
)

CHUNK_BITS = 10
CHUNK = 1 << CHUNK_BITS
_FEW = 4  # chunks that the first directory has room for


class Rows(NamedTuple):
    """Where the rows of one key lie; holds until rows are added or freed.

    `chunked` is how many chunks the directory at `block` has room for, 0 where it is the rows' own.
    """

    heap: Words
    shard: Words
    program: Words
    block: int
    chunked: int
    origin: int
    width: int


@inline
def rows_of(shard: Words, program: Words, records: Words, r: int) -> Rows:
    """The rows of the key whose record begins at word r."""
    chunked = max(0, -records[r + CAPACITY])
    return Rows(
        words_at(shard[HEAP]),
        shard,
        program,
        records[r + BLOCK],
        chunked,
        records[r + ORIGIN],
        program[WIDTH],
    )


@inline
def at(rows: Rows, p: int) -> int:
    """Where in the heap row number p begins."""
    i = p - rows.origin
    if rows.chunked == 0:
        return rows.block + i * rows.width
    chunk = rows.heap[rows.block + (i >> CHUNK_BITS)]
    return int(chunk + (i & (CHUNK - 1)) * rows.width)


@inline
def first_from(rows: Rows, time: int, low: int, high: int) -> int:
    """The first row in [low, high) whose time is at least `time`, else `high`."""
    while low < high:
        middle = (low + high) >> 1
        if rows.heap[at(rows, middle)] < time:
            low = middle + 1
        else:
            high = middle
    return low


@inline
def capacity_of(words: int, width: int) -> int:
    """How many rows fit a block that is allocated for so many words."""
    return min(class_size(class_of(words)) // width, CHUNK)


@inline
def words_of_chunk(program: Words) -> int:
    """Words that a directory has for each chunk."""
    return int(1 + 2 * program[BESTS])


@inline
def best_of(rows: Rows, k: int, which: int) -> int:
    """Where in the heap it stands what is known of an extreme of chunk k."""
    return int(rows.block + rows.chunked + 2 * (k * rows.program[BESTS] + which))


@inline
def forget_bests(rows: Rows, first: int, last: int) -> None:
    """Let nothing be known of the chunks in which the rows [first, last) lie, which change."""
    if rows.chunked > 0:
        begun, ended = (first - rows.origin) >> CHUNK_BITS, (last - 1 - rows.origin) >> CHUNK_BITS
        for place in range(best_of(rows, begun, 0), best_of(rows, ended + 1, 0)):
            rows.heap[place] = 0


@inline
def _more_entries(
    shard: Words, program: Words, records: Words, r: int, held: int, wanted: int
) -> None:
    """A larger directory, with what is known of the chunks held."""
    heap, each = words_at(shard[HEAP]), words_of_chunk(program)
    old, entries = records[r + BLOCK], -records[r + CAPACITY]
    new = allocate(shard, wanted * each)
    room = class_size(class_of(wanted * each)) // each
    for k in range(held):
        heap[new + k] = heap[old + k]
    for k in range((each - 1) * held):
        heap[new + room + k] = heap[old + entries + k]
    release(shard, old, entries * each)
    records[r + BLOCK], records[r + CAPACITY] = new, -room


@inline
def _chunks(shard: Words, program: Words, records: Words, r: int, rows: int) -> None:
    """Have chunks for as many rows, counted from the block's first place on."""
    heap, width = words_at(shard[HEAP]), program[WIDTH]
    held = (records[r + COUNT] + records[r + BASE] - records[r + ORIGIN] + CHUNK - 1) >> CHUNK_BITS
    wanted = (rows + CHUNK - 1) >> CHUNK_BITS
    if wanted > -records[r + CAPACITY]:
        _more_entries(shard, program, records, r, held, wanted)
    for k in range(held, wanted):
        heap[records[r + BLOCK] + k] = allocate(shard, CHUNK * width)
    if wanted > held:
        forget_bests(rows_of(shard, program, records, r), *_numbers(records, r, held, wanted))


@inline
def _numbers(records: Words, r: int, first: int, last: int) -> tuple[int, int]:
    """The numbers of the rows in the chunks [first, last)."""
    origin = records[r + ORIGIN]
    return origin + (first << CHUNK_BITS), origin + (last << CHUNK_BITS)


@inline
def _into_chunks(shard: Words, program: Words, records: Words, r: int, rows: int) -> None:
    heap, width = words_at(shard[HEAP]), program[WIDTH]
    old, count = records[r + BLOCK], records[r + COUNT]
    start = old + (records[r + BASE] - records[r + ORIGIN]) * width
    directory = allocate(shard, _FEW * words_of_chunk(program))
    if count > 0:
        chunk = allocate(shard, CHUNK * width)
        heap[directory] = chunk
        for k in range(count * width):
            heap[chunk + k] = heap[start + k]
    if records[r + CAPACITY] > 0:
        release(shard, old, records[r + CAPACITY] * width)
    records[r + BLOCK], records[r + CAPACITY] = directory, -_FEW
    records[r + ORIGIN] = records[r + BASE]
    forget_bests(rows_of(shard, program, records, r), *_numbers(records, r, 0, 1))
    _chunks(shard, program, records, r, rows)


@inline
def _resize(shard: Words, records: Words, r: int, width: int, rows: int) -> None:
    """Move the rows to a block with room for `rows`."""
    heap = words_at(shard[HEAP])
    count, old = records[r + COUNT], records[r + BLOCK]
    block = allocate(shard, rows * width)
    start = old + (records[r + BASE] - records[r + ORIGIN]) * width
    for k in range(count * width):
        heap[block + k] = heap[start + k]
    if records[r + CAPACITY] > 0:
        release(shard, old, records[r + CAPACITY] * width)
    records[r + BLOCK], records[r + CAPACITY] = block, capacity_of(rows * width, width)
    records[r + ORIGIN] = records[r + BASE]


@inline
def make_room(shard: Words, program: Words, records: Words, r: int, more: int) -> None:
    """Have room for `more` rows behind those kept."""
    width, count, capacity = program[WIDTH], records[r + COUNT], records[r + CAPACITY]
    dead = records[r + BASE] - records[r + ORIGIN]
    if capacity < 0:
        _chunks(shard, program, records, r, dead + count + more)
        return
    if dead + count + more <= capacity:
        return
    wanted = count + more
    if wanted > CHUNK:
        _into_chunks(shard, program, records, r, wanted)
        return
    roomy = min(CHUNK, wanted + count // 4)
    if roomy <= capacity and 3 * wanted > capacity:
        # As much is free as in a block of its own, but this one is near.
        heap = words_at(shard[HEAP])
        block = records[r + BLOCK]
        for k in range(count * width):
            heap[block + k] = heap[block + dead * width + k]
        records[r + ORIGIN] = records[r + BASE]
    else:
        _resize(shard, records, r, width, roomy)


@inline
def insert(shard: Words, program: Words, records: Words, r: int, p: int) -> None:
    """Make place for a row numbered p by shifting those from p on; there is room for it."""
    rows = rows_of(shard, program, records, r)
    heap, width = rows.heap, rows.width
    q = records[r + BASE] + records[r + COUNT]
    while q > p:
        here, there = at(rows, q), at(rows, q - 1)
        for k in range(width):
            heap[here + k] = heap[there + k]
        q -= 1
    records[r + COUNT] += 1
    forget_bests(rows, p, records[r + BASE] + records[r + COUNT])
    shard[ROWS] += 1


@inline
def _defer_texts(rows: Rows, p: int) -> None:
    """Put the texts of row p with those to be freed once this call's results are read."""
    row, program = at(rows, p), rows.program
    for k in range(program[TEXTS]):
        place = rows.heap[row + program[program[TEXTS_AT] + k]]
        if place != 0:
            rows.heap[place] = rows.shard[DEFERRED]
            rows.shard[DEFERRED] = place


@inline
def free_deferred(shard: Words) -> None:
    """Free the texts that the last call let go."""
    heap = words_at(shard[HEAP])
    while shard[DEFERRED] != 0:
        place = shard[DEFERRED]
        shard[DEFERRED] = heap[place]
        release(shard, place, 2 + ((heap[place + 1] + 7) >> 3))


@inline
def trim(shard: Words, program: Words, records: Words, r: int, base: int) -> None:
    """Free the rows before number `base`."""
    old = records[r + BASE]
    if base <= old:
        return
    if program[TEXTS] > 0:
        rows = rows_of(shard, program, records, r)
        for p in range(old, base):
            _defer_texts(rows, p)
    records[r + BASE] = base
    records[r + COUNT] -= base - old
    shard[ROWS] -= base - old
    dead = (base - records[r + ORIGIN]) >> CHUNK_BITS
    if records[r + CAPACITY] < 0 and dead > 0:
        _drop_chunks(shard, program, records, r, dead)


@inline
def _drop_chunks(shard: Words, program: Words, records: Words, r: int, dead: int) -> None:
    heap, directory = words_at(shard[HEAP]), records[r + BLOCK]
    width, known, each = program[WIDTH], directory - records[r + CAPACITY], 2 * program[BESTS]
    held = (records[r + COUNT] + records[r + BASE] - records[r + ORIGIN] + CHUNK - 1) >> CHUNK_BITS
    for k in range(dead):
        release(shard, heap[directory + k], CHUNK * width)
    for k in range(dead, held):
        heap[directory + k - dead] = heap[directory + k]
    for k in range(dead * each, held * each):
        heap[known + k - dead * each] = heap[known + k]
    records[r + ORIGIN] += dead * CHUNK


@inline
def free_rows(shard: Words, program: Words, records: Words, r: int) -> None:
    """Free all rows of a key, and what they lie in."""
    trim(shard, program, records, r, records[r + BASE] + records[r + COUNT])
    width, capacity, block = program[WIDTH], records[r + CAPACITY], records[r + BLOCK]
    if capacity < 0:
        if records[r + BASE] > records[r + ORIGIN]:
            release(shard, words_at(shard[HEAP])[block], CHUNK * width)
        release(shard, block, -capacity * words_of_chunk(program))
    elif capacity > 0:
        release(shard, block, capacity * width)
    records[r + CAPACITY] = 0
