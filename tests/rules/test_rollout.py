"""A rule rolled out to a share of the entities: stable, growing, and the same in every cut."""

import math
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.decisions.decide import decide
from tidegate.decisions.whose import Whose
from tidegate.errors import ProjectError
from tidegate.program import Program
from tidegate.rules.rollout import Rollout

SETTINGS = """
[stream]
id = "id"
event_time = "at"
[stream.columns]
id = "text"
at = "timestamp"
card = "text?"
store = "bigint?"
price = "decimal(9,2)?"
rate = "double?"
"""


def rule(share: str = "25 %", by: str = "card", *, name: str = "r", more: str = "") -> str:
    return (
        f'[[rule]]\nname = "{name}"\nwhen = "store > 0"\naction = "block"\n'
        'reason = "at {store}"\n'
        f'rollout = "{share}"\nrollout_by = "{by}"\n{more}'
    )


def program(rules: str) -> Program:
    return Program.of({"tidegate.toml": SETTINGS, "rules.toml": rules})


def batch(cards: list[str | None], stores: list[int]) -> pa.RecordBatch:
    n = len(cards)
    columns: dict[str, pa.Array[Any]] = {
        "id": pa.array([f"e{i}" for i in range(n)]),
        "at": pa.array([0] * n, pa.timestamp("us")),
        "card": pa.array(cards, pa.string()),
        "store": pa.array(stores, pa.int64()),
        "price": pa.nulls(n, pa.decimal128(9, 2)),
        "rate": pa.nulls(n, pa.float64()),
        "log_offset": pa.array(range(n), pa.int64()),
    }
    return pa.RecordBatch.from_pydict(columns)


def decided(made: Program, events: pa.RecordBatch) -> list[tuple[str, list[Any]]]:
    hits = made.rules.evaluate(events)
    rows = decide(Whose.of(events, made.schema), hits, version="v", decided_at=0).rows.to_pylist()
    return [(row["action"], row["rules"]) for row in rows]


@pytest.mark.parametrize("share", [0, 1, 10, 25, 50, 99, 100])
def test_the_share_of_entities_is_what_was_asked_for(share: int) -> None:
    """Within six standard deviations of the binomial distribution."""
    n, p = 20_000, share / 100
    chosen = Rollout("r", "card", Fraction(share, 100)).chosen(
        pa.array([f"card {i}" for i in range(n)])
    )
    assert abs(int(chosen.sum()) - n * p) <= 6 * math.sqrt(n * p * (1 - p))


@given(
    value=st.text() | st.integers(-(2**63), 2**63 - 1),
    low=st.fractions(0, 1),
    high=st.fractions(0, 1),
    name=st.text(max_size=100),
)
def test_a_larger_share_has_all_of_a_smaller_one(
    value: object, low: Fraction, high: Fraction, name: str
) -> None:
    low, high = sorted([low, high])
    if Rollout(name, "card", low).holds(value):
        assert Rollout(name, "card", high).holds(value)


def test_rules_choose_by_their_names_and_the_same_everywhere() -> None:
    cards = [f"c{i}" for i in range(2_000)]
    one, other = (Rollout(n, "card", Fraction(1, 2)) for n in ("one", "other"))
    both = sum(one.holds(c) and other.holds(c) for c in cards)
    assert 400 < both < 600  # a quarter: they do not choose alike
    # The highest bits as `printf 'one\\0c3' | b2sum -l 64` gives them.
    assert [one.holds(c) for c in ("c3", "c4", "c5", "c9")] == [True, False, True, False]


@given(
    cards=st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", None]), min_size=1, max_size=40),
    cut=st.integers(1, 7),
)
def test_a_decision_does_not_depend_on_the_cut_and_null_is_never_chosen(
    cards: list[str | None], cut: int
) -> None:
    made = program(rule("40 %"))
    events = batch(cards, [(i % 3) for i in range(len(cards))])
    whole = decided(made, events)
    parts = [d for i in range(0, len(cards), cut) for d in decided(made, events.slice(i, cut))]
    assert whole == parts
    chosen = Rollout("r", "card", Fraction(2, 5))
    for i, (card, (action, hits)) in enumerate(zip(cards, whole, strict=True)):
        if i % 3 == 0:
            assert (action, hits) == ("approve", [])
            continue
        live = card is not None and chosen.holds(card)
        mode = "live" if live else "shadow"
        assert hits == [{"name": "r", "action": "block", "mode": mode, "reason": f"at {i % 3}"}]
        assert action == ("block" if live else "approve")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (rule(by="crad"), r"rules.toml:7:15: `rollout_by` names no column: `crad`"),
        (rule(by="rate"), r"rules.toml:7:15: `rate` is double, which tells no entity from another"),
        (rule("a lot"), r"rules.toml:6:11: `rollout` must be a share"),
        (rule("101 %"), r"must be from 0 % to 100 %"),
        (rule().replace('rollout_by = "card"\n', ""), r"`rollout` needs `rollout_by` beside it"),
        (rule() + rule().replace('action = "block"', 'action = "block"\nmode = "shadow"'),
         r"`r` is rolled out, and elsewhere reports as a shadow rule itself"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(rules: str, said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        program(rules)


def test_a_shadow_rule_may_have_the_name_of_a_live_one_and_no_other() -> None:
    one = '[[rule]]\nname = "r"\nwhen = "store > 0"\naction = "block"\nreason = "x"\n'
    assert len(program(one + one + 'mode = "shadow"\n').rules.rules) == 2
    for two in (one + one, one + 'mode = "shadow"\n' + one + 'mode = "shadow"\n'):
        with pytest.raises(ProjectError, match="there are two"):
            program(two)


def test_a_rollout_is_part_of_the_version_and_none_changes_no_version() -> None:
    plain = rule().replace('rollout = "25 %"\nrollout_by = "card"\n', "")
    versions = {program(r).version for r in (plain, rule(), rule("26 %"), rule(by="store"))}
    assert len(versions) == 4
    assert program(rule("25.0 %")).version == program(rule()).version
