"""Reports stand alone, show what data holds as text, and say what is missing."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

import tidegate
from tidegate.backtest import figures
from tidegate.backtest.result import Backtested
from tidegate.errors import InputError, RequestError

from .backtest_shop import CANDIDATE, build, labelled

EVIL = "<script>alert(1)</script>$\\frac{a}{b}$&\"'\x07\u0416\u4e2d"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Backtested:
    project = build(tmp_path_factory.mktemp("report") / "shop")
    labelled(project)
    file = project.root.with_name("candidate.toml")
    file.write_text(CANDIDATE)
    return tidegate.open(project.root).backtest(file)


class _Seen(HTMLParser):
    """The elements of a page, what they point at, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "action", "data")
        self.targets += [value or "" for name, value in attrs if name in names]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_stands_alone(found: Backtested, tmp_path: Path) -> None:
    found.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    seen = _Seen(page)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {*seen.tags}
    assert all(target.startswith("#") for target in seen.targets)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page
    assert seen.tags.count("svg") == 1
    (total,) = found.total.to_pylist()
    assert f"{total['newly_caught']:,}" in seen.text
    assert all(r["rule"] in seen.text for r in found.rules.to_pylist())
    assert all(str(day) in seen.text for day in found.days.column("day").to_pylist())
    assert all(text in seen.text for text in found.remarks)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_what_comes_from_data_is_text(found: Backtested, tmp_path: Path) -> None:
    names = pa.array([EVIL] * found.rules.num_rows)
    at = found.rules.schema.get_field_index("rule")
    rules = found.rules.set_column(at, "rule", names)
    evil = replace(
        found, candidate=EVIL, amount=EVIL, labels=EVIL, remarks=(EVIL,), rules=rules,
        current_version=EVIL,
    )  # fmt: skip
    evil.report(tmp_path / "report.html")
    evil.report(tmp_path / "report.png")
    seen = _Seen((tmp_path / "report.html").read_text())
    assert "script" not in seen.tags
    assert seen.text.count("<script>alert(1)</script>") >= 5 + found.rules.num_rows


def test_a_slide_has_the_size_of_a_screen(found: Backtested, tmp_path: Path) -> None:
    found.report(str(tmp_path / "slide.PNG"))
    content = (tmp_path / "slide.PNG").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == (1920, 1080)
    found.report(tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == content


@pytest.mark.parametrize("days", [[], [date(2023, 6, 8)]], ids=["no day", "one day"])
def test_few_days_can_be_shown_too(found: Backtested, tmp_path: Path, days: list[date]) -> None:
    rows = [r for r in found.days.to_pylist() if r["day"] in days]
    few = replace(found, days=pa.Table.from_pylist(rows, schema=found.days.schema))
    few.report(tmp_path / "few.png")
    few.report(tmp_path / "few.html")
    assert len(list(tmp_path.iterdir())) == 2


def test_many_rules_are_shown_by_what_they_change(found: Backtested, tmp_path: Path) -> None:
    many = replace(found, rules=pa.concat_tables([found.rules] * 20))
    many.report(tmp_path / "many.png")
    assert figures._weight(found.rules.to_pylist()[0]) > (0, 0)
    none = replace(found, rules=found.rules.slice(0, 0), remarks=())
    none.report(tmp_path / "none.png")
    none.report(tmp_path / "none.html")
    assert "None." in (tmp_path / "none.html").read_text()


def test_a_report_needs_a_known_ending_and_a_folder(found: Backtested, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ends in \.html or \.png"):
        found.report(tmp_path / "report.pdf")
    with pytest.raises(RequestError, match="No such file or directory"):
        found.report(tmp_path / "nowhere" / "report.html")


def test_without_matplotlib_the_extra_is_named(
    found: Backtested, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'tidegate\[report\]'"):
        found.report(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_is_loaded_for_reports_alone() -> None:
    code = "import sys, tidegate.workspace, tidegate.cli.app; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
