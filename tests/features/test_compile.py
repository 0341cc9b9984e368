"""From the text of features to a plan: what is shared, what is refused, what a fingerprint says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.errors import ProjectError
from tidegate.features.binding import PARTS_MAX
from tidegate.features.compile import FeaturePlan
from tidegate.features.plan import Aggregate, Frame
from tidegate.features.statement import LENGTH_MAX
from tidegate.schema import Schema

from .shop import DAY, SECOND, SHOP, compiled

GOLDEN = Path(__file__).parent / "golden"
CASES = [
    case.partition("\n----\n") for case in (GOLDEN / "refused.txt").read_text().split("\n====\n")
]
HOUR = 3_600 * SECOND


@pytest.mark.parametrize(("sql", "shown"), [(c[0], c[2].strip("\n")) for c in CASES])
def test_a_mistake_is_shown_with_its_place_a_caret_and_a_hint(sql: str, shown: str) -> None:
    with pytest.raises(ProjectError) as caught:
        compiled(sql)
    assert str(caught.value) == shown


PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text("utf-8")
PAYMENTS = Schema.of(
    [
        *[("id", "text"), ("event_time", "timestamp"), ("event_type", "text"), ("card", "text")],
        *[("terminal", "text?"), ("amount", "decimal(10,2)"), ("is_fraud", "bigint?")],
    ],
    id="id",
    event_time="event_time",
)


def test_the_features_on_the_page_compile() -> None:
    text = PAGE.split("```sql\n")[1].split("```")[0]
    made = compiled(text, schema=PAYMENTS)
    assert types(made) == [
        *("bigint", "decimal(18,2)", "double", "bigint", "double", "double", "boolean")
    ]
    assert [e.plan.keys for e in made.entities] == [("card",), ("terminal",)]


def test_the_mistake_on_the_page_is_shown_as_it_is_there() -> None:
    ratio = "amount / nullif(avg(amount) OVER card, 0) AS amount_ratio"
    named = "card AS (PARTITION BY card ORDER BY event_time)"
    with pytest.raises(ProjectError) as caught:
        compiled(f"SELECT\n  n + 1 AS more,\n  {ratio}\nFROM events WINDOW {named}")
    assert f"```\n{caught.value}\n```" in PAGE


def plan(features: str, windows: str = "") -> FeaturePlan:
    """A plan over windows of a card: an hour (`h`), three rows (`r`), no frame (`o`)."""
    named = (
        "h AS (o RANGE INTERVAL 1 HOUR PRECEDING), r AS (o ROWS 2 PRECEDING EXCLUDE CURRENT ROW)"
    )
    ordered = "o AS (PARTITION BY card ORDER BY event_time)"
    return compiled(f"SELECT {features} FROM events WINDOW {ordered}, {named}{windows}")


def outputs(made: FeaturePlan) -> list[tuple[str, ...]]:
    return [entity.outputs for entity in made.entities]


def types(made: FeaturePlan) -> list[str]:
    return [str(feature.type) for feature in made.features]


def test_a_window_is_built_on_another_and_its_frame_is_in_microseconds_or_rows() -> None:
    made = plan("sum(n) OVER h AS a, sum(n) OVER r AS b")
    assert made.entities[0].plan.frames == (
        Frame(rows=False, start=HOUR, end=0),
        Frame(rows=True, start=2, end=0, exclude_current=True),
    )


@pytest.mark.parametrize(
    ("written", "start", "end"),
    [
        ("BETWEEN INTERVAL 37 DAYS PRECEDING AND INTERVAL 7 DAYS PRECEDING", 37 * DAY, 7 * DAY),
        ("BETWEEN INTERVAL '37 days' PRECEDING AND INTERVAL (7) DAY PRECEDING", 37 * DAY, 7 * DAY),
        ("between to_days(2) preceding and current row", 2 * DAY, 0),
        ("BETWEEN INTERVAL '1 day 2 hours' PRECEDING AND INTERVAL '1' HOUR PRECEDING",
         DAY + 2 * HOUR, HOUR),
        ("BETWEEN INTERVAL 1 HOUR + INTERVAL 30 MINUTES PRECEDING AND CURRENT ROW",
         HOUR + HOUR // 2, 0),
        ("BETWEEN CURRENT ROW AND CURRENT ROW", 0, 0),
    ],
)  # fmt: skip
def test_intervals_are_read_in_all_spellings(written: str, start: int, end: int) -> None:
    made = compiled(f"SELECT count(*) OVER (ORDER BY event_time RANGE {written}) AS a FROM events")
    assert made.entities[0].plan.frames == (Frame(rows=False, start=start, end=end),)
    assert made.entities[0].plan.keys == ()


def test_what_is_written_twice_is_computed_once() -> None:
    """Calls, values, filters and frames, by meaning and not by text."""
    made = plan(
        "sum(n) FILTER (WHERE Amount>5) OVER h AS a,"
        "sum(events.n) FILTER (amount > 5) OVER (PARTITION BY CARD ORDER BY event_time"
        " RANGE BETWEEN INTERVAL '60 minutes' PRECEDING AND CURRENT ROW) + 1 AS b,"
        "avg(n) FILTER (WHERE amount > 5) OVER r AS c"
    )
    [entity] = made.entities
    assert [c.aggregate for c in entity.plan.calls] == [Aggregate.AVG, Aggregate.SUM]
    assert (entity.plan.values, entity.plan.filters) == (("n",), ('("amount" > 5)',))
    assert made.features[1].columns == {made.features[0].column}


def test_plain_columns_and_calls_are_not_evaluated() -> None:
    """No expression stands before the windows, none after them."""
    made = plan("sum(n) OVER h AS a, lag(card) OVER o AS b, count(*) FILTER (WHERE ok) OVER r AS c")
    assert made.layers[0].hidden == ()
    assert [f.expression for f in made.features] == [None] * 3


def test_booleans_are_summed_without_an_expression() -> None:
    made = plan("sum(ok) OVER h AS a, count_if(ok) OVER h AS b")
    assert [h.expression for h in made.layers[0].hidden] == [None]
    assert outputs(made) == [("sum(bigint(ok)) over (card range 1 h to 0)",)]


def test_types_are_those_of_duckdb_within_what_a_column_holds() -> None:
    made = plan(
        "sum(n) OVER h AS s, sum(amount) OVER h AS m, avg(amount) OVER h AS a,"
        "min(amount) OVER h AS i, count(card) OVER h AS c, bool_or(ok) OVER h AS b,"
        "last_value(due) OVER h AS l, stddev(n) OVER h AS e, lag(card) OVER o AS g,"
        "max(DISTINCT d) OVER h AS x"
    )
    assert types(made) == [
        *("bigint", "decimal(18,2)", "double", "decimal(10,2)", "bigint", "boolean"),
        *("timestamp", "double", "text", "double"),
    ]


def test_an_interval_goes_out_as_seconds_and_stays_an_interval_for_other_features() -> None:
    made = plan("event_time - lag(event_time) OVER o AS gap, gap < INTERVAL 5 MINUTES AS quick")
    assert types(made) == ["double", "boolean"]


def test_a_default_of_lag_is_for_rows_that_do_not_exist() -> None:
    """A null there is not one: whether the row exists is asked for by itself."""
    made = plan("lag(n, 2, 0) OVER o AS a, lag(n, 2) OVER o AS b, lag(n, 0) OVER o AS c")
    calls = [(c.aggregate, c.offset) for c in made.entities[0].plan.calls]
    assert calls == [(Aggregate.LAG, 2), (Aggregate.LAG_EXISTS, 2)]
    assert made.features[2].column == "n"


def test_windows_over_windows_stand_in_a_later_layer() -> None:
    made = plan(
        "count(*) OVER h AS a, a * 2 AS b, max(b) OVER r AS c, sum(n) OVER h AS s,"
        "avg(n) OVER (PARTITION BY c ORDER BY event_time ROWS 1 PRECEDING) AS e"
    )
    assert [entity.layer for entity in made.entities] == [0, 1, 2]
    assert set(made.features[4].entities) == {("card",), (made.features[2].column,)}


def test_a_named_feature_may_be_used_in_any_case_and_only_quoted_exactly() -> None:
    made = plan('n * 2 AS Twice, TWICE + 1 AS more, "Twice" + 2 AS most')
    assert [f.name for f in made.features] == ["Twice", "more", "most"]
    with pytest.raises(ProjectError, match="there is no column `twice`"):
        plan('n * 2 AS Twice, "twice" + 1 AS more')


def test_features_that_name_each_other_cannot_blow_up() -> None:
    """Each uses the one before it twice: the twentieth would have a million parts."""
    chain = ["n * 2 AS f0", *(f"f{i} + f{i} AS f{i + 1}" for i in range(20))]
    with pytest.raises(ProjectError, match=f"more than {PARTS_MAX:,} parts"):
        plan(", ".join(chain))


def test_a_text_may_be_long_but_not_endless() -> None:
    with pytest.raises(ProjectError, match=f"at most {LENGTH_MAX} characters"):
        plan("n * 2 AS f0, " + " " * LENGTH_MAX)


def test_every_mistake_is_told_at_once_and_none_that_only_follows() -> None:
    """`b` is wrong because `a` is; it says nothing more."""
    with pytest.raises(ProjectError) as caught:
        plan("sum(amont) OVER h AS a, a + 1 AS b, rank() OVER h AS c, n + card AS d2")
    assert [p.column for p in caught.value.problems] == [12, 44, 64]


TERMINAL = "(PARTITION BY terminal ORDER BY event_time ROWS 1 PRECEDING)"
BASE = f"sum(n) OVER h AS a, count(*) OVER {TERMINAL} AS b"


def test_a_fingerprint_is_of_the_meaning() -> None:
    """Spelling, names of windows and order of clauses do not count."""
    spelled = BASE.replace(
        "sum(n) OVER h", "SUM( events.N ) OVER (o RANGE INTERVAL 60 MINUTES PRECEDING)"
    )
    assert plan(spelled).fingerprint == plan(BASE).fingerprint


def test_the_order_of_features_does_not_change_what_is_kept() -> None:
    before, after = (
        plan("sum(n) OVER h AS a, avg(d) OVER r AS b"),
        plan("avg(d) OVER r AS b, n AS m, sum(n) OVER h AS a"),
    )
    assert before.entities == after.entities
    assert before.fingerprint != after.fingerprint


def test_entities_keep_their_fingerprint_while_others_change() -> None:
    before, after = plan(BASE), plan(BASE.replace("sum(n)", "sum(n + 1)"))
    same = [
        a.fingerprint == b.fingerprint for a, b in zip(before.entities, after.entities, strict=True)
    ]
    assert same == [False, True]
    assert before.fingerprint != after.fingerprint


def test_a_new_scalar_changes_the_plan_and_no_entity() -> None:
    before, after = plan(BASE), plan(f"{BASE}, a + b AS c")
    assert before.fingerprint != after.fingerprint
    assert [e.fingerprint for e in before.entities] == [e.fingerprint for e in after.entities]


def test_the_type_of_a_column_behind_an_expression_is_part_of_the_meaning() -> None:
    text = (
        "SELECT count(CAST(n AS text)) OVER (ORDER BY event_time ROWS 1 PRECEDING) AS a FROM events"
    )
    other = Schema.of(
        [(c.name, "double?" if c.name == "n" else str(c)) for c in SHOP],
        id="id",
        event_time="event_time",
    )
    here, there = compiled(text), compiled(text, schema=other)
    assert here.entities[0].plan == there.entities[0].plan
    assert here.entities[0].fingerprint != there.entities[0].fingerprint


def test_what_is_left_to_rebuild_brings_along_what_it_is_computed_from() -> None:
    """A window of the second layer needs that of the first, even where that one is known."""
    made = plan(f"{BASE}, max(a) OVER (PARTITION BY ok ORDER BY event_time ROWS 3 PRECEDING) AS c")
    first, second, third = made.entities
    rest = made.without({first.fingerprint, second.fingerprint})
    assert (rest.entities, rest.features) == ((first, third), ())
    assert made.without({e.fingerprint for e in made.entities}).entities == ()


def test_lateness_and_look_back_go_into_the_plan() -> None:
    made = compiled("SELECT lag(n) OVER (ORDER BY event_time) AS a FROM events", lateness=5)
    assert made.entities[0].plan.lateness == 5
    assert made.entities[0].plan.reach == made.entities[0].plan.look_back == 4_000 * DAY
