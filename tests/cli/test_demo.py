"""The demonstration, small: what it prints is what the tables hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tidegate
from waiting import PATIENCE_SECONDS

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "store"


@pytest.fixture(scope="module")
def report(folder: Path) -> str:
    command = [sys.executable, str(DEMO), str(folder), "--count", "3000"]
    done = subprocess.run(
        command, capture_output=True, timeout=4 * PATIENCE_SECONDS, check=False, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def counts(report: str, title: str, *, column: int = -1) -> dict[str, int]:
    section = report.split(f"\n{title}", 1)[1].split("\n\n", 1)[0]
    rows = [re.split(r" {2,}", line.strip()) for line in section.splitlines()[2:]]
    return {row[0]: int(row[column]) for row in rows}


def test_its_numbers_are_those_of_the_tables(report: str, folder: Path) -> None:
    shop = tidegate.open(folder)

    def ask(sql: str) -> dict[str, int]:
        return {r["k"]: r["n"] for r in shop.query(sql).arrow().to_pylist()}

    by_action = "SELECT action AS k, count(*) AS n FROM decisions GROUP BY 1"
    by_reason = "SELECT reason AS k, count(*) AS n FROM dead_letters GROUP BY 1"
    assert counts(report, "Decisions by action") == ask(by_action)
    assert counts(report, "Dead letters by reason") == ask(by_reason)
    came = counts(report, "What came in")
    assert came["events"] == sum(ask(by_action).values())
    assert sum(came.values()) == 3_000
    assert counts(report, "Rules that hit", column=3)["deep_discount_rush"] > 50


def test_all_is_accounted_for_sinks_included(report: str) -> None:
    assert "nothing is missing" in report
    assert re.search(r"^ok  sink fraud +[1-9]\d*  ", report, re.MULTILINE)
    assert "!!" not in report


def test_no_line_is_broken_and_none_has_blanks_at_its_end(report: str) -> None:
    assert all(line == line.rstrip() for line in report.splitlines())
    assert "\x1b" not in report
