"""Lists in a running project: rules see each as it was, live, replayed and after a crash."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tidegate
from payments import FEATURES, NOON, SETTINGS, encoded, payments, table
from shops import copy_while_running
from tidegate.controls import ListRecord
from tidegate.errors import ProjectError, RequestError
from tidegate.lists.answers import ListAnswers
from tidegate.lists.desk import ListDesk
from tidegate.lists.history import Changes, ListColumns
from tidegate.pipeline import Pipeline
from tidegate.program import Program
from tidegate.project.project import Project, load
from tidegate.records import Records
from tidegate.tables import CONTROL_TABLES
from waiting import PATIENCE_SECONDS

LISTS = """
[lists.blocked]
type = "text"
description = "cards that may not pay"
[lists.shops]
type = "bigint"
"""
RULES = """
[[rule]]
name = "blocked"
when = "card IN LIST('blocked')"
action = "block"
reason = "card {card} is blocked"
[[rule]]
name = "elsewhere"
when = "shop + 1 NOT IN LIST('shops') AND payments_1h > 3"
action = "review"
reason = "shop {shop} is not known"
"""
STREAM = payments(3_000)

# What a rule must have hit, by the tables alone: the newest change before the event counts.
ORACLE = """
SELECT e.log_offset FROM events AS e ASOF JOIN (
  SELECT log_offset, value, change, until FROM list_changes WHERE list = 'blocked'
  ORDER BY log_offset
) AS c ON e.card = c.value AND e.log_offset > c.log_offset
WHERE c.change = 'add' AND (c.until IS NULL OR e.at < c.until)
ORDER BY e.log_offset
"""
HIT = """
SELECT log_offset FROM decisions
WHERE list_contains([r.name FOR r IN rules], 'blocked') ORDER BY log_offset
"""


def write(folder: Path, *, rules: str = RULES, lists: str = LISTS) -> Project:
    folder.mkdir(exist_ok=True)
    (folder / "tidegate.toml").write_text(SETTINGS + lists)
    (folder / "features.sql").write_text(FEATURES)
    (folder / "rules.toml").write_text(rules)
    return load(folder)


@contextmanager
def running(project: Project) -> Iterator[Pipeline]:
    pipeline = Pipeline(project).open(rebuild_beside=True)
    try:
        yield pipeline
    finally:
        pipeline.close()


def send(pipeline: Pipeline, first: int, until: int) -> None:
    pipeline.door.submit(Records.of(encoded(STREAM[first:until])), source="test")


def desk(pipeline: Pipeline) -> ListDesk:
    return ListDesk(pipeline.project, pipeline=pipeline)


def stir(pipeline: Pipeline, chance: random.Random, first: int, until: int) -> None:
    """Payments and changes of lists, mixed."""
    at_work = desk(pipeline)
    for place in range(first, until, 50):
        send(pipeline, place, place + 50)
        cards = chance.sample(["c1", "c2", "c3", "c4", "c5"], 2)
        end = (NOON + timedelta(seconds=20 * place + chance.randrange(4_000))).isoformat()
        match chance.randrange(4):
            case 0:
                at_work.add("blocked", cards, reason="stolen", author="ann")
            case 1:
                at_work.add("blocked", cards, until=end)
            case 2:
                at_work.remove("blocked", cards)
            case _:
                at_work.add("shops", [str(chance.randrange(6))])


def check(project: Project) -> None:
    shop = tidegate.open(project.root)
    hit = shop.query(HIT).arrow()["log_offset"].to_pylist()
    assert hit == shop.query(ORACLE).arrow()["log_offset"].to_pylist()
    assert hit
    assert (found := shop.verify()).equal, found.differences
    assert (whole := shop.reconcile()).equal, whole


def test_rules_see_lists_as_they_are_live_after_restarts_and_crashes(tmp_path: Path) -> None:
    chance = random.Random(5)
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        stir(pipeline, chance, 0, 1_000)
    with running(shop) as pipeline:  # from a snapshot
        stir(pipeline, chance, 1_000, 2_000)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        copy_while_running(pipeline, tmp_path / "crashed")
    for project in (shop, load(tmp_path / "crashed")):
        with running(project) as pipeline:
            stir(pipeline, random.Random(6), 2_000, 3_000)
        check(project)


def test_a_replay_over_the_events_gives_what_was_decided_and_over_files_what_lists_are_now(
    tmp_path: Path,
) -> None:
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        stir(pipeline, random.Random(7), 0, 1_500)
        desk(pipeline).remove("blocked", ["c1", "c2", "c3", "c4"])
        desk(pipeline).add("blocked", ["c5"])
    opened = tidegate.open(shop.root)
    opened.replay()
    columns = ["log_offset", "action", "rules"]
    again, live = (table(shop, name).select(columns) for name in ("replay", "decisions"))
    assert again.to_pylist() == live.to_pylist()
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(encoded(STREAM[:500])))
    opened.replay(file, to=tmp_path / "out.ndjson")
    rows = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    hit = {r["event_id"] for r in rows if any(h["name"] == "blocked" for h in r["rules"])}
    assert hit == {row["id"] for row in STREAM[:500] if row["card"] == "c5"}


def test_a_backtest_sees_lists_as_they_were(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop")
    with running(shop) as pipeline:
        stir(pipeline, random.Random(8), 0, 1_500)
    program = Program.compile(shop)
    query = "SELECT log_offset, list, change, value, until FROM list_changes ORDER BY log_offset"
    changes = Changes(tidegate.open(shop.root).query(query).arrow())
    columns = ListColumns(program.list_answers, program.lists, changes)
    events, hit = table(shop, "events"), []
    newest = -(2**62)
    for batch in events.to_batches(max_chunksize=170):
        times = batch["at"].cast(pa.int64()).to_numpy()
        after = np.maximum.accumulate(np.maximum(times, newest))
        beside = columns.beside(batch, event_time="at", newest=after)
        answers = beside["\"card\" IN LIST('blocked')"].to_pylist()
        hit += [o for o, a in zip(batch["log_offset"].to_pylist(), answers, strict=True) if a]
        newest = int(after[-1])
    assert hit == tidegate.open(shop.root).query(HIT).arrow()["log_offset"].to_pylist()
    assert columns.beside(events.to_batches()[0].slice(0, 0), event_time="at",
                          newest=np.empty(0, dtype=np.int64)).num_rows == 0  # fmt: skip


def test_a_value_that_cannot_be_computed_is_for_review_as_elsewhere(tmp_path: Path) -> None:
    rules = RULES.replace("shop + 1 NOT IN", "weight * weight * weight NOT IN").replace(
        " AND payments_1h > 3", ""
    )
    program = Program.compile(write(tmp_path / "shop", rules=rules))
    assert len(program.list_answers.questions) == 2
    with running(load(tmp_path / "shop")) as pipeline:
        send(pipeline, 0, 1_000)
    sql = "SELECT d.rules, e.weight FROM decisions d JOIN events e ON d.event_id = e.id"
    rows = tidegate.open(tmp_path / "shop").query(sql).arrow().to_pylist()
    large = [r["rules"] for r in rows if r["weight"] is not None and r["weight"] > 2**40]
    assert large
    for hits in large:
        told = [h["reason"] for h in hits if h["name"] == "elsewhere"]
        assert any("integer overflow" in reason for reason in told)


def test_what_people_do_is_shown_and_audited(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop")
    opened = tidegate.open(shop.root)
    opened.lists.add("shops", ["10", " 9", "+11"], until="2027-01-01", reason="new", author="ann")
    opened.lists.remove("shops", ["11"], author="bob")
    found = [(e.value, str(e.until), e.reason, e.author) for e in opened.lists.entries("shops")]
    assert found == [(v, "2027-01-01 00:00:00", "new", "ann") for v in ("9", "10")]
    audit = opened.query("SELECT action, subject, author FROM audit ORDER BY log_offset").arrow()
    assert [tuple(r.values()) for r in audit.to_pylist() if r["subject"] == "shops"] == [
        ("list.add", "shops", "ann"),
        ("list.remove", "shops", "bob"),
    ]


def test_a_file_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop")
    opened, file = tidegate.open(shop.root), tmp_path / "values.txt"
    file.write_text("".join(f"{n}\n\n" for n in range(25_000)) + "oops\n")
    with pytest.raises(RequestError, match=r"values.txt:50001: `oops` is no bigint"):
        opened.lists.load("shops", file)
    assert opened.lists.entries("shops") == []
    file.write_text("".join(f"{n}\n" for n in range(25_000)))
    seen: list[tuple[int, int]] = []
    done = opened.lists.load("shops", file, progress=lambda *step: seen.append(step))
    assert (done.values, seen[-1]) == (25_000, (25_000, 25_000))
    assert [e.value for e in opened.lists.entries("shops")] == [str(n) for n in range(25_000)]
    records = opened.query("SELECT count(DISTINCT log_offset) AS n FROM list_changes").arrow()
    assert records["n"].to_pylist() == [3]


def test_mistakes_change_nothing(tmp_path: Path) -> None:
    opened = tidegate.open(write(tmp_path / "shop").root)
    with pytest.raises(RequestError, match="no list `blokced`; did you mean `blocked`"):
        opened.lists.add("blokced", ["x"])
    with pytest.raises(RequestError, match="shops: `x` is no bigint"):
        opened.lists.add("shops", ["1", "x"])
    with pytest.raises(RequestError, match="`until` is `soon`"):
        opened.lists.add("shops", ["1"], until="soon")
    with pytest.raises(RequestError, match="no value"):
        opened.lists.remove("shops", [])
    assert not (opened.project.data / "tables" / "list_changes").exists()


@pytest.mark.parametrize(
    ("lists", "rules", "said"),
    [
        (LISTS, RULES.replace("'blocked'", "'blokced'"),
         r"rules.toml:4:17: there is no list `blokced`\n.*\n.*\n    hint: did you mean `blocked`"),
        ("", RULES, r"there is no list `blocked`\n.*\n.*\n    hint: declare it in tidegate.toml"),
        (LISTS, RULES.replace("{card} is", "{card IN LIST('blocked')} is"), "can only be asked"),
        (LISTS.replace('"bigint"', '"bigint?"'), RULES, "`type` must be a type alone"),
        (LISTS.replace('"bigint"', '"number"'), RULES, "`type` has an unknown type `number`"),
        (LISTS.replace("lists.shops", "lists.Shops"), "", "`Shops` is no name for a list"),
    ],
)  # fmt: skip
def test_mistakes_in_files_are_told_with_their_place(
    tmp_path: Path, lists: str, rules: str, said: str
) -> None:
    with pytest.raises(ProjectError, match=said):
        Program.compile(write(tmp_path / "shop", lists=lists, rules=rules))


def test_features_and_window_queries_cannot_ask(tmp_path: Path) -> None:
    shop = write(tmp_path / "shop")
    text = FEATURES.replace("avg(risk)", "avg(risk) FILTER (WHERE card IN LIST('blocked'))")
    (shop.root / "features.sql").write_text(text)
    with pytest.raises(ProjectError, match=r"features.sql:3:\d+: lists can only be asked for in"):
        Program.compile(load(shop.root))


def test_changes_are_cut_where_they_lie() -> None:
    rows: list[dict[str, Any]] = [
        {"log_offset": o, "list": "l", "change": "add", "value": v, "until": None,
         "at": NOON, "reason": "", "author": ""}
        for o, v in [(0, "a"), (5, "b"), (5, "c"), (9, "d"), (30, "e")]
    ]  # fmt: skip
    schema = CONTROL_TABLES["list_changes"]
    stored = pa.schema([f.with_nullable(nullable=True) for f in schema])
    changes = Changes(pa.Table.from_pylist(rows, schema=stored))
    events = pa.RecordBatch.from_pydict({"log_offset": pa.array([1, 2, 6, 10, 11], pa.int64())})
    found = [
        ([c.values for c in before], part["log_offset"].to_pylist())
        for before, part in changes.cut(events)
    ]
    assert found == [([("a",)], [1, 2]), ([("b", "c")], [6]), ([("d",)], [10, 11])]
    assert isinstance(next(iter(changes.before(31))), ListRecord)
    assert ListAnswers([]).questions == ()
