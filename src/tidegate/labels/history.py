"""Events and labels of the past in the one order that they have in the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True, slots=True, eq=False)
class LabelRows:
    """Labels that followed each other in the log, as rows of their table."""

    rows: pa.RecordBatch


# A stretch of the past: events with the columns that were asked for and `log_offset`, or labels.
Past: TypeAlias = pa.RecordBatch | LabelRows


def merged(events: Iterable[pa.RecordBatch], labels: Iterable[pa.RecordBatch]) -> Iterator[Past]:
    """Events and labels, each in order of the log, in one order; batches are cut where need be."""
    coming = (batch for batch in labels if batch.num_rows)
    label = next(coming, None)
    for batch in events:
        offsets, start = _offsets(batch), 0
        while label is not None and len(offsets):
            cut = int(np.searchsorted(offsets, _offsets(label)[0]))
            if cut == len(offsets):
                break
            if cut > start:
                yield batch.slice(start, cut - start)
            count = int(np.searchsorted(_offsets(label), offsets[cut]))
            yield LabelRows(label.slice(0, count))
            label = label.slice(count) if count < label.num_rows else next(coming, None)
            start = cut
        if start < len(offsets):
            yield batch.slice(start)
    while label is not None:
        yield LabelRows(label)
        label = next(coming, None)


def _offsets(rows: pa.RecordBatch) -> npt.NDArray[np.int64]:
    return rows["log_offset"].to_numpy()
