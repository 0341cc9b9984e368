"""The events that features are computed of: the published payments, and made-up ones in any number.

The published payments are read where they lie, never copied. Without them the generator's take
their place; which it was stands in the results.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import corpus
from benchmarks.process import ROOT
from tidegate.schema import Schema
from tidegate.testing.cards import DAY_US, START_TIME_US, generate

SCHEMA = Schema.of(
    [
        ("id", "bigint"),
        ("event_time", "timestamp"),
        ("event_type", "text"),
        ("card", "bigint"),
        ("terminal", "bigint?"),
        ("device", "bigint?"),
        ("amount", "double?"),
        ("is_fraud", "bigint?"),
    ],
    id="id",
    event_time="event_time",
)
PUBLISHED_SQL = Path(__file__).with_name("features_published.sql")
WIDE_SQL = Path(__file__).with_name("features_wide.sql")
GROWTH_SQL = Path(__file__).with_name("features_growth.sql")
CARDS_SQL = Path(__file__).with_name("features_cards.sql")

_ELSEWHERE = ROOT.parent / "shared" / "data" / "card-payments-raw.parquet"
_PUBLISHED = Path(os.environ.get("TIDEGATE_CARD_PAYMENTS", _ELSEWHERE))
_NAMES = {
    "TRANSACTION_ID": "id",
    "TX_DATETIME": "event_time",
    "CUSTOMER_ID": "card",
    "TERMINAL_ID": "terminal",
    "TX_AMOUNT": "amount",
    "TX_FRAUD": "is_fraud",
}
_ROW_GROUP = 122_880  # as DuckDB writes them, so that its threads have enough of them
_BATCH = 1 << 18
_SEED = 7
_DAYS = 183  # as many as were published

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Payments:
    """Payments in a Parquet file, of which the first `rows` count; `is_published` says which."""

    path: Path
    is_published: bool
    rows: int

    @classmethod
    def at(cls, path: Path, *, rows: int) -> Payments:
        """Those of a file, told by its columns."""
        return cls(path, "TX_DATETIME" in pq.read_schema(path).names, rows)

    def view(self) -> str:
        """What `events` is to DuckDB."""
        names = _NAMES if self.is_published else {n: n for n in _NAMES.values()}
        times = {"event_time": "::TIMESTAMP"}  # the published ones count nanoseconds
        columns = [f"{theirs}{times.get(n, '')} AS {n}" for theirs, n in names.items()]
        columns.append("'payment' AS event_type" if self.is_published else "event_type")
        if not self.is_published:
            columns.append("device")
        source = f"SELECT {', '.join(columns)} FROM read_parquet('{self.path}')"
        return source if self.is_whole else f"{source} WHERE id < {self.rows}"

    @property
    def is_whole(self) -> bool:
        """Whether all rows of the file count."""
        return bool(pq.read_metadata(self.path).num_rows == self.rows)

    def batches(self, names: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The events as batches of the columns above, or of some; in the order of the file."""
        wanted = [c.name for c in SCHEMA if names is None or c.name in names]
        ours = _NAMES if self.is_published else {n: n for n in SCHEMA.names}
        read = [theirs for theirs, name in ours.items() if name in wanted]
        left = self.rows
        # As `tidegate replay` reads files.
        file = pq.ParquetFile(self.path, memory_map=True, pre_buffer=False)
        for batch in file.iter_batches(batch_size=_BATCH, columns=read):
            found = batch.slice(0, left)
            yield _renamed(found, wanted) if self.is_published else found.select(wanted)
            left -= found.num_rows
            if not left:
                return


def _renamed(batch: pa.RecordBatch, wanted: Sequence[str]) -> pa.RecordBatch:
    n = batch.num_rows
    given = {ours: name for name, ours in _NAMES.items()}
    columns: list[pa.Array[Any]] = []
    for name in wanted:
        if name == "event_type":
            columns.append(pa.array(["payment"]).take(np.zeros(n, np.int64)))
        elif name == "device":
            columns.append(pa.nulls(n, pa.int64()))
        else:
            columns.append(batch[given[name]].cast(SCHEMA.by_name[name].type.arrow))
    return pa.RecordBatch.from_arrays(columns, names=list(wanted))


def card_payments(rows: int | None = None) -> Payments:
    """The published payments, or as many days of generated ones; all, or the first `rows`."""
    path, is_published = _PUBLISHED, _PUBLISHED.is_file()
    if not is_published:
        path = _generated()
    there = pq.read_metadata(path).num_rows
    return Payments(path, is_published, min(rows or there, there))


def _generated() -> Path:
    """A file of the generator's payments, numbered anew."""

    def payments() -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in generate(_DAYS, seed=_SEED):
            found = batch.filter(pc.field("event_type") == "payment")
            n = found.num_rows
            columns = {c.name: found[c.name] for c in SCHEMA}
            columns["id"] = pa.array(np.arange(first, first + n))
            # Devices are numbers here; the generator's names are a `d` before them.
            columns["device"] = pc.utf8_slice_codeunits(found["device"], 1).cast(pa.int64())
            yield pa.RecordBatch.from_arrays([columns[c.name] for c in SCHEMA], schema=SCHEMA.arrow)
            first += n

    return _written(corpus.DATA / f"cards-{_DAYS}.parquet", payments())


def wide(rows: int) -> Payments:
    """So many events of 30 days: a tenth as many cards, a hundredth of terminals and of devices.

    Of each, the lower a number the more often it comes: the first hundredth has a tenth of all.
    """
    path = corpus.DATA / f"wide-{rows}.parquet"
    return Payments(_written(path, _wide(rows)), is_published=False, rows=rows)


def _wide(rows: int) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(_SEED)
    for first in range(0, rows, _ROW_GROUP):
        n = min(_ROW_GROUP, rows - first)
        yield wide_batch(
            rng, first, n, step_us=30 * DAY_US / rows, cards=rows // 10, others=rows // 100
        )


def wide_batch(
    rng: np.random.Generator, first: int, n: int, *, step_us: float, cards: int, others: int
) -> pa.RecordBatch:
    """`n` events, the first with the id `first`, `step_us` apart on average.

    `others` is the number of terminals and that of devices.
    """
    ids = np.arange(first, first + n)
    times = START_TIME_US + ((ids + rng.random(n)) * step_us).astype(np.int64)
    is_login = rng.random(n) < 0.02
    columns: list[pa.Array[Any]] = [
        pa.array(ids),
        pa.array(times).cast(pa.timestamp("us")),
        pa.array(["payment", "login_failed"]).take(is_login.astype(np.int64)),
        pa.array(_skewed(rng, n, cards)),
        pa.array(_skewed(rng, n, others)),
        pa.array(_skewed(rng, n, others)),
        pa.array(np.rint(rng.gamma(2.0, 2_500.0, n)) / 100),
        pa.array((rng.random(n) < 0.01).astype(np.int64)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA.arrow)


def _skewed(rng: np.random.Generator, n: int, below: int) -> _Ints:
    return (below * rng.random(n) ** 2).astype(np.int64)


def _written(path: Path, batches: Iterator[pa.RecordBatch]) -> Path:
    if path.exists():
        return path
    print(f"making {path.name}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with pq.ParquetWriter(draft, SCHEMA.arrow) as file:
        for batch in batches:
            file.write_batch(batch, row_group_size=_ROW_GROUP)
    return draft.replace(path)
