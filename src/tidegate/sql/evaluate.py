"""Runs checked trees on batches: small ones on a machine of steps, all else by Polars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tidegate.schema import ColumnType
from tidegate.sql.assembly import Bytes
from tidegate.sql.columns import Column, Columns, Piece, array_of
from tidegate.sql.direct import Direct, GiveUp, Spread, covered
from tidegate.sql.frame import Frame
from tidegate.sql.tree import COLUMN, Node

# Up to here the machine is as fast as Polars, which uses all cores but has a high fixed cost.
DIRECT_ROWS_MAX = 4_096

Output: TypeAlias = tuple[Node, ColumnType]
Errors: TypeAlias = Mapping[int, str]
Found: TypeAlias = tuple[Column, Errors]


class Evaluation:
    """Several trees, each with the column type in which its values go out."""

    def __init__(
        self, outputs: Sequence[Output], *, direct_rows_max: int = DIRECT_ROWS_MAX
    ) -> None:
        self._count, self._types = len(outputs), [type_ for _, type_ in outputs]
        self._direct_rows_max = direct_rows_max
        numbered = list(enumerate(outputs))
        self._plain = {i: str(tree.value) for i, (tree, _) in numbered if tree.op is COLUMN}
        self._computed = {i: o for i, o in numbered if i not in self._plain}
        self._covered = {i: o for i, o in self._computed.items() if covered(o[0])}

    def run(self, columns: Columns, spread: Spread | None = None) -> list[Found]:
        """Values and errors of each tree, in order; `spread` shares out large batches."""
        if not columns.rows:
            return [(pa.array([], type_.arrow), {}) for type_ in self._types]
        slab, small = None, columns.rows <= self._direct_rows_max
        if self._covered and (small or spread):
            try:
                slab = self._direct.run(columns, None if small else spread)
            except GiveUp:  # the other way tells what is wrong
                slab = None
        if slab is not None and len(self._covered) == self._count:
            return [(Piece(slab, i), {}) for i in range(self._count)]
        found: dict[int, Found] = {i: (columns.column(n), {}) for i, n in self._plain.items()}
        if slab is None:
            found |= self._framed(self._computed, self._whole, columns)
        else:
            found |= {i: (Piece(slab, place), {}) for place, i in enumerate(self._covered)}
            found |= self._framed(self._uncovered, self._rest, columns)
        return [found[i] for i in range(self._count)]

    @property
    def machine(self) -> Direct | None:
        """The machine on which all trees can run, none of them being a column as it is."""
        return self._direct if self._count and len(self._covered) == self._count else None

    def truths(self, columns: Columns) -> tuple[Bytes, dict[int, Errors]]:
        """1 where a tree, which is a condition, is true, shape (trees, rows); and its errors."""
        if self._goes_directly(columns) and not self._plain and not self._uncovered:
            try:
                return self._direct.truths(columns), {}
            except GiveUp:
                pass
        results = self.run(columns)
        truths = [truth(array_of(values)) for values, _ in results]
        found = np.array(truths, dtype=np.uint8).reshape(self._count, columns.rows)
        return found, {i: errors for i, (_, errors) in enumerate(results) if errors}

    def _goes_directly(self, columns: Columns) -> bool:
        return bool(self._covered) and 0 < columns.rows <= self._direct_rows_max

    @staticmethod
    def _framed(outputs: dict[int, Output], frame: Frame, columns: Columns) -> dict[int, Found]:
        if not outputs:
            return {}
        batch = columns.batch_of(frame.columns or columns.batch.schema.names[:1])
        return dict(zip(outputs, frame.run(batch), strict=True))

    @cached_property
    def _direct(self) -> Direct:
        return Direct(list(self._covered.values()))

    @cached_property
    def _uncovered(self) -> dict[int, Output]:
        return {i: o for i, o in self._computed.items() if i not in self._covered}

    @cached_property
    def _rest(self) -> Frame:
        return Frame(list(self._uncovered.values()))

    @cached_property
    def _whole(self) -> Frame:
        return Frame(list(self._computed.values()))


def truth(values: pa.Array[Any]) -> Any:
    """Where booleans are true, as flags."""
    plain = values.fill_null(False) if values.null_count else values  # noqa: FBT003 - Arrow's own signature
    return plain.to_numpy(zero_copy_only=False)
