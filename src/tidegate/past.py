"""The past as the tables have it: accepted events and labels in the order of the log."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from tidegate.labels.correction import COLUMNS
from tidegate.labels.history import Past, merged
from tidegate.warehouse import checkpoint
from tidegate.warehouse.feed import TableFeed, Written

ROWS = 131_072  # read at a time


def past(events: TableFeed, labels: TableFeed | None, first: int, until: int) -> Iterator[Past]:
    """What the tables have at offsets `first <= o < until`, in the columns of the feeds.

    `labels` is None where there is no such table, or where nobody wants to know of them.
    """
    told = iter(()) if labels is None else _batches(labels, first, until)
    return merged(_batches(events, first, until), told)


def written_past(
    tables: Path, first: int, until: int, *, columns: Collection[str], with_labels: bool = True
) -> Iterator[Past]:
    """The same, read from a folder of tables that another process may be writing.

    Raises: InputError if there is no table of events.
    """
    events = TableFeed(Written(tables / "events"), lambda: until, columns=columns)
    labels = None
    if with_labels and (tables / "labels" / "_delta_log").is_dir():
        labels = TableFeed(Written(tables / "labels"), lambda: until, columns=COLUMNS)
    return past(events, labels, first, until)


def end_of(tables: Path, *, with_labels: bool) -> int:
    """The offset below which the table of events has all that is there to be read.

    With labels it is where both tables are known to have come.
    Raises: InputError if there is no table of events.
    """
    end = Written(tables / "events").end()
    noted = checkpoint.read(tables) if with_labels else None
    return min(end, noted.position) if noted else end


def _batches(feed: TableFeed, first: int, until: int) -> Iterator[pa.RecordBatch]:
    for delivery in feed.deliveries(first, until=until, rows_max=ROWS):
        yield from delivery.rows.combine_chunks().to_batches()
