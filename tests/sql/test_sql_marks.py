"""What carries values of marked columns on, and what only looks at them."""

import pytest
from sqlglot import expressions as exp

from tidegate.sql.marks import carrying
from tidegate.sql.parse import parse_select
from tidegate.sql.source import SourceText

WINDOW = " FROM events WINDOW w AS (PARTITION BY card ORDER BY at)"


def select(text: str) -> exp.Select:
    return parse_select(SourceText(f"SELECT {text} AS f{WINDOW}"), length_max=1_000)


@pytest.mark.parametrize(
    "text",
    [
        "card",
        "CARD",
        "lower(card) || '!'",
        "lag(card) OVER w",
        "first_value(card) OVER (PARTITION BY device ORDER BY at)",
        "max(card) OVER w",
        "coalesce(device, card)",
        "CASE WHEN amount > 5 THEN card END",
        "length(card)",
    ],
)
def test_what_computes_with_a_marked_column_carries_it(text: str) -> None:
    assert carrying(select(text), {"card"}) == {"f"}


@pytest.mark.parametrize(
    "text",
    [
        "amount",
        "count(card) OVER w",
        "count(DISTINCT card) OVER w",
        "card = '4711'",
        "card IS NULL",
        "card IN ('a', 'b')",
        "card LIKE 'a%'",
        "CASE WHEN card = 'x' THEN 1 ELSE 0 END",
        "sum(amount) OVER (PARTITION BY card ORDER BY at)",
        "sum(amount) FILTER (WHERE card <> device) OVER w",
    ],
)
def test_what_compares_counts_or_groups_by_it_does_not(text: str) -> None:
    assert carrying(select(text), {"card"}) == frozenset()


def test_what_uses_a_feature_that_carries_carries_as_well_in_any_order() -> None:
    text = "upper(last) AS loud, lag(card) OVER w AS last, loud = 'X' AS is_x"
    parsed = parse_select(SourceText(f"SELECT {text}{WINDOW}"), length_max=1_000)
    assert carrying(parsed, {"card"}) == {"loud", "last"}
