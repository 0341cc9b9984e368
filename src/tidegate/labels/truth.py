"""What a label is in a column of the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tidegate.controls import Truth
from tidegate.schema import ColumnType, Kind

_VALUES: Mapping[Kind, Mapping[Truth, object]] = {
    Kind.BIGINT: {"fraud": 1, "legitimate": 0},
    Kind.BOOLEAN: {"fraud": True, "legitimate": False},
    Kind.DOUBLE: {"fraud": 1.0, "legitimate": 0.0},
    Kind.TEXT: {"fraud": "fraud", "legitimate": "legitimate"},
}


def values_of(labels: Sequence[Truth], kind: ColumnType) -> pa.Array[Any]:
    """Labels as values of a column.

    >>> from tidegate.schema import ColumnType, Kind
    >>> values_of(["fraud", "legitimate"], ColumnType(Kind.DOUBLE)).to_pylist()
    [1.0, 0.0]
    """
    values = _VALUES[kind.kind]
    return pa.array([values[label] for label in labels], kind.arrow)
