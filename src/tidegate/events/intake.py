"""The intake: what a record must be to become an event of this stream, at this time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tidegate.events.decode import DeadReason, DeadRecord, Decoded, Decoder
from tidegate.records import Records
from tidegate.schema import Schema


@dataclass(frozen=True, slots=True)
class Intake:
    """Decodes records and refuses events that claim to come from the future.

    One event dated years ahead would carry the watermark with it: every window would close and all
    honest events would be late. `ahead_max` is how far an event time may lie beyond the ingest
    time, in microseconds; it is judged by the log's own ingest time, so replay judges alike.
    """

    schema: Schema
    decoder: Decoder
    ahead_max: int

    def admit(self, records: Records, *, ingest_time: int) -> Decoded:
        """The events among the records and, for each of the others, why it is none."""
        decoded = self.decoder.decode(records)
        times = decoded.events[self.schema.event_time].to_numpy().view(np.int64)
        ahead = times > ingest_time + self.ahead_max
        if not np.count_nonzero(ahead):
            return decoded
        return self._refuse(decoded, np.flatnonzero(ahead))

    def _refuse(self, decoded: Decoded, ahead: np.ndarray) -> Decoded:
        keep = np.ones(len(decoded.rows), dtype=np.bool_)
        keep[ahead] = False
        dead = [*decoded.dead, *(self._dead(decoded, int(i)) for i in ahead)]
        return Decoded(
            events=decoded.events.filter(pa.array(keep)),
            rows=decoded.rows[keep],
            dead=tuple(sorted(dead, key=lambda d: d.row)),
        )

    def _dead(self, decoded: Decoded, index: int) -> DeadRecord:
        name = self.schema.event_time
        seen = decoded.events[name][index].as_py()
        return DeadRecord(
            row=int(decoded.rows[index]),
            reason=DeadReason.IN_FUTURE,
            column=name,
            message=f"column `{name}`: event time {seen.isoformat()} lies too far in the future",
        )
