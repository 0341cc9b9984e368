"""Ids read back from the log, to tell a repeated id from a mere likeness of fingerprints."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.eventlog.contract import Entry, EventLog
from tidegate.ids import IdReader
from tidegate.schema import Schema


class LoggedIds:
    """The ids of accepted events by log offset.

    The entry read last is kept, since repeated ids mostly come in the order of the first time.
    """

    def __init__(self, log: EventLog, schema: Schema) -> None:
        self._log = log
        self._entry: Entry | None = None
        self._ids = IdReader(schema.id)

    def __call__(self, offsets: Sequence[int]) -> Sequence[str]:
        """The id at each offset, as text. Raises: ValueError if an offset was trimmed."""
        order = sorted(range(len(offsets)), key=offsets.__getitem__)
        ids = [""] * len(offsets)
        for index in order:
            ids[index] = self._id_at(offsets[index])
        return ids

    def record(self, offset: int) -> tuple[bytes, int]:
        """The record at an offset, and when it came. Raises: ValueError if it was trimmed."""
        entry = self._entry
        if entry is None or not entry.first_offset <= offset < entry.next_offset:
            entry = self._entry = self._log.read(offset, bytes_max=1)[0]
        return entry.records[offset - entry.first_offset], entry.ingest_time

    def _id_at(self, offset: int) -> str:
        return self._ids.read(self.record(offset)[0]) or ""
