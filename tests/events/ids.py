"""Streams of ids for tests, with a slow, obvious twin of what is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tidegate.events.dedupe import Dedupe

KEY = bytes(range(16))
EXACT = (1 << 64) - 1


@dataclass(frozen=True)
class Record:
    id: str
    offset: int
    time: int


def twin(records: Sequence[Record], *, horizon: int) -> list[int]:
    """The offset of each record's first, -1 for new ones: a dict and nothing else."""
    firsts: dict[str, tuple[int, int]] = {}
    now, out = 0, []
    for record in records:
        now = max(now, record.time)
        first, time = firsts.get(record.id, (-1, now))
        if first >= 0 and now - time <= horizon:
            out.append(first)
        else:
            firsts[record.id] = (record.offset, now)
            out.append(-1)
    return out


class Stream:
    """Records with a `Dedupe` beside them that may only look up what lies behind it."""

    def __init__(self, records: Sequence[Record], folder: Path, *, horizon: int) -> None:
        self.records = records
        self.folder = folder
        self.horizon = horizon
        self.by_offset = {r.offset: r for r in records}
        self.looked_up: list[int] = []

    def lookup(self, offsets: Sequence[int]) -> list[str]:
        self.looked_up += offsets
        return [self.by_offset[o].id for o in offsets]

    def open(self, *, table_ids: int, mask: int = EXACT) -> Dedupe:
        made = Dedupe.open(
            self.folder, horizon=self.horizon, key=KEY, lookup=self.lookup, table_ids=table_ids
        )
        made._mask = mask
        return made

    def restore(self, data: bytes) -> Dedupe:
        return Dedupe.restore(data, self.folder, horizon=self.horizon, key=KEY, lookup=self.lookup)

    def feed(self, found: Dedupe, start: int, end: int) -> list[int]:
        part = self.records[start:end]
        seen = found.update(
            pa.array([r.id for r in part], pa.string()),
            offsets=np.array([r.offset for r in part], dtype=np.int64),
            ingest_times=np.array([r.time for r in part], dtype=np.int64),
        )
        return [int(first) for first in seen.first]


def plain(ids: Sequence[str], *, times: Sequence[int] | None = None) -> list[Record]:
    given_times = times if times is not None else [0] * len(ids)
    return [Record(i, o, t) for o, (i, t) in enumerate(zip(ids, given_times, strict=True))]
