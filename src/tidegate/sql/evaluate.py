"""Runs checked trees on batches: small batches by NumPy as far as that goes, all else by Polars."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pyarrow as pa

from tidegate.schema import ColumnType
from tidegate.sql.direct import Direct, GiveUp, covered
from tidegate.sql.frame import Frame, Result
from tidegate.sql.tree import COLUMN, Node

# Up to here NumPy is faster than Polars, whose fixed cost is that of some hundred operations.
DIRECT_ROWS_MAX = 4_096

Output = tuple[Node, ColumnType]


class Evaluation:
    """Several trees, each with the column type in which its values go out."""

    def __init__(
        self, outputs: Sequence[Output], *, direct_rows_max: int = DIRECT_ROWS_MAX
    ) -> None:
        self._count = len(outputs)
        self._direct_rows_max = direct_rows_max
        numbered = list(enumerate(outputs))
        self._plain = {i: str(tree.value) for i, (tree, _) in numbered if tree.op is COLUMN}
        self._computed = {i: o for i, o in numbered if i not in self._plain}
        self._covered = {i: o for i, o in self._computed.items() if covered(o[0])}

    def run(self, batch: pa.RecordBatch) -> list[Result]:
        """Values and errors of each tree, in order."""
        found: dict[int, Result] = {i: (batch.column(n), {}) for i, n in self._plain.items()}
        if self._covered and 0 < batch.num_rows <= self._direct_rows_max:
            try:
                values = self._direct.run(batch)
            except GiveUp:
                found |= self._run(self._computed, self._whole, batch)
            else:
                found |= {i: (v, {}) for i, v in zip(self._covered, values, strict=True)}
                found |= self._run(self._uncovered, self._rest, batch)
        else:
            found |= self._run(self._computed, self._whole, batch)
        return [found[i] for i in range(self._count)]

    @staticmethod
    def _run(outputs: dict[int, Output], frame: Frame, batch: pa.RecordBatch) -> dict[int, Result]:
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
