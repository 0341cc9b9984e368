"""The contract of an event log: the one durable truth from which all else is derived.

Words:

- A *record* is one thing received, byte for byte; its *offset* is its position in the log, counted
  from 0 without gaps.
- An *entry* is what one `append` wrote: a block of records that share kind, source and time. An
  entry is never split: readers get whole entries, though one may begin before the offset asked for.
- A *consumer* follows the log and tells the log its *position*: the offset it needs next. What lies
  before every consumer's position may be removed by `trim`, and nothing else.

Promises every implementation keeps (`tidegate.testing.eventlog` holds them to it):

- `append` returns only when the records are durable: they survive the loss of power.
- Appends from several threads share a commit where the log can do that; each gets its own offsets.
- Order: offsets ascend in the order of the commits, readers see them in that order, never a gap,
  never an entry whose append may still fail.
- Readers may live in other processes, and see an entry soon after its append returned.
- What is torn or corrupted is reported as `DamageError` with the offset, never returned as data.

Trap: a failed append (`StorageFullError`) may be tried again; an append whose process died has an
unknown outcome, so its sender repeats it and the engine drops what it has seen already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tidegate.records import Records


class EntryKind(StrEnum):
    """What the records of an entry are."""

    EVENTS = "events"
    CONTROL = "control"  # JSON objects that steer the engine: a new version, the passing of time


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A block of records at offsets `first_offset <= o < next_offset`.

    `source` says where they came from (`http`, `file:orders.csv`); `ingest_time` is when they
    reached us, UTC microseconds.
    """

    first_offset: int
    kind: EntryKind
    source: str
    ingest_time: int
    records: Records

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.first_offset + len(self.records)


@dataclass(frozen=True, slots=True, eq=False)
class Append:
    """What one entry is made from; the log gives it its offset."""

    records: Records
    source: str
    ingest_time: int
    kind: EntryKind = EntryKind.EVENTS


class Prepared:
    """An entry made ready by `EventLog.prepare`, for that log alone."""

    __slots__ = ()


class EventLog(Protocol):
    """An append-only sequence of records; see the module for words and promises."""

    @property
    def first_offset(self) -> int:
        """The offset of the oldest record kept; equals `next_offset` when the log is empty."""

    @property
    def next_offset(self) -> int:
        """The offset that the next record will get."""

    def append(
        self,
        records: Records,
        *,
        source: str,
        ingest_time: int,
        kind: EntryKind = EntryKind.EVENTS,
    ) -> int:
        """Write the records and return the offset of the first, once they are durable.

        Raises: ValueError if there is no record, if the bounds do not fit the payload, or if the
        log is closed; StorageFullError if nothing was written; LockedError if another process
        kept the log too long; DamageError if the end of the log cannot be trusted.
        """

    def prepare(self, entry: Append) -> Prepared:
        """Do what an append can do beforehand, in any thread: check, compress, sum.

        Raises: ValueError as `append`.
        """

    def append_many(self, entries: Sequence[Append | Prepared]) -> list[int]:
        """Write several entries in one commit and return the first offset of each.

        They become durable together or not at all. Raises: as `append`.
        """

    def read(self, offset: int, *, bytes_max: int = 16 << 20) -> list[Entry]:
        """The entries from the one holding `offset` on, at least one if there is any.

        Stops before payloads exceed `bytes_max` together, and before damage: what is whole is
        handed out first, the next call raises. Empty at the end of the log.
        Raises: DamageError if the entry holding `offset` cannot be read, with the lowest offset
        of the damage; ValueError if `offset` was trimmed or lies beyond the end.
        """

    def controls(self, offset: int) -> list[Entry]:
        """The control entries from `offset` on, found without reading what lies between.

        An entry that begins before `offset` is not among them. Raises: DamageError.
        """

    def follow(self, offset: int, *, timeout_seconds: float) -> bool:
        """Wait until a record at `offset` is there; False when time runs out or the log closes."""

    def positions(self) -> Mapping[str, int]:
        """The position of each consumer, by name."""

    def set_position(self, consumer: str, offset: int) -> None:
        """Declare that `consumer` needs nothing before `offset`.

        A position only grows: a smaller offset changes nothing. It may be called after every
        batch; a position set just before a crash can be lost, which only holds `trim` back.
        Raises: ValueError if `offset` lies beyond the end.
        """

    def forget(self, consumer: str) -> None:
        """Remove a consumer that is gone for good, so that it holds nothing back."""

    def trim(self, *, before_time: int) -> int:
        """Remove entries older than `before_time` (ingest time) that every consumer has passed.

        Without any consumer nothing is removed, nor what a consumer has not durably passed, nor
        anything behind an entry that has to stay: no gap appears. Returns the new first offset.
        """

    def verify(self) -> Iterator[DamagedEntry]:
        """Read the whole log and yield what is damaged, in order of offsets."""

    def close(self) -> None:
        """Wait for running appends and release the files; closing twice is fine."""


@dataclass(frozen=True, slots=True)
class DamagedEntry:
    """An entry that cannot be read: where it begins and what is wrong with it."""

    first_offset: int
    reason: str
