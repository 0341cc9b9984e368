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
    side. `work` is the address of scratch for 7 n words, `copy` scratch for an accumulator. `chart`
    is what it was read from, `asked` what `foresee_groups` knows of it.
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
    chart: Words
    asked: Words


@inline
def charted(chart: Words, texts: int, copy: Words, asked: Words) -> Batch:
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


@inline
def part(run: Run, first: int, last: int) -> Run:
    """The rows from the first to before the last."""
    address = run.address + 8 * first
    return Run(address, words_at(address), last - first, run.starts, run.ends)
