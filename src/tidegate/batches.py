"""Batches of no rows, several batches as one, and the values of a column counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_KNOWN_MAX = 256

# By the identity of a schema: to compare schemas takes as long as to make a batch.
_known: dict[int, tuple[pa.Schema, pa.RecordBatch]] = {}


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows; the same one for a schema that is asked for again."""
    found = _known.get(id(schema))
    if found is None:
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        columns = [pa.array([], f.type) for f in schema]
        # The schema is kept with it, so that no other has its identity.
        found = _known[id(schema)] = schema, pa.RecordBatch.from_arrays(columns, schema=schema)
    return found[1]


def joined(pieces: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """One batch of all rows in order; copies nothing where there is only one piece."""
    if len(pieces) == 1:
        return pieces[0]
    if not pieces:
        return empty(schema)
    batch: pa.RecordBatch = pa.concat_batches(pieces)  # type: ignore[attr-defined] # stubs lack it
    return batch


def counted(values: Any) -> dict[str, int]:
    """How often each value is there, by its text; `values` are an array, plain or chunked.

    >>> counted(pa.array(["b", "a", "b"]))
    {'b': 2, 'a': 1}
    """
    names, counts = (part.to_pylist() for part in pc.value_counts(values).flatten())
    return {str(name): int(count or 0) for name, count in zip(names, counts, strict=True)}
