"""Columns of a batch on both sides of a kernel: where they lie in memory, and as Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.schema import ColumnType, Kind

if TYPE_CHECKING:
    from tidegate.sql.places import Place

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

_KNOWN_MAX = 256  # numbers of rows whose layout is kept
_PADDED = 64  # bytes: Arrow asks for columns that begin where a line of memory does
_BYTES_EACH = {Kind.DECIMAL: 16}
_LARGE_FROM = 4 << 20  # bytes for which NumPy asks for large pages
_USUAL_PAGES = pa.system_memory_pool()  # Arrow's own asks for large ones


def place_of(array: pa.Array[Any]) -> Place:
    """Where a column lies; the array must live as long as that is used."""
    buffers = array.buffers()
    valid, last = buffers[0], buffers[-1]
    bounds = buffers[1] if len(buffers) == 3 else None
    return (
        0 if last is None else last.address,
        0 if valid is None or not array.null_count else valid.address,
        0 if bounds is None else bounds.address,
        array.offset,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Where in a block of `size` bytes the validity and the values of each column begin.

    `spans` has for each (validity, its bytes, values, their bytes), `words` the same in a row.
    """

    size: int
    spans: tuple[tuple[int, int, int, int], ...]
    words: npt.NDArray[np.int64]


class Shape:
    """The types of columns that lie in one block."""

    def __init__(self, types: Sequence[ColumnType]) -> None:
        self.arrow = [t.arrow for t in types]
        self._kinds = tuple(t.kind for t in types)
        self._known: dict[int, Spans] = {}

    def spans(self, rows: int) -> Spans:
        """The layout for so many rows."""
        found = self._known.get(rows)
        if found is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            found = self._known[rows] = _spans(self._kinds, rows)
        return found


def _spans(kinds: tuple[Kind, ...], rows: int) -> Spans:
    found, top, valid = [], 0, _padded((rows + 7) // 8)
    for kind in kinds:
        size = (rows + 7) // 8 if kind is Kind.BOOLEAN else _BYTES_EACH.get(kind, 8) * rows
        found.append((top, valid, top + valid, size))
        top += valid + _padded(size)
    return Spans(top + _PADDED, tuple(found), np.array(found, dtype=np.int64).ravel())


def _padded(size: int) -> int:
    return (size + _PADDED - 1) // _PADDED * _PADDED


def block(size: int) -> tuple[pa.Buffer, Bytes]:
    """So many bytes of any content, as Arrow has them and as an array.

    The system gives them in pages of its usual size. NumPy asks for large ones where it is worth
    it, each of which is cleared as a whole when its first byte is written; what is written once and
    read in order gains nothing by that.
    """
    if size < _LARGE_FROM:  # this is quicker
        memory: Bytes = np.empty(size, dtype=np.uint8)
        return pa.py_buffer(cast(Any, memory)), memory
    buffer = pa.allocate_buffer(size, memory_pool=_USUAL_PAGES)
    return buffer, np.frombuffer(cast(Any, buffer), dtype=np.uint8)


class Slab:
    """A block of columns that kernels write: its memory, and how many nulls each column has."""

    __slots__ = ("address", "buffer", "memory", "nulls", "rows", "shape", "spans")

    def __init__(self, shape: Shape, rows: int) -> None:
        layout = shape.spans(rows)
        self.shape, self.rows, self.spans = shape, rows, layout.spans
        self.buffer, self.memory = block(layout.size)
        self.address = self.buffer.address
        self.nulls: Sequence[int] = ()

    def array(self, i: int) -> pa.Array[Any]:
        """Column i as Arrow has it."""
        valid, bytes_, values, size = self.spans[i]
        nulls, cut = self.nulls[i], self.buffer.slice
        buffers = [cut(valid, bytes_) if nulls else None, cut(values, size)]
        found: pa.Array[Any] = pa.Array.from_buffers(self.shape.arrow[i], self.rows, buffers, nulls)
        return found


Column: TypeAlias = "pa.Array[Any] | Piece"


class Piece:
    """A column of a slab, made an array of Arrow when it is asked for."""

    __slots__ = ("_array", "number", "slab")

    def __init__(self, slab: Slab, number: int) -> None:
        self.slab, self.number = slab, number
        self._array: pa.Array[Any] | None = None

    @property
    def array(self) -> pa.Array[Any]:
        """The column as Arrow has it."""
        if self._array is None:
            self._array = self.slab.array(self.number)
        return self._array

    @property
    def place(self) -> Place:
        """Where it lies."""
        slab, number = self.slab, self.number
        valid, _, values, _ = slab.spans[number]
        return slab.address + values, slab.address + valid if slab.nulls[number] else 0, 0, 0


def array_of(column: Column) -> pa.Array[Any]:
    """The column as Arrow has it."""
    return column.array if isinstance(column, Piece) else column


class Columns:
    """The columns of a batch, and those made of them on the way, by name."""

    __slots__ = ("_given", "_made", "_places", "batch", "rows")

    def __init__(self, batch: pa.RecordBatch, made: Mapping[str, Column] | None = None) -> None:
        self.batch = batch
        self.rows = batch.num_rows
        self._made: dict[str, Column] = {} if made is None else dict(made)
        self._places: dict[str, Place] = {}
        self._given: dict[str, Place] | None = None  # of the batch's own columns

    @property
    def known(self) -> frozenset[str]:
        """The names of all columns."""
        return frozenset(self.batch.schema.names) | self._made.keys()

    def put(self, name: str, column: Column) -> None:
        """Add a column, or have another in its place."""
        self._made[name] = column
        self._places.pop(name, None)

    def put_all(self, names: Sequence[str], columns: Iterable[Column]) -> None:
        """Add columns of those names, or have others in their places."""
        self._made.update(zip(names, columns, strict=True))
        if not self._places.keys().isdisjoint(names):
            for name in self._places.keys() & set(names):
                del self._places[name]

    def column(self, name: str) -> Column:
        """The column of that name."""
        found = self._made.get(name)
        return self.batch.column(name) if found is None else found

    def columns(self, names: Iterable[str]) -> list[Column]:
        """The columns of those names."""
        made, batch = self._made, self.batch
        return [made[name] if name in made else batch.column(name) for name in names]

    def places(self, names: Iterable[str]) -> list[int]:
        """The places of the columns of those names, one after the other."""
        known, words = self._places, list[int]()
        for name in names:
            words += known[name] if name in known else self.place(name)
        return words

    def array(self, name: str) -> pa.Array[Any]:
        """The column of that name as Arrow has it."""
        found = self._made.get(name)
        return self.batch.column(name) if found is None else array_of(found)

    def place(self, name: str) -> Place:
        """Where the column of that name lies, for as long as these columns live."""
        found = self._places.get(name)
        if found is None:
            made = self._made.get(name)
            if made is None:
                found = self._own[name]
            else:
                found = made.place if isinstance(made, Piece) else place_of(made)
            self._places[name] = found
        return found

    @property
    def _own(self) -> dict[str, Place]:
        """Where the columns of the batch lie."""
        if self._given is None:
            from tidegate.sql.places import places_in  # it loads the compiler: only where needed

            self._given = places_in(self.batch)
        return self._given

    def batch_of(self, names: Sequence[str]) -> pa.RecordBatch:
        """The columns of those names, among others."""
        if not any(name in self._made for name in names):
            return self.batch
        return pa.RecordBatch.from_arrays([self.array(n) for n in names], names=list(names))

    def within(self, first: int, rows: int) -> Columns:
        """Some of the rows."""
        return Columns(
            self.batch.slice(first, rows),
            {n: array_of(c).slice(first, rows) for n, c in self._made.items()},
        )


def arrays_of(columns: Iterable[Column]) -> list[pa.Array[Any]]:
    """The columns as Arrow has them."""
    return [array_of(c) for c in columns]
