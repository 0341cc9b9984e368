"""Features beside DuckDB: the same text over the same rows gives the same values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .shop import (
    DAY,
    FIRST,
    SHOP,
    Duck,
    batch,
    calls,
    compiled,
    micros,
    run,
    same,
    scalars,
    streams,
)


@pytest.fixture(scope="module")
def duck() -> Iterator[Duck]:
    """The oracle."""
    oracle = Duck()
    yield oracle
    oracle.connection.close()


def _select(features: list[str]) -> str:
    return "SELECT " + ", ".join(f"{f} AS f{i}" for i, f in enumerate(features)) + " FROM events"


def _cuts(data: st.DataObject, events: pa.RecordBatch) -> list[int]:
    return data.draw(st.lists(st.integers(0, events.num_rows), max_size=4), label="cuts")


def _compare(
    text: str,
    features: pa.RecordBatch,
    expected: list[tuple[Any, ...]] | None,
    *,
    of: pa.Array[Any] | None = None,
) -> None:
    """DuckDB gives one value for a row or none for the whole query; what it gives must be ours.

    It takes deviations from a running mean in doubles: of 16 times 2^25 and once one more they are
    off by 2e-9. So they may differ by a few last bits of the greatest number they are `of`.
    """
    if expected is None:
        return
    near = 1e-12
    if of is not None and ("stddev" in text or "var" in text):
        greatest = max((abs(float(n)) for n in of.to_pylist() if n is not None), default=0.0)
        near = max(near, 2.0**-50 * greatest)
    for row, (values, theirs) in enumerate(zip(features.to_pylist(), expected, strict=True)):
        for found, wanted in zip(values.values(), theirs, strict=True):
            assert same(wanted, found, near=near), f"row {row} of {text}: {wanted!r}, not {found!r}"


@settings(max_examples=200)
@given(data=st.data(), events=streams())
def test_random_features_equal_duckdb_running_the_same_text(
    duck: Duck, data: st.DataObject, events: pa.RecordBatch
) -> None:
    """In event-time order without ties, whatever the text and the cuts."""
    drawn = data.draw(st.lists(calls().flatmap(scalars), min_size=1, max_size=4), label="features")
    found = run(compiled(_select(drawn)), events, _cuts(data, events))
    assert not found.errors
    for i, feature in enumerate(drawn):
        # One by one: DuckDB stops for the variance of infinite values.
        text = _select([feature])
        _compare(text, found.values.select([f"f{i}"]), duck.ask(text, events), of=events["n"])


@settings(max_examples=100)
@given(data=st.data(), events=streams(ties=True))
def test_an_event_does_not_see_later_ones_of_its_own_time(
    duck: Duck, data: st.DataObject, events: pa.RecordBatch
) -> None:
    """Ties by the stated rule: as DuckDB with times that differ by the place in the log."""
    drawn = data.draw(st.lists(calls(), min_size=1, max_size=3), label="features")
    found = run(compiled(_select([c.text() for c in drawn])), events, _cuts(data, events))
    unique = pa.array(micros(events) + np.arange(events.num_rows), pa.timestamp("us"))
    told = events.set_column(1, "event_time", unique)
    for i, call in enumerate(drawn):
        if "event_time)" in call.call:
            continue  # its values are the times themselves
        text = _select([call.text(widened=True)])
        _compare(text, found.values.select([f"f{i}"]), duck.ask(text, told), of=told["n"])


@settings(max_examples=50)
@given(data=st.data(), events=streams(late=True))
def test_late_events_see_what_came_before_them_in_the_log(
    duck: Duck, data: st.DataObject, events: pa.RecordBatch
) -> None:
    """Each event as the last of DuckDB's rows over the log up to it."""
    drawn = data.draw(calls(), label="feature")
    text = _select([drawn.text()])
    found = run(compiled(text, lateness=400 * DAY), events, _cuts(data, events))
    for row in range(events.num_rows):
        answer = duck.ask(text, events.slice(0, row + 1))
        _compare(text, found.values.slice(row, 1), answer and answer[-1:], of=events["n"])


@settings(max_examples=100)
@given(data=st.data(), events=streams())
def test_features_on_features_equal_duckdb_with_a_subquery(
    duck: Duck, data: st.DataObject, events: pa.RecordBatch
) -> None:
    """A window over the values of a window, and over those of an expression around one."""
    # Exact ones: a last bit that differs in a mean would be all that a deviation of means sees.
    exact = calls().filter(lambda c: c.kind == "n" and c.call.startswith(("count", "sum", "max")))
    inner = data.draw(exact, label="inner")
    scalar = data.draw(st.sampled_from(["CAST(f0 AS double)", "f0 IS NULL"]), label="scalar")
    over = calls(numbers=["f0", "f0 * 2"]).filter(lambda c: "f0" in c.call)
    outer = data.draw(over, label="outer")
    ours = _select([inner.text(), scalar, outer.text()])
    found = run(compiled(ours), events, _cuts(data, events))
    once = f"(SELECT *, {inner.text()} AS f0 FROM events)"
    twice = f"(SELECT *, {scalar} AS f1 FROM {once})"
    theirs = f"SELECT f0, f1, {outer.text()} FROM {twice}"
    if not found.errors:
        _compare(theirs, found.values, duck.ask(theirs, events), of=found.values["f0"])


EXAMPLE = """
SELECT
  count(*)               OVER card_1h                           AS card_payments_1h,
  sum(amount)            OVER card_1d                           AS card_amount_1d,
  amount / nullif(avg(amount) OVER card_30d, 0)                 AS amount_ratio_30d,
  count(DISTINCT device) OVER card_7d                           AS card_devices_7d,
  count(*) FILTER (WHERE event_type = 'login_failed') OVER card_1h AS failed_logins_1h,
  event_time - lag(event_time) OVER (PARTITION BY card ORDER BY event_time) AS since_last,
  avg(is_fraud)          OVER terminal_delayed                  AS terminal_risk
FROM events
WINDOW
  card_1h AS (PARTITION BY card ORDER BY event_time
    RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW),
  card_1d AS (PARTITION BY card ORDER BY event_time
    RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW),
  card_7d AS (PARTITION BY card ORDER BY event_time
    RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW),
  card_30d AS (PARTITION BY card ORDER BY event_time
    RANGE BETWEEN INTERVAL 30 DAYS PRECEDING AND CURRENT ROW),
  terminal_delayed AS (PARTITION BY terminal ORDER BY event_time
    RANGE BETWEEN INTERVAL 37 DAYS PRECEDING AND INTERVAL 7 DAYS PRECEDING)
"""


PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text("utf-8")


@pytest.mark.parametrize("text", [EXAMPLE, PAGE.split("```sql\n")[1].split("```")[0]])
def test_the_features_of_card_payments_run_unchanged_in_both(duck: Duck, text: str) -> None:
    """The texts that the project shows its users."""
    declared = [("id", "bigint"), ("event_time", "timestamp"), ("event_type", "text")]
    declared += [("card", "text"), ("terminal", "text"), ("device", "text?")]
    declared += [("amount", "decimal(10,2)?"), ("is_fraud", "bigint?")]
    schema = type(SHOP).of(declared, id="id", event_time="event_time")
    kinds, devices = ("payment", "login_failed", "payment"), ("x", None, "y", "z")
    rows = [
        {
            "id": i,
            "event_time": 1_700_000_000_000_000 + i * 1_700_000_000,
            "event_type": kinds[i % 3],
            "card": f"card {i % 5}",
            "terminal": f"terminal {i % 7}",
            "device": devices[i % 4],
            "amount": i * 37 % 101,
            "is_fraud": int(i % 11 == 0),
        }
        for i in range(3_000)
    ]
    events = batch(rows, schema=schema)
    found = run(compiled(text, schema=schema), events, [1, 2, 1_000, 1_001])
    assert found.values.schema.field("since_last").type == pa.float64()
    _compare(text, found.values, duck.ask(text, events))


@pytest.mark.parametrize(
    ("spelled", "also"),
    [
        ("RANGE BETWEEN INTERVAL 2 DAYS PRECEDING AND CURRENT ROW", "RANGE to_days(2) PRECEDING"),
        ("RANGE INTERVAL (1 + 1) DAY PRECEDING", "RANGE INTERVAL '1 day 24 hours' PRECEDING"),
        ("ROWS BETWEEN 3 PRECEDING AND CURRENT ROW", "ROWS 3 PRECEDING"),
        ("ROWS 3 PRECEDING EXCLUDE NO OTHERS", "ROWS BETWEEN 1 + 2 PRECEDING AND 0 PRECEDING"),
    ],
)
def test_spellings_of_one_frame_are_one_call(spelled: str, also: str) -> None:
    """Sharing goes by meaning."""
    over = "count(*) OVER (PARTITION BY card ORDER BY event_time {})"
    plan = compiled(_select([over.format(spelled), over.format(also)]))
    assert [e.outputs for e in plan.entities] == [(plan.features[0].column,)]


def test_a_deviation_of_large_integers_is_exact_where_a_running_mean_is_not(duck: Duck) -> None:
    """Sums of squares are kept whole, so the distance from zero costs no digits."""
    numbers = [2**40] * 16 + [2**40 + 1]
    rows = [{"id": i, "event_time": FIRST + i, "n": n} for i, n in enumerate(numbers)]
    text = "SELECT stddev_pop(n) OVER (ORDER BY event_time ROWS 16 PRECEDING) AS spread FROM events"
    events = batch(rows)
    exact = math.sqrt(16) / 17  # of sixteen zeros and a one
    assert run(compiled(text), events).values["spread"][-1].as_py() == exact
    answer = duck.ask(text, events)
    assert answer is not None
    assert abs(answer[-1][0] - exact) > 1e-12
