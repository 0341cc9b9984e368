"""Upkeep of the tables: few files, small folders, whatever the size of the commits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from tidegate.clock import Clock
from tidegate.warehouse.parquet import DataFile
from tidegate.warehouse.repair import checkpoint_files, commit_files
from tidegate.warehouse.table import Table

_STAMP_EVERY_US = 10_000_000
_SWEEP_EVERY_US = 10_000_000  # or when a file has waited long enough to be deleted
# Files are merged in two tiers, so that a row is written again twice in its life, not each time;
# what a bulk load writes (12 MB for 200,000 events) is large enough from the start.
_TIERS_BYTES = (1 << 20, 16 << 20)
# An entry of the Delta log is needed while a reader opens the table, not while it reads.
_LOG_KEPT_US = 60_000_000
# A partition that is still written to waits until it has this many small files.
_WORTH_MERGING_HOT = 8
_COLD_AFTER_US = 600_000_000


class Upkeep:
    """Stamps, compacts and sweeps tables; called by one thread at a time."""

    def __init__(self, clock: Clock, *, compact_after: int, vacuum_after_us: int) -> None:
        self._clock = clock
        self._compact_after = compact_after
        self._vacuum_after_us = vacuum_after_us
        self._stamped_at: int | None = None
        self._swept_at: int | None = None
        # When each file was first seen to be in no table; begins anew with the process.
        self._unused_since: dict[Path, int] = {}

    def stamp(self, tables: Iterable[Table], position: int) -> None:
        """Bring the own offset of tables that fell behind up to `position`, now and then."""
        now = self._clock.now()
        if self._stamped_at is not None and now - self._stamped_at < _STAMP_EVERY_US:
            return
        for table in tables:
            table.stamp(position)
        self._stamped_at = now

    def compact(
        self, tables: Iterable[Table], merging: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Merge the small files of tables that have more than `compact_after` of them.

        Each merge is made within `merging()`.
        """
        for table in tables:
            due = self._due(table.files())
            if due is not None:
                table.compact(partitions=due[1], bytes_target=due[0], merging=merging)

    def _due(self, files: list[DataFile]) -> tuple[int, list[str]] | None:
        """The lowest tier with too many small files, and the partitions to merge there."""
        lower = 0
        for tier in _TIERS_BYTES:
            # Two files below half a tier always merge into one.
            worth = self._worth([f for f in files if lower <= f.bytes < tier // 2])
            if sum(worth.values()) - len(worth) >= self._compact_after:
                return tier, list(worth)
            lower = tier // 2
        return None

    def _worth(self, small: list[DataFile]) -> dict[str, int]:
        """How many small files each partition has that is worth merging."""
        hot_since = self._clock.now() - _COLD_AFTER_US
        hot = {f.date for f in small if f.written_us > hot_since}
        counts = Counter(f.date for f in small)
        return {d: n for d, n in counts.items() if n >= (_WORTH_MERGING_HOT if d in hot else 2)}

    def sweep(self, tables: Iterable[Table]) -> None:
        """Delete files unused for `vacuum_after`, and old entries of the Delta log."""
        now = self._clock.now()
        if not self._is_time_to_sweep(now):
            return
        self._swept_at = now
        unused = [file for table in tables for file in table.unused_files()]
        self._unused_since = {f: self._unused_since.get(f, now) for f in unused}
        for file, since in list(self._unused_since.items()):
            if now - since >= self._vacuum_after_us:
                file.unlink(missing_ok=True)
                del self._unused_since[file]
        for table in tables:
            _sweep_log(table.path / "_delta_log", now - min(_LOG_KEPT_US, self._vacuum_after_us))

    def _is_time_to_sweep(self, now: int) -> bool:
        """Looking through all folders takes time, so it is done where something may be found."""
        longest = min(self._unused_since.values(), default=now)
        last = self._swept_at
        return (
            last is None or now - last >= _SWEEP_EVERY_US or now - longest >= self._vacuum_after_us
        )


def _sweep_log(log: Path, before_us: int) -> None:
    """Delete what lies before the last but one Delta checkpoint and was written before a time.

    One checkpoint more than needed is kept, with the entries after it, should the last be torn.
    """
    checkpoints = [version for version, _ in checkpoint_files(log)]
    if len(checkpoints) < 2:
        return
    keep = checkpoints[-2]
    old = [file for version, file in commit_files(log) if version <= keep]
    old += [file for version, file in checkpoint_files(log) if version < keep]
    for file in old:
        if file.stat().st_mtime_ns // 1_000 < before_us:
            file.unlink()
