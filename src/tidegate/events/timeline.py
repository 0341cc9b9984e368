"""When ids arrived: from which offset on they still lie within the horizon, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import types

from tidegate.events.fingerprints import INTEGERS, PAIRS, Integers, kernel
from tidegate.events.runs import Run

NEVER = np.iinfo(np.int64).max

_WINDOW = 1 << 16  # changes that are read at a time


@dataclass(frozen=True, slots=True, eq=False)
class Unwritten:
    """Changes of the ingest time, shape (changes, 2), that stand for a run until it is written."""

    held: Integers

    @property
    def changes(self) -> int:
        """How many there are."""
        return len(self.held)

    def read_changes(self, start: int, count: int) -> Integers:
        """`count` of them from the `start`-th on."""
        return self.held[start : start + count]


@kernel(types.void(PAIRS, INTEGERS, INTEGERS, INTEGERS))
def _advance(window: Integers, targets: Integers, floors: Integers, places: Integers) -> None:
    """Move the places (in the window, among the rows) on until either ends; targets ascend."""
    position, row = places[0], places[1]
    while row < len(targets):
        while position < len(window) and window[position, 1] < targets[row]:
            position += 1
        if position == len(window):
            break
        floors[row] = window[position, 0]
        row += 1
    places[0], places[1] = position, row


class Timeline:
    """From which offset on ids lie within the horizon, exactly, whatever the number of ids.

    A change `(offset, time)` says that ids from `offset` on arrived at `time`. Changes since the
    last run are the `tail`, of which `size` count; older ones are read from the runs, a window at
    a time, since questions only move forward. `at` is where they have come to.
    """

    def __init__(self, *, capacity: int) -> None:
        self.tail: Integers = np.empty((capacity, 2), dtype=np.int64)
        self.size = 0
        self.at = 0
        self._runs: list[tuple[int, Run | Unwritten]] = []
        self._tail_at = 0
        self._window: tuple[int, Integers] = (0, np.empty((0, 2), dtype=np.int64))

    @property
    def changes(self) -> Integers:
        """The changes since the last run, shape (size, 2)."""
        return self.tail[: self.size]

    def floors(self, targets: Integers) -> Integers:
        """For each time, the first offset that arrived then or later; `NEVER` if none did.

        Times ascend and never lie before those asked for earlier; shape (n,).
        """
        out = np.empty(len(targets), dtype=np.int64)
        row = 0
        while row < len(out):
            start, window = self._current()
            places = np.array([self.at - start, row], dtype=np.int64)
            _advance(window, targets, out, places)
            self.at, row = start + int(places[0]), int(places[1])
            if self.at >= self._tail_at + self.size:
                break
        out[row:] = NEVER
        return out

    def _current(self) -> tuple[int, Integers]:
        start, window = self._window
        if start <= self.at < start + len(window):
            return self._window
        for start, run in self._runs:
            if self.at < start + run.changes:
                self.at = max(self.at, start)
                count = min(_WINDOW, start + run.changes - self.at)
                self._window = (self.at, run.read_changes(self.at - start, count))
                return self._window
        self.at = max(self.at, self._tail_at)
        return self._tail_at, self.changes

    def extend(self, changes: Integers) -> None:
        """Add changes to the tail."""
        self.tail[self.size : self.size + len(changes)] = changes
        self.size += len(changes)

    def expire(self, target: int) -> None:
        """Take what lies before `target` out of the tail."""
        gone = int(np.searchsorted(self.changes[:, 1], target))
        if not gone:
            return
        kept = self.changes[gone:].copy()
        self._tail_at += gone
        self.size = 0
        self.extend(kept)

    def move(self, run: Run | Unwritten) -> None:
        """Let the run, which holds the tail's changes, stand for them."""
        self._runs.append((self._tail_at, run))
        self._tail_at += run.changes
        self.size = 0

    def replace(self, changes: Unwritten, run: Run) -> None:
        """Let the run stand where what is written into it did."""
        self._runs = [(start, run if held is changes else held) for start, held in self._runs]

    def restore(self, runs: Sequence[Run], changes: Integers) -> None:
        """Begin with these runs, oldest first, and this tail."""
        for run in runs:
            self.move(run)
        self.extend(changes)

    def forget(self, run: Run) -> None:
        """Leave a run out; everything in it lies before what will be asked for."""
        self._runs = [(start, held) for start, held in self._runs if held is not run]
