"""Records to typed columns, or to dead letters with the reason: where bytes become events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.events.batch import Batches, Rows
from tidegate.events.kernels import warm_up
from tidegate.events.reasons import DeadReason, DeadRecord, Fault
from tidegate.events.record import RecordReader
from tidegate.events.scan import Out, plan, scan, scratch_size
from tidegate.records import Bounds, Records
from tidegate.schema import Schema

__all__ = ["DeadReason", "DeadRecord", "Decoded", "Decoder", "warm_up"]


PAYLOAD_BYTES_MAX = 2**31 - 1  # places in an Arrow string column are 32 bits wide


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What became of a block of records: each is in `rows` or in `dead`, never in both.

    `events` has the declared columns and `extra`, one row per good record in record order; `rows`,
    int64 of shape (n_events,), is each row's index among the records. `dead` ascends by `row`.
    """

    events: pa.RecordBatch
    rows: npt.NDArray[np.int64]
    dead: tuple[DeadRecord, ...]


class Decoder:
    """Decodes records by the declared columns of a stream.

    `record_bytes_max` is the length beyond which a record is refused. With `epoch_unit` (`s`, `ms`,
    `us` or `ns`) a timestamp may also be a number: that many units since 1970-01-01 UTC. Raises:
    ValueError if there is no such unit. Instances may be shared by threads.

    >>> schema = Schema.of([("id", "text"), ("price", "decimal(6,2)")], id="id", event_time="ts")
    >>> decoder = Decoder(schema, record_bytes_max=1_000)
    >>> decoded = decoder.decode(Records.of([b'{"id":"a","price":1.5,"hue":"red"}', b'{"id":7}']))
    >>> decoded.events.to_pylist()
    [{'id': 'a', 'price': Decimal('1.50'), 'extra': '{"hue":"red"}'}]
    >>> decoded.dead[0].message
    'column `id`: expected text, saw number 7'
    """

    def __init__(
        self, schema: Schema, *, record_bytes_max: int, epoch_unit: str | None = None
    ) -> None:
        if epoch_unit not in (None, "s", "ms", "us", "ns"):
            raise ValueError(f"unknown epoch unit `{epoch_unit}`")
        warm_up()
        self._batches = Batches(schema)
        self._reader = RecordReader(
            schema, record_bytes_max=record_bytes_max, epoch_unit=epoch_unit
        )
        self._column_count = len(schema) + 1
        self._plan = plan(schema, record_bytes_max=record_bytes_max, epoch_unit=epoch_unit)

    def decode(self, records: Records) -> Decoded:
        """The events among the records and, for each of the others, why it is none.

        Raises: ValueError if the payload has 2 GiB or more.
        """
        payload = np.frombuffer(records.payload, dtype=np.uint8)
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a payload of {len(payload)} bytes: decode it in smaller blocks")
        rows = Rows(self._column_count, len(records), text_bytes_max=_span(records))
        good = np.zeros(len(records), dtype=np.uint8)
        if self._plan is not None:
            starts, ends = _words(records.starts), _words(records.ends)
            scratch = np.empty(scratch_size(self._column_count), dtype=np.int64)
            out = Out(rows.words, rows.lengths, rows.valid, rows.side, scratch)
            rows.used = scan(payload, starts, ends, self._plan, out, good)
        dead: list[DeadRecord] = []
        if np.count_nonzero(good) < len(good):
            dead = self._read_slowly(records, rows, good)
        chosen = np.flatnonzero(good)
        return Decoded(self._batches.batch(rows, chosen, payload), chosen, tuple(dead))

    def _read_slowly(
        self, records: Records, rows: Rows, good: npt.NDArray[np.uint8]
    ) -> list[DeadRecord]:
        """Read by the full rules each record that is not yet `good`; the dead ones are returned."""
        dead = []
        for row in np.flatnonzero(good == 0).tolist():
            try:
                rows.put(row, self._reader.read(records[row]))
                good[row] = 1
            except Fault as fault:
                dead.append(DeadRecord(row, fault.reason, fault.column, fault.message))
        return dead


def _span(records: Records) -> int:
    """How many bytes the records take up, and so at most their text."""
    return int(records.ends[-1] - records.starts[0]) if len(records) else 0


def _words(bounds: Bounds) -> Bounds:
    return np.ascontiguousarray(bounds, dtype=np.int64)
