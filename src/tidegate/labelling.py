"""The desk where labels are taken in: read, put to their events where those are known, and logged.

What cannot be read is told to whoever sent it and is not kept. Whatever is not found here, the
engine finds at the label's place in the log, or the label waits there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tidegate.accepted import Found
from tidegate.clock import Clock
from tidegate.controls import ControlRecord, LabelRecord
from tidegate.labels.report import LabelReader, Mistake
from tidegate.records import Records

SOURCE = "labels"  # of their entries in the log
ENTRY_LABELS = 10_000


class Append(Protocol):
    """Puts control records into the log."""

    def __call__(self, records: Sequence[ControlRecord], *, source: str) -> int:
        """The offset of the first, once they are durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of labels: how many were accepted, at which offsets, and what is wrong.

    `first_offset` and `next_offset` span those accepted; they are equal where none was.
    """

    accepted: int
    first_offset: int
    next_offset: int
    mistakes: tuple[Mistake, ...]


class Desk:
    """Takes labels in; threads may share it."""

    def __init__(
        self, find: Callable[[Collection[str]], Found], append: Append, *, clock: Clock
    ) -> None:
        self._find = find
        self._append = append
        self._clock = clock
        self._reader = LabelReader()

    def take(self, records: Records, *, source: str, author: str = "") -> Receipt:
        """Take labels in; those accepted are durable when this returns.

        `source` is that of labels which do not tell their own. Raises: as `EventLog.append`.
        """
        reading = self._reader.read(records, source=source, now=self._clock.now(), author=author)
        offsets = [
            range(first, first + len(part))
            for part in _parts(reading.labels)
            for first in [self._append(self._beside(part), source=SOURCE)]
        ]
        return Receipt(
            accepted=len(reading.labels),
            first_offset=offsets[0].start if offsets else 0,
            next_offset=offsets[-1].stop if offsets else 0,
            mistakes=tuple(reading.mistakes),
        )

    def _beside(self, labels: Sequence[LabelRecord]) -> list[LabelRecord]:
        """The labels with the events that they are about, as far as these are found."""
        found = self._find({label.event_id for label in labels})
        return [
            msgspec.structs.replace(label, event_offset=there[0], event=there[1])
            if (there := found.get(label.event_id)) is not None
            else label
            for label in labels
        ]


def _parts(labels: Sequence[LabelRecord]) -> list[Sequence[LabelRecord]]:
    return [labels[i : i + ENTRY_LABELS] for i in range(0, len(labels), ENTRY_LABELS)]
