"""What kernels are given: a batch of rows in the order of their shards, and runs of rows in it."""

from __future__ import annotations

from typing import Any, NamedTuple

from tidegate.events.fingerprints import inline
from tidegate.features.columns import DESCRIPTION
from tidegate.features.memory import Words, bytes_at, words_at

# A chart: how many rows a batch has and where its arrays lie, then what its results are written to,
# then where the state, the program and the columns lie and how many there are, and how many rows go
# together.
(
    ROWS_IN,
    BOUNDS,
    ORDER,
    RANKS,
    ROWS_AT,
    IDS,
    HORIZONS,
    WORK,
    RESULTS,
    PLANNED,
    STATES,
    SLAB,
    DIRECTORY_AT,
    PROGRAM,
    DESCRIBED,
    SLOTS,
    COLUMNS,
    PLACES,
    SHAPE,
    TOGETHER,
) = range(20)


class Batch(NamedTuple):
    """A batch of n rows in the order of their shards.

    `rows` has their words and lies at `address`, `ids` has three words of each (identity, hash),
    `horizons`, which lies at `horizon`, the horizon of each and after them the newest, `order`
    their places in the batch as it was given, by which `texts` describes columns. `out`, which lies
    at `results`, and `status` take a word and a byte for each row and call, those of a row side by
    side. `work` is the address of scratch for 7 n words, `copy` scratch for an accumulator, `lot`
    for a `Lot`. `chart` is what it was read from, `asked` what `foresee_groups` knows of it.
    """

    n: int
    address: int
    rows: Words
    ids: Words
    horizon: int
    horizons: Words
    order: Words
    texts: Words
    work: int
    results: int
    out: Words
    status: Any
    copy: Words
    lot: int
    chart: Words
    asked: Words


@inline
def charted(chart: Words, texts: int, copy: Words, lot: int, asked: Words) -> Batch:
    """The batch whose arrays lie where a chart says, its last columns being texts."""
    return Batch(
        chart[ROWS_IN],
        chart[ROWS_AT],
        words_at(chart[ROWS_AT]),
        words_at(chart[IDS]),
        chart[HORIZONS],
        words_at(chart[HORIZONS]),
        words_at(chart[ORDER]),
        words_at(chart[DESCRIBED] + 8 * DESCRIPTION * (chart[COLUMNS] - texts)),
        chart[WORK],
        chart[RESULTS],
        words_at(chart[RESULTS]),
        bytes_at(chart[STATES]),
        copy,
        lot,
        chart,
        asked,
    )


class Run(NamedTuple):
    """Rows of one key, in log order; `starts` and `ends` are scratch for the frame of each."""

    address: int
    of: Words
    size: int
    starts: Words
    ends: Words


LOT_MAX = 32
LOT = 8 * LOT_MAX  # words of scratch


class Lot(NamedTuple):
    """Rows of as many keys, one of each: a list for each thing that is known of them.

    Where the facts of a key's shard lie, the word at which its record begins, which row of the
    batch and which of the key's it is; where its frame began and ended, and where it does now.
    """

    size: int
    shards: Words
    records: Words
    rows: Words
    numbers: Words
    begun: Words
    ended: Words
    starts: Words
    ends: Words


@inline
def lot_at(address: int, size: int) -> Lot:
    """A lot in scratch."""
    step = 8 * LOT_MAX
    return Lot(
        size,
        words_at(address),
        words_at(address + step),
        words_at(address + 2 * step),
        words_at(address + 3 * step),
        words_at(address + 4 * step),
        words_at(address + 5 * step),
        words_at(address + 6 * step),
        words_at(address + 7 * step),
    )


@inline
def part(run: Run, first: int, last: int) -> Run:
    """The rows from the first to before the last."""
    address = run.address + 8 * first
    return Run(address, words_at(address), last - first, run.starts, run.ends)
