"""50 rules of three terms: as Tidegate evaluates them, by hand in Polars, and in DuckDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import and_

import duckdb
import polars as pl
import pyarrow as pa

from benchmarks.corpus import blocks, store_file
from benchmarks.process import EXAMPLE
from benchmarks.result import Result
from tidegate.events.body import split_ndjson
from tidegate.program import Program
from tidegate.project.project import load
from tidegate.sql.expression import Evaluated, ExpressionSet, Scope, compile_expression
from tidegate.sql.source import SourceText

_RULES = 50
_BATCHES = (1, 1_000, 100_000)
_REPEAT_SECONDS = 0.5

Term = tuple[str, str, float]


def terms(number: int) -> tuple[Term, Term, Term]:
    """The terms of a rule: column, operator, constant.

    >>> terms(0)
    (('discount', '>', 20), ('price', '>', 5), ('qty', '<', 90))
    """
    return (
        ("discount", ">", 20 + number),
        ("price", ">", 5 + number),
        ("qty", "<", 90 - number),
    )


def measure(*, events: int, rounds: int) -> Iterator[Result]:
    """The results of this benchmark, as they come."""
    batch = _batch(events)
    for rows in sorted({min(n, events) for n in _BATCHES}):
        part = batch.slice(0, rows)
        ways = Ways.of(part)
        calls = (ways.ours, ways.by_hand, ways.in_duckdb)
        pairs = [[_seconds(call) for call in calls] for _ in range(rounds)]
        for place, name in ((1, "Polars"), (2, "DuckDB")):
            yield Result.beside(
                f"sql.rows_{rows:06}_{name.lower()}",
                f"{_RULES} rules on {rows:,} row{'s' if rows > 1 else ''}, beside {name}",
                [(p[0] * 1e3, p[place] * 1e3) for p in pairs],
                unit="ms",
                peer=name,
            )


def _batch(events: int) -> pa.RecordBatch:
    """Store events decoded, as many as asked for."""
    program = Program.compile(load(EXAMPLE))
    found = [
        program.intake.decoder.decode(split_ndjson(block)).events
        for block in blocks(store_file(events))
    ]
    return pa.Table.from_batches(found).combine_chunks().to_batches()[0]


@dataclass(frozen=True, slots=True)
class Ways:
    """The rules as Tidegate evaluates them, by hand in Polars, and as one SELECT in DuckDB."""

    ours: Callable[[], list[Evaluated]]
    by_hand: Callable[[], pl.DataFrame]
    in_duckdb: Callable[[], pa.Table]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Ways:
        """All three on the rows of a batch of store events."""
        scope = Scope.of(load(EXAMPLE).stream.schema)
        texts = [" AND ".join(f"{c} {op} {v}" for c, op, v in terms(n)) for n in range(_RULES)]
        rules = ExpressionSet([compile_expression(SourceText(t), scope) for t in texts])
        by_hand = [_polars(terms(n)).alias(f"r{n}") for n in range(_RULES)]
        used = pa.Table.from_batches([batch.select(["discount", "price", "qty"])])
        connection = duckdb.connect()
        connection.register("events", used)
        select = f"SELECT {', '.join(texts)} FROM events"
        return cls(
            ours=lambda: rules.evaluate(batch),
            by_hand=lambda: pl.DataFrame(used).select(by_hand),
            in_duckdb=lambda: connection.sql(select).to_arrow_table(),
        )


def _polars(terms: tuple[Term, ...]) -> pl.Expr:
    ways: dict[str, Callable[[pl.Expr, float], pl.Expr]] = {
        ">": lambda column, value: column > value,
        "<": lambda column, value: column < value,
    }
    return reduce(and_, [ways[op](pl.col(c), v) for c, op, v in terms])


def _seconds(call: Callable[[], object]) -> float:
    """Seconds of a call, the fewest of many: what else runs only ever adds."""
    call()
    best, until = float("inf"), time.perf_counter() + _REPEAT_SECONDS
    while (begun := time.perf_counter()) < until:
        call()
        best = min(best, time.perf_counter() - begun)
    return best
