"""`backtest` on the command line."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

import tidegate
from payments import RULES, encoded, payments, write

from .command import Run

CANDIDATE = RULES.replace("0.55", "0.5")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backtest") / "shop"
    write(folder)
    (folder / "day.ndjson").write_bytes(b"\n".join(encoded(payments(4_000))))
    tidegate.open(folder).ingest([folder / "day.ndjson"])
    return folder


@pytest.fixture
def shop(used: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(used, tmp_path / "shop"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "candidate.toml").write_text(CANDIDATE)
    return tmp_path / "candidate.toml"


def test_the_figures_are_shown_as_tables(run: Run, shop: Path, file: Path) -> None:
    answer = run("backtest", shop, "--rules", file, "--label-column", "shop")
    assert answer.code == 0
    lines = [line.split() for line in answer.text.splitlines()]
    found = tidegate.open(shop).backtest(file, label_column="shop")
    (total,) = found.total.to_pylist()
    assert ["stopped", str(total["current_hits"]), str(total["candidate_hits"])] in lines
    caught = ["newly", "caught", str(total["newly_caught"]), str(total["amount_saved"])]
    assert caught in lines
    shown = {words[0]: words for words in lines if words}
    for row in found.rules.to_pylist():
        assert shown[row["rule"]][1:4] == [*row["change"].split(), row["action"], row["mode"]][:3]
    for row in found.days.to_pylist():
        assert shown[str(row["day"])][1:3] == [str(row["events"]), str(row["fraud"])]
    assert "4000 events: " in answer.text
    assert "column `shop` of the events" in answer.text


def test_json_has_all_of_it_in_one_object(run: Run, shop: Path, file: Path) -> None:
    answer = run("backtest", shop, "--rules", file, "--format", "json")
    found = json.loads(answer.out)
    assert found["total"]["events"] == 4_000
    assert {"rules", "days", "rules_by_day", "remarks", "labels"} < found.keys()
    assert sum(day["events"] for day in found["days"]) == 4_000
    assert found["remarks"][0].startswith("there are no labels")


def test_csv_has_a_line_for_each_day_and_rule(run: Run, shop: Path, file: Path) -> None:
    answer = run("backtest", shop, "--rules", file, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    scopes = [row["scope"] for row in rows]
    assert scopes.count("total") == 1
    assert {"total", "rule", "day", "rule_day"} == {*scopes}
    by_day = sum(int(r["candidate_hits"]) for r in rows if r["scope"] == "day")
    assert by_day == int(rows[0]["candidate_hits"]) > 0


def test_from_and_to_name_the_first_and_the_last_day(run: Run, shop: Path, file: Path) -> None:
    words = ("backtest", shop, "--rules", file, "--format", "json")
    found = json.loads(run(*words, "--from", "2023-06-08", "--to", "2023-06-08").out)
    assert [day["day"] for day in found["days"]] == ["2023-06-08"]
    assert run(*words, "--from", "2023-06-09", "--to", "2023-06-08").code == 2
    assert run(*words, "--from", "yesterday").code == 2


@pytest.mark.parametrize("name", ["report.html", "report.png"])
def test_a_report_is_written(run: Run, shop: Path, file: Path, tmp_path: Path, name: str) -> None:
    answer = run("backtest", shop, "--rules", file, "--report", tmp_path / name)
    assert answer.code == 0
    assert f"written to {tmp_path / name}" in answer.err
    assert (tmp_path / name).stat().st_size > 10_000


def test_mistakes_end_with_1_and_their_place(run: Run, shop: Path, file: Path) -> None:
    file.write_text(CANDIDATE.replace("shop_risk >", "shop_rsk >"))
    answer = run("backtest", shop, "--rules", file)
    assert answer.code == 1
    assert f"{file}:9:9: there is no column `shop_rsk`" in answer.err
    assert "hint: did you mean `shop_risk`?" in answer.err


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    run: Run, shop: Path, file: Path
) -> None:
    answer = run("backtest", shop, "--rules", file, "--report", "report.pdf")
    assert (answer.code, answer.out) == (1, b"")
    assert "ends in .html or .png" in answer.err
