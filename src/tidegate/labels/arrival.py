"""Labels as the log has them: those whose event nobody had found yet find it in the index of ids.

A label and its event may come at the same time by different ways, so that whoever takes the label
does not see the event yet. The engine does: it has taken in all that is before the label in the
log, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa

from tidegate.controls import ControlRecord, LabelRecord
from tidegate.events.dedupe import Dedupe
from tidegate.events.intake import Intake
from tidegate.labels.event import to_json
from tidegate.records import Records

# The record at a log offset, and when it came, in UTC microseconds.
Logged: TypeAlias = Callable[[int], tuple[bytes, int]]


class Arrivals:
    """Finds the events of labels among those that an engine has accepted."""

    def __init__(self, dedupe: Dedupe, logged: Logged | None) -> None:
        self._dedupe = dedupe
        self._logged = logged

    def resolve(
        self, records: Sequence[ControlRecord], intake: Callable[[], Intake], *, at: int
    ) -> list[ControlRecord]:
        """The records; labels have offset and columns of their event, where it is known at `at`."""
        asked = [r for r in records if isinstance(r, LabelRecord) and r.event_offset is None]
        if not asked or self._logged is None:
            return [*records]
        ids = sorted({record.event_id for record in asked})
        offsets = self._dedupe.find(pa.array(ids, pa.string()), ingest_time=at).tolist()
        places = {i: offset for i, offset in zip(ids, offsets, strict=True) if offset >= 0}
        # In the order of the log, of which an entry is read as a whole.
        events = {o: self._event(o, self._logged, intake()) for o in sorted(places.values())}
        return [
            msgspec.structs.replace(r, event_offset=offset, event=events[offset])
            if isinstance(r, LabelRecord)
            and r.event_offset is None
            and (offset := places.get(r.event_id)) is not None
            else r
            for r in records
        ]

    @staticmethod
    def _event(offset: int, logged: Logged, intake: Intake) -> dict[str, Any] | None:
        """The declared columns of the event at an offset, None if they are declared otherwise."""
        record, ingest_time = logged(offset)
        events = intake.admit(Records.of([record]), ingest_time=ingest_time).events
        return to_json(events, intake.schema)[0] if events.num_rows else None
