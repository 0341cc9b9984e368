"""The ids of a stream as they were at a moment, on their way into a snapshot.

To put half a million ids in order, pack and sum them takes a tenth of a second, and to make a run
file durable takes as long as the disk likes. Whoever decides on events waits for the copy alone;
the rest is done by the thread that writes the snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np

from tidegate.events.fingerprints import Integers, Words
from tidegate.events.held import Held, packed, written
from tidegate.events.runs import RunName


class Head(NamedTuple):
    """What is small."""

    key_check: int
    horizon: int
    table_ids: int
    mask: int
    now: int
    last: int
    accepted: int
    runs: list[RunName]


class Copied:
    """Pairs (fingerprint, offset) of the live ids, and changes (offset, time); nobody else's.

    `sync` makes the runs durable; `done` is told once the pairs are not needed any more.
    """

    def __init__(
        self,
        head: Head,
        *,
        pairs: Words,
        changes: Integers,
        sync: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        self._head, self._pairs, self._changes = head, pairs, changes
        self._sync, self._done = sync, done

    @property
    def runs(self) -> frozenset[str]:
        """The names of the run files that it refers to."""
        return frozenset(run.name for run in self._head.runs)

    def written(self) -> bytes:
        """What `Dedupe.restore` needs; once, by any thread. Raises: StorageFullError."""
        self._sync()
        body = written(self._held())
        self._done()
        return bytes(body)

    def _held(self) -> Held:
        pairs, changes = self._pairs, self._changes
        order = np.argsort(pairs[:, 1])
        offsets = packed(pairs[:, 1].view(np.int64), order)
        fingerprints = pairs[order, 0].astype("<u8", copy=False).data
        return Held(
            **self._head._asdict(),
            ids=len(pairs),
            fingerprints=cast("bytes", fingerprints),  # the encoder takes any view
            offsets=offsets,
            changes=len(changes),
            change_offsets=packed(changes[:, 0]),
            change_times=packed(changes[:, 1]),
        )
