"""Rows as JSON: files of many rows, or one each."""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from tidegate.sinks.contract import Delivery
from tidegate.sinks.layout import PathTemplate, groups
from tidegate.sinks.store import File
from tidegate.tables import WINDOW_COLUMNS

_ENCODER = msgspec.json.Encoder(decimal_format="number")
_WINDOW_NAMES = [field.name for field in WINDOW_COLUMNS]
_LINES = b"", b"\n", b"\n"
# As Python's objects rows take many times the memory: so few are made at a time.
_SPELLED_ROWS, _SPELLED_BYTES = 512, 256 << 10
# The time that fills the holes of a path: the first of these that the rows have.
_TIMES = ("tidegate_decided_at", "decided_at", "ingest_time", "event_time")


class DocumentLayout:
    """JSON files in the folder that `path` names, one for the rows of the same filled path.

    - `json`: an array; `ndjson`: a row for each line; both named by the first and last offset.
    - `event`: a file for each row, named by its time (seconds and microseconds) and offset; of
      rows that share an offset all but the first are numbered.
    - The rows of a window query have the query's own columns and no offset, so each file holds
      rows of one offset only, which is its name.
    """

    def __init__(self, path: str, *, columns: Sequence[str], id_column: str, form: str) -> None:
        self._is_window = list(columns[-len(_WINDOW_NAMES) :]) == _WINDOW_NAMES
        times = ("window_end",) if self._is_window else _TIMES
        self._time = next(name for name in times if name in columns)
        self._template = PathTemplate.parse(path, values=columns)
        self._form = form
        self._id = next((c for c in (id_column, "event_id") if c in columns), None)
        self.folder = self._template.folder
        ending = "ndjson" if form == "ndjson" else "json"
        self.pattern = self._template.pattern(rf"/(?:-?\d+_)?\d{{19}}(?:-\d+)?\.{ending}")
        self._ending = ending

    def files(self, delivery: Delivery) -> Iterator[File]:
        """The files of a delivery, made one after the other: their keys and contents."""
        rows = self._own(delivery.rows)
        if not rows.num_rows:
            return
        offsets: list[int] = delivery.rows.column("log_offset").to_numpy().tolist()
        times: list[int] = delivery.rows.column(self._time).cast(pa.int64()).to_numpy().tolist()
        found = groups(
            self._template,
            columns={name: delivery.rows.column(name) for name in self._template.values},
            times=times,
            apart=self._apart(offsets),
        )
        documents = _documents(rows, [row for group in found for row in group.rows])
        for group in found:
            key = f"{group.path}/{self._name(group.rows, offsets, times)}.{self._ending}"
            yield key, self._content(islice(documents, len(group.rows)))

    def _own(self, rows: pa.Table) -> pa.Table:
        """The columns that are written: of a window query those that it has itself."""
        own = rows.num_columns - (len(_WINDOW_NAMES) if self._is_window else 0)
        return rows.select(range(own))

    def _apart(self, offsets: Sequence[int]) -> Sequence[int] | None:
        if self._form == "event":
            return range(len(offsets))
        return offsets if self._is_window else None

    def _name(self, rows: Sequence[int], offsets: Sequence[int], times: Sequence[int]) -> str:
        first, last = offsets[rows[0]], offsets[rows[-1]]
        if self._form == "event":
            number = rows[0] - bisect_left(offsets, first)
            return f"{times[rows[0]]}_{first:019d}" + (f"-{number}" if number else "")
        return f"{first:019d}" if self._is_window else f"{first:019d}-{last:019d}"

    def _content(self, documents: Iterator[bytes]) -> bytes:
        before, between, after = (b"[", b",\n", b"]\n") if self._form == "json" else _LINES
        content = io.BytesIO()
        content.write(before)
        for number, document in enumerate(documents):
            content.write(between if number else b"")
            content.write(document)
        content.write(after)
        return content.getvalue()

    def read(self, key: str, content: bytes) -> pa.Table:
        """The `event_id` and `log_offset` of the rows in a file."""
        documents = _decoded(content, lines=self._form == "ndjson")
        if self._is_window:
            ids: list[str | None] = [None] * len(documents)
            offsets = [_offset_in(key)] * len(documents)
        else:
            ids = [str(d[self._id]) if self._id else None for d in documents]
            offsets = [d["log_offset"] for d in documents]
        return pa.table(
            {"event_id": pa.array(ids, pa.string()), "log_offset": pa.array(offsets, pa.int64())}
        )


def _documents(rows: pa.Table, places: Sequence[int]) -> Iterator[bytes]:
    """The rows at these places, in that order, as JSON; few of them are spelled at a time."""
    row_bytes = 1 + rows.nbytes // rows.num_rows
    step = max(1, min(_SPELLED_ROWS, _SPELLED_BYTES // row_bytes))
    for first in range(0, len(places), step):
        columns = [_spelled(c.combine_chunks()) for c in _at(rows, places[first : first + step])]
        spelled = pa.Table.from_arrays(columns, names=rows.column_names)
        yield from map(_ENCODER.encode, spelled.to_pylist())


def _at(rows: pa.Table, places: Sequence[int]) -> Sequence[Any]:
    """The columns of the rows at these places; what lies together is not copied."""
    low, high = min(places), max(places)
    # From the stretch that holds them, so that the chunks around it are not looked at.
    stretch = rows.slice(low, high - low + 1)
    if list(places) == list(range(low, high + 1)):
        return stretch.columns
    return stretch.take(pa.array([place - low for place in places], pa.int64())).columns


def _offset_in(key: str) -> int:
    name = key.rpartition("/")[2].partition(".")[0]
    return int(name.rpartition("_")[2].partition("-")[0])


def _decoded(content: bytes, *, lines: bool) -> list[dict[str, Any]]:
    if lines:
        return msgspec.json.Decoder(dict[str, Any]).decode_lines(content)
    found = msgspec.json.decode(content)
    return found if isinstance(found, list) else [found]


def _spelled(column: Any) -> Any:
    """The column with every time in it, however deep, as text: ISO, 7 digits of a second and `Z`.

    Stream Analytics writes times so. The rest is JSON's: NaN and the infinities become null.
    """
    kind = column.type
    if pa.types.is_timestamp(kind):
        return pa.array(_instants(column), pa.string())
    if pa.types.is_list(kind):
        # Null lists have no values in a fresh array, so their offsets need no mask.
        fresh: Any = pa.concat_arrays([column])
        ends = pa.array(fresh.offsets.to_numpy(), pa.int32(), mask=_offset_mask(fresh))
        return pa.ListArray.from_arrays(ends, _spelled(fresh.values))
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        parts = [_spelled(part) for part in column.flatten()]
        return pa.StructArray.from_arrays(parts, names=names, mask=column.is_null())
    return column


def _offset_mask(column: Any) -> Any:
    return np.append(column.is_null().to_numpy(zero_copy_only=False), np.array([False]))


def _instants(column: Any) -> list[str | None]:
    instants = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    spelled = np.datetime_as_string(instants.astype("datetime64[us]"), unit="us")
    return [None if text == "NaT" else f"{text}0Z" for text in spelled.tolist()]
