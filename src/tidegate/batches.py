"""Batches of no rows, and several batches as one."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

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
