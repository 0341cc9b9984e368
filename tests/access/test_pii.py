"""Columns marked `pii`: what is hidden where, and that nothing of them leaks past it."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq
import pytest

import tidegate
from tidegate.access.pii import hidden, hidden_features, hiding_of
from tidegate.datafolder import DataFolder
from tidegate.errors import ProjectError, QueryError
from tidegate.hiding import Hiding
from tidegate.project import Project, load, version
from tidegate.pseudonyms import pseudonym
from tidegate.warehouse.query import query

SETTINGS = """
[stream]
id = "id"
event_time = "ts"
[stream.columns]
id = "text"
ts = "timestamp"
card = "bigint?{pii}"
mail = "text?{pii}"
amount = "double?"
[features]
sql = "features.sql"
[[windows]]
name = "by_card"
sql = "by_card.sql"
[sinks.all]
type = "objects"
from = "events"
url = "objects"
format = "capture"
path = "all/{{Namespace}}/{{EventHub}}/{{PartitionId}}/{{Year}}"
namespace = "n"
event_hub = "h"
[sinks.bad]
type = "objects"
from = "decisions"
actions = ["review"]
url = "objects"
format = "event"
path = "bad/card={{card}}"
every = "100 ms"
"""
FEATURES = """
SELECT count(*) OVER w AS n, lag(mail) OVER w AS last_mail, count(DISTINCT mail) OVER w AS mails
FROM events
WINDOW w AS (PARTITION BY card ORDER BY ts
             RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
"""
BY_CARD = """
SELECT card AS who, count(*) AS n, collect(mail) AS mails
FROM events TIMESTAMP BY ts GROUP BY card, TumblingWindow(minute, 1)
"""
RULES = """
[[rule]]
name = "big"
when = "amount > 100"
action = "review"
reason = "{amount} on card {card} of {mail}, before {last_mail}, {n} times"
"""
SECRETS = ("4711", "4712", "4713x", "a@x.org", "b@x.org")
EVENTS = [
    {"id": "e1", "ts": "2026-01-01T00:00:00Z", "card": 4711, "mail": "a@x.org", "amount": 50.0},
    {"id": "e2", "ts": "2026-01-01T00:00:30Z", "card": 4711, "mail": "b@x.org", "amount": 500.0},
    {"id": "e3", "ts": "2026-01-01T00:05:00Z", "card": 4712, "amount": 700.25, "more": [1.50]},
    {"id": "e4", "ts": "2026-01-01T00:05:00Z", "card": "4713x", "amount": 700.0},
]


def files(*, pii: str = " pii") -> dict[str, str]:
    return {
        "tidegate.toml": SETTINGS.format(pii=pii),
        "rules.toml": RULES,
        "features.sql": FEATURES,
        "by_card.sql": BY_CARD,
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with marked columns that has taken three events and what is none."""
    folder = tmp_path_factory.mktemp("shop")
    for name, text in files().items():
        (folder / name).write_text(text)
    (folder / "events.ndjson").write_text("\n".join(map(json.dumps, EVENTS)))
    taken = tidegate.open(folder).ingest([folder / "events.ndjson"])
    assert (taken.events, taken.dead_letters) == (3, 1)
    return load(folder)


@pytest.fixture(scope="module")
def hiding(shop: Project) -> Hiding:
    found = hiding_of(shop, folder=DataFolder(shop.data))
    assert found is not None
    return found


def test_a_mark_changes_the_version_as_it_changes_reasons() -> None:
    plain, marked = (Project.from_files(files(pii=p), root=Path()) for p in ("", " pii"))
    assert version(plain) != version(marked)
    assert marked.stream.schema.pii == {"card", "mail"}
    assert plain.stream.schema.pii == frozenset()


@pytest.mark.parametrize(("name", "role"), [("id", "stream's id"), ("ts", "event time")])
def test_the_id_and_the_event_time_cannot_be_marked(name: str, role: str) -> None:
    text = files()["tidegate.toml"]
    for kind in ("text", "timestamp"):
        text = text.replace(f'\n{name} = "{kind}"', f'\n{name} = "{kind} pii"')
    with pytest.raises(ProjectError) as caught:
        Project.from_files(files() | {"tidegate.toml": text}, root=Path())
    [problem] = caught.value.problems
    assert problem.message == f"`{name}` is the {role}: it cannot be `pii`"
    assert problem.line == text.split("\n").index(problem.text) + 1


@pytest.mark.parametrize("wrong", ["bigint pii?", "bigintpii", "pii", "bigint  PII"])
def test_a_mark_that_is_written_wrongly_is_refused_at_its_place(wrong: str) -> None:
    text = files()["tidegate.toml"].replace("bigint? pii", wrong)
    with pytest.raises(ProjectError, match=f"has an unknown type `{wrong.replace('?', '.')}`"):
        Project.from_files(files() | {"tidegate.toml": text}, root=Path())


def test_without_marks_nothing_is_hidden(tmp_path: Path) -> None:
    plain = Project.from_files(files(pii=""), root=Path())
    assert hiding_of(plain, folder=DataFolder(tmp_path)) is None


def test_the_marks_of_all_versions_count(tmp_path: Path, hiding: Hiding) -> None:
    plain, marked = (Project.from_files(files(pii=p), root=Path()) for p in ("", " pii"))
    both = hiding_of(plain, marked, folder=DataFolder(tmp_path))
    assert both is not None
    assert both.tables == hiding.tables


def test_what_carries_marked_values_is_known_by_table(hiding: Hiding) -> None:
    assert hiding.columns("events") == {"card", "mail"}
    assert hiding.columns("features") == {"last_mail"}
    assert hiding.columns("by_card") == {"who", "mails"}
    assert hiding.columns("dead_letters") == {"message", "record"}
    assert hiding.columns("decisions") == frozenset()
    assert hiding.columns("replay") == {"card", "mail", "last_mail", "feature_last_mail"}


TABLES = ("events", "features", "decisions", "dead_letters", "by_card")


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("table", TABLES)
def test_no_marked_value_is_in_what_a_query_gives(
    shop: Project, hiding: Hiding, table: str, guarded: bool
) -> None:
    tables = shop.data / "tables"
    found = query(tables, f"SELECT * FROM {table}", hiding=hiding, guarded=guarded).arrow()
    assert found.num_rows
    text = str(found.to_pylist())
    assert not [secret for secret in SECRETS if secret in text]
    assert "pii:" in text
    clear = str(query(tables, f"SELECT * FROM {table}").arrow().to_pylist())
    if table != "decisions":  # whose reasons say none to anybody
        assert [secret for secret in SECRETS if secret in clear]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT substr(mail, 1, 3) AS x FROM events",
        "SELECT DISTINCT e.card AS x FROM events AS e ORDER BY e.card",
        "SELECT string_agg(mail, ',') AS x FROM (SELECT mail FROM events)",
        "WITH c AS (SELECT card::VARCHAR AS x FROM events) SELECT x FROM c",
        "SELECT events AS x FROM events",
        "SELECT to_json(list(events)) AS x FROM events",
        "SELECT max(length(mail)) AS x FROM events",
    ],
)
def test_no_statement_gets_past_what_is_hidden(shop: Project, hiding: Hiding, sql: str) -> None:
    for guarded in (False, True):
        found = query(shop.data / "tables", sql, hiding=hiding, guarded=guarded).arrow()
        assert not [s for s in SECRETS if s in str(found.to_pylist())]
        if "length" in sql:
            assert found.to_pylist() == [{"x": 24}]


def test_rows_are_joined_and_grouped_by_pseudonyms(shop: Project, hiding: Hiding) -> None:
    sql = "SELECT card, count(*) AS n FROM events GROUP BY card ORDER BY n"
    [once, twice] = query(shop.data / "tables", sql, hiding=hiding).arrow().to_pylist()
    assert twice == {"card": pseudonym("4711", hiding.key), "n": 2}
    assert once == {"card": pseudonym("4712", hiding.key), "n": 1}
    joined = "SELECT DISTINCT who FROM by_card JOIN events ON who = card"
    [row] = query(shop.data / "tables", joined, hiding=hiding).arrow().to_pylist()
    assert row == {"who": twice["card"]}


def test_nobody_can_have_pseudonyms_made_by_a_guarded_statement(
    shop: Project, hiding: Hiding
) -> None:
    for number in range(20):
        sql = f"SELECT tidegate_hidden_{number}(4711), card FROM events"
        with pytest.raises(QueryError, match="is not taken here"):
            query(shop.data / "tables", sql, hiding=hiding, guarded=True)


def test_reasons_say_pseudonyms_and_replay_says_the_same(shop: Project, hiding: Hiding) -> None:
    sql = "SELECT event_id, rules FROM decisions ORDER BY log_offset"
    found = query(shop.data / "tables", sql).arrow().to_pylist()
    card, first, second = (pseudonym(t, hiding.key) for t in ("4711", "a@x.org", "b@x.org"))
    assert [r["reason"] for row in found for r in row["rules"]] == [
        f"500 on card {card} of {second}, before {first}, 2 times",
        f"700.25 on card {pseudonym('4712', hiding.key)} of unknown, before unknown, 1 times",
    ]
    tidegate.open(shop.root).replay(to="again")
    again = query(shop.data / "tables", "SELECT rules FROM again ORDER BY log_offset").arrow()
    assert again.column("rules").to_pylist() == [row["rules"] for row in found]
    assert tidegate.open(shop.root).verify().equal


@pytest.mark.parametrize("ending", ["parquet", "ndjson"])
def test_a_replay_to_a_file_says_pseudonyms_unless_it_is_asked_for_values(
    shop: Project, hiding: Hiding, ending: str, tmp_path: Path
) -> None:
    file, workspace = tmp_path / f"rows.{ending}", tidegate.open(shop.root)
    read = pq.read_table if ending == "parquet" else pa_json.read_json
    found = workspace.replay(to=file, clear=False)
    assert found.hidden == ("last_mail",)
    told = read(file)["last_mail"].to_pylist()
    assert told == [None, pseudonym("a@x.org", hiding.key), None]
    assert not [secret for secret in SECRETS if secret.encode() in file.read_bytes()]
    assert workspace.replay(to=file).hidden == ()
    assert read(file)["last_mail"].to_pylist() == [None, "a@x.org", None]
    # A table keeps the values, and queries hide them.
    assert workspace.replay(to="again", clear=False).hidden == ()
    sql = "SELECT last_mail FROM again WHERE last_mail IS NOT NULL"
    assert workspace.query(sql).arrow().to_pylist() == [{"last_mail": "a@x.org"}]
    [shown] = workspace.query(sql, clear=False).arrow().to_pylist()
    assert shown == {"last_mail": pseudonym("a@x.org", hiding.key)}


def test_a_feature_that_makes_way_for_another_column_is_hidden_by_its_new_name(
    tmp_path: Path,
) -> None:
    renamed = FEATURES.replace("last_mail", "score")
    rules = RULES.replace("last_mail", "score")
    texts = files() | {"features.sql": renamed, "rules.toml": rules}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "events.ndjson").write_text("\n".join(map(json.dumps, EVENTS)))
    workspace = tidegate.open(tmp_path)
    workspace.ingest([tmp_path / "events.ndjson"])
    file = tmp_path / "rows.ndjson"
    assert "feature_score" in workspace.replay(to=file, clear=False).hidden
    workspace.replay()
    sql = "SELECT feature_score AS s FROM replay WHERE feature_score IS NOT NULL"
    [shown] = workspace.query(sql, clear=False).arrow().to_pylist()
    assert shown["s"].startswith("pii:")
    assert not [secret for secret in SECRETS if secret.encode() in file.read_bytes()]


def test_the_values_of_an_entity_are_hidden_where_they_carry_marked_ones(
    shop: Project, hiding: Hiding
) -> None:
    workspace = tidegate.open(shop.root)
    [clear] = workspace.entity("card=4711").to_pylist()
    [shown] = workspace.entity("card=4711", clear=False).to_pylist()
    assert clear["last_mail"] == "b@x.org"
    assert shown == clear | {"last_mail": pseudonym("b@x.org", hiding.key)}


def test_batches_and_tables_of_any_chunks_are_hidden_alike(hiding: Hiding) -> None:
    columns: dict[str, list[Any]] = {"card": [4711, None], "n": [1, 2]}
    batch = pa.record_batch(columns)
    card = pseudonym("4711", hiding.key)
    expected = {"card": [card, None], "n": [1, 2]}
    assert hidden(batch, {"card", "nope"}, hiding.key).to_pydict() == expected
    twice = pa.Table.from_batches([batch, batch])
    assert hidden(twice, {"card"}, hiding.key).num_rows == 4
    nothing = hidden(twice.schema.empty_table(), {"card"}, hiding.key)
    assert nothing.schema.field("card").type == pa.string()


def delivered(shop: Project, folder: str) -> dict[str, bytes]:
    """The files that a sink has written, by their places below its folder."""
    root = shop.data / "objects" / folder
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_sinks_write_says_pseudonyms_in_rows_and_in_paths(
    shop: Project, hiding: Hiding
) -> None:
    written = delivered(shop, "bad")
    card = pseudonym("4711", hiding.key)
    [found] = [json.loads(text) for text in written.values() if b"e2" in text]
    assert (found["card"], found["mail"]) == (card, pseudonym("b@x.org", hiding.key))
    assert found["amount"] == 500
    assert any(card.removeprefix("pii:") in place for place in written)
    everything = str(written)
    assert not [secret for secret in SECRETS if secret in everything]


def test_captured_records_keep_every_byte_that_is_not_marked(shop: Project, hiding: Hiding) -> None:
    written = delivered(shop, "all").values()
    rows: list[Any] = [row for file in written for row in fastavro.reader(io.BytesIO(file))]
    bodies: list[bytes] = [row["Body"] for row in rows]
    by_id = {json.loads(body)["id"]: body for body in bodies}
    assert sorted(by_id) == ["e1", "e2", "e3"]
    card = pseudonym("4712", hiding.key)
    assert by_id["e3"].decode() == (
        f'{{"id":"e3","ts":"2026-01-01T00:05:00Z","card":"{card}","amount":700.25,"more":[1.5]}}'
    )
    assert not [s for s in SECRETS if s.encode() in b"".join(bodies)]


def test_features_of_one_event_are_hidden_by_name(hiding: Hiding) -> None:
    values = {"n": 2, "last_mail": "a@x.org", "mails": 1}
    mail = pseudonym("a@x.org", hiding.key)
    assert hidden_features(values, hiding) == {"n": 2, "last_mail": mail, "mails": 1}
    assert hidden_features({"last_mail": None}, hiding) == {"last_mail": None}
