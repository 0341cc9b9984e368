"""Generated card payments: the same for the same seed, and as the published simulator's are."""

import json
from collections.abc import Callable

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tidegate.testing import cards

DAYS = 60


@pytest.fixture(scope="module")
def events() -> pa.Table:
    return pa.Table.from_batches(cards.generate(DAYS, seed=7))


Ask = Callable[[str], list[tuple[float, ...]]]


@pytest.fixture(scope="module")
def ask(events: pa.Table) -> Ask:
    """Rows of a query on `events`, on `payments` among them, and on those as `p` with their day."""
    connection = duckdb.connect()
    connection.register("events", events)
    connection.execute(
        "CREATE VIEW payments AS SELECT *, date_diff('day', DATE '2018-04-01', event_time) AS day "
        "FROM events WHERE event_type = 'payment'"
    )
    return lambda sql: connection.sql(sql).fetchall()


# -- the same for the same seed --------------------------------------------------------------------


def test_batches_cut_otherwise_hold_the_same_events() -> None:
    whole = pa.Table.from_batches(cards.generate(3, seed=5))
    parts = list(cards.generate(3, seed=5, batch_records=777))
    assert max(p.num_rows for p in parts) == 777
    assert pa.Table.from_batches(parts).equals(whole)


def test_fewer_days_are_the_beginning_of_more(events: pa.Table) -> None:
    fewer = pa.Table.from_batches(cards.generate(20, seed=7))
    assert events.slice(0, len(fewer)).equals(fewer)


def test_another_seed_gives_other_events(events: pa.Table) -> None:
    other = pa.Table.from_batches(cards.generate(1, seed=8))
    assert not events.slice(0, len(other)).equals(other)


def test_another_start_only_moves_the_times() -> None:
    moved = pa.Table.from_batches(cards.generate(2, seed=7, start_time_us=0))
    there = pa.Table.from_batches(cards.generate(2, seed=7))
    assert moved.drop(["event_time"]).equals(there.drop(["event_time"]))
    apart = pc.subtract(there["event_time"].cast(pa.int64()), moved["event_time"].cast(pa.int64()))
    assert pc.unique(apart).to_pylist() == [cards.START_TIME_US]


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"customers": 0}, {"terminals": 0}])
def test_what_cannot_be_generated_is_refused_at_once(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="are needed, not seed"):
        cards.generate(1, **{"seed": 1, **wrong})


def test_text_has_the_values_of_the_batches() -> None:
    lines = b"".join(cards.generate_ndjson(1, seed=5, batch_records=1_000)).splitlines()
    rows = pa.Table.from_batches(cards.generate(1, seed=5)).to_pylist()
    for row in rows:
        row["event_time"] = row["event_time"].isoformat(timespec="microseconds")
    assert [json.loads(line) for line in lines] == rows


# -- order and shape -------------------------------------------------------------------------------


def test_events_ascend_by_time_and_ids_count_them(events: pa.Table) -> None:
    times = events["event_time"].cast(pa.int64()).to_numpy()
    assert (np.diff(times) >= 0).all()
    assert events["id"].to_pylist() == list(range(len(events)))
    assert cards.START_TIME_US <= times[0] < times[-1] < cards.START_TIME_US + DAYS * cards.DAY_US


def test_a_failed_login_has_no_amount_terminal_or_label(ask: Ask) -> None:
    fields = ("amount", "terminal", "is_fraud", "fraud_scenario")
    for field in fields:
        assert ask(f"SELECT count(*) FROM payments WHERE {field} IS NULL") == [(0,)]
        assert ask(f"SELECT count({field}) FROM events WHERE event_type = 'login_failed'") == [(0,)]


def test_a_customer_without_a_terminal_near_pays_nowhere() -> None:
    events = pa.Table.from_batches(cards.generate(20, seed=3, customers=200, terminals=1))
    payments = events.filter(pc.field("event_type") == "payment")
    assert 0 < pc.count_distinct(payments["card"]).as_py() < 10  # a 127th of the square is near


# -- as published ----------------------------------------------------------------------------------


def test_payments_come_as_often_and_are_as_high_as_published(ask: Ask, events: pa.Table) -> None:
    [(cards_seen, a_day, amount, highest)] = ask(
        f"SELECT count(DISTINCT card), count(*) / {DAYS}, avg(amount), max(card) FROM payments"
    )
    assert 4_900 <= cards_seen <= 5_000
    assert highest < 5_000
    assert a_day == pytest.approx(5_000 * 2 * 0.969, rel=0.03)
    assert amount == pytest.approx(53, rel=0.04)
    assert len(events) == pytest.approx(cards.expected_events(DAYS), rel=0.03)


def test_times_of_the_day_are_spread_as_published(ask: Ask) -> None:
    [(mean, spread)] = ask(
        "SELECT avg(s), stddev_pop(s) FROM (SELECT epoch(event_time) % 86400 AS s FROM payments)"
    )
    # N(43,200, 20,000) cut off at 2.16 deviations on both sides
    assert mean == pytest.approx(43_200, abs=150)
    assert spread == pytest.approx(18_165, abs=150)


def test_amounts_of_a_card_spread_by_half_their_mean(ask: Ask) -> None:
    [(ratio,)] = ask(
        "SELECT avg(s / m) FROM (SELECT stddev_samp(amount) AS s, avg(amount) AS m FROM payments "
        "WHERE is_fraud = 0 GROUP BY card HAVING count(*) > 60)"
    )
    # Amounts below 0, a 44th of them, are drawn again over the whole range.
    assert ratio == pytest.approx(0.48, abs=0.02)


def test_a_card_is_used_at_as_many_terminals_as_lie_near(ask: Ask) -> None:
    [(seen,)] = ask(
        "SELECT avg(n) FROM (SELECT count(DISTINCT terminal) AS n, count(*) AS payments "
        "FROM payments GROUP BY card) WHERE payments > 200"
    )
    assert 55 <= seen <= 78.5  # 25 π of 10,000, fewer at the edges of the square


def test_amounts_have_two_decimals_and_are_never_negative(ask: Ask) -> None:
    assert ask("SELECT count(*) FROM payments WHERE round(amount, 2) <> amount OR amount < 0") == [
        (0,)
    ]


# -- frauds ----------------------------------------------------------------------------------------


def test_a_label_says_whether_there_is_a_scenario(ask: Ask) -> None:
    assert ask("SELECT count(*) FROM payments WHERE is_fraud <> (fraud_scenario > 0)::INT") == [
        (0,)
    ]


def test_every_payment_above_220_is_a_fraud_and_nearly_no_card_pays_that_often(ask: Ask) -> None:
    assert ask("SELECT count(*) FROM payments WHERE amount > 220 AND is_fraud = 0") == [(0,)]
    [(share,)] = ask("SELECT avg((fraud_scenario = 1)::INT) FROM payments")
    assert share == pytest.approx(973 / 1_754_155, rel=0.5)  # as in the published data


def test_all_payments_at_a_broken_terminal_are_frauds_for_28_days(ask: Ask) -> None:
    runs = ask(
        "SELECT terminal, min(day), max(day) FROM payments WHERE fraud_scenario = 2 "
        "GROUP BY terminal HAVING max(day) - min(day) <= 27"
    )
    assert len(runs) > 80  # two a day, but for the few that were broken into twice
    for terminal, first, last in runs[:50]:
        missed = f"terminal = {terminal} AND day BETWEEN {first} AND {last} AND is_fraud = 0"
        assert ask(f"SELECT count(*) FROM payments WHERE {missed}") == [(0,)]


def test_two_terminals_a_day_are_broken_into(ask: Ask) -> None:
    [(seen,)] = ask("SELECT count(DISTINCT terminal) FROM payments WHERE fraud_scenario = 2")
    # About one of the last days has not been used yet, and about one was broken into twice.
    assert 2 * DAYS - 8 <= seen <= 2 * DAYS


def test_a_third_of_a_stolen_cards_payments_are_high_frauds_within_14_days(ask: Ask) -> None:
    [(longest, frauds)] = ask(
        "SELECT max(last - first), sum(n) FROM (SELECT min(day) AS first, max(day) AS last, "
        "count(*) AS n FROM payments WHERE fraud_scenario = 3 GROUP BY device)"
    )
    assert longest <= 13
    # 3 cards of 42 are compromised at a time, once begun; 1.94 payments a day, a third of them
    assert frauds == pytest.approx((DAYS - 6.5) * 42 * 1.94 / 3, rel=0.15)
    [(times,)] = ask(
        "SELECT avg(amount) FILTER (WHERE fraud_scenario = 3) / avg(amount) "
        "FILTER (WHERE is_fraud = 0) FROM payments"
    )
    assert times == pytest.approx(5, rel=0.1)


# -- what was added --------------------------------------------------------------------------------


def test_frauds_with_a_stolen_card_come_from_the_device_of_nobody_else(ask: Ask) -> None:
    assert ask(
        "SELECT count(*) FROM payments WHERE fraud_scenario = 3 "
        "AND device IN (SELECT device FROM payments WHERE fraud_scenario <> 3)"
    ) == [(0,)]


def test_a_customer_has_one_device_or_two_of_nobody_elses(ask: Ask) -> None:
    own = "FROM payments WHERE fraud_scenario <> 3"
    assert ask(f"SELECT max(n) FROM (SELECT count(DISTINCT card) AS n {own} GROUP BY device)") == [
        (1,)
    ]
    [(least, most, mean)] = ask(
        f"SELECT min(n), max(n), avg(n) FROM (SELECT count(DISTINCT device) AS n {own} "
        "GROUP BY card HAVING count(*) > 50)"
    )
    assert (least, most) == (1, 2)
    assert mean == pytest.approx(1.5, abs=0.05)


def test_failed_logins_come_from_owners_now_and_then_and_from_thieves_before_a_fraud(
    ask: Ask,
) -> None:
    stolen = "device IN (SELECT device FROM payments WHERE fraud_scenario = 3)"
    counted = "SELECT count(*) FROM events WHERE event_type = 'login_failed' AND"
    [(frauds,)] = ask("SELECT count(*) FROM payments WHERE fraud_scenario = 3")
    [(of_thieves,)], [(of_owners,)] = ask(f"{counted} {stolen}"), ask(f"{counted} NOT {stolen}")
    assert of_thieves == pytest.approx(1.5 * frauds, rel=0.1)
    assert of_owners == pytest.approx(5_000 * 0.02 * DAYS * 0.969, rel=0.1)
    [(alone,)] = ask(
        f"SELECT count(*) FROM events AS e WHERE event_type = 'login_failed' AND {stolen} "
        "AND NOT EXISTS (FROM payments AS p WHERE p.card = e.card AND p.device = e.device "
        "AND p.event_time - e.event_time BETWEEN INTERVAL 0 SECONDS AND INTERVAL 10 MINUTES)"
    )
    assert alone == 0
