"""Replay gives what was decided live, bit for bit, from whatever history it reads."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tidegate
from payments import MORE_FEATURES, RULES, bits, encoded, in_one_go, payments, table, write
from tidegate import past, targets
from tidegate import replay as replaying
from tidegate.errors import InputError, RequestError
from tidegate.workspace import Workspace

EVENTS = payments(1_500)
DECIDED = ["event_id", "event_time", "action", "rules", "version", "log_offset"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay") / "shop"
    write(folder)
    source = folder / "day.ndjson"
    source.write_bytes(b"\n".join([*encoded(EVENTS[:800]), b"{", *encoded(EVENTS[800:])]))
    tidegate.open(folder).ingest([source])
    return folder


@pytest.fixture
def shop(folder: Path) -> Iterator[Workspace]:
    yield tidegate.open(folder)
    write(folder)


def test_a_replay_of_the_events_is_what_was_decided_live(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "BATCH_ROWS", 170)
    monkeypatch.setattr(past, "ROWS", 170)
    told: list[tuple[int, int]] = []
    found = shop.replay(progress=lambda done, total: told.append((done, total)))
    assert (found.events, found.target, found.version) == (1_500, "replay", found.version)
    again, features = table(shop.project, "replay"), table(shop.project, "features")
    assert bits(again.select(features.column_names)) == bits(features)
    decisions = table(shop.project, "decisions").select(DECIDED)
    assert bits(again.select(DECIDED)) == bits(decisions)
    assert told[-1] == (1_502, 1_502)
    assert len(told) > 5


def test_a_replay_counts_actions_and_the_events_that_rules_hit(shop: Workspace) -> None:
    found = shop.replay(to=None)
    sql = "SELECT action, count(*) AS n FROM decisions GROUP BY 1"
    actions = shop.query(sql).arrow().to_pylist()
    assert found.actions == {row["action"]: row["n"] for row in actions}
    sql = "SELECT r.name, count(*) AS n FROM (SELECT unnest(rules) AS r FROM decisions) GROUP BY 1"
    hits = {row["name"]: row["n"] for row in shop.query(sql).arrow().to_pylist()}
    assert found.rules == hits
    assert set(hits) == {"busy", "risky_shop", "squares"}  # one could not be computed at times
    assert found.target == ""


def test_files_take_the_rows_too(shop: Workspace, tmp_path: Path) -> None:
    shop.replay()
    wanted = table(shop.project, "replay")
    shop.replay(to=tmp_path / "out.parquet")
    assert bits(pq.read_table(tmp_path / "out.parquet")) == bits(wanted)
    shop.replay(to=str(tmp_path / "out.ndjson"))
    lines = pa.table({"line": (tmp_path / "out.ndjson").read_text().splitlines()})
    assert lines.num_rows == 1_500
    assert '"event_id":"p0"' in lines["line"][0].as_py()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.ndjson", "out.parquet"]


def test_history_from_files_gives_the_same_features(shop: Workspace, tmp_path: Path) -> None:
    wanted = bits(table(shop.project, "features"), without=["log_offset"])
    parts = [tmp_path / "a.ndjson", tmp_path / "b.parquet"]
    parts[0].write_bytes(b"\n".join([b"{", *encoded(EVENTS[:700])]))
    events = table(shop.project, "events").drop_columns(["extra", "source"])
    pq.write_table(events.slice(700), parts[1])
    found = shop.replay(parts, to=tmp_path / "out.parquet")
    names = table(shop.project, "features").column_names
    rows = pq.read_table(tmp_path / "out.parquet").select(names)
    assert bits(rows, without=["log_offset"]) == wanted
    assert rows["log_offset"].to_pylist() == list(range(1_500))
    assert (found.events, found.refused) == (1_500, 1)


def test_features_that_nobody_has_run_yet_are_replayed(shop: Workspace) -> None:
    project = write(shop.project.root, features=MORE_FEATURES, rules=RULES.replace("0.55", "0.5"))
    found = tidegate.open(project.root).replay(to="tried")
    wanted = in_one_go(project)
    assert bits(table(project, "tried").select(wanted.column_names)) == bits(wanted)
    assert (
        found.actions["block"] > tidegate.open(write(project.root).root).replay().actions["block"]
    )


def test_a_table_that_a_replay_made_can_be_replayed_over(shop: Workspace) -> None:
    shop.replay(to="again")
    before = bits(table(shop.project, "again"))
    shop.replay("events", to="again")
    assert bits(table(shop.project, "again")) == before
    assert not list(shop.project.data.glob("*.replay.*"))


@pytest.mark.parametrize("name", ["events", "features", "Tried", "a b", "out.csv", "x/y.txt"])
def test_a_place_that_cannot_be_written_to_is_refused(shop: Workspace, name: str) -> None:
    with pytest.raises(RequestError):
        shop.replay(to=name)


def test_a_table_that_no_replay_made_is_let_alone(shop: Workspace) -> None:
    shop.replay(to="mine")
    (shop.project.data / "tables" / "mine" / targets._MARK).unlink()
    with pytest.raises(RequestError, match="`mine` is a table that no replay has made"):
        shop.replay(to="mine")


def test_a_replay_that_fails_leaves_what_was_there(shop: Workspace, tmp_path: Path) -> None:
    shop.replay()
    before = bits(table(shop.project, "replay"))
    broken = tmp_path / "broken.parquet"
    pq.write_table(pa.table({"id": ["p1"], "at": ["yesterday"], "shop": [1]}), broken)
    with pytest.raises(InputError, match="column `at` holds string"):
        shop.replay([broken])
    pq.write_table(pa.table({"id": ["p1"], "at": ["2023-06-07"]}), broken)
    with pytest.raises(InputError, match="no column `shop`, bigint is expected"):
        shop.replay([broken], to=tmp_path / "out.parquet")
    assert bits(table(shop.project, "replay")) == before
    assert [p.name for p in tmp_path.iterdir()] == ["broken.parquet"]


def test_a_source_that_is_not_there_is_named(shop: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no table `evnts`"):
        shop.replay("evnts")
    with pytest.raises(RequestError, match=r"none\.ndjson: No such file"):
        shop.replay([tmp_path / "none.ndjson"])
