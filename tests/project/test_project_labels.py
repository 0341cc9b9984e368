"""The column that takes labels: which can, and what is said of those that cannot."""

from pathlib import Path

import pytest

from tidegate.errors import ProjectError
from tidegate.project import Project

STREAM = """
[stream]
id = "id"
event_time = "at"
[stream.columns]
id = "text"
at = "timestamp"
is_fraud = "bigint?"
amount = "decimal(10,2)"
"""


def project(column: str) -> Project:
    text = f'{STREAM}[labels]\ncolumn = "{column}"\n'
    return Project.from_files({"tidegate.toml": text}, root=Path("shop"))


def test_a_column_of_the_stream_takes_labels() -> None:
    labels = project("is_fraud").labels
    assert (labels.column, labels.waiting_max) == ("is_fraud", 100_000)
    assert labels.waiting_time_us == 30 * 86_400_000_000


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("is_frod", "`column` names no column: `is_frod`"),
        ("id", "`id` tells events apart or when they were; it takes no labels"),
        ("at", "`at` tells events apart or when they were; it takes no labels"),
        ("amount", "`amount` takes labels: it must be one of `bigint`, `boolean`, `double`"),
    ],
)
def test_a_column_that_cannot_is_refused(column: str, message: str) -> None:
    with pytest.raises(ProjectError) as raised:
        project(column)
    (problem,) = raised.value.problems
    assert message in str(problem)
