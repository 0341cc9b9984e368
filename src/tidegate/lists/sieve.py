"""A sieve before a long list: tells, for most values that are not on it, that they are not.

Looking one value up in a list of a million waits for memory several times; most values of a large
batch are on no list, and a bit for each in a small field tells so for all of them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

_BITS_PER_KEY = 16  # one in sixteen that is not on the list passes all the same
_KEYS_MIN = 1 << 12


class Sieve:
    """Holds keys of one type, texts or whole numbers; those that are taken off stay in it."""

    def __init__(self, type_: pa.DataType) -> None:
        self._type = type_
        self._bits = np.zeros(0, dtype=np.uint8)
        self._held = 0

    @property
    def is_full(self) -> bool:
        """Whether it is to be filled anew, since it lets too much pass."""
        return self._held * _BITS_PER_KEY > len(self._bits) * 8

    def fill(self, keys: Iterable[Any]) -> None:
        """Hold these keys and room for as many again."""
        column = pa.array(keys, self._type)
        room = 2 * max(len(column), _KEYS_MIN) * _BITS_PER_KEY
        self._bits = np.zeros(1 << (room - 1).bit_length() >> 3, dtype=np.uint8)
        self._held = 0
        self.add(column)

    def add(self, keys: pa.Array[Any]) -> None:
        """Hold more keys."""
        places = self._places(keys)
        np.bitwise_or.at(self._bits, places >> 3, np.uint8(1) << (places & 7).astype(np.uint8))
        self._held += len(keys)

    def passes(self, keys: pa.Array[Any]) -> npt.NDArray[np.bool_]:
        """Whether each key may be held; where this is False, it is not."""
        places = self._places(keys)
        found: npt.NDArray[np.bool_] = (
            self._bits[places >> 3] >> (places & 7).astype(np.uint8) & 1
        ).astype(np.bool_)
        return found

    def _places(self, keys: pa.Array[Any]) -> npt.NDArray[np.int64]:
        # The hash need not be the same in another process: nothing of this is kept.
        hashed = pl.Series(keys).hash().to_numpy()
        return (hashed & np.uint64(len(self._bits) * 8 - 1)).astype(np.int64)
