"""A project compiled: what rules may name, and every mistake of every part with its place."""

from pathlib import Path

import pyarrow as pa
import pytest

from tidegate.errors import ProjectError
from tidegate.program import Program
from tidegate.project.project import Project

SETTINGS = """
[stream]
id = "id"
event_time = "at"
[stream.columns]
id = "text"
at = "timestamp"
card = "text"
amount = "double?"
[features]
sql = "features.sql"
"""
FEATURES = """
SELECT count(*) OVER hour AS payments_1h, sum(amount) OVER hour / 2 AS half_1h FROM events
WINDOW hour AS (PARTITION BY card ORDER BY at
  RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW)
"""
RULE = """
[[rule]]
name = "busy"
when = "payments_1h > 3 AND amount > 100"
action = "review"
reason = "{payments_1h} payments and {half_1h} on card {card}"
"""


def program(*, settings: str = SETTINGS, features: str = FEATURES, rules: str = RULE) -> Program:
    files = {"tidegate.toml": settings, "rules.toml": rules, "features.sql": features}
    return Program.compile(Project.from_files(files, root=Path("shop")))


def mistakes(**texts: str) -> str:
    with pytest.raises(ProjectError) as error:
        program(**texts)
    return str(error.value)


def test_rules_use_features_by_name_beside_columns() -> None:
    made = program()
    (rule,) = made.rules.rules
    assert rule.when.columns == {"payments_1h", "amount"}
    assert rule.reason.columns == {"payments_1h", "half_1h", "card"}
    found = made.feature_schema
    assert found is not None
    assert (found.names, found.types) == (["payments_1h", "half_1h"], [pa.int64(), pa.float64()])


def test_a_project_without_features_has_none() -> None:
    plain = program(settings=SETTINGS.partition("[features]")[0], rules="")
    assert plain.features is None
    assert plain.feature_schema is None


def test_a_mistake_in_the_features_is_shown_in_their_file_with_a_hint() -> None:
    shown = mistakes(features=FEATURES.replace("sum(amount)", "sum(amont)"))
    assert shown.splitlines()[0].startswith("features.sql:2:")
    assert "^" in shown
    assert "did you mean `amount`?" in shown
    assert "rules.toml" not in shown  # whether they are right cannot be told yet


def test_a_name_that_is_no_feature_is_refused_in_the_rule() -> None:
    shown = mistakes(rules=RULE.replace("payments_1h > 3", "payments_1d > 3"))
    assert "rules.toml:4" in shown
    assert "did you mean `payments_1h`?" in shown


def test_a_feature_that_is_wrong_and_a_window_query_that_is_wrong_are_shown_together() -> None:
    with pytest.raises(ProjectError) as error:
        Program.of(
            {
                "tidegate.toml": SETTINGS + '[[windows]]\nname = "w"\nsql = "w.sql"\n',
                "features.sql": "SELECT nope AS a FROM events",
                "w.sql": "SELECT nope FROM events GROUP BY TumblingWindow(minute, 1)",
            }
        )
    assert {p.file for p in error.value.problems} == {"features.sql", "w.sql"}
