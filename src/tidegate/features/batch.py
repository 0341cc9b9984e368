"""A batch on its way through the kernels: columns to rows of words, and words to columns again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.events.fingerprints import Integers
from tidegate.features.columns import DESCRIPTION, key_form
from tidegate.features.emission import emit, measure, spell
from tidegate.features.intake import load, name_keys, place
from tidegate.features.layout import BOOLEAN, DECIMAL, PLAIN, SPAN, TEXT, Layout
from tidegate.features.memory import Words
from tidegate.schema import Kind
from tidegate.sql.columns import Column, Columns, Piece, Shape, Slab, block

SHARDS = 32
ALONE = 2048  # rows that are not worth waking other threads for

_ROWS = 64  # rows whose results are written by one thread: their bits fill words of their own

Found: TypeAlias = tuple[Column, Mapping[int, str]]  # a column, and why rows of it have errors

_SCRATCH_MIN = 1 << 16  # words that are kept however small batches become
_PLANS_MAX = 256  # sizes of batches whose layout is kept
_OUT_FORMS = {Kind.DECIMAL: DECIMAL, Kind.BOOLEAN: BOOLEAN, Kind.TEXT: TEXT, Kind.JSON: TEXT}
_NONE: Mapping[int, str] = {}
_NOTHING: Words = np.zeros(1, dtype=np.int64)


class Scratch:
    """Memory for batches, used again from pass to pass: new memory would have to be cleared.

    `width` is that of a row, `calls` how many results each has.
    """

    def __init__(self, width: int, calls: int) -> None:
        self._width, self._calls = width, calls
        self._held = _NOTHING
        self._last: Batch | None = None

    def batch(self, n: int) -> Batch:
        """A batch of n rows, of any content; the one given before is not to be used any more."""
        if self._last is None or self._last.n != n:
            self._last = self._cut(n)
        return self._last

    def _cut(self, n: int) -> Batch:
        sizes = (n, n, n * self._width, 3 * n, n + 1, 7 * n, n * self._calls)
        size = sum(sizes) + (n * self._calls + 7) // 8
        if len(self._held) < size or len(self._held) > max(_SCRATCH_MIN, 64 * size):
            self._held = block(8 * size)[1].view(np.int64)
        arrays, top = list[Words](), 0
        for words in sizes:
            arrays.append(self._held[top : top + words])
            top += words
        status = self._held[top:size].view(np.uint8)[: n * self._calls]
        return Batch(n, arrays, status)


class Batch:
    """Rows in the order of their shards, what they were read from, and what comes out for them."""

    __slots__ = (
        "bounds",
        "described",
        "held",
        "horizons",
        "ids",
        "n",
        "named",
        "newest",
        "order",
        "out",
        "ranks",
        "rows",
        "status",
        "texts",
        "times",
        "work",
    )

    def __init__(self, n: int, arrays: Sequence[Words], status: npt.NDArray[np.uint8]) -> None:
        self.n = n
        self.bounds: Words = np.empty(SHARDS + 2, dtype=np.int64)
        self.order, self.ranks, self.rows, self.ids = arrays[:4]
        self.horizons, self.work, self.out = arrays[4:]
        self.named = self.work[: 3 * n]  # which is not needed any more when the work begins
        self.status = status
        self.texts = self.described = self.times = self.newest = _NOTHING
        self.held: Columns | None = None


class Reader:
    """Turns a batch of columns into rows of words."""

    def __init__(self, layout: Layout, scratch: Scratch) -> None:
        plan = layout.plan
        self._program = layout.program
        self._scratch = scratch
        self._keys = [(n, key_form(t)) for n, t in zip(plan.keys, plan.key_types, strict=True)]
        values = [(name, PLAIN) for name in plan.values]
        filters = [(name, BOOLEAN) for name in plan.filters]
        words = [(plan.values[column], form) for column, form in layout.forms]
        self._columns = [*values, *filters, *words]
        self._texts = [c for c, (_, form) in enumerate(self._columns) if form == TEXT]
        self._shape = np.array([layout.flags, len(values), len(filters), len(words)])

    def read(self, columns: Columns, times: Integers, newest: Integers, run: Any) -> Batch:
        """The rows of a batch, in the order of their shards."""
        n, program, count = columns.rows, self._program, len(self._keys)
        batch = self._scratch.batch(n)
        described = _described(columns, [*self._keys, *self._columns])
        named = batch.named
        if n > ALONE:
            run(lambda a, b: name_keys(described, program, count, a, b, named), n, wide=True)
        else:
            name_keys(described, program, count, 0, n, named)
        place(named, SHARDS, batch.bounds, batch.order, batch.ranks, n)
        batch.described, batch.held = described[DESCRIPTION * count :], columns
        batch.times, batch.newest = np.ascontiguousarray(times), np.ascontiguousarray(newest)
        batch.horizons[n] = newest[n - 1] - program[SPAN]
        if self._texts:
            batch.texts = batch.described.reshape(-1, DESCRIPTION)[self._texts].ravel()
        return batch

    def load(self, batch: Batch, first: int, last: int) -> None:
        """Fill in the rows [first, last) of the batch, each where its shard has its place."""
        load(
            batch.described,
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
        name_keys(_described(keys, self._keys), self._program, len(self._keys), 0, n, batch.ids)
        batch.order[:] = batch.ranks[:] = np.arange(n)
        return batch


def _described(columns: Columns, wanted: Sequence[tuple[str, int]]) -> Words:
    """Five words for each column."""
    words: list[int] = []
    for name, form in wanted:
        words += (form, *columns.place(name))
    return np.array(words, dtype=np.int64)


class Writer:
    """Turns the words that calls gave into columns."""

    def __init__(self, layout: Layout) -> None:
        self._calls = layout.plan.calls
        self._shape = Shape([c.type for c in self._calls])
        self._forms = [_OUT_FORMS.get(c.type.kind, PLAIN) for c in self._calls]
        self._texts = [c for c, form in enumerate(self._forms) if form == TEXT]
        self._plans: dict[int, Words] = {}

    def empty(self) -> list[Found]:
        """Columns without rows."""
        return [(pa.array([], t), _NONE) for t in self._shape.arrow]

    def write(self, batch: Batch, directory: Words, run: Any) -> list[Found]:
        """A column for each call."""
        n, count = batch.n, len(self._calls)
        slab, words = Slab(self._shape, n), self._plan(n)
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
        slab.nulls, errors = words[3::5].tolist(), words[4::5].tolist()
        found: list[Found] = [
            (Piece(slab, c), self._errors(c, batch) if errors[c] else _NONE) for c in range(count)
        ]
        for c in self._texts:
            found[c] = (self._text(slab, c, batch, directory), found[c][1])
        return found

    def _plan(self, n: int) -> Words:
        """Five words for each call, as `emit` wants them."""
        if n not in self._plans:
            spans = zip(self._forms, self._shape.spans(n).spans, strict=True)
            plan = [(form, valid, values, 0, 0) for form, (valid, _, values, _) in spans]
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            self._plans[n] = np.array(plan, dtype=np.int64).ravel()
        return self._plans[n].copy()

    def _text(self, slab: Slab, c: int, batch: Batch, directory: Words) -> pa.Array[Any]:
        n, (valid, bytes_, values, _) = batch.n, slab.spans[c]
        places = slab.memory[values : values + 8 * n].view(np.int64)
        present = slab.buffer.slice(valid, bytes_) if slab.nulls[c] else None
        buffers = [present, *_spelt(places, batch, directory)]
        kind = self._shape.arrow[c]
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
