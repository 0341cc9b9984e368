"""The contract of sinks as a test suite: every promise of `tidegate.sinks.contract`.

A sink is held to it by a subclass that says how one is made on a new place, and what it is given.
It needs pytest and hypothesis.

    class TestMySink(SinkContract):
        @pytest.fixture
        def rows(self):
            return my_rows          # a table, ascending by `log_offset`

        @pytest.fixture
        def new_place(self, tmp_path):
            numbers = itertools.count()

            def new() -> Callable[[], Sink]:
                place = tmp_path / str(next(numbers))
                return lambda: MySink.open(place)

            return new
"""

# ruff: noqa: D102, S101 - these are tests: their names are sentences, asserts are their trade

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.sinks.contract import Delivery, Sink

Opener = Callable[[], Sink]


class RowsFeed:
    """A feed of a table in memory, ascending by `log_offset`; it ends at `end`, which may be moved.

    >>> RowsFeed(pa.table({"log_offset": [0, 3]}), end=4).read(0, until=4, rows_max=1).next_offset
    3
    """

    def __init__(self, rows: pa.Table, *, end: int) -> None:
        self._rows = rows
        self._offsets = rows.column("log_offset").to_numpy()
        self.reached = end

    def end(self) -> int:
        """The offset below which every row is there to be read."""
        return self.reached

    def read(self, offset: int, *, until: int, rows_max: int) -> Delivery:
        """Rows at `offset <= log_offset < until`, at most `rows_max` but all rows of an offset."""
        if until > self.reached:
            raise ValueError(f"cannot read to {until}: the feed ends at {self.reached}")
        first, last = np.searchsorted(self._offsets, [offset, until]).tolist()
        if last - first > rows_max:
            cut = int(self._offsets[first + rows_max])
            if cut == self._offsets[first]:  # an offset with more rows than fit
                cut += 1
            until, last = cut, int(np.searchsorted(self._offsets, cut))
        return Delivery(offset, until, self._rows.slice(first, last - first))


def offsets_of(sink: Sink) -> list[int]:
    """The offset of every row that the sink holds, ascending, as often as it is there."""
    held: list[int] = []
    for table in sink.delivered():
        held += table.column("log_offset").to_numpy().tolist()
    return sorted(held)


def cut(rows: pa.Table, at: Sequence[int]) -> Iterator[Delivery]:
    """The rows as deliveries, cut at these offsets."""
    offsets = rows.column("log_offset").to_numpy()
    bounds = sorted({0, *at, int(offsets[-1]) + 1})
    for first, until in pairwise(bounds):
        start, stop = np.searchsorted(offsets, [first, until]).tolist()
        yield Delivery(first, until, rows.slice(start, stop - start))


class SinkContract:
    """Behaviour of every sink; see the module for how to use it."""

    @pytest.fixture
    def new_place(self) -> Callable[[], Opener]:
        """A function that makes a new, empty place and returns how to open a sink on it."""
        raise NotImplementedError

    @pytest.fixture
    def rows(self) -> pa.Table:
        """Rows of the kind that the sink is for, ascending by `log_offset`."""
        raise NotImplementedError

    @pytest.fixture
    def opener(self, new_place: Callable[[], Opener]) -> Opener:
        """How to open the sink of this test."""
        return new_place()

    @pytest.fixture
    def sink(self, opener: Opener) -> Iterator[Sink]:
        """The sink of this test, empty at first."""
        opened = opener()
        yield opened
        opened.close()

    @pytest.fixture
    def whole(self, rows: pa.Table) -> Delivery:
        """All rows in one delivery."""
        return next(cut(rows, []))

    @pytest.fixture
    def expected(self, rows: pa.Table) -> list[int]:
        """The offsets of all rows."""
        return sorted(rows.column("log_offset").to_numpy().tolist())

    def test_a_new_place_holds_nothing(self, sink: Sink) -> None:
        assert offsets_of(sink) == []

    def test_each_row_of_a_delivery_is_held_once(
        self, sink: Sink, whole: Delivery, expected: list[int]
    ) -> None:
        sink.write(whole)
        assert offsets_of(sink) == expected

    def test_a_delivery_made_again_changes_nothing(
        self, sink: Sink, whole: Delivery, expected: list[int]
    ) -> None:
        for _ in range(3):
            sink.write(whole)
        assert offsets_of(sink) == expected

    def test_a_delivery_without_rows_leaves_nothing(self, sink: Sink, whole: Delivery) -> None:
        sink.write(Delivery(0, 1, whole.rows.slice(0, 0)))
        assert offsets_of(sink) == []

    def test_what_is_held_does_not_depend_on_the_sink_staying_open(
        self, opener: Opener, whole: Delivery, expected: list[int]
    ) -> None:
        with closing(opener()) as first:
            first.write(whole)
        with closing(opener()) as second:
            assert offsets_of(second) == expected

    def test_a_delivery_made_again_by_another_process_changes_nothing(
        self, opener: Opener, whole: Delivery, expected: list[int]
    ) -> None:
        for _ in range(2):
            with closing(opener()) as sink:
                sink.write(whole)
        with closing(opener()) as sink:
            assert offsets_of(sink) == expected

    def test_event_ids_are_told_for_all_rows_or_for_none(self, sink: Sink, whole: Delivery) -> None:
        sink.write(whole)
        tables = list(sink.delivered())
        nulls = sum(t.column("event_id").null_count for t in tables)
        assert nulls in (0, sum(t.num_rows for t in tables))
        assert {t.schema.field("event_id").type for t in tables} == {pa.string()}

    def test_closing_twice_is_fine(self, opener: Opener) -> None:
        sink = opener()
        sink.close()
        sink.close()

    @settings(
        max_examples=8,
        deadline=None,
        # Each example makes its own place; each subclass is an executor of its own.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(data=st.data())
    def test_each_row_is_held_once_however_the_stream_is_cut_and_repeated(
        self, new_place: Callable[[], Opener], rows: pa.Table, data: st.DataObject
    ) -> None:
        expected = sorted(rows.column("log_offset").to_numpy().tolist())
        cuts = data.draw(st.lists(st.integers(0, expected[-1]), max_size=5))
        with closing(new_place()()) as sink:
            for delivery in cut(rows, cuts):
                for _ in range(data.draw(st.integers(1, 2))):
                    sink.write(delivery)
            assert offsets_of(sink) == expected
