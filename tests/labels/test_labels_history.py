"""Events and labels of the past in one order, however either of them was cut into batches."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidegate.labels.history import LabelRows, merged


def batches(offsets: list[int], cuts: list[int]) -> list[pa.RecordBatch]:
    whole = pa.record_batch([pa.array(offsets, pa.int64())], names=["log_offset"])
    places = sorted({0, len(offsets), *(c for c in cuts if c < len(offsets))})
    return [whole.slice(a, b - a) for a, b in pairwise(places)]


@given(
    st.lists(st.booleans(), max_size=40),
    st.lists(st.integers(0, 40)),
    st.lists(st.integers(0, 40)),
)
def test_each_comes_in_its_place(
    are_labels: list[bool], event_cuts: list[int], label_cuts: list[int]
) -> None:
    events = [offset for offset, is_label in enumerate(are_labels) if not is_label]
    labels = [offset for offset, is_label in enumerate(are_labels) if is_label]
    seen = []
    for past in merged(batches(events, event_cuts), batches(labels, label_cuts)):
        rows = past.rows if isinstance(past, LabelRows) else past
        assert rows.num_rows
        found = rows["log_offset"].to_pylist()
        seen += [(offset, isinstance(past, LabelRows)) for offset in found]
    assert seen == list(enumerate(are_labels))


def test_without_labels_no_batch_is_cut() -> None:
    (whole,) = batches([3, 5, 9], [])
    (found,) = merged([whole], [])
    assert found == whole
