"""From nothing to the first features: a process that loads what that takes and no more.

`python -m benchmarks.features_start TEXT FILE` computes the features of the SQL in TEXT for the
events in FILE, which is in Arrow's format, and prints how many there are as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tidegate import memory

memory.spare()  # as the command line does, before Arrow is imported

import numpy as np
import pyarrow as pa

from benchmarks.process import Use
from tidegate.features.compile import compile_features
from tidegate.features.state import FeatureState
from tidegate.schema import Schema
from tidegate.sql.source import SourceText

_TYPES = {"int64": "bigint", "double": "double", "string": "text", "timestamp[us]": "timestamp"}


def main(text: str, file: str) -> None:
    """The first features of the events; the results go to standard output as JSON."""
    batch = pa.ipc.open_file(file).get_batch(0)
    columns = [(field.name, _TYPES[str(field.type)]) for field in batch.schema]
    schema = Schema.of(columns, id="id", event_time="event_time")
    source = SourceText(Path(text).read_text(), "features.sql")
    plan = compile_features(source, schema, lateness=0, look_back=0)
    state = FeatureState(plan, key=bytes(16))
    newest = np.maximum.accumulate(batch["event_time"].cast(pa.int64()).to_numpy())
    rows = state.update(batch, newest=newest).values.num_rows
    print(json.dumps({"rows": rows, "peak_mb": Use.now().peak_mb}))


if __name__ == "__main__":
    main(*sys.argv[1:])
