"""Columns of few rows, of which no array was made: as values, and those of many batches as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.sql.columns import Column, Piece, Slab, array_of

Words = npt.NDArray[np.int64]

# Numbers of 64 bits by their types in Arrow, and all types of 64 bits.
_NUMBERS: dict[int, npt.DTypeLike] = {pa.int64().id: np.int64, pa.float64().id: np.float64}
_WORDS = frozenset({*_NUMBERS, pa.timestamp("us").id})


def values(columns: Iterable[Column], begin: int, end: int) -> list[list[Any]]:
    """The values of each column in the rows `begin <= row < end`; None stands for null."""
    views: dict[Slab, Words] = {}
    found: list[list[Any]] = []
    for column in columns:
        if isinstance(column, Piece):
            slab, number = column.slab, column.number
            kind = slab.shape.arrow[number].id
            if kind in _NUMBERS and not slab.nulls[number]:
                words = _words(slab, number, views)[begin:end]
                found.append(words.view(_NUMBERS[kind]).tolist())
                continue
        found.append(array_of(column).slice(begin, end - begin).to_pylist())
    return found


def joined(batches: Sequence[Sequence[Column]]) -> list[pa.Array[Any]]:
    """The columns of several batches, which have the same ones, each with the rows of all."""
    views: dict[Slab, Words] = {}
    return [_joined(same, views) for same in zip(*batches, strict=True)]


def _joined(columns: Sequence[Column], views: dict[Slab, Words]) -> pa.Array[Any]:
    parts: list[Words] = []
    for column in columns:
        if not isinstance(column, Piece):
            break
        slab, number = column.slab, column.number
        kind = slab.shape.arrow[number]
        if slab.nulls[number] or kind.id not in _WORDS:
            break
        parts.append(_words(slab, number, views))
    if len(parts) < len(columns):
        return pa.concat_arrays([array_of(column) for column in columns])
    held: Any = np.concatenate(parts)
    found: pa.Array[Any] = pa.Array.from_buffers(kind, len(held), [None, pa.py_buffer(held)], 0)
    return found


def _words(slab: Slab, number: int, views: dict[Slab, Words]) -> Words:
    """A column of 64 bits as it lies in its slab; the slabs as words are kept in `views`."""
    words = views.get(slab)
    if words is None:
        words = views[slab] = slab.memory.view(np.int64)
    first = slab.spans[number][2] // 8
    return words[first : first + slab.rows]
