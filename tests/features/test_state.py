"""The features of a stream as it runs: errors, one entity's values, changing the features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidegate.errors import DamageError, RequestError
from tidegate.events.fingerprints import Integers
from tidegate.features.compile import FeaturePlan
from tidegate.features.sections import Buffer
from tidegate.features.state import Features, FeatureState
from tidegate.sql.columns import Column, Columns, Slab
from tidegate.sql.direct import Direct, Spread
from tidegate.sql.expression import ExpressionSet

from .shop import FIRST, SECOND, batch, compiled, micros, run

HOUR = "(PARTITION BY card ORDER BY event_time RANGE INTERVAL 1 HOUR PRECEDING)"
LAG = "(PARTITION BY card ORDER BY event_time)"
TERMINAL = "(PARTITION BY terminal ORDER BY event_time ROWS 9 PRECEDING)"
ALL = "(ORDER BY event_time RANGE INTERVAL 1 HOUR PRECEDING)"
KEY = bytes(16)
MAX = 2**63 - 1


def plan(features: str) -> FeaturePlan:
    return compiled(f"SELECT {features} FROM events")


def events(*rows: dict[str, Any]) -> pa.RecordBatch:
    """Events of one card, a second apart, unless they say otherwise."""
    return batch(
        [
            {"id": i, "event_time": FIRST + i * SECOND, "card": "a", **row}
            for i, row in enumerate(rows)
        ]
    )


def update(state: FeatureState, rows: pa.RecordBatch) -> Features:
    """Rows in event-time order, later than all before them."""
    return state.update(rows, newest=micros(rows))


def column(found: Features, name: str) -> list[Any]:
    values: list[Any] = found.values.column(name).to_pylist()
    return values


def test_values_have_the_schema_of_the_plan_in_the_order_written() -> None:
    made = plan(f"n AS number, sum(amount) OVER {HOUR} AS spent, n > 1 AS more, 7 AS seven")
    found = run(made, events({"n": 1, "amount": Decimal("1.50")}, {"n": 2, "amount": None}))
    assert found.values.schema == made.schema
    assert found.values.to_pylist() == [
        {"number": 1, "spent": Decimal("1.50"), "more": False, "seven": 7},
        {"number": 2, "spent": Decimal("1.50"), "more": True, "seven": 7},
    ]


def test_features_without_windows_need_no_state() -> None:
    made = plan("n * 2 AS twice")
    state = FeatureState(made, key=KEY)
    assert column(update(state, events({"n": 1}, {"n": 2})), "twice") == [2, 4]
    assert (made.layers, state.usage()) == ((), ())


def test_a_batch_without_events_has_no_features_and_their_schema() -> None:
    made = plan(f"sum(n + 1) OVER {HOUR} AS a, a + 1 AS b, lag(card) OVER {LAG} AS c")
    found = run(made, events())
    assert (found.values.num_rows, found.values.schema) == (0, made.schema)


def test_an_error_in_an_argument_is_one_of_every_feature_that_depends_on_it() -> None:
    """At that row; to later events the value is as if it were null."""
    made = plan(
        f"sum(n + 1) OVER {HOUR} AS s, s IS NULL AS missing, count(*) OVER {HOUR} AS c,"
        f"max(s) OVER {HOUR} AS m, c + 1 AS d1"
    )
    found = run(made, events({"n": 1}, {"n": MAX}, {"n": 3}))
    why = "integer overflow in `n + 1`"
    assert found.errors == {name: {1: why} for name in ("s", "missing", "m")}
    assert column(found, "s") == [2, None, 6]
    assert column(found, "missing") == [False, None, False]
    assert column(found, "m") == [2, None, 6]
    assert column(found, "d1") == [2, 3, 4]


def test_a_sum_that_does_not_fit_is_an_error_of_its_row() -> None:
    made = plan(f"sum(n) OVER {HOUR} AS s, s / 2 AS half")
    found = run(made, events({"n": MAX}, {"n": 1}, {"n": -1}))
    assert column(found, "s") == [MAX, None, MAX]
    assert list(found.errors["s"]) == list(found.errors["half"]) == [1]
    assert "bigint" in found.errors["s"][1]


def test_a_decimal_sum_holds_eighteen_digits() -> None:
    made = plan(f"sum(amount * 100000000000) OVER {HOUR} AS s")
    found = run(made, events({"amount": Decimal("60000.00")}, {"amount": Decimal("50000.00")}))
    assert (column(found, "s")[1], list(found.errors["s"])) == (None, [1])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_decimal_sum_of_nineteen_digits_is_an_error_whatever_its_sign(sign: int) -> None:
    made = plan(f"sum(amount * 100000000000) OVER {HOUR} AS s")
    most, least = sign * Decimal("60000.00"), sign * Decimal("39999.99")
    found = run(
        made, events({"amount": most}, {"amount": least}, {"amount": sign * Decimal("0.01")})
    )
    assert column(found, "s") == [most * 10**11, (most + least) * 10**11, None]
    assert list(found.errors["s"]) == [2]


def test_a_filter_or_key_that_fails_is_an_error_of_what_it_decides() -> None:
    made = plan(
        f"count(*) FILTER (WHERE n + 1 > 0) OVER {HOUR} AS f,"
        "count(*) OVER (PARTITION BY n + 1 ORDER BY event_time ROWS 9 PRECEDING) AS k,"
        f"count(*) OVER {HOUR} AS c"
    )
    found = run(made, events({"n": 1}, {"n": MAX}, {"n": 1}))
    assert {name: list(rows) for name, rows in found.errors.items()} == {"f": [1], "k": [1]}
    assert (column(found, "f"), column(found, "k")) == ([1, None, 2], [1, None, 2])
    assert column(found, "c") == [1, 2, 3]


def test_an_error_of_a_scalar_is_of_that_feature_alone() -> None:
    found = run(plan(f"n + 1 AS a, sum(n) OVER {HOUR} AS b"), events({"n": MAX}))
    assert (list(found.errors), column(found, "b")) == (["a"], [MAX])


def test_errors_are_of_the_row_in_its_batch() -> None:
    state = FeatureState(plan(f"sum(n + 1) OVER {HOUR} AS s"), key=KEY)
    rows = events({"n": 1}, {"n": MAX}, {"n": 2})
    assert update(state, rows.slice(0, 1)).errors == {}
    assert list(update(state, rows.slice(1, 2)).errors["s"]) == [0]


def test_at_most_one_evaluation_stands_before_a_layer_and_one_after_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain columns and calls are not evaluated at all."""
    calls: list[int] = []

    def counted(
        self: ExpressionSet, columns: Columns, spread: Spread | None
    ) -> list[tuple[Column, Mapping[int, str]]]:
        calls.append(len(self.expressions))
        return evaluate(self, columns, spread)

    def counted_few(self: Direct, rows: int, places: Integers, numbers: Integers) -> Slab:
        slab = run_by(self, rows, places, numbers)
        calls.append(len(slab.spans))
        return slab

    evaluate, run_by = ExpressionSet.columns, Direct.run_by
    monkeypatch.setattr(ExpressionSet, "columns", counted)
    monkeypatch.setattr(Direct, "run_by", counted_few)
    one = events({"n": 1, "ok": True})
    run(
        plan(f"sum(n) OVER {HOUR} AS a, count_if(ok) OVER {HOUR} AS b, lag(n) OVER {LAG} AS c"), one
    )
    assert calls == []
    two = f"sum(n + 1) OVER {HOUR} AS a, avg(n * 2) OVER {HOUR} AS b, max(a * 2) OVER {HOUR} AS c"
    run(plan(f"{two}, a + b AS s, c - a AS t"), one)
    assert calls == [2, 1, 2]
    many = one.take(np.zeros(5_000, dtype=np.int64))
    run(plan(f"{two}, a + b AS s, c - a AS t"), many)
    assert calls == [2, 1, 2] * 2


@pytest.mark.parametrize("n", [1, MAX])
def test_threads_change_no_bit_of_the_features_of_a_large_batch(n: int) -> None:
    """With nulls among the arguments, and where the sum of some row's has no value.

    Nor does what pages the state lies in.
    """
    made = plan(
        f"sum(n + 1) OVER {HOUR} AS s, coalesce(avg(n) OVER {HOUR}, 0) AS a, s IS NULL AS missing,"
        f"count(*) FILTER (WHERE card = 'a') OVER {ALL} AS c, upper(card) AS loud, n AS plain"
    )
    size = 40_000
    rows = events({"n": n}, {"n": None}, {"n": 2}).take(np.arange(size) % 3)
    times = np.maximum.accumulate(micros(rows))
    alone, several = (
        FeatureState(made, key=KEY, threads=t, lasting=t == 1).update(rows, newest=times)
        for t in (1, 3)
    )
    assert several.values.equals(alone.values)
    assert several.errors == alone.errors
    assert bool(several.errors) == (n == MAX)


LAYERED = (
    f"sum(n + 1) OVER {HOUR} AS s, count(*) OVER {TERMINAL} AS c, s - c AS rest,"
    f"max(s) OVER {TERMINAL} AS most, min(c) OVER {HOUR} AS least, least + most AS both"
)


def test_batches_that_are_begun_one_ahead_give_what_each_gives_when_it_is_waited_for() -> None:
    """Large ones and small ones, with windows over windows, and rows whose sum has no value."""
    made, size = plan(LAYERED), 23_000
    rows = events({"n": 1}, {"n": None, "card": "b"}, {"n": MAX, "terminal": 2}, {"n": 2})
    rows = rows.take(np.arange(size) ** 2 % 7 % 4)
    times = FIRST + np.arange(size) * SECOND - np.arange(size) % 3 * SECOND  # some are late
    rows = rows.set_column(1, "event_time", pa.array(times, pa.timestamp("us")))
    newest = np.maximum.accumulate(times)
    cuts = [0, 6_000, 12_000, 12_003, 18_000, size]
    batches = [(rows.slice(a, b - a), newest[a:b]) for a, b in pairwise(cuts)]
    waited = FeatureState(made, key=KEY)
    ahead = FeatureState(made, key=KEY, threads=3, lasting=False)
    followed = list(ahead.follow(batches))
    assert len(followed) == len(batches)
    for (events_, times), found in zip(batches, followed, strict=True):
        expected = waited.update(events_, newest=times)
        assert found.values.equals(expected.values)
        assert found.errors == expected.errors
        assert found.errors
    assert b"".join(ahead.snapshot()) == b"".join(waited.snapshot())


PEEKED = (
    f"count(*) OVER {HOUR} AS payments, sum(n) OVER {HOUR} AS total,"
    f"event_time - lag(event_time) OVER {LAG} AS gap, total / payments AS mean,"
    f"n - avg(n) OVER {HOUR} AS above, count(*) OVER {ALL} AS everyone,"
    "count(*) OVER (PARTITION BY terminal, card ORDER BY event_time ROWS 3 PRECEDING) AS both"
)


@pytest.fixture
def known() -> FeatureState:
    """Three payments of card a, the last at one terminal, and one of card b."""
    state = FeatureState(plan(PEEKED), key=KEY)
    rows = events({"n": 1}, {"n": 2}, {"n": 5, "terminal": 7}, {"n": 9, "card": "b"})
    update(state, rows)
    return state


def test_an_entity_is_seen_as_an_event_now_would_see_it(known: FeatureState) -> None:
    """Nothing is counted in; features that need other columns of the event are left out."""
    now = FIRST + 10 * SECOND
    for _ in range(2):
        found = known.peek({"card": "a"}, time=now, newest=now)
        assert found.values.to_pylist() == [
            {"payments": 3, "total": 8, "gap": 8.0, "mean": 8 / 3, "everyone": 4}
        ]


def test_more_columns_show_more_features(known: FeatureState) -> None:
    """Texts are read as the columns' types."""
    now = FIRST + 10 * SECOND
    found = known.peek({"card": "a", "terminal": "7", "n": "4"}, time=now, newest=now)
    assert (column(found, "both"), column(found, "above")) == ([1], [4 - 8 / 3])


def test_an_entity_never_seen_has_empty_windows(known: FeatureState) -> None:
    found = known.peek({"card": "never"}, time=FIRST, newest=FIRST + 3 * SECOND)
    assert (column(found, "payments"), column(found, "total")) == ([0], [None])


@pytest.mark.parametrize(
    ("entity", "message"),
    [
        ({"crad": "a"}, "there is no column `crad`"),
        ({"card": "a", "terminal": "x"}, "`terminal` is bigint, and 'x' is not"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(
    known: FeatureState, entity: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        known.peek(entity, time=FIRST, newest=FIRST)


def test_looking_up_by_a_column_that_no_window_is_kept_by_is_refused() -> None:
    state = FeatureState(plan(f"count(*) OVER {HOUR} AS c"), key=KEY)
    with pytest.raises(RequestError, match="no windows are kept by `n`; they are by `card`"):
        state.peek({"n": 1}, time=FIRST, newest=FIRST)


ROWS = [{"n": i % 7, "terminal": i % 3, "ok": i % 2 == 0} for i in range(60)]
BEFORE = f"sum(n) OVER {HOUR} AS a, count(*) OVER {TERMINAL} AS b"
AFTER = f"avg(n) OVER {HOUR} AS a, count(*) OVER {TERMINAL} AS b, max(b) OVER {HOUR} AS c"


def test_changed_features_take_over_what_means_the_same_and_rebuild_the_rest() -> None:
    """Nothing shows that they were not there from the start."""
    rows = events(*ROWS)
    past, future = rows.slice(0, 40), rows.slice(40)
    old = FeatureState(plan(BEFORE), key=KEY)
    update(old, past)
    made = plan(AFTER)
    rest = FeatureState(made.without({e.fingerprint for e in old.entities}), key=KEY)
    update(rest, past)
    new = FeatureState(made, key=KEY)
    missing = new.adopt(old)
    assert [e.plan.keys for e in missing] == [("card",), ("card",)]
    assert new.adopt(rest) == ()
    whole = run(made, rows).values.slice(40)
    assert update(new, future).values.equals(whole)


def test_a_state_that_was_not_taken_over_begins_empty() -> None:
    old = FeatureState(plan(BEFORE), key=KEY)
    update(old, events(*ROWS))
    new = FeatureState(plan(f"max(n) OVER {HOUR} AS m, count(*) OVER {TERMINAL} AS b"), key=KEY)
    assert [e.plan.keys for e in new.adopt(old)] == [("card",)]
    later = events({"n": 1, "terminal": 1, "event_time": FIRST + 90 * SECOND})
    assert update(new, later).values.to_pylist() == [{"m": 1, "b": 10}]


EVERYTHING = (
    f"{AFTER}, lag(card) OVER {LAG} AS d1, first_value(card) OVER {HOUR} AS e,"
    f"count(DISTINCT n) OVER {TERMINAL} AS f, stddev(n) OVER {HOUR} AS g, min(n) OVER {HOUR} AS h"
)


def cut(sections: Iterable[Buffer], size: int) -> list[bytes]:
    whole = b"".join(sections)
    return [whole[i : i + size] for i in range(0, len(whole), size)]


@pytest.mark.parametrize("at", [0, 1, 37, 60])
@pytest.mark.parametrize("size", [8, 4096, 1 << 30])
def test_what_is_restored_goes_on_as_if_nothing_had_happened(at: int, size: int) -> None:
    made, rows = plan(EVERYTHING), events(*ROWS)
    before = FeatureState(made, key=KEY)
    update(before, rows.slice(0, at))
    after = FeatureState(made, key=KEY)
    after.restore(cut(before.snapshot(), size))
    found = update(after, rows.slice(at)).values
    assert found.equals(run(made, rows).values.slice(at))


def test_a_snapshot_is_of_the_moment_it_was_asked_for() -> None:
    """It may be read after later events have come."""
    made, rows = plan(EVERYTHING), events(*ROWS)
    before = FeatureState(made, key=KEY)
    update(before, rows.slice(0, 30))
    sections = before.snapshot()
    update(before, rows.slice(30))
    after = FeatureState(made, key=KEY)
    after.restore(sections)
    assert update(after, rows.slice(30)).values.equals(run(made, rows).values.slice(30))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-8],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: whole + bytes(8),
        lambda whole: bytes(32) + whole[32:],
    ],
)
def test_a_torn_state_is_refused_and_changes_nothing(damage: Callable[[bytes], bytes]) -> None:
    made, rows = plan(EVERYTHING), events(*ROWS)
    state = FeatureState(made, key=KEY)
    update(state, rows.slice(0, 30))
    with pytest.raises(DamageError):
        state.restore([damage(b"".join(FeatureState(made, key=KEY).snapshot()))])
    assert update(state, rows.slice(30)).values.equals(run(made, rows).values.slice(30))


def test_the_state_of_other_features_is_refused() -> None:
    other = FeatureState(plan(BEFORE), key=KEY)
    with pytest.raises(DamageError, match=r"the state of windows [0-9a-f]{12} stands where"):
        FeatureState(plan(AFTER), key=KEY).restore(other.snapshot())


def test_what_no_window_reaches_is_freed_on_a_stream_that_stands_still() -> None:
    state = FeatureState(plan(f"count(*) OVER {HOUR} AS c"), key=KEY)
    update(state, events(*ROWS))
    state.expire(FIRST + 2 * 3_600 * SECOND)
    assert [(u.keys, u.rows) for u in state.usage()] == [(0, 0)]


def test_usage_tells_what_each_entity_holds() -> None:
    state = FeatureState(plan(BEFORE), key=KEY)
    update(state, events(*ROWS))
    used = state.usage()
    assert [(u.entity.plan.keys, u.keys, u.rows) for u in used] == [
        (("card",), 1, 60),
        (("terminal",), 3, 60),
    ]
    assert all(u.bytes >= u.keys * u.bytes_per_key + u.rows * u.bytes_per_row for u in used)


def test_times_may_come_from_a_column_that_cannot_be_written_to() -> None:
    rows = events({"n": 1}, {"n": 2})
    newest = micros(rows)
    newest.flags.writeable = False
    found = FeatureState(plan(f"sum(n) OVER {HOUR} AS s"), key=KEY).update(rows, newest=newest)
    assert column(found, "s") == [1, 3]
    assert np.array_equal(newest, micros(rows))
