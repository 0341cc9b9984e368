"""The contract of a sink: an outside place that receives rows, at its own pace.

Words:

- A *feed* gives rows in order of `log_offset`. It may be read again from any offset, and gives the
  same rows each time.
- A *delivery* is a stretch of a feed, `first_offset <= log_offset < next_offset`. The runner writes
  down what it is about to deliver before it does (its *plan*), so that after a crash the very same
  delivery is made again, and only then goes on.

Promises a sink keeps:

- `write` returns when the rows are safe on the other side; its output depends on the delivery alone
  (names are made of offsets and the rows' own values), so that writing it again changes nothing.
- It raises `UnreachableError` or `StorageFullError` for what may pass; the runner tries again with
  growing pauses. Any other error is a defect and is shown as such, and tried again as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """Rows of one stretch of a feed, ascending by `log_offset`; never part of an offset's rows."""

    first_offset: int
    next_offset: int
    rows: pa.Table


class Feed(Protocol):
    """Rows of one table (or of the log) in order of `log_offset`."""

    def end(self) -> int:
        """The offset below which every row is there to be read."""

    def read(self, offset: int, *, until: int, rows_max: int) -> Delivery:
        """Rows at `offset <= log_offset < until`, at most about `rows_max`; all rows of an offset.

        `next_offset` of the delivery is `until` unless `rows_max` cut it short. Rows carry all
        columns of the table, `log_offset` among them.
        """


class Sink(Protocol):
    """A place that receives deliveries."""

    def write(self, delivery: Delivery) -> None:
        """Put the rows where they belong; repeatable.

        Raises: UnreachableError, StorageFullError.
        """

    def delivered(self) -> Iterator[pa.Table]:
        """What the sink holds, read back from it: tables of `event_id` (text; for window rows the
        ids inside them are not expanded: `event_id` is null) and `log_offset`. For reconciliation.
        """

    def close(self) -> None:
        """Release what is held; closing twice is fine."""
