"""Columns marked `pii`: pseudonyms in their place, wherever rows leave the installation.

The tables keep the values, since features are computed from them. What hides them is a keyed hash:
equal values have equal pseudonyms, so that rows can be counted, grouped and joined by them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from tidegate.datafolder import DataFolder
from tidegate.hiding import Hiding
from tidegate.program import marked_tables
from tidegate.project.project import Project
from tidegate.pseudonyms import pseudonym, pseudonym_key, pseudonyms
from tidegate.sinks.contract import Delivery, Sink
from tidegate.tables import FEATURE_PREFIX

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
_RECORD = "record"


def hidden(batch: Rows, columns: Collection[str], key: bytes) -> Rows:
    """The rows with pseudonyms, which are text, in these columns; those it lacks do not matter.

    `key` is that of `pseudonym_key`.
    """
    for place, name in enumerate(batch.schema.names):
        if name in columns:
            stands = _stands(batch.column(place), key)
            batch = batch.set_column(place, pa.field(name, stands.type), stands)
    return batch


def _stands(column: Any, key: bytes) -> Any:
    if not isinstance(column, pa.ChunkedArray):
        return pseudonyms(column, key)
    # A column of no chunks has the type of its pseudonyms as well.
    chunks: list[Any] = [pseudonyms(c, key) for c in (*column.chunks, pa.array([], column.type))]
    return pa.chunked_array(chunks)


def hiding_of(*projects: Project, folder: DataFolder) -> Hiding | None:
    """What is hidden from those who may not see it; None where no column is marked.

    Of several projects (the folder's, and the version that decides now) the marks of all count.
    Tables that they do not know, such as those of a replay, are taken for wide ones: with the
    columns of events and features, whatever of them has to make way for another of its name.
    """
    tables = dict(_NOTHING)
    for project in projects:
        known = {window.name: frozenset[str]() for window in project.windows}
        for name, columns in {**known, **marked_tables(project)}.items():
            tables[name] = tables.get(name, frozenset()) | columns
    if not tables.get("events"):
        return None
    features = tables["features"]
    elsewhere = tables["events"] | features | {FEATURE_PREFIX + name for name in features}
    return Hiding(tables=tables, elsewhere=elsewhere, key=pseudonym_key(folder.key()))


def hidden_text(text: str, hiding: Hiding | None) -> str:
    """A text that may be a marked value, to somebody from whom `hiding` hides those."""
    return text if hiding is None else pseudonym(text, hiding.key)


def hidden_features(values: Mapping[str, Any], hiding: Hiding) -> dict[str, Any]:
    """Features of one event by name, with pseudonyms where they carry what is marked."""
    marked = hiding.columns("features")
    return {
        name: pseudonyms(pa.array([value]), hiding.key)[0].as_py() if name in marked else value
        for name, value in values.items()
    }


# Tables of their own that never hold a value of a column, their reasons included.
_NOTHING: dict[str, frozenset[str]] = dict.fromkeys(
    ("decisions", "duplicates", "late_rows", "versions", "labels", "answers"), frozenset()
)


class HidingSink:
    """A sink that is given pseudonyms in the place of what is marked."""

    def __init__(self, sink: Sink, columns: Collection[str], key: bytes) -> None:
        self._sink = sink
        self._columns = columns
        self._key = key
        self.delivered = sink.delivered
        self.close = sink.close

    def write(self, delivery: Delivery) -> None:
        """Put the rows where they belong, as the sink itself does."""
        rows = hidden(delivery.rows, self._columns, self._key)
        if _RECORD in rows.schema.names and _RECORD not in self._columns:
            rows = _with_records(rows, [c for c in rows.schema.names if c in self._columns])
        self._sink.write(replace(delivery, rows=rows))


def _with_records(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows with records as they were received, pseudonyms in the place of marked values."""
    stands = zip(*(rows.column(name).to_pylist() for name in columns), strict=True)
    records: list[Any] = rows.column(_RECORD).to_pylist()
    written = [
        _rewritten(record, dict(zip(columns, row, strict=True)))
        for record, row in zip(records, stands, strict=True)
    ]
    place = rows.schema.names.index(_RECORD)
    return rows.set_column(place, _RECORD, pa.array(written, pa.binary()))


def _rewritten(record: bytes, stands: Mapping[str, str | None]) -> bytes:
    parts: dict[str, Any] = _DECODE(record)
    for name in parts.keys() & stands.keys():
        parts[name] = stands[name]
    return _ENCODE(parts)


# What is not marked stays byte for byte what it was.
_DECODE = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ENCODE = msgspec.json.Encoder().encode
