"""The state of a window query: the rows whose windows are still open.

Rows are kept in the order of arrival and aggregated once, when their window closes. So a row costs
its event time and the columns that the query reads, whatever the number of windows it lies in; and
rows that will always be aggregated together are folded into one, where the aggregates allow it.
Nothing depends on how the stream is cut into batches: each row meets the watermark as it stood at
that row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.batches import empty, joined
from tidegate.errors import DamageError
from tidegate.sql.expression import Evaluated
from tidegate.tables import LATE_ROWS
from tidegate.windows.groups import Groups
from tidegate.windows.intake import HELD_TIME, Taken
from tidegate.windows.query import WindowQuery
from tidegate.windows.spans import NEVER, Spans

Times = npt.NDArray[np.int64]

# Before all times, yet far enough from the end of int64 for a window's size to be added.
BEGINNING = -(2**62)
_VERSION = "1"
# How many pairs of row and window are aggregated at a time; bounds the memory of closing.
_PAIRS_MAX = 2_000_000
# Small batches are joined once there are this many, so that rows lie in few pieces.
_PIECES_MAX = 64
_FOLD_MIN = 65_536
_WINDOW, _FIRST, _LAST = " window", " first", " last"
Errors = list[tuple[int, str]]


@dataclass(frozen=True, slots=True, eq=False)
class Closed:
    """What follows from a stretch of the log.

    `rows` (of the query's schema) ascend by `log_offset`, then by window, then by the arrival of
    each group's first row. `late` has a row for each window that an event missed. `errors` are
    log offsets with the reason why the event counts in no window, or why a value of a row that was
    emitted there is null.
    """

    rows: pa.RecordBatch
    late: pa.RecordBatch
    errors: Errors


_NONE_LATE = empty(LATE_ROWS)


class WindowState:
    """The open windows of one query.

    The watermark is the time up to which events are expected to have come; it never goes back. A
    window closes, and emits its rows, at the record that lets the watermark reach its closing time
    (see `Grid`). An event that comes later than that is late for the window.
    """

    def __init__(self, query: WindowQuery, *, watermark: int = BEGINNING) -> None:
        self.query = query
        self.watermark = watermark
        self._pieces: list[pa.RecordBatch] = []
        self._joined_pieces = 0  # so many of the pieces are the result of joining
        self._fold_at = _FOLD_MIN  # fold when more rows are held
        self._none_emitted = empty(query.schema)
        self._next = NEVER  # the first open window that holds a row

    @property
    def rows_held(self) -> int:
        """How many rows wait for a window to close."""
        return sum(p.num_rows for p in self._pieces)

    @property
    def bytes_held(self) -> int:
        """The memory of the rows that wait, in bytes."""
        return sum(p.nbytes for p in self._pieces)

    @property
    def open_windows(self) -> int:
        """How many windows hold rows and have not closed; counted anew at each call."""
        spans = self._spans()
        order = np.argsort(spans.first, kind="stable")
        first, last = spans.first[order], np.maximum.accumulate(spans.last[order])
        # A row adds those of its windows that lie behind all windows of the rows before it.
        behind = np.concatenate((first[:1] - 1, last[:-1]))
        return int(np.maximum(last - np.maximum(first - 1, behind), 0).sum())

    def update(
        self, events: pa.RecordBatch, *, watermarks: Times, chosen: Evaluated | None = None
    ) -> Closed:
        """What follows from these events, in log order.

        `watermarks[i]` is the highest event time of all accepted events up to and including row i,
        minus the allowed lateness. `chosen` is the value of the query's `where` for each event,
        where somebody has it already.
        """
        marks = np.maximum.accumulate(np.maximum(watermarks, self.watermark))
        taken = self.query.intake.take(events, chosen=chosen)
        held = self._lifted(taken.rows)
        spans = Spans.of(held, self.query.grid, marks[taken.positions])
        late = self._late(events, taken, marks)
        offsets = events.column("log_offset").to_numpy()
        errors = [(int(offsets[i]), message) for i, message in taken.errors]
        rows, more = self._step(spans.open_ones(), marks=marks, offsets=offsets)
        return Closed(rows, late, sorted([*errors, *more], key=itemgetter(0)))

    def advance(self, watermark: int, *, log_offset: int) -> Closed:
        """What follows when time passes without an event: a control record at `log_offset`."""
        marks = np.array([max(watermark, self.watermark)], dtype=np.int64)
        offsets = np.array([log_offset], dtype=np.int64)
        nothing = Spans.of(empty(self.query.held_schema), self.query.grid, marks[:0])
        rows, errors = self._step(nothing, marks=marks, offsets=offsets)
        return Closed(rows, _NONE_LATE, errors)

    def snapshot(self) -> bytes:
        """The state as bytes, in Arrow's IPC format."""
        meta = {
            "version": _VERSION,
            "fingerprint": self.query.fingerprint,
            "watermark": str(self.watermark),
        }
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.query.held_schema.with_metadata(meta)) as writer:
            for piece in self._pieces:
                writer.write_batch(piece.replace_schema_metadata(meta))
        return sink.getvalue().to_pybytes()

    @classmethod
    def restore(cls, query: WindowQuery, data: bytes) -> Self:
        """The state that `snapshot` gave, for the same query or one of equal fingerprint.

        Raises: DamageError where the bytes are not such a state.
        """
        try:
            reader = pa.ipc.open_stream(data)
            meta = {k.decode(): v.decode() for k, v in (reader.schema.metadata or {}).items()}
            pieces = [b.replace_schema_metadata(None) for b in reader]
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            raise DamageError(f"the state of window query `{query.name}` cannot be read") from error
        same = (meta.get("version"), meta.get("fingerprint")) == (_VERSION, query.fingerprint)
        if not same or "watermark" not in meta:
            raise DamageError(f"the state is not one of window query `{query.name}`")
        state = cls(query, watermark=int(meta["watermark"]))
        state._replace(Spans.of(joined(pieces, query.held_schema), query.grid, state.watermark))
        return state

    def _step(
        self, arrived: Spans, *, marks: Times, offsets: Times
    ) -> tuple[pa.RecordBatch, Errors]:
        """Adds the rows that arrived and emits the windows that close."""
        if not len(marks):
            return self._none_emitted, []
        if self.rows_held > self._fold_at:
            self._fold()
        self._add(arrived)
        self.watermark, before = int(marks[-1]), self.watermark
        until = self.query.grid.open(self.watermark)
        if self._next >= until:
            return self._none_emitted, []
        spans = self._spans_with(arrived, before)
        emitted = list(self._closing(spans, until=until, marks=marks, offsets=offsets))
        self._replace(spans.after(until))
        rows = joined([rows for rows, _ in emitted], self.query.schema)
        return rows, [error for _, errors in emitted for error in errors]

    def _lifted(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows if self.query.folding is None else self.query.folding.lift(rows)

    def _fold(self) -> None:
        """Folds rows of the same group and windows; seldom enough to cost little per row."""
        if self.query.folding is None:
            return
        spans = self._spans()
        keys = {k: spans.rows.column(k) for k in self.query.keys}
        same = {_FIRST: pa.array(spans.first), _LAST: pa.array(spans.last)}
        groups = Groups.by(pa.table({**same, **keys}))
        folded = self.query.folding.merge(spans.rows, groups)
        self._replace(Spans.of(folded, self.query.grid, self.watermark))
        self._fold_at = max(_FOLD_MIN, 2 * folded.num_rows)

    def _spans(self) -> Spans:
        held = joined(self._pieces, self.query.held_schema)
        return Spans.of(held, self.query.grid, self.watermark)

    def _spans_with(self, arrived: Spans, watermark: int) -> Spans:
        """All rows held; those that just arrived count from the watermark that each one met."""
        held = joined(self._pieces, self.query.held_schema)
        spans = Spans.of(held, self.query.grid, watermark)
        if len(arrived.first):
            spans.first[-len(arrived.first) :] = arrived.first
        return spans

    def _closing(
        self, spans: Spans, *, until: int, marks: Times, offsets: Times
    ) -> Iterator[tuple[pa.RecordBatch, Errors]]:
        """What the windows before `until` emit, a stretch of windows at a time."""
        stretch = max(1, _PAIRS_MAX // max(1, len(spans.first)))
        begin = spans.begin
        while begin < until:
            end = min(until, begin + stretch)
            yield self._emitted(spans, begin, end, marks=marks, offsets=offsets)
            begin = spans.after(end).begin

    def _emitted(
        self, spans: Spans, begin: int, end: int, *, marks: Times, offsets: Times
    ) -> tuple[pa.RecordBatch, Errors]:
        query = self.query
        rows, numbers = spans.pairs(begin, end)
        keys = {k: spans.rows.column(k).take(rows) for k in query.keys}
        pairs = Groups.by(pa.table({_WINDOW: pa.array(numbers), **keys}))
        groups = Groups(rows[pairs.rows], pairs.bounds)
        windows = numbers[pairs.rows[pairs.bounds[:-1]]]
        closed = offsets[np.searchsorted(marks, query.grid.closing(windows))]
        made = query.emission.emit(
            spans.rows, groups, grid=query.grid, numbers=windows, offsets=closed
        )
        return made.rows, [(int(closed[g]), message) for g, message in made.errors]

    def _add(self, arrived: Spans) -> None:
        if not arrived.rows.num_rows:
            return
        self._next = min(self._next, arrived.begin)
        self._pieces.append(arrived.rows)
        if len(self._pieces) - self._joined_pieces >= _PIECES_MAX:
            self._join_pieces()

    def _join_pieces(self) -> None:
        """Joins the latest small pieces, and larger ones as long as they are not much larger."""
        tail = joined(self._pieces[self._joined_pieces :], self.query.held_schema)
        del self._pieces[self._joined_pieces :]
        while self._pieces and self._pieces[-1].num_rows < 2 * tail.num_rows:
            tail = joined([self._pieces.pop(), tail], self.query.held_schema)
        self._pieces.append(tail)
        self._joined_pieces = len(self._pieces)

    def _replace(self, spans: Spans) -> None:
        self._pieces = [spans.rows] if spans.rows.num_rows else []
        self._joined_pieces = len(self._pieces)
        self._next = spans.begin

    def _late(self, events: pa.RecordBatch, taken: Taken, marks: Times) -> pa.RecordBatch:
        """A row for each window that an event missed."""
        grid = self.query.grid
        times = taken.rows.column(HELD_TIME).to_numpy()
        met = marks[taken.positions]
        missed = Spans(
            taken.rows, grid.first(times), np.minimum(grid.last(times), grid.open(met) - 1)
        )
        if not (missed.last >= missed.first).any():
            return _NONE_LATE
        rows, numbers = missed.each_pair()
        at = taken.positions[rows]
        columns = [
            pa.repeat(self.query.name, len(rows)),
            events.column(self.query.event_id).take(at),
            _timestamps(times[rows]),
            _timestamps(grid.start(numbers)),
            _timestamps(grid.end(numbers)),
            _timestamps(marks[at]),
            events.column("log_offset").take(at),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=LATE_ROWS)


def _timestamps(micros: Times) -> pa.Array[Any]:
    return pa.array(micros).view(pa.timestamp("us"))
