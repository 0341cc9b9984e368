"""Each stage counted and fingerprinted against the one before it, down to the missing id.

Six comparisons, each by hour of arrival:

- the log against what became of its records: events, dead letters and duplicates,
- the ids that the log's records carry against those of events and duplicates,
- events against decisions,
- events against features, where the version that decided had any,
- what people did (versions, lists, labels, other answers, keys) against the tables of that,
- what each sink should have by now against what it holds, read back from it.

A side is a bag of keys: log offsets, or offsets with ids. Its fingerprint is made of sums and xors
of two 64-bit hashes of the keys, which do not depend on order: equal counts of other keys are told
apart. Only where an hour differs are the keys themselves compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

HOUR = 3_600_000_000
SHOWN_MAX = 1_000  # keys listed for a comparison; the counts are complete all the same


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that is on one side only: its log offset, and its id where it has one."""

    log_offset: int
    id: str | None = None


@dataclass(frozen=True, slots=True)
class HourRow:
    """One hour of a comparison (`hour`: UTC microseconds of its beginning)."""

    hour: int
    left: int
    right: int
    equal: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides, hour by hour; `missing` is on the left only, `unexpected` on the right only."""

    stage: str
    left: str
    right: str
    hours: tuple[HourRow, ...]
    missing: tuple[Key, ...] = ()
    unexpected: tuple[Key, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both sides hold the very same keys."""
        return all(h.equal for h in self.hours)

    @property
    def counts(self) -> tuple[int, int]:
        """How many keys each side has."""
        return sum(h.left for h in self.hours), sum(h.right for h in self.hours)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """All comparisons over the records at offsets `first_offset <= o < next_offset`."""

    first_offset: int
    next_offset: int
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def equal(self) -> bool:
        """Whether nothing is amiss."""
        return all(c.equal for c in self.comparisons)


class Side:
    """Keys of one side, gathered batch by batch."""

    def __init__(self) -> None:
        self._offsets: list[npt.NDArray[np.int64]] = []
        self._ids: list[pl.Series] = []

    def add(self, offsets: npt.NDArray[np.int64], ids: pl.Series | None = None) -> None:
        """Add keys; either all batches of a side come with ids or none."""
        self._offsets.append(offsets)
        if ids is not None:
            self._ids.append(ids.cast(pl.String))

    def and_of(self, *others: Side) -> Side:
        """The keys of this side and of others together."""
        whole = Side()
        for side in (self, *others):
            whole._offsets += side._offsets
            whole._ids += side._ids
        return whole

    def without_ids(self) -> Side:
        """The same keys by their offsets alone."""
        bare = Side()
        bare._offsets = self._offsets
        return bare

    def chosen(self, which: npt.NDArray[np.bool_]) -> Side:
        """Those of the keys for which `which` is true, in the order in which they were added."""
        side = Side()
        side.add(self.offsets()[which], pl.concat(self._ids).filter(which) if self._ids else None)
        return side

    def offsets(self) -> npt.NDArray[np.int64]:
        """The offsets of all keys."""
        return np.concatenate(self._offsets) if self._offsets else np.empty(0, np.int64)

    def frame(self) -> pl.DataFrame:
        """The keys as columns `log_offset` and `id`."""
        offsets = self.offsets()
        if self._ids:
            return pl.DataFrame({"log_offset": offsets, "id": pl.concat(self._ids)})
        return pl.DataFrame({"log_offset": offsets}).with_columns(id=pl.lit(None, dtype=pl.String))


def compare(
    stage: str,
    left: tuple[str, Side],
    right: tuple[str, Side],
    *,
    hour_of: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]],
) -> Comparison:
    """Compare two named sides; `hour_of` gives the hour in which each offset arrived."""
    frames = [side.frame() for _, side in (left, right)]
    hours = _hours(*(_by_hour(frame, hour_of) for frame in frames))
    equal = all(h.equal for h in hours)
    return Comparison(
        stage=stage,
        left=left[0],
        right=right[0],
        hours=hours,
        missing=() if equal else _only(frames[0], frames[1]),
        unexpected=() if equal else _only(frames[1], frames[0]),
    )


def _by_hour(
    frame: pl.DataFrame, hour_of: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]
) -> pl.DataFrame:
    """Per hour the count and the fingerprint of the keys."""
    hours = pl.Series("hour", hour_of(frame["log_offset"].to_numpy()))
    key = pl.struct("log_offset", "id")
    # Halves are added, so that no sum overflows below four billion keys.
    return (
        frame.with_columns(hours, a=key.hash(seed=1), b=key.hash(seed=2))
        .group_by("hour")
        .agg(
            count=pl.len(),
            sum_a=(pl.col("a") & 0xFFFF_FFFF).sum(),
            sum_b=(pl.col("b") & 0xFFFF_FFFF).sum(),
            xor_a=pl.col("a").bitwise_xor(),
            xor_b=pl.col("b").bitwise_xor(),
        )
    )


def _hours(left: pl.DataFrame, right: pl.DataFrame) -> tuple[HourRow, ...]:
    both = left.join(right, on="hour", how="full", coalesce=True, suffix="_right").sort("hour")
    marks = ("count", "sum_a", "sum_b", "xor_a", "xor_b")
    return tuple(
        HourRow(
            hour=row["hour"],
            left=row["count"] or 0,
            right=row["count_right"] or 0,
            equal=all(row[m] == row[f"{m}_right"] for m in marks),
        )
        for row in both.to_dicts()
    )


def _only(these: pl.DataFrame, those: pl.DataFrame) -> tuple[Key, ...]:
    """Keys that are more often in `these` than in `those`."""
    counted = [f.group_by("log_offset", "id").len() for f in (these, those)]
    joined = counted[0].join(
        counted[1], on=["log_offset", "id"], how="left", suffix="_other", nulls_equal=True
    )
    more = joined.filter(pl.col("len") > pl.col("len_other").fill_null(0)).sort("log_offset", "id")
    return tuple(Key(r["log_offset"], r["id"]) for r in more.head(SHOWN_MAX).to_dicts())


def merged(parts: Sequence[Comparison]) -> Comparison:
    """Comparisons of the same sides over consecutive stretches as one."""
    hours: dict[int, list[HourRow]] = {}
    for row in (row for part in parts for row in part.hours):
        hours.setdefault(row.hour, []).append(row)
    return Comparison(
        stage=parts[0].stage,
        left=parts[0].left,
        right=parts[0].right,
        hours=tuple(
            HourRow(
                hour,
                sum(r.left for r in rows),
                sum(r.right for r in rows),
                equal=all(r.equal for r in rows),
            )
            for hour, rows in sorted(hours.items())
        ),
        missing=tuple(k for part in parts for k in part.missing)[:SHOWN_MAX],
        unexpected=tuple(k for part in parts for k in part.unexpected)[:SHOWN_MAX],
    )
