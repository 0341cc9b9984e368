"""What the page about Python shows is what happens."""

import doctest
from pathlib import Path

import pytest

from tidegate.project.examples import new

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
DAY = """\
{"id": "e1", "event_type": "sale_event", "ts": "2023-06-06T20:00:00Z", "store_id": 7, \
"discount": 60, "priority_shipping": true}
{"id": "e2", "event_type": "sale_event", "ts": "2023-06-06T20:00:01Z", "store_id": 7}
{"id": "e3", "event_type": "sale_event"}
"""


def test_its_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new(Path("shop"), example="store")
    Path("day.ndjson").write_text(DAY)
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried > 10
    assert failed == 0
