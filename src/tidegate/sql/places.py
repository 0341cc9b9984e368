"""Where all columns of a batch lie, found at once.

To have Arrow make an object of each column takes longer than to compute with a hundred rows of it.
So it is asked for its C data interface, in which a compiled function looks.
Source: https://arrow.apache.org/docs/format/CDataInterface.html
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from threading import local
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numba import types

from tidegate.sql.compiled import Compiled
from tidegate.sql.pointers import Words, words_at

# The addresses of a column's values, its validity and its bounds (0: none), and where in them its
# rows begin.
Place: TypeAlias = tuple[int, int, int, int]

# A `struct ArrowArray`, whose members all are words.
_NULLS, _OFFSET, _BUFFER_COUNT, _BUFFERS, _CHILDREN, _RELEASE = 1, 2, 3, 5, 6, 8
_WORDS = 10
PLACE = 4  # words


class _Struct(local):
    """Room for a structure, one for each thread."""

    def __init__(self) -> None:
        self.words = (ctypes.c_int64 * _WORDS)()
        self.address = ctypes.addressof(self.words)


_struct = _Struct()


@lru_cache
def _releasing(address: int) -> Callable[[int], None]:
    """The function at an address that gives a structure back; no other thread comes in between."""
    return ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(address)


def places_in(batch: pa.RecordBatch) -> dict[str, Place]:
    """Where each column lies; of several with one name the last. The batch must outlive its use."""
    found: Words = np.empty(PLACE * batch.num_columns, dtype=np.int64)
    find_places(batch, found)
    words = iter(found.tolist())
    return dict(zip(batch.schema.names, zip(words, words, words, words, strict=True), strict=True))


def find_places(batch: pa.RecordBatch, found: Words) -> None:
    """Write where each column lies, `PLACE` words for each. The batch must outlive their use."""
    struct = _struct
    batch._export_to_c(struct.address)
    try:
        finder.get()(struct.address, batch.num_columns, found)
    finally:
        _releasing(struct.words[_RELEASE])(struct.address)


def _find(array: int, count: int, found: Words) -> None:
    """Write where the first `count` columns of the array of a batch lie, four words for each."""
    columns = words_at(words_at(array)[_CHILDREN])
    for i in range(count):
        column = words_at(columns[i])
        buffers, buffer_count = words_at(column[_BUFFERS]), column[_BUFFER_COUNT]
        has_valid = buffer_count > 0 and column[_NULLS] != 0  # -1: not counted yet
        found[PLACE * i] = buffers[buffer_count - 1] if buffer_count > 0 else 0
        found[PLACE * i + 1] = buffers[0] if has_valid else 0
        found[PLACE * i + 2] = buffers[1] if buffer_count == 3 else 0
        found[PLACE * i + 3] = column[_OFFSET]


finder = Compiled(
    _find, types.void(types.int64, types.int64, types.int64[::1]), "places", "pointers"
)


def _put(places: Words, first: int, spans: Words, nulls: Words, address: int) -> None:
    """Write where the columns of a slab lie into the places from number `first` on.

    `spans` are those of `columns.Spans`, `nulls` says of each column how many there are.
    """
    for i in range(len(nulls)):
        place = PLACE * (first + i)
        places[place] = address + spans[4 * i + 2]
        places[place + 1] = address + spans[4 * i] if nulls[i] > 0 else 0
        places[place + 2] = places[place + 3] = 0


putter = Compiled(
    _put,
    types.void(types.int64[::1], types.int64, types.int64[::1], types.int64[:], types.int64),
    "places",
    "pointers",
)
