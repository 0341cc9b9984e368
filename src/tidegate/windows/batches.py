"""Batches of no rows, and several batches as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pyarrow as pa


@lru_cache(maxsize=256)
def empty(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


def joined(pieces: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """One batch of all rows in order; copies nothing where there is only one piece."""
    if len(pieces) == 1:
        return pieces[0]
    if not pieces:
        return empty(schema)
    batch: pa.RecordBatch = pa.concat_batches(pieces)  # type: ignore[attr-defined] # stubs lack it
    return batch
