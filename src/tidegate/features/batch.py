"""A batch on its way through the kernels: columns to rows of words, and words to columns again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.events.fingerprints import Integers
from tidegate.features.columns import describe, key_form
from tidegate.features.emission import emit, measure, spell
from tidegate.features.intake import load, name_keys, place
from tidegate.features.layout import BOOLEAN, DECIMAL, PLAIN, SPAN, TEXT, Layout
from tidegate.features.memory import Words
from tidegate.schema import Kind
from tidegate.sql.expression import Evaluated

SHARDS = 32
ALONE = 2048  # rows that are not worth waking other threads for

_SCRATCH_MIN = 1 << 16  # words that are kept however small batches become
_OUT_FORMS = {Kind.DECIMAL: DECIMAL, Kind.BOOLEAN: BOOLEAN, Kind.TEXT: TEXT, Kind.JSON: TEXT}


class Scratch:
    """Arrays that are used again from pass to pass: new ones would have to be cleared each time."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[Any]] = {}

    def words(self, name: str, size: int) -> Words:
        """The array of that name with `size` words, of any content."""
        return self._array(name, size, np.int64)

    def bytes(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """The array of that name with `size` bytes, of any content."""
        return self._array(name, size, np.uint8)

    def _array(self, name: str, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        held = self._held.get(name)
        if held is None or len(held) < size or len(held) > max(_SCRATCH_MIN, 64 * size):
            held = self._held[name] = np.empty(size, dtype)
        return held[:size]


class Batch:
    """Rows in the order of their shards, ready for the kernels; and what they were read from."""

    __slots__ = (
        "bounds",
        "columns",
        "held",
        "horizons",
        "ids",
        "n",
        "named",
        "newest",
        "order",
        "ranks",
        "rows",
        "texts",
        "times",
        "work",
    )

    def __init__(self, n: int, width: int, scratch: Scratch) -> None:
        self.n = n
        self.bounds: Words = np.empty(SHARDS + 2, dtype=np.int64)
        self.order = scratch.words("order", n)
        self.ranks = scratch.words("ranks", n)
        self.rows = scratch.words("rows", n * width)
        self.ids = scratch.words("ids", 3 * n)
        self.horizons = scratch.words("horizons", n + 1)
        self.work = scratch.words("work", 7 * n)
        self.texts = self.columns = self.named = self.times = self.newest = NOTHING
        self.held: list[Any] = []


NOTHING: Words = np.zeros(1, dtype=np.int64)


class Reader:
    """Turns a batch of columns into rows of words."""

    def __init__(self, layout: Layout, scratch: Scratch) -> None:
        plan = layout.plan
        self._layout = layout
        self._scratch = scratch
        keys = [(n, key_form(t)) for n, t in zip(plan.keys, plan.key_types, strict=True)]
        self._keys = keys
        values = [(name, PLAIN) for name in plan.values]
        filters = [(name, BOOLEAN) for name in plan.filters]
        words = [(plan.values[column], form) for column, form in layout.forms]
        self._columns = [*values, *filters, *words]
        self._texts = [c for c, (_, form) in enumerate(self._columns) if form == TEXT]
        self._shape = np.array([layout.flags, len(values), len(filters), len(words)])

    def read(self, events: pa.RecordBatch, times: Integers, newest: Integers, run: Any) -> Batch:
        """The rows of a batch, in the order of their shards."""
        n, program = len(events), self._layout.program
        batch = Batch(n, self._layout.width, self._scratch)
        keys, columns = (
            self._described(events, self._keys, batch),
            self._described(events, self._columns, batch),
        )
        named = self._scratch.words("named", 3 * n)
        run(
            lambda a, b: name_keys(keys, program, len(self._keys), a, b, named),
            n,
            wide=n > ALONE,
        )
        place(named, SHARDS, batch.bounds, batch.order, batch.ranks, n)
        batch.columns, batch.named = columns, named
        batch.times, batch.newest = np.ascontiguousarray(times), np.ascontiguousarray(newest)
        batch.horizons[n] = newest[n - 1] - program[SPAN]
        if self._texts:
            batch.texts = columns.reshape(-1, 5)[self._texts].ravel()
        return batch

    def load(self, batch: Batch, first: int, last: int) -> None:
        """Fill in the rows of the shards [first, last)."""
        load(
            batch.columns,
            self._shape,
            batch.times,
            batch.newest,
            self._layout.program,
            batch.order,
            batch.named,
            int(batch.bounds[first]),
            int(batch.bounds[last]),
            batch.rows,
            batch.horizons,
            batch.ids,
        )

    def names(self, keys: pa.RecordBatch) -> Batch:
        """The names of keys alone, in their own order."""
        n = len(keys)
        batch = Batch(n, 0, self._scratch)
        described = self._described(keys, self._keys, batch)
        name_keys(described, self._layout.program, len(self._keys), 0, n, batch.ids)
        batch.order[:] = batch.ranks[:] = np.arange(n)
        return batch

    @staticmethod
    def _described(
        events: pa.RecordBatch, columns: Sequence[tuple[str, int]], batch: Batch
    ) -> Words:
        words: list[int] = []
        seen: dict[str, tuple[list[int], Any]] = {}
        for name, form in columns:
            if name not in seen:
                seen[name] = describe(events.column(name), form)
            words += [form, *seen[name][0][1:]]
        batch.held.append(seen)
        return np.array(words, dtype=np.int64) if words else NOTHING


class Writer:
    """Turns the words that calls gave into columns."""

    def __init__(self, layout: Layout) -> None:
        self._calls = layout.plan.calls
        self._types = [c.type.arrow for c in self._calls]
        self._forms = [_OUT_FORMS.get(c.type.kind, PLAIN) for c in self._calls]

    def empty(self) -> list[Evaluated]:
        """Columns without rows."""
        return [Evaluated(pa.array([], t), {}) for t in self._types]

    def write(
        self,
        out: Words,
        status: npt.NDArray[np.uint8],
        batch: Batch,
        directory: Words,
        run: Any,
    ) -> list[Evaluated]:
        """A column for each call."""
        n = batch.n
        valid = (n + 511) // 512 * 64
        sizes = {PLAIN: 8 * n, TEXT: 8 * n, DECIMAL: 16 * n, BOOLEAN: (n + 7) // 8}
        plan, top = [], 0
        for form in self._forms:
            plan += [form, top, top + valid, 0, 0]
            top += valid + (sizes[form] + 63) // 64 * 64
        slab, words = np.empty(top + 64, dtype=np.uint8), np.array(plan, dtype=np.int64)
        run(
            lambda a, b: emit(out, status, batch.ranks, n, words, a, b, slab),
            len(self._calls),
            wide=n > ALONE,
        )
        buffer, done = pa.py_buffer(cast(Any, slab)), words.tolist()
        results = []
        for c, kind in enumerate(self._types):
            form, at, values, nulls, errors = done[5 * c : 5 * c + 5]
            held = [buffer.slice(values, sizes[form])]
            present = buffer.slice(at, valid) if nulls else None
            if form == TEXT:
                places = slab[values : values + 8 * n].view(np.int64)
                held = self._texts(places, batch, directory)
            column: pa.Array[Any] = pa.Array.from_buffers(kind, n, [present, *held], nulls)
            results.append(Evaluated(column, self._errors(c, status, batch) if errors else {}))
        return results

    @staticmethod
    def _texts(places: Words, batch: Batch, directory: Words) -> list[pa.Buffer]:
        bounds = np.empty(batch.n + 1, dtype=np.int32)
        size = measure(directory, batch.ids, batch.ranks, places, batch.n, bounds)
        if size >= 2**31:
            raise ValueError(f"the texts of {batch.n} rows have {size} bytes, at most 2^31 fit")
        data = np.empty(size, dtype=np.uint8)
        spell(directory, batch.ids, batch.ranks, places, batch.n, bounds, data)
        return [pa.py_buffer(cast(Any, bounds)), pa.py_buffer(cast(Any, data))]

    def _errors(self, c: int, status: npt.NDArray[np.uint8], batch: Batch) -> Mapping[int, str]:
        n, call = batch.n, self._calls[c]
        rows = np.sort(batch.order[np.flatnonzero(status[c * n : (c + 1) * n] > 1)])
        return dict.fromkeys(rows.tolist(), f"sum overflows {call.type}")
