"""What events truly were: from the table of labels, or from a column of the events."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.backtest.history import OFFSET, Integers, Piece, Stored
from tidegate.errors import RequestError
from tidegate.project.project import Project
from tidegate.project.values import suggestion
from tidegate.schema import Kind, Schema

TABLE = "labels"
LEGITIMATE, FRAUD, UNLABELLED = range(3)
NAMES = pa.array(["legitimate", "fraud", None], pa.string())

Codes = npt.NDArray[np.int8]

_COLUMNS = ["event_id", "label", "event_offset", OFFSET]
_FIT = (Kind.BOOLEAN, Kind.BIGINT, Kind.DOUBLE, Kind.DECIMAL, Kind.TEXT)


class Labels(Protocol):
    """Where labels come from: `origin` says it in words, `columns` are those of events it reads."""

    origin: str
    columns: tuple[str, ...]

    def of(self, events: pa.Table, offsets: Integers) -> Codes:
        """The code of each event: LEGITIMATE, FRAUD or UNLABELLED."""


class NoLabels:
    """Nobody knows anything."""

    origin = "there are no labels"
    columns: tuple[str, ...] = ()

    def of(self, events: pa.Table, offsets: Integers) -> Codes:  # noqa: ARG002 - nothing is known of any event
        """All unlabelled."""
        return np.full(len(offsets), UNLABELLED, np.int8)


class ColumnLabels:
    """A column of the events: true, a number other than 0 and the text `fraud` are fraud.

    Null is unlabelled, and so is a text other than `fraud` and `legitimate`.
    Raises: RequestError if there is no such column, or it holds times or JSON.
    """

    def __init__(self, name: str, schema: Schema) -> None:
        column = schema.by_name.get(name)
        if column is None:
            hint = suggestion(name, schema.names)
            raise RequestError(f"the events have no column `{name}`; {hint}", code="no_column")
        if column.type.kind not in _FIT:
            message = f"column `{name}` is {column}: labels are boolean, a number or text"
            raise RequestError(message, code="no_column")
        self.origin = f"column `{name}` of the events"
        self.columns: tuple[str, ...] = (name,)
        self._name = name

    def of(self, events: pa.Table, offsets: Integers) -> Codes:  # noqa: ARG002 - they stand beside the events
        """The codes of the column's values."""
        return _codes(events.column(self._name).combine_chunks())


class TableLabels:
    """The table of labels as it stands: the last record for an event id counts.

    A label whose event was known when it came belongs to the event at that offset, any other to
    the events of its id. `beside` has what is known of events without a record.
    """

    def __init__(self, path: Path, id_column: str, *, beside: Labels | None = None) -> None:
        known = _last(path)
        self.count = len(known)
        self._beside = beside or NoLabels()
        self.columns: tuple[str, ...] = self._beside.columns
        found = known.filter(pl.col("event_offset").is_not_null()).sort("event_offset")
        self._offsets: Integers = found["event_offset"].to_numpy()
        self._codes: Codes = found["code"].to_numpy()
        waiting = known.filter(pl.col("event_offset").is_null())
        self._ids: Any = waiting["event_id"].to_arrow().cast(pa.string())
        self._ids_codes: Codes = waiting["code"].to_numpy()
        if len(self._ids):
            self.columns = (*self.columns, id_column)
        self._id = id_column
        self.origin = "table `labels`"
        if beside is not None:
            self.origin += f", else {beside.origin}"

    def of(self, events: pa.Table, offsets: Integers) -> Codes:
        """The codes that the records say."""
        codes = self._beside.of(events, offsets).copy()  # it may be Arrow's memory
        if len(self._ids):
            ids: Any = events.column(self._id).combine_chunks().cast(pa.string())
            at = pc.index_in(ids, value_set=self._ids)
            rows = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
            codes[rows] = self._ids_codes[at.drop_null().to_numpy()]
        if len(self._offsets):
            at = np.minimum(np.searchsorted(self._offsets, offsets), len(self._offsets) - 1)
            rows = np.flatnonzero(self._offsets[at] == offsets)
            codes[rows] = self._codes[at[rows]]
        return codes


def _last(path: Path) -> pl.DataFrame:
    """The last record of each event id, with its code."""
    stored = Stored(path)
    everything = Piece(tuple(stored.days(None, None)), 0, 2**63 - 1, 0)
    rows, _ = stored.read(everything, _COLUMNS)
    frame = pl.DataFrame(rows).sort(OFFSET).unique("event_id", keep="last", maintain_order=True)
    code = pl.Series("code", _codes(frame["label"].to_arrow().cast(pa.string())), pl.Int8)
    return frame.with_columns(code)


def _codes(values: Any) -> Codes:
    """The code of each value."""
    if pa.types.is_string(values.type):
        at = pc.index_in(values, value_set=NAMES.drop_null())
        codes: Codes = at.fill_null(UNLABELLED).to_numpy().astype(np.int8)
        return codes
    truth = values.cast(pa.float64()) if pa.types.is_decimal(values.type) else values
    is_fraud = pc.not_equal(truth, pa.scalar(0, truth.type)) if truth.type != pa.bool_() else truth
    return np.asarray(is_fraud.cast(pa.int8()).fill_null(UNLABELLED).to_numpy(), dtype=np.int8)


def labels_of(tables: Path, project: Project, column: str | None) -> Labels:
    """The labels: of the column that is named, else of the table, and where that has no record of
    an event, of the column that the project declares to hold labels.

    Raises: RequestError if the column is not there or cannot hold labels.
    """
    schema = project.stream.schema
    if column is not None:
        return ColumnLabels(column, schema)
    declared = project.labels.column
    beside = None if declared is None else ColumnLabels(declared, schema)
    path = tables / TABLE
    if (path / "_delta_log").is_dir():
        known = TableLabels(path, schema.id, beside=beside)
        if known.count:
            return known
    return beside or NoLabels()
