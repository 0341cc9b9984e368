"""`tidegate keys` without a running server, and what the command line hides."""

import json
from pathlib import Path

import pytest

from tidegate.access.secret import parts

from .command import Run

SETTINGS = """
[stream]
id = "id"
event_time = "ts"
[stream.columns]
id = "text"
ts = "timestamp"
card = "bigint? pii"
[lists.blocked]
type = "bigint"
[features]
sql = "features.sql"
"""
FEATURES = """
SELECT count(*) OVER w AS n, max(card) OVER w AS card_before FROM events
WINDOW w AS (PARTITION BY card ORDER BY ts RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW)
"""


def test_keys_are_made_listed_and_revoked_without_a_server(run: Run, empty: Path) -> None:
    made = run("keys", empty, "add", "till", "--scope", "score", "--scope", "ingest")
    assert made.code == 0, made.err
    split = parts(made.text.strip().encode())
    assert split is not None
    assert "only time" in made.err
    listed = run("keys", empty, "list").text.splitlines()
    assert listed[1].split()[:5] == [split[0], "till", "ingest", "score", "active"]
    gone = run("keys", empty, "revoke", split[0])
    assert gone.code == 0, gone.err
    assert "revoked" in run("keys", empty, "list").text
    sql = "SELECT action, subject FROM audit WHERE action LIKE 'key.%' ORDER BY log_offset"
    rows = run("query", empty, sql, "--format", "csv").text.splitlines()
    assert rows[1:] == [f"key.add,{split[0]}", f"key.revoke,{split[0]}"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "till", "--scope", "nope"), "there is no scope `nope`"),
        (("add", "till", "--scope", "score", "--expires", "soon"), "`soon` is no expiry"),
        (("revoke", "nosuchon"), "there is no key `nosuchon`"),
    ],
)
def test_what_cannot_be_is_said_plainly(
    run: Run, empty: Path, words: tuple[str, ...], said: str
) -> None:
    answer = run("keys", empty, *words)
    assert answer.code == 1
    assert said in answer.err
    assert answer.out == b""


def test_a_key_needs_a_scope(run: Run, empty: Path) -> None:
    assert run("keys", empty, "add", "till").code == 2


@pytest.fixture
def marked(run: Run, tmp_path: Path) -> Path:
    """A project with a marked column that has taken an event and what is none."""
    folder = tmp_path / "marked"
    folder.mkdir()
    (folder / "tidegate.toml").write_text(SETTINGS)
    (folder / "features.sql").write_text(FEATURES)
    day = "2026-01-01T00:00:00Z"
    events = [{"id": "e1", "ts": day, "card": 4711}, {"id": "e2", "ts": day, "card": "4712x"}]
    (folder / "events.ndjson").write_text("\n".join(map(json.dumps, events)))
    assert run("ingest", folder, folder / "events.ndjson").code == 0
    return folder


def test_asking_before_anything_ran_makes_no_data_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_text(SETTINGS)
    (tmp_path / "features.sql").write_text(FEATURES)
    for words in (("query", "SELECT 1"), ("features", "--entity", "card=4711")):
        answer = run(words[0], tmp_path, *words[1:])
        assert answer.code == 1
        assert "has no tables yet" in answer.err
        assert not (tmp_path / "data").exists()


def test_marked_columns_are_hidden_unless_they_are_asked_for_in_clear(
    run: Run, marked: Path, tmp_path: Path
) -> None:
    sql = "SELECT card FROM events"
    hidden = run("query", marked, sql, "--format", "csv")
    assert hidden.text.splitlines()[1].startswith("pii:")
    assert "--clear" in hidden.err
    clear = run("query", marked, sql, "--format", "csv", "--clear")
    assert clear.text.splitlines()[1] == "4711"
    assert clear.err == ""
    file = tmp_path / "out.json"
    assert run("query", marked, sql, "--output", file).code == 0
    assert json.loads(file.read_text())["card"].startswith("pii:")


def test_dead_letters_of_marked_columns_are_hidden_as_well(run: Run, marked: Path) -> None:
    hidden = run("deadletters", marked, "show").text
    assert "4712x" not in hidden
    assert "│ pii:" in hidden
    assert "4712x" in run("deadletters", marked, "show", "--clear").text
    assert run("deadletters", marked, "resend").text.startswith("1 records sent again")


def test_values_on_lists_are_hidden_as_well(run: Run, marked: Path) -> None:
    put = run("list", "add", "blocked", "4711", "--project", marked)
    assert put.code == 0, put.err
    shown = run("list", "show", "blocked", "--project", marked)
    assert "4711" not in shown.text
    assert "pii:" in shown.text
    assert "--clear" in shown.err
    card = run("query", marked, "SELECT card FROM events", "--format", "csv").text.splitlines()[1]
    assert card in shown.text
    clear = run("list", "show", "blocked", "--project", marked, "--clear")
    assert "4711" in clear.text
    assert clear.err == ""


def test_what_a_replay_writes_to_a_file_and_an_entity_shows_is_hidden_as_well(
    run: Run, marked: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.ndjson"
    told = run("replay", marked, "--to", file)
    assert "pseudonyms stand in card_before; --clear writes the values" in told.err
    assert "card_before" not in run("replay", marked, "--to", file, "--clear").err
    values = ("features", marked, "--entity", "card=4711", "--format", "csv")
    assert run(*values).text.splitlines()[1].split(",")[-1].startswith("pii:")
    assert run(*values, "--clear").text.splitlines()[1].split(",")[-1] == "4711"
