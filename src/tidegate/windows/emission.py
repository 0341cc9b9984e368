"""The rows that a window query emits: one for each group of a window that has closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidegate.sql.expression import Expression, ExpressionSet
from tidegate.tables import WINDOW_COLUMNS
from tidegate.windows.aggregates import Aggregate, Aggregated
from tidegate.windows.folding import Folding
from tidegate.windows.grid import Grid
from tidegate.windows.groups import Groups
from tidegate.windows.intake import true_rows
from tidegate.windows.spelling import END, START

Indices = npt.NDArray[np.int64]
Errors = list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Output:
    """A selected column: an expression over the groups, or a list taken over as it is."""

    name: str
    type: pa.DataType
    expression: Expression | None = None
    list_name: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Emitted:
    """Rows in the order of their groups.

    `errors` are groups of which a value could not be computed and is null in its row, each with
    the reason.
    """

    rows: pa.RecordBatch
    errors: Errors


class Emission:
    """Turns groups of held rows into rows of `schema`."""

    def __init__(
        self,
        *,
        keys: Sequence[str],
        aggregates: Mapping[str, Aggregate],
        outputs: Sequence[Output],
        having: Expression | None,
        folding: Folding | None,
    ) -> None:
        self._folding = folding
        self._keys = tuple(keys)
        self._aggregates = dict(aggregates)
        self._outputs = tuple(outputs)
        made = [o.expression for o in outputs if o.expression is not None]
        self._expressions = ExpressionSet(made)
        self._having = None if having is None else ExpressionSet([having])
        self.schema = pa.schema([*(pa.field(o.name, o.type) for o in outputs), *WINDOW_COLUMNS])

    def emit(
        self,
        rows: pa.RecordBatch,
        groups: Groups,
        *,
        grid: Grid,
        numbers: Indices,
        offsets: Indices,
    ) -> Emitted:
        """The rows for groups of held rows, or of partials where they fold.

        `numbers` and `offsets` have one entry per group: the group's window, and the log offset
        that closed it. Groups that HAVING refuses give no row.
        """
        errors: Errors = []
        over = self._over(rows, groups, errors)
        over[START] = pa.array(grid.start(numbers)).view(pa.timestamp("us"))
        over[END] = pa.array(grid.end(numbers)).view(pa.timestamp("us"))
        groupwise = pa.RecordBatch.from_pydict(over)
        columns = [*self._selected(groupwise, errors), over[START], over[END], pa.array(offsets)]
        made = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        return Emitted(self._chosen(made, groupwise, errors), sorted(errors))

    def _over(
        self, rows: pa.RecordBatch, groups: Groups, errors: Errors
    ) -> dict[str, pa.Array[Any]]:
        """The keys and aggregates of each group."""
        firsts = groups.pick()
        over = {k: rows.column(k).take(firsts) for k in self._keys}
        for name, result in self._aggregated(rows, groups).items():
            over[name] = result.values
            errors += [(g, f"{message} in `{name}`") for g, message in result.errors.items()]
        return over

    def _aggregated(self, rows: pa.RecordBatch, groups: Groups) -> dict[str, Aggregated]:
        if self._folding is not None:
            return self._folding.finish(rows, groups)
        return {name: a.of(rows, groups) for name, a in self._aggregates.items()}

    def _selected(self, groupwise: pa.RecordBatch, errors: Errors) -> list[pa.Array[Any]]:
        results = iter(self._expressions.evaluate(groupwise))
        columns = []
        for output in self._outputs:
            if output.list_name is not None:
                columns.append(groupwise.column(output.list_name))
                continue
            result = next(results)
            columns.append(result.values)
            errors += [(g, f"{message} in `{output.name}`") for g, message in result.errors.items()]
        return columns

    def _chosen(
        self, made: pa.RecordBatch, groupwise: pa.RecordBatch, errors: Errors
    ) -> pa.RecordBatch:
        if self._having is None:
            return made
        (result,) = self._having.evaluate(groupwise)
        errors += [(g, f"{message} in HAVING") for g, message in result.errors.items()]
        kept = true_rows(result.values)
        return made if len(kept) == made.num_rows else made.take(kept)
