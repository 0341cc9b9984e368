"""All events as Azure Event Hub Capture keeps them: Avro files of the bytes as received."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.errors import DamageError
from tidegate.eventlog.contract import Entry, EventLog
from tidegate.sinks import avro
from tidegate.sinks.contract import Delivery, Feed
from tidegate.sinks.layout import Group, PathTemplate, groups, safe, time_parts
from tidegate.sinks.store import File

_UNION = ["long", "double", "string", "bytes"]
_LONG, _DOUBLE, _STRING = 0, 1, 2
SCHEMA = {
    "type": "record",
    "name": "EventData",
    "namespace": "Microsoft.ServiceBus.Messaging",
    "fields": [
        {"name": "SequenceNumber", "type": "long"},
        {"name": "Offset", "type": "string"},
        {"name": "EnqueuedTimeUtc", "type": "string"},
        {"name": "SystemProperties", "type": {"type": "map", "values": _UNION}},
        {"name": "Properties", "type": {"type": "map", "values": [*_UNION, "null"]}},
        {"name": "Body", "type": ["null", "bytes"]},
    ],
}
_IDS = 1024
_TAKEN = 4 * avro.BLOCK_RECORDS  # rows of a file that are encoded at a time
_READ_BYTES = 1 << 20  # of the log at a time, or one entry
_SCHEMA_TEXT = json.dumps(SCHEMA, separators=(",", ":"))
_PARTITION_KEY = "x-opt-partition-key"
_MAP_END = b"\0"
_BODY = b"\x02"  # the second branch of the union: bytes


class CaptureFeed:
    """A feed of accepted events with `record`, their bytes from the log.

    Each entry of the log is read once for a stretch. The log must keep what the sink has not
    passed: declare the sink's offset to it as a consumer's position.
    """

    def __init__(self, events: Feed, log: EventLog) -> None:
        self._events = events
        self._log = log

    def end(self) -> int:
        """The offset below which every row is there to be read."""
        return min(self._events.end(), self._log.next_offset)

    def read(self, offset: int, *, until: int, rows_max: int) -> Delivery:
        """Events at `offset <= log_offset < until`; see `Feed`. Raises: DamageError."""
        events = self._events.read(offset, until=until, rows_max=rows_max)
        offsets = events.rows.column("log_offset").to_numpy()
        record = pa.chunked_array(_bodies(self._log, offsets), pa.binary())
        rows = events.rows.append_column("record", record)
        return Delivery(events.first_offset, events.next_offset, rows)


def _each(ids: pa.ChunkedArray[Any]) -> Iterator[bytes]:
    """The ids as text, few of them as Python's objects at a time."""
    for first in range(0, len(ids), _IDS):
        few: list[Any] = ids.slice(first, _IDS).cast(pa.string()).to_pylist()
        yield from (i.encode() for i in few)


def _bodies(log: EventLog, offsets: npt.NDArray[np.int64]) -> Iterator[pa.BinaryArray]:
    """The records at these ascending offsets, those of an entry as Python's objects at a time."""
    found = 0
    while found < len(offsets):
        entries = log.read(int(offsets[found]), bytes_max=_READ_BYTES)
        if not entries:
            raise DamageError("the log ends before the events do", offset=int(offsets[found]))
        for each in entries:
            part = pa.array(_within(each, offsets[found:]), pa.binary())
            found += len(part)
            yield part


def _within(entry: Entry, offsets: npt.NDArray[np.int64]) -> Iterator[bytes]:
    inside = offsets[: np.searchsorted(offsets, entry.next_offset)] - entry.first_offset
    records = entry.records
    bounds = zip(records.starts[inside].tolist(), records.ends[inside].tolist(), strict=True)
    return (records.payload[start:end] for start, end in bounds)


class CaptureLayout:
    """Files named and written as Event Hub Capture does.

    A file holds the rows of one partition (a hash of the event's id, so that an event is always in
    the same) and of one value of each column in the path. The path's times are when the first of
    them came in; the first log offset follows, since two files may begin in one second.
    `properties` are the columns that become application properties, where the events have them.
    """

    def __init__(
        self,
        path: str,
        *,
        columns: Sequence[str],
        id_column: str,
        namespace: str,
        event_hub: str,
        partitions: int,
        properties: Sequence[str],
    ) -> None:
        text = path.replace("{Namespace}", safe(namespace)).replace("{EventHub}", safe(event_hub))
        self._template = PathTemplate.parse(text, values=["PartitionId", *columns])
        self._id = id_column
        self._partitions = partitions
        self._properties = [p for p in properties if p in columns]
        self.folder = self._template.folder
        self.pattern = self._template.pattern(r"_\d{19}\.avro")

    def files(self, delivery: Delivery) -> Iterator[File]:
        """The files of a delivery, made one after the other: their keys and contents."""
        rows = delivery.rows
        partitions = [zlib.crc32(i) % self._partitions for i in _each(rows.column(self._id))]
        values = {name: rows.column(name) for name in self._template.values - {"PartitionId"}}
        values["PartitionId"] = pa.chunked_array([pa.array(partitions, pa.int64())])
        times = _micros(rows.column("ingest_time"))
        found = groups(self._template, columns=values, times=times, apart=partitions, by_time=False)
        return (self._file(rows, group) for group in found)

    def _file(self, rows: pa.Table, group: Group) -> File:
        first = rows.column("log_offset")[group.rows[0]].as_py()
        key = f"{group.path}_{first:019d}.avro"
        # A delivery made again gives the same bytes, so the marker is not drawn but derived.
        marker = hashlib.sha256(key.encode()).digest()[:16]
        records = (self._records(some) for some in _taken(rows, group.rows))
        return key, avro.container(_SCHEMA_TEXT, records, marker=marker)

    def _records(self, rows: pa.Table) -> pa.BinaryArray:
        offsets = rows.column("log_offset")
        pieces = [
            avro.longs(offsets.to_numpy()),
            avro.strings(offsets.cast(pa.string())),
            avro.strings(pa.array(enqueued(_micros(rows.column("ingest_time"))), pa.string())),
            avro.entry(_PARTITION_KEY, _STRING, avro.strings(rows.column(self._id))),
            _MAP_END,
            *(_property(name, rows.column(name)) for name in self._properties),
            _MAP_END,
            _BODY,
            avro.strings(rows.column("record")),
        ]
        records: pa.BinaryArray = avro.joined(pieces)
        return records

    def read(self, _key: str, content: bytes) -> pa.Table:
        """The `event_id` and `log_offset` of the rows in a file."""
        records: list[Any] = list(fastavro.reader(io.BytesIO(content)))
        return pa.table(
            {
                "event_id": pa.array(
                    [r["SystemProperties"][_PARTITION_KEY] for r in records], pa.string()
                ),
                "log_offset": pa.array([r["SequenceNumber"] for r in records], pa.int64()),
            }
        )


def _taken(rows: pa.Table, places: Sequence[int]) -> Iterator[pa.Table]:
    """The rows at ascending places, some at a time: only few are held twice."""
    for begin in range(0, len(places), _TAKEN):
        some = np.array(places[begin : begin + _TAKEN], dtype=np.int64)
        # From the stretch that holds them, so that the chunks around it are not looked at.
        stretch = rows.slice(int(some[0]), int(some[-1] - some[0]) + 1)
        yield stretch.take(pa.array(some - some[0]))


def _property(name: str, column: pa.ChunkedArray[Any]) -> avro.Pieces:
    """The column as entries of the map `Properties`; a null is left out.

    Numbers stay numbers; booleans are `True` and `False`, as the store's producer writes them.
    """
    kind = column.type
    if pa.types.is_int64(kind):
        return avro.entry(name, _LONG, _where(column, avro.longs(_numbers(column))))
    if pa.types.is_float64(kind):
        return avro.entry(name, _DOUBLE, _where(column, avro.doubles(_numbers(column))))
    if pa.types.is_boolean(kind):
        return avro.entry(name, _STRING, avro.strings(pc.if_else(column, "True", "False")))
    return avro.entry(name, _STRING, avro.strings(column.cast(pa.string())))


def _numbers(column: Any) -> Any:
    return pc.fill_null(column, 0).to_numpy()


def _where(column: pa.ChunkedArray[Any], pieces: avro.Pieces) -> avro.Pieces:
    present: Any = pc.is_valid(column)
    return pc.if_else(present.combine_chunks(), pieces, pa.scalar(None, pa.binary()))


def _micros(column: pa.ChunkedArray[Any]) -> list[int]:
    times: list[int] = column.cast(pa.int64()).to_numpy().tolist()
    return times


def enqueued(times: Sequence[int]) -> list[str]:
    """Times as Capture writes them in `EnqueuedTimeUtc`.

    >>> enqueued([1686083085_000_000])
    ['6/6/2023 8:24:45 PM']
    """
    return [_enqueued(time // 1_000_000) for time in times]


@lru_cache(maxsize=1024)
def _enqueued(second: int) -> str:
    t = time_parts(second)
    hour = int(t["HH"])
    clock = f"{hour % 12 or 12}:{t['mm']}:{t['ss']} {'AM' if hour < 12 else 'PM'}"
    return f"{int(t['MM'])}/{int(t['dd'])}/{t['yyyy']} {clock}"
