"""A batch on its way through the kernels: columns to rows of words, and words to columns again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import pyarrow as pa

from tidegate.events.fingerprints import Integers
from tidegate.features.columns import DESCRIPTION, key_form
from tidegate.features.emission import ERRORS, NULLS, PLAN, emit, measure, spell
from tidegate.features.intake import load, name_keys, place
from tidegate.features.layout import BOOLEAN, DECIMAL, PLAIN, SPAN, TEXT, TEXTS, Layout
from tidegate.features.memory import Words
from tidegate.schema import Kind
from tidegate.sql.columns import Bytes, Column, Columns, Piece, Shape, Slab, block

SHARDS = 32
ALONE = 2048  # rows that are not worth waking other threads for

_TOGETHER = (
    16  # rows whose memory is underway together: two lots fit what is nearest to a processor
)
_ROWS = 64  # rows whose results are written by one thread: their bits fill words of their own

Found: TypeAlias = tuple[Column, Mapping[int, str]]  # a column, and why rows of it have errors

_SCRATCH_MIN = 1 << 16  # words that are kept however small batches become
_PLANS_MAX = 256  # sizes of batches whose layout is kept
_OUT_FORMS = {Kind.DECIMAL: DECIMAL, Kind.BOOLEAN: BOOLEAN, Kind.TEXT: TEXT, Kind.JSON: TEXT}
PLACE = DESCRIPTION - 1  # words that say where a column lies
_NONE: Mapping[int, str] = {}
NOTHING: Words = np.zeros(1, dtype=np.int64)


class Results(NamedTuple):
    """A column for each call, and by the number of a call why rows of its column have errors."""

    columns: list[Column]
    errors: Mapping[int, Mapping[int, str]]

    def found(self) -> Iterator[Found]:
        """Each column with its errors."""
        return ((column, self.errors.get(c, _NONE)) for c, column in enumerate(self.columns))


class Scratch:
    """Memory for batches, used again from pass to pass: new memory would have to be cleared.

    `width` is that of a row, `calls` how many results each has; `fixed` is the end of a chart, what
    is the same for all batches.
    """

    def __init__(self, width: int, calls: int, fixed: Sequence[int]) -> None:
        self._width, self._calls = width, calls
        self._fixed = (0, *fixed, _TOGETHER)
        self._held, self._address = NOTHING, 0
        self._last: Batch | None = None

    def batch(self, n: int) -> Batch:
        """A batch of n rows, of any content; the one given before is not to be used any more."""
        if self._last is None or self._last.n != n:
            self._last = self._cut(n)
        return self._last

    def forget(self) -> None:
        """Have the next batch laid out anew."""
        self._last = None

    def _cut(self, n: int) -> Batch:
        """Arrays in the order of their places in a chart, the states of results last."""
        results = n * self._calls
        sizes = (SHARDS + 2, n, n, n * self._width, 3 * n, n + 1, 7 * n, results)
        size = sum(sizes) + (results + 7) // 8
        if len(self._held) < size or len(self._held) > max(_SCRATCH_MIN, 64 * size):
            buffer, memory = block(8 * size)
            self._held, self._address = memory.view(np.int64), buffer.address
        arrays, chart, top = list[Words](), [n], 0
        for words in sizes:
            arrays.append(self._held[top : top + words])
            chart.append(self._address + 8 * top)
            top += words
        chart += [0, self._address + 8 * top]
        status = self._held[top:size].view(np.uint8)[:results]
        return Batch(n, arrays, status, np.array([*chart, *self._fixed], dtype=np.int64))


class Batch:
    """Rows in the order of their shards, what they were read from, and what comes out for them.

    `chart`, which lies at `charted`, tells kernels where all of it lies; where the columns and the
    results of several entities lie is put there by who takes them together, `owner` being its mark.
    """

    __slots__ = (
        "bounds",
        "chart",
        "charted",
        "held",
        "horizons",
        "ids",
        "n",
        "named",
        "newest",
        "order",
        "out",
        "owner",
        "ranks",
        "rows",
        "status",
        "times",
        "work",
    )

    def __init__(self, n: int, arrays: Sequence[Words], status: Bytes, chart: Words) -> None:
        self.n, self.chart, self.charted = n, chart, int(chart.ctypes.data)
        self.bounds, self.order, self.ranks, self.rows = arrays[:4]
        self.ids, self.horizons, self.work, self.out = arrays[4:]
        self.named = self.work[: 3 * n]  # which is not needed any more when the work begins
        self.status = status
        self.times = self.newest = NOTHING
        self.held: Columns | None = None
        self.owner: object = None


class Reader:
    """Turns a batch of columns into rows of words.

    `_described` has five words for each column that is read: the keys, what makes rows, and once
    more those whose texts come back. `columns` are the names that it reads, `_slots` which of them
    each has. `_shape` is as kernels want it.
    """

    def __init__(self, layout: Layout, directory: Words) -> None:
        plan = layout.plan
        self._program = layout.program
        keys = [(n, key_form(t)) for n, t in zip(plan.keys, plan.key_types, strict=True)]
        values = [(name, PLAIN) for name in plan.values]
        filters = [(name, BOOLEAN) for name in plan.filters]
        words = [(plan.values[column], form) for column, form in layout.forms]
        read = [*keys, *values, *filters, *words, *(w for w in words if w[1] == TEXT)]
        self._keys, self._read = keys, [name for name, _ in read]
        self.columns = tuple(dict.fromkeys(self._read))
        self._slots = self.slots_among(self.columns)
        self._described: Words = np.zeros(DESCRIPTION * len(read), dtype=np.int64)
        self._described[::DESCRIPTION] = [form for _, form in read]
        sizes = (layout.flags, len(values), len(filters), len(words), len(keys))
        self._shape: Words = np.array(sizes, dtype=np.int64)
        texts = int(layout.program[TEXTS])
        self.texts = self._described[len(self._described) - DESCRIPTION * texts :]
        lie = [x.ctypes.data for x in (directory, layout.program, self._described)]
        fixed = [*lie, 0, len(read), 0, self._shape.ctypes.data]
        self._scratch = Scratch(layout.width, len(plan.calls), fixed)

    def slots_among(self, names: Sequence[str]) -> Words:
        """Which of the names each column that is read has."""
        return np.array([names.index(name) for name in self._read], dtype=np.int64)

    def forget(self) -> None:
        """Have the next batch laid out anew."""
        self._scratch.forget()

    def batch(self, n: int) -> Batch:
        """A batch of n rows, of which none is read; the one before is not to be used any more."""
        return self._scratch.batch(n)

    def read(self, columns: Columns, times: Integers, newest: Integers, run: Any) -> Batch:
        """The rows of a batch, in the order of their shards."""
        batch = self.batch(columns.rows)
        batch.held = columns
        batch.times, batch.newest = np.ascontiguousarray(times), np.ascontiguousarray(newest)
        n, program, count, named = batch.n, self._program, len(self._keys), batch.named
        described = self._described
        places: Words = np.array(columns.places(self.columns), dtype=np.int64)
        described.reshape(-1, DESCRIPTION)[:, 1:] = places.reshape(-1, PLACE)[self._slots]
        if n > ALONE:
            run(lambda a, b: name_keys(described, program, count, a, b, named), n, wide=True)
        else:
            name_keys(described, program, count, 0, n, named)
        place(named, SHARDS, batch.bounds, batch.order, batch.ranks, n)
        batch.horizons[n] = newest[n - 1] - program[SPAN]
        return batch

    def load(self, batch: Batch, first: int, last: int) -> None:
        """Fill in the rows [first, last) of the batch, each where its shard has its place."""
        load(
            self._described,
            self._shape,
            batch.times,
            batch.newest,
            self._program,
            batch.ranks,
            batch.named,
            first,
            last,
            batch.rows,
            batch.horizons,
            batch.ids,
        )

    def names(self, keys: Columns) -> Batch:
        """The names of keys alone, in their own order."""
        n = keys.rows
        batch = self._scratch.batch(n)
        words = [word for name, form in self._keys for word in (form, *keys.place(name))]
        described = np.array(words, dtype=np.int64)
        name_keys(described, self._program, len(self._keys), 0, n, batch.ids)
        batch.order[:] = batch.ranks[:] = np.arange(n)
        return batch


class Writer:
    """Turns the words that calls gave into columns."""

    def __init__(self, layout: Layout) -> None:
        self._calls, self.calls = layout.plan.calls, len(layout.plan.calls)
        self.types = [c.type for c in self._calls]
        self._shape = Shape(self.types)
        self._forms = [_OUT_FORMS.get(c.type.kind, PLAIN) for c in self._calls]
        self._texts = [c for c, form in enumerate(self._forms) if form == TEXT]
        self._fills = [(0, 0)] * self.calls
        self._plans: dict[int, Words] = {}

    def fill(self, words: Mapping[int, int]) -> None:
        """Have words stand for the nulls of some calls, which are of one word each."""
        self._fills = [(int(c in words), words.get(c, 0)) for c in range(self.calls)]
        self._plans.clear()

    def empty(self) -> Results:
        """Columns without rows."""
        return Results([pa.array([], t) for t in self._shape.arrow], {})

    def write(self, batch: Batch, directory: Words, run: Any) -> Results:
        """A column for each call."""
        n, slab, words = batch.n, Slab(self._shape, batch.n), self.plan(batch.n).copy()
        out, status, ranks, memory = batch.out, batch.status, batch.ranks, slab.memory
        if n > ALONE:
            parts: list[Words] = []

            def write(first: int, last: int) -> None:
                part, rows = words.copy(), (_ROWS * first, min(n, _ROWS * last))
                emit(out, status, ranks, *rows, part, memory)
                parts.append(part)

            run(write, -(-n // _ROWS), wide=True)
            words = np.sum(parts, axis=0)
        else:
            emit(out, status, ranks, 0, n, words, memory)
        slab.nulls, wrong = words[NULLS::PLAN].tolist(), words[ERRORS::PLAN].tolist()
        columns: list[Column] = [Piece(slab, c) for c in range(self.calls)]
        self.add_texts(columns, slab, 0, batch, directory)
        return self.results(columns, wrong, batch)

    def add_texts(
        self, columns: list[Column], slab: Slab, first: int, batch: Batch, directory: Words
    ) -> None:
        """Put texts in the places of columns that have them; ours are from `first` on in a slab."""
        for c in self._texts:
            columns[first + c] = self._text(slab, first + c, batch, directory)

    def results(self, columns: list[Column], wrong: Sequence[int], batch: Batch) -> Results:
        """Columns with their errors, of which there are so many in each."""
        if any(wrong):
            failed = [c for c, count in enumerate(wrong) if count]
            return Results(columns, {c: self._errors(c, batch) for c in failed})
        return Results(columns, {})

    def plan(self, n: int) -> Words:
        """`PLAN` words for each call, as `emit` wants a copy of them."""
        if n not in self._plans:
            spans = zip(self._forms, self._fills, self._shape.spans(n).spans, strict=True)
            plan = [
                (form, valid, values, 0, 0, *fill) for form, fill, (valid, _, values, _) in spans
            ]
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            self._plans[n] = np.array(plan, dtype=np.int64).ravel()
        return self._plans[n]

    def _text(self, slab: Slab, c: int, batch: Batch, directory: Words) -> pa.Array[Any]:
        """Column c of a slab, which has where its texts lie."""
        n, (valid, bytes_, values, _) = batch.n, slab.spans[c]
        places = slab.memory[values : values + 8 * n].view(np.int64)
        present = slab.buffer.slice(valid, bytes_) if slab.nulls[c] else None
        buffers = [present, *_spelt(places, batch, directory)]
        kind = slab.shape.arrow[c]
        found: pa.Array[Any] = pa.Array.from_buffers(kind, n, buffers, slab.nulls[c])
        return found

    def _errors(self, c: int, batch: Batch) -> Mapping[int, str]:
        n, call = batch.n, self._calls[c]
        rows = np.sort(batch.order[np.flatnonzero(batch.status.reshape(n, -1)[:, c] > 1)])
        return dict.fromkeys(rows.tolist(), f"sum overflows {call.type}")


def _spelt(places: Words, batch: Batch, directory: Words) -> list[pa.Buffer]:
    """The bounds and the bytes of texts that lie at places in the heaps of their shards."""
    bounds = np.empty(batch.n + 1, dtype=np.int32)
    size = measure(directory, batch.ids, batch.ranks, places, batch.n, bounds)
    if size >= 2**31:
        raise ValueError(f"the texts of {batch.n} rows have {size} bytes, at most 2^31 fit")
    data = np.empty(size, dtype=np.uint8)
    spell(directory, batch.ids, batch.ranks, places, batch.n, bounds, data)
    return [pa.py_buffer(cast(Any, bounds)), pa.py_buffer(cast(Any, data))]
