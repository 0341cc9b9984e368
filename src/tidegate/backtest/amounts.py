"""Amounts of events, added up exactly: decimals and whole numbers have no rounding, doubles do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.errors import RequestError
from tidegate.project.values import suggestion
from tidegate.schema import Kind, Schema

DEFAULT = "amount"
_FIT = (Kind.BIGINT, Kind.DOUBLE, Kind.DECIMAL)
_HALF = 32

Sums = npt.NDArray[Any]  # of floats, or of Python's whole numbers


class Amounts:
    """The column that says how much an event is worth; missing and infinite amounts count as 0.

    `type` is that of the sums. `name` is None where events have no amount: all sums are then null.
    Raises: RequestError if the column is not there or holds no numbers.
    """

    def __init__(self, name: str | None, schema: Schema) -> None:
        if name is None:
            column = schema.by_name.get(DEFAULT)
            name = DEFAULT if column is not None and column.type.kind in _FIT else None
        elif name not in schema.by_name:
            hint = suggestion(name, schema.names)
            raise RequestError(f"the events have no column `{name}`; {hint}", code="no_column")
        elif schema.by_name[name].type.kind not in _FIT:
            message = f"column `{name}` is {schema.by_name[name]}: an amount is a number"
            raise RequestError(message, code="no_column")
        self.name = name
        kind = schema.by_name[name].type if name is not None else None
        self._is_exact = kind is not None and kind.kind is not Kind.DOUBLE
        self._scale = kind.scale if kind is not None else 0
        self.type = pa.decimal128(38, self._scale) if self._is_exact else pa.float64()

    def weights(self, events: pa.Table) -> list[npt.NDArray[np.float64]]:
        """What `sums` adds up: one column of doubles, two of the halves of whole numbers, or none.

        A half has 32 bits: doubles add up two million of them without rounding.
        """
        if self.name is None:
            return []
        values: Any = events.column(self.name).combine_chunks()
        if not self._is_exact:
            numbers = values.fill_null(0.0).to_numpy(zero_copy_only=False)
            return [np.where(np.isfinite(numbers), numbers, 0.0)]
        words = _words(values)
        return [(words >> _HALF).astype(np.float64), (words & (2**_HALF - 1)).astype(np.float64)]

    def sums(
        self,
        codes: npt.NDArray[np.int64],
        weights: list[npt.NDArray[np.float64]],
        rows: npt.NDArray[np.int64] | None,
        *,
        groups: int,
    ) -> Sums | None:
        """The sum for each code, of all rows or of some; None without amounts.

        `codes` are those of the rows given.
        """
        if not weights:
            return None
        chosen = weights if rows is None else [w[rows] for w in weights]
        added = [np.bincount(codes, weights=w, minlength=groups) for w in chosen]
        if not self._is_exact:
            return added[0]
        high, low = (part.astype(np.int64).astype(object) for part in added)
        exact: Sums = high * 2**_HALF + low
        return exact

    def value(self, total: Any) -> float | Decimal | None:
        """A sum as it is shown."""
        if self.name is None:
            return None
        return Decimal(int(total)).scaleb(-self._scale) if self._is_exact else float(total)


def _words(values: Any) -> npt.NDArray[np.int64]:
    """Whole numbers, of decimals the scaled ones; 0 where there is none."""
    width = 2 if pa.types.is_decimal(values.type) else 1  # the lower half is all there is
    data = np.frombuffer(values.buffers()[1], np.int64)
    words = data[values.offset * width : (values.offset + len(values)) * width : width]
    if not values.null_count:
        return words
    return np.where(values.is_valid().to_numpy(zero_copy_only=False), words, 0)
