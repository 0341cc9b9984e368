"""The card payments example computes the published features of the published payments.

The payments are those of the handbook "Reproducible Machine Learning for Credit Card Fraud
Detection", which state no licence and are therefore no part of this project: the environment
variable TIDEGATE_CARD_PAYMENTS says where their Parquet file lies.
"""

import math
import os
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tidegate.features.compile import compile_features
from tidegate.features.state import FeatureState
from tidegate.project.project import load
from tidegate.testing import cards

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "cards"
ELSEWHERE = ROOT.parent / "shared" / "data" / "card-payments-raw.parquet"
PUBLISHED = Path(os.environ.get("TIDEGATE_CARD_PAYMENTS", ELSEWHERE))
DAYS = (1, 7, 30)

# The published payments as events of the example. Nothing is known of devices.
EVENTS = """
SELECT
  TRANSACTION_ID AS id, TX_DATETIME::TIMESTAMP AS event_time, 'payment' AS event_type,
  CUSTOMER_ID AS card, NULL::VARCHAR AS device, TERMINAL_ID AS terminal, TX_AMOUNT AS amount,
  TX_FRAUD AS is_fraud, TX_FRAUD_SCENARIO AS fraud_scenario
FROM read_parquet($file) ORDER BY TX_DATETIME, TRANSACTION_ID
"""

# The same features computed otherwise: payments of the same second are put apart by their ids, each
# at a place of its own. A second has more places than there are payments.
PLACES = 2**21
PLACED = f"""
CREATE TABLE placed AS
SELECT
  TRANSACTION_ID AS id, TX_DATETIME AS paid, CUSTOMER_ID AS customer, TERMINAL_ID AS terminal,
  TX_AMOUNT AS amount, TX_FRAUD AS fraud,
  epoch(TX_DATETIME)::BIGINT * {PLACES} + TRANSACTION_ID AS place
FROM read_parquet($file)
"""

Columns = dict[str, npt.NDArray[np.float64]]


def customer_frame(days: int) -> str:
    """From the first place of the second after t - days to the payment itself."""
    first = f"{(days * 86_400 - 1) * PLACES} + id"
    return f"PARTITION BY customer ORDER BY place RANGE BETWEEN {first} PRECEDING AND CURRENT ROW"


def terminal_frame(days: int) -> str:
    """From the first place after t - 7 days - days to the last one of the second t - 7 days."""
    first = f"{((7 + days) * 86_400 - 1) * PLACES} + id"
    last = f"{(7 * 86_400 - 1) * PLACES + 1} + id"
    return (
        f"PARTITION BY terminal ORDER BY place RANGE BETWEEN {first} PRECEDING AND {last} PRECEDING"
    )


def recomputed() -> str:
    features = ["extract(isodow FROM paid) IN (6, 7) AS during_weekend"]
    features += ["extract(hour FROM paid) BETWEEN 0 AND 6 AS during_night"]
    for days in DAYS:
        window = f"OVER ({customer_frame(days)})"
        features += [f"count(*) {window} AS card_payments_{days}d"]
        features += [f"sum(amount) {window} / count(*) {window} AS card_amount_mean_{days}d"]
    for days in DAYS:
        window = f"OVER ({terminal_frame(days)})"
        share = f"CASE WHEN count(*) {window} > 0 THEN sum(fraud) {window} / count(*) {window} "
        features += [f"count(*) {window} AS terminal_payments_{days}d"]
        features += [f"{share} ELSE 0 END AS terminal_risk_{days}d"]
    return f"SELECT {', '.join(features)} FROM placed ORDER BY paid, id"


def computed(events: pa.Table) -> pa.Table:
    """The example's features of events in the order of the log."""
    project = load(EXAMPLE)
    schema, asked = project.stream.schema, project.features
    assert asked is not None
    plan = compile_features(
        asked.sql, schema, lateness=asked.lateness_us, look_back=asked.look_back_us
    )
    state = FeatureState(plan, key=bytes(16), threads=2)
    found = []
    for batch in events.cast(schema.arrow).to_batches(max_chunksize=50_000):
        times = batch["event_time"].cast(pa.int64()).to_numpy()
        features = state.update(batch, newest=np.maximum.accumulate(times))
        assert not features.errors
        found.append(features.values)
    return pa.Table.from_batches(found)


def as_numbers(table: pa.Table) -> Columns:
    """Each column as doubles, null as NaN; whole numbers below 2 ** 53 stay exact."""
    return {
        name: table[name].cast(pa.float64()).fill_null(pa.scalar(math.nan)).to_numpy()
        for name in table.column_names
    }


@pytest.fixture(scope="module")
def published() -> tuple[Columns, Columns]:
    """The features of all published payments as Tidegate gives them, and recomputed."""
    if not PUBLISHED.is_file():
        pytest.skip(f"no card payments at {PUBLISHED}; name the file in TIDEGATE_CARD_PAYMENTS")
    connection = duckdb.connect()
    file = {"file": str(PUBLISHED)}
    events = connection.sql(EVENTS, params=file).to_arrow_table()
    connection.execute(PLACED, file)
    wanted = connection.sql(recomputed()).to_arrow_table()
    assert len(events) == len(wanted) == 1_754_155
    return as_numbers(computed(events)), as_numbers(wanted)


@pytest.mark.parametrize("name", ["during_weekend", "during_night"])
def test_weekend_and_night_are_the_published_ones(
    published: tuple[Columns, Columns], name: str
) -> None:
    ours, wanted = published
    np.testing.assert_array_equal(ours[name], wanted[name])


@pytest.mark.parametrize("days", DAYS)
@pytest.mark.parametrize("entity", ["card", "terminal"])
def test_counts_are_the_published_ones(
    published: tuple[Columns, Columns], entity: str, days: int
) -> None:
    ours, wanted = published
    name = f"{entity}_payments_{days}d"
    np.testing.assert_array_equal(ours[name], wanted[name])


@pytest.mark.parametrize("days", DAYS)
@pytest.mark.parametrize("feature", ["card_amount_mean", "terminal_risk"])
def test_means_and_shares_are_the_published_ones(
    published: tuple[Columns, Columns], feature: str, days: int
) -> None:
    ours, wanted = published
    name = f"{feature}_{days}d"
    assert np.isfinite(wanted[name]).all()
    np.testing.assert_allclose(ours[name], wanted[name], rtol=1e-9, atol=0)


def test_duckdb_gives_the_same_for_the_same_text() -> None:
    """All features of the example, on payments of which no two have the same time."""
    events = pa.Table.from_batches(cards.generate(45, seed=7, customers=1_000, terminals=2_000))
    connection = duckdb.connect()
    connection.register("events", events)
    assert len(pc.unique(events["event_time"])) == len(events)
    # DuckDB gives rows in any order; the id says which is which.
    written = (EXAMPLE / "features.sql").read_text()
    text = written.replace("\nFROM events", ",\n  id\nFROM events")
    wanted = connection.sql(f"SELECT * FROM ({text}) ORDER BY id").to_arrow_table()
    ours = computed(events)
    assert [*ours.column_names, "id"] == wanted.column_names
    both = as_numbers(ours), as_numbers(wanted)
    for name in ours.column_names:
        np.testing.assert_allclose(both[0][name], both[1][name], rtol=1e-9, atol=0, err_msg=name)


@pytest.mark.parametrize(
    ("rule", "scenario", "found", "right"),
    [
        ("high_amount", 1, 1.0, 1.0),
        ("risky_terminal", 2, 0.5, 0.5),
        ("unusual_amount", 3, 0.5, 0.9),
        ("guessed_login", 3, 0.4, 0.8),
    ],
)
def test_each_rule_finds_its_kind_of_fraud(
    decided: duckdb.DuckDBPyConnection, rule: str, scenario: int, found: float, right: float
) -> None:
    """At least the share `found` of its scenario, and a share `right` of what it hits is fraud.

    From the fortieth day on, when the windows have filled.
    """
    [when] = [r.when.text for r in load(EXAMPLE).rules if r.name == rule]
    [(of_all, of_hits)] = decided.sql(f"""
        SELECT avg(coalesce({when}, FALSE)::INT) FILTER (WHERE fraud_scenario = {scenario}),
          avg(is_fraud) FILTER (WHERE {when})
        FROM decided WHERE event_time >= TIMESTAMP '2018-05-10'
    """).fetchall()
    assert of_all >= found
    assert of_hits >= right


@pytest.fixture(scope="module")
def decided() -> duckdb.DuckDBPyConnection:
    """Generated events with their features, as a table `decided`."""
    events = pa.Table.from_batches(cards.generate(70, seed=11))
    features = computed(events)
    for name in features.column_names:
        events = events.append_column(name, features[name])
    connection = duckdb.connect()
    connection.register("decided", events)
    return connection
