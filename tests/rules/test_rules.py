"""Rules: which rows they hit, what they say, and where a mistake in them stands."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tidegate.decisions.decide import decide
from tidegate.decisions.whose import Whose
from tidegate.errors import Problem, ProjectError
from tidegate.program import Program
from tidegate.project.project import Project, load
from tidegate.tables import events_schema

SETTINGS = """
[stream]
id = "id"
event_time = "at"
[stream.columns]
id = "text"
at = "timestamp"
amount = "bigint?"
vip = "boolean?"
"""
BLANK = {"id": "e1", "at": 0, "ingest_time": 0, "source": "test", "log_offset": 0}
HUGE = 2**62


def program(rules: str) -> Program:
    files = {"tidegate.toml": SETTINGS, "rules.toml": rules}
    return Program.compile(Project.from_files(files, root=Path("shop")))


def rule(when: str, *, name: str = "r", action: str = "review", mode: str = "live") -> str:
    return (
        f"[[rule]]\nname = '{name}'\nwhen = '{when}'\naction = '{action}'\n"
        f"reason = 'Amount of {{amount}}'\nmode = '{mode}'\n"
    )


def decided(rules: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    made = program(rules)
    events = pa.RecordBatch.from_pylist(
        [BLANK | row for row in rows], schema=events_schema(made.schema)
    )
    hits = made.rules.evaluate(events)
    return decide(Whose.of(events, made.schema), hits, version="v", decided_at=0).rows.to_pylist()


def actions(rules: str, *rows: dict[str, Any]) -> list[str]:
    return [row["action"] for row in decided(rules, *rows)]


def told(rules: str, *rows: dict[str, Any]) -> list[list[tuple[str, str, str]]]:
    return [
        [(r["name"], r["action"], r["reason"]) for r in row["rules"]]
        for row in decided(rules, *rows)
    ]


@pytest.mark.parametrize("action", ["approve", "review", "block", "allow"])
@pytest.mark.parametrize("mode", ["live", "shadow", "off"])
def test_every_action_in_every_mode(action: str, mode: str) -> None:
    (row,) = decided(rule("amount > 5", action=action, mode=mode), {"amount": 9})
    is_decisive = mode == "live" and action in ("review", "block")
    assert row["action"] == (action if is_decisive else "approve")
    listed = {"name": "r", "action": action, "mode": mode, "reason": "Amount of 9"}
    assert row["rules"] == ([] if mode == "off" else [listed])


def test_rows_are_hit_one_by_one() -> None:
    rows = [{"amount": n} for n in (1, 9, None, 9, 5)]
    hit = [("r", "review", "Amount of 9")]
    assert told(rule("amount > 5"), *rows) == [[], hit, [], hit, []]


@pytest.mark.parametrize("when", ["NULL", "amount > 5", "vip", "NOT vip", "amount = NULL"])
def test_a_condition_that_is_null_hits_nothing(when: str) -> None:
    assert told(rule(when), {"amount": None, "vip": None}) == [[]]


def test_hits_are_listed_in_the_order_of_the_rules() -> None:
    rules = rule("amount > 5", name="b") + rule("amount > 1", name="a", action="block")
    assert [name for name, *_ in told(rules, {"amount": 9})[0]] == ["b", "a"]


def test_a_reason_without_columns_is_told_for_each_row_hit() -> None:
    rules = rule("amount > 5").replace("Amount of {amount}", "Too much")
    assert told(rules, *[{"amount": n} for n in (9, 1, 9)]) == [
        [("r", "review", "Too much")], [], [("r", "review", "Too much")],
    ]  # fmt: skip


# -- conditions that cannot be computed ------------------------------------------------------------


@pytest.mark.parametrize("action", ["approve", "review", "block", "allow"])
def test_who_provokes_an_overflow_is_reviewed_with_the_reason(action: str) -> None:
    (row,) = decided(rule("amount * amount > 5", action=action), {"amount": HUGE})
    assert row["action"] == "review"
    (hit,) = row["rules"]
    assert (hit["action"], hit["mode"]) == ("review", "live")
    assert hit["reason"].startswith("rule `r` could not be evaluated: ")
    assert "overflow" in hit["reason"]


def test_an_overflow_in_a_shadow_rule_is_told_and_changes_nothing() -> None:
    (row,) = decided(rule("amount * amount > 5", mode="shadow"), {"amount": HUGE})
    assert row["action"] == "approve"
    assert (row["rules"][0]["mode"], row["rules"][0]["action"]) == ("shadow", "review")


def test_an_overflow_in_one_row_leaves_the_others_as_they_are() -> None:
    rows = [{"amount": n} for n in (9, HUGE, 1)]
    first, second, third = told(rule("amount * amount > 5", action="block"), *rows)
    assert first == [("r", "block", "Amount of 9")]
    assert [(name, action) for name, action, _ in second] == [("r", "review")]
    assert third == []


def test_other_rules_decide_beside_one_that_cannot_be_computed() -> None:
    rules = rule("amount * amount > 5") + rule("amount > 5", name="hard", action="block")
    assert actions(rules, {"amount": HUGE}) == ["block"]


def test_an_overflow_in_a_reason_does_not_hide_the_hit() -> None:
    rules = rule("amount > 5").replace("{amount}", "{amount * amount}")
    assert told(rules, {"amount": HUGE}) == [[("r", "review", "Amount of unknown")]]


# -- mistakes, through a real folder ---------------------------------------------------------------


def mistakes(folder: Path, rules: str, *, settings: str = SETTINGS) -> list[Problem]:
    (folder / "tidegate.toml").write_text(settings)
    (folder / "rules.toml").write_text(rules)
    with pytest.raises(ProjectError) as error:
        Program.compile(load(folder))
    return list(error.value.problems)


def shown(problem: Problem) -> tuple[str, int, str]:
    """File, line, and what stands at the caret, to the end of the line."""
    line, caret = str(problem).splitlines()[1:3]
    return problem.file, problem.line, line[caret.index("^") :]


def test_a_mistake_in_a_condition_is_shown_at_its_place(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, "# rules\n" + rule("vip AND amout > 5"))
    assert shown(found) == ("rules.toml", 4, "amout > 5'")
    assert found.hint is not None
    assert "amount" in found.hint


def test_a_mistake_in_a_condition_of_many_lines_is_shown_at_its_place(tmp_path: Path) -> None:
    rules = rule("x").replace("'x'", '"""\nvip\n  AND amout > 5\n"""')
    (found,) = mistakes(tmp_path, rules)
    assert shown(found) == ("rules.toml", 5, "amout > 5")


def test_a_mistake_behind_an_escape_is_shown_at_its_place(tmp_path: Path) -> None:
    rules = rule("x").replace("'x'", r'''"id = '\u00e9\t' AND amout > 5"''')
    (found,) = mistakes(tmp_path, rules)
    assert shown(found) == ("rules.toml", 3, 'amout > 5"')


def test_a_mistake_in_a_hole_is_shown_at_its_place(tmp_path: Path) -> None:
    rules = rule("vip").replace("{amount}", "{amount} and {amout}")
    (found,) = mistakes(tmp_path, rules)
    assert shown(found) == ("rules.toml", 5, "amout}'")


def test_half_a_brace_is_shown_at_its_place(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, rule("vip").replace("{amount}", "{amount"))
    assert shown(found) == ("rules.toml", 5, "{amount'")
    assert found.hint is not None


def test_a_condition_that_is_no_condition_is_refused(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, rule("amount + 1"))
    assert shown(found)[:2] == ("rules.toml", 3)
    assert "boolean" in found.message


def test_mistakes_of_all_rules_are_told_in_order_rules_that_are_off_among_them(
    tmp_path: Path,
) -> None:
    rules = rule("amout > 1", mode="off") + rule("vp", name="s").replace("{amount}", "{amnt}")
    assert [(p.file, p.line) for p in mistakes(tmp_path, rules)] == [
        ("rules.toml", 3), ("rules.toml", 9), ("rules.toml", 11),
    ]  # fmt: skip


def test_mistakes_of_rules_and_window_queries_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "w.sql").write_text("SELECT count(*) AS n FROM events GROUP BY nope(at)")
    settings = SETTINGS + '[[windows]]\nname = "w"\nsql = "w.sql"\n'
    found = mistakes(tmp_path, rule("amout > 1"), settings=settings)
    assert [p.file for p in found] == ["rules.toml", "w.sql"]


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, rule("vip") + rule("amount > 1"))
    assert (found.file, found.line) == ("rules.toml", 8)
