"""`replay`, `verify` and `features` on the command line."""

import json
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

import tidegate
from payments import FEATURES, encoded, payments, write

from .command import Run


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "shop"
    write(folder)
    (folder / "day.ndjson").write_bytes(b"\n".join(encoded(payments(600))))
    tidegate.open(folder).ingest([folder / "day.ndjson"])
    return folder


@pytest.fixture
def shop(used: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(used, tmp_path / "shop"))


def test_check_counts_features_and_shows_their_mistakes(run: Run, shop: Path) -> None:
    assert "4 features, 2 rules" in run("check", shop).text
    write(shop).root.joinpath("features.sql").write_text(FEATURES.replace("avg(risk)", "avg(rsk)"))
    answer = run("check", shop)
    assert answer.code == 1
    assert "features.sql:3:" in answer.err
    assert "^" in answer.err
    assert "did you mean `risk`?" in answer.err


def test_replay_tells_rate_actions_and_hits(run: Run, shop: Path, tmp_path: Path) -> None:
    answer = run("replay", shop)
    assert answer.code == 0
    assert "600 events, " in answer.text
    assert "a second" in answer.text
    assert "written to replay" in answer.text
    rows = answer.text.partition("\n\n")[0].splitlines()[1:]
    counts = {(kind, name): int(count) for kind, name, count in map(str.split, rows)}
    sql = "SELECT action, count(*) AS n FROM replay GROUP BY 1"
    found = run("query", shop, sql, "--format", "json").out.splitlines()
    actions = {("decision", r["action"]): r["n"] for r in map(json.loads, found)}
    assert actions.items() <= counts.items()
    assert counts[("hit", "busy")] > 0


def test_replay_reads_and_writes_files(run: Run, shop: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.ndjson"
    answer = run("replay", shop, "--from", shop / "day.ndjson", "--to", target)
    assert answer.code == 0
    assert len(target.read_text().splitlines()) == 600
    answer = run("replay", shop, "--from", "nothing")
    assert (answer.code, "there is no table `nothing`" in answer.err) == (1, True)
    answer = run("replay", shop, "--to", "events")
    assert (answer.code, "cannot be written to `events`" in answer.err) == (1, True)


def test_verify_says_what_came_out_equal(run: Run, shop: Path) -> None:
    answer = run("verify", shop)
    assert answer.code == 0
    assert "600 rows of decisions and 600 rows of features came out equal" in answer.text
    assert "computed from the beginning of the log" in answer.text


def test_verify_ends_with_1_and_shows_both_values(run: Run, shop: Path) -> None:
    table = DeltaTable(str(shop / "data" / "tables" / "features"))
    table.update({"payments_1h": "payments_1h + 100"}, predicate="log_offset = 7")
    table.delete("log_offset = 9")
    answer = run("verify", shop)
    assert answer.code == 1
    lines = answer.text.splitlines()
    assert lines[2:4] == [
        "features: offset 7 id p6: payments_1h is 102",
        "  the log gives 2",
    ]
    assert lines[0] == "features: offset 9 id p8: the row is missing"
    assert lines[1].startswith('  the log gives {"event_id": "p8"')
    assert lines[-1].startswith("2 rows differ at offsets 0 to 601")


def test_verify_from_an_offset(run: Run, shop: Path) -> None:
    answer = run("verify", shop, "--from", 300)
    assert "300" in answer.text
    assert "301 rows of decisions" in answer.text
    assert run("verify", shop, "--from", 10**9).code == 1


def test_features_of_an_entity_in_any_format(run: Run, shop: Path) -> None:
    answer = run("features", shop, "--entity", "card=c1", "--entity", "shop=2", "--format", "json")
    first, second = (json.loads(line) for line in answer.out.splitlines())
    assert (first["entity"], second["entity"]) == ("card=c1", "shop=2")
    (wanted,) = tidegate.open(shop).entity("card=c1").to_pylist()
    assert first["payments_1h"] == wanted["payments_1h"]
    assert first["shop_risk"] is None
    assert second["payments_1h"] is None
    assert "payments_1h" in run("features", shop, "--entity", "card=c1").text


def test_features_explained(run: Run, shop: Path) -> None:
    answer = run("features", shop, "--explain")
    assert answer.code == 0
    assert "bytes a key" in answer.text
    assert "sum(amount) over (card range 1 h to 0)" in answer.text


def test_features_need_to_know_whose(run: Run, shop: Path) -> None:
    assert run("features", shop).code == 2
    answer = run("features", shop, "--entity", "crd=1")
    assert (answer.code, "did you mean `card`?" in answer.err) == (1, True)
