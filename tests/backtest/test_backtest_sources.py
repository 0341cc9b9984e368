"""What a backtest reads: labels, amounts and features, and what it says where some are missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

import tidegate
from payments import FEATURES, MORE_FEATURES, SETTINGS
from tidegate.backtest import backtest as running
from tidegate.backtest.amounts import Amounts
from tidegate.backtest.history import places
from tidegate.backtest.labels import FRAUD, LEGITIMATE, UNLABELLED, ColumnLabels
from tidegate.errors import InputError, ProjectError, RequestError, TransientError
from tidegate.program import Program
from tidegate.project.project import Project, load
from tidegate.schema import Schema
from tidegate.warehouse.layout import layouts
from tidegate.warehouse.table import Table
from tidegate.workspace import Workspace

from .backtest_shop import CANDIDATE, COUNT, build, label, rule


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return build(tmp_path_factory.mktemp("sources") / "shop")


@pytest.fixture
def shop(built: Project, tmp_path: Path) -> Workspace:
    """A copy of the project that a test may spoil."""
    return tidegate.open(shutil.copytree(built.root, tmp_path / "shop"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "candidate.toml").write_text(CANDIDATE)
    return tmp_path / "candidate.toml"


def remarks(shop: Workspace, file: Path, **more: Any) -> str:
    return "\n".join(shop.backtest(file, **more).remarks)


# -- mistakes --------------------------------------------------------------------------------------


def test_mistakes_of_the_candidate_are_shown_with_their_places(shop: Workspace, file: Path) -> None:
    file.write_text(CANDIDATE.replace("weight * weight", "weigt").replace("shop_risk", "shop_rsk"))
    with pytest.raises(ProjectError) as caught:
        shop.backtest(file)
    places = [(p.file, p.line, p.column, p.hint) for p in caught.value.problems]
    assert places == [
        (str(file), 9, 9, "did you mean `shop_risk`?"),
        (str(file), 19, 9, "did you mean `weight`?"),
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[[rule]\n", b"[[rules]]\n", b" " * (2 << 20)])
def test_a_file_that_holds_no_rules_is_refused(shop: Workspace, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ProjectError, match=f"{file}:1:"):
        shop.backtest(file)


def test_a_file_that_is_not_there_is_named(shop: Workspace, file: Path) -> None:
    with pytest.raises(ProjectError, match=r"none\.toml:1:1: cannot be read: no such file"):
        shop.backtest(file.with_name("none.toml"))


def test_a_project_in_which_nothing_ran_has_nothing_to_look_at(shop: Workspace, file: Path) -> None:
    shutil.rmtree(shop.project.data)
    with pytest.raises(InputError, match="has no tables yet"):
        shop.backtest(file)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"amount": "amont"}, "no column `amont`; did you mean `amount`"),
        ({"amount": "card"}, "column `card` is text"),
        ({"label_column": "at"}, "column `at` is timestamp"),
        ({"label_column": "fraud"}, "the events have no column `fraud`"),
        ({"features": "nowhere"}, "feature `payments_1h`, but there is no table `nowhere`"),
    ],
)
def test_a_column_or_table_that_is_not_there_is_refused(
    shop: Workspace, file: Path, more: dict[str, str], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        shop.backtest(file, **more)  # type: ignore[arg-type] # each by its name


def test_too_many_hits_to_list_are_refused(
    shop: Workspace, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "HITS_MAX", 10)
    with pytest.raises(RequestError, match="more than 10 hits"):
        shop.backtest(file, with_hits=True)
    assert shop.backtest(file).hits is None


def test_changed_events_are_listed_up_to_a_limit(
    shop: Workspace, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shop.backtest(file)
    assert whole.changed.num_rows == whole.changed_events > 10
    monkeypatch.setattr(running, "CHANGED_MAX", 10)
    some = shop.backtest(file)
    assert (some.changed.num_rows, some.changed_events) == (10, whole.changed_events)


# -- features --------------------------------------------------------------------------------------


def _with_more_features(shop: Workspace) -> Workspace:
    (shop.project.root / "features.sql").write_text(MORE_FEATURES)
    return Workspace(load(shop.project.root))


def test_features_that_were_never_stored_are_asked_for(shop: Workspace, file: Path) -> None:
    shop = _with_more_features(shop)
    file.write_text(rule("r", "riskiest > 0.99"))
    with pytest.raises(RequestError, match=r"the table `features` does not have.* `--replay`"):
        shop.backtest(file)


@pytest.mark.parametrize("how", ["anew", "from a table"])
def test_features_that_were_never_stored_can_be_replayed(
    shop: Workspace, file: Path, how: str
) -> None:
    shop = _with_more_features(shop)
    file.write_text(rule("r", "riskiest > 0.99"))
    (again := shop.replay(to="tried"))
    more: dict[str, Any] = {"with_replay": True} if how == "anew" else {"features": "tried"}
    found = shop.backtest(file, with_hits=True, **more)
    assert not [r for r in found.remarks if "labels" not in r]  # checked against the replay
    sql = "SELECT count(*) AS n FROM tried WHERE riskiest > 0.99"
    (row,) = shop.query(sql).arrow().to_pylist()
    hits = {r["rule"]: r["candidate_hits"] for r in found.rules.to_pylist()}
    assert hits["r"] == row["n"] > 0
    current = {r["rule"]: r["current_hits"] for r in found.rules.to_pylist() if r["current_hits"]}
    assert current == again.rules
    assert "backtest_features" not in {t.name for t in shop.tables()}


def test_features_named_as_columns_of_a_replay_are_found_there(shop: Workspace, file: Path) -> None:
    root = shop.project.root
    (root / "features.sql").write_text(FEATURES.replace("AS squares", "AS score"))
    shop = Workspace(load(root))
    file.write_text(rule("r", "score > 100"))
    found = shop.backtest(file, with_replay=True)
    shop.replay(to="tried")
    (row,) = (
        shop.query("SELECT count(*) AS n FROM tried WHERE feature_score > 100").arrow().to_pylist()
    )
    (ours,) = (r for r in found.rules.to_pylist() if r["rule"] == "r")
    assert ours["candidate_hits"] == row["n"] > 0


def test_events_without_stored_features_are_counted_and_see_null(
    shop: Workspace, file: Path
) -> None:
    path = shop.project.data / "tables" / "features"
    DeltaTable(str(path)).delete("log_offset % 10 = 3")
    (row,) = (
        shop.query("SELECT count(*) AS n FROM events ANTI JOIN features USING (log_offset)")
        .arrow()
        .to_pylist()
    )
    file.write_text(rule("none", "payments_1h IS NULL"))
    found = shop.backtest(file)
    (ours,) = (r for r in found.rules.to_pylist() if r["rule"] == "none")
    assert ours["candidate_hits"] == row["n"] > 100
    assert f"{row['n']} events have no stored features, which count as null" in remarks(shop, file)


def test_a_feature_that_came_later_is_told_for_the_events_before(
    shop: Workspace, file: Path
) -> None:
    shop = _with_more_features(shop)
    more = shop.project.root / "more.ndjson"
    more.write_text('{"id":"z1","at":"2023-06-09T12:00:00Z","card":"c1","shop":1,"risk":0.5}\n')
    shop.ingest([more])
    file.write_text(rule("r", "riskiest > 0.4"))
    found = shop.backtest(file)
    (ours,) = (r for r in found.rules.to_pylist() if r["rule"] == "r")
    assert ours["candidate_hits"] == 1
    told = "\n".join(found.remarks)
    assert f"feature `riskiest` was not stored for {COUNT} events" in told
    assert f"{COUNT} events have features of another features.sql" in told


def test_events_that_the_other_tables_do_not_have_yet_do_not_count(
    shop: Workspace, file: Path
) -> None:
    program = Program.compile(shop.project)
    layout = layouts(program.schema, {}, program.feature_schema)["events"]
    events = Table.open(shop.project.data / "tables" / "events", layout)
    sql = "SELECT * EXCLUDE (event_date) REPLACE (log_offset + 1000000 AS log_offset) FROM events"
    late = shop.query(f"{sql} ORDER BY log_offset LIMIT 7").arrow()
    events.append(late.cast(layout.rows).to_batches(), next_offset=2_000_000)
    assert shop.query("SELECT count(*) FROM events").arrow().column(0)[0].as_py() == COUNT + 7
    assert shop.backtest(file).events == COUNT


def test_a_file_that_was_merged_away_meanwhile_is_told(shop: Workspace, file: Path) -> None:
    next((shop.project.data / "tables" / "features").glob("*/*.parquet")).unlink()
    with pytest.raises(TransientError, match="a file of table `features` is gone"):
        shop.backtest(file)


# -- the check -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"action": "'block'"}, {"rules": "[]"}], ids=["action", "rules"]
)
def test_stored_decisions_that_do_not_follow_are_told(
    shop: Workspace, file: Path, change: dict[str, str]
) -> None:
    sql = "SELECT log_offset FROM decisions WHERE action = 'review' ORDER BY 1 LIMIT 2"
    first, second = shop.query(sql).arrow().column(0).to_pylist()
    if change == {"rules": "[]"}:
        change = {"rules": "array_slice(rules, 0, 0)"}
    table = DeltaTable(str(shop.project.data / "tables" / "decisions"))
    table.update(change, predicate=f"log_offset IN ({first}, {second})")
    told = remarks(shop, file)
    assert f"2 of {COUNT} stored decisions of version" in told
    assert f"the first at offset {first}" in told


def test_rules_that_never_decided_cannot_be_checked(shop: Workspace, file: Path) -> None:
    (shop.project.root / "rules.toml").write_text(CANDIDATE)
    shop = Workspace(load(shop.project.root))
    assert "to check the current rules by" in remarks(shop, file)


# -- labels ----------------------------------------------------------------------------------------


def test_the_last_record_of_an_event_counts_and_the_rest_is_unlabelled(
    shop: Workspace, file: Path
) -> None:
    rows = shop.query("SELECT id, log_offset FROM events ORDER BY 2 LIMIT 3").arrow().to_pylist()
    (one, at_one), (two, _), (three, at_three) = (tuple(r.values()) for r in rows)
    label(
        shop.project,
        [
            {"event_id": one, "label": "fraud", "event_offset": at_one},
            {"event_id": two, "label": "fraud"},
            {"event_id": three, "label": "legitimate", "event_offset": at_three},
            {"event_id": two, "label": "legitimate"},
        ],
    )
    found = shop.backtest(file)
    (total,) = found.total.to_pylist()
    assert (total["fraud"], total["legitimate"], total["unlabelled"]) == (1, 2, COUNT - 3)
    assert f"{COUNT - 3} of {COUNT} events are unlabelled" in "\n".join(found.remarks)


def test_a_column_can_hold_the_labels(shop: Workspace, file: Path) -> None:
    found = shop.backtest(file, label_column="shop")
    (row,) = (
        shop.query("SELECT count_if(shop <> 0) AS fraud, count_if(shop = 0) AS rest FROM events")
        .arrow()
        .to_pylist()
    )
    (total,) = found.total.to_pylist()
    assert (total["fraud"], total["legitimate"]) == (row["fraud"], row["rest"])
    assert found.labels == "column `shop` of the events"


def test_the_declared_column_says_what_no_record_says(shop: Workspace, file: Path) -> None:
    settings = shop.project.root / "tidegate.toml"
    settings.write_text(settings.read_text() + '[labels]\ncolumn = "weight"\n')
    shop = Workspace(load(shop.project.root))
    alone = shop.backtest(file)
    assert alone.labels == "column `weight` of the events"
    (before,) = alone.total.to_pylist()
    sql = "SELECT id, log_offset FROM events WHERE weight <> 0 ORDER BY 2 LIMIT 5"
    rows = shop.query(sql).arrow().to_pylist()
    known = [{"event_id": r["id"], "event_offset": r["log_offset"]} for r in rows]
    label(shop.project, [{**r, "label": "legitimate"} for r in known])
    found = shop.backtest(file)
    assert found.labels == "table `labels`, else column `weight` of the events"
    (after,) = found.total.to_pylist()
    assert (before["fraud"] - after["fraud"], after["legitimate"] - before["legitimate"]) == (5, 5)


@pytest.mark.parametrize(
    ("type_", "values", "codes"),
    [
        ("boolean?", [True, False, None], [FRAUD, LEGITIMATE, UNLABELLED]),
        ("bigint?", [1, 0, None, -3], [FRAUD, LEGITIMATE, UNLABELLED, FRAUD]),
        ("double?", [1.0, 0.0, None, 0.5], [FRAUD, LEGITIMATE, UNLABELLED, FRAUD]),
        (
            "decimal(3,1)?",
            [Decimal("0.1"), Decimal("0.0"), None],
            [FRAUD, LEGITIMATE, UNLABELLED],
        ),
        (
            "text?",
            ["fraud", "legitimate", None, "perhaps"],
            [FRAUD, LEGITIMATE, UNLABELLED, UNLABELLED],
        ),
    ],
)
def test_what_a_column_says_of_fraud(type_: str, values: list[Any], codes: list[int]) -> None:
    schema = _schema(type_)
    events = pa.table({"v": pa.array(values, schema.by_name["v"].type.arrow)})
    found = ColumnLabels("v", schema).of(events, np.arange(len(values)))
    assert found.tolist() == codes


# -- amounts ---------------------------------------------------------------------------------------


def _schema(type_: str) -> Schema:
    columns = [("id", "text"), ("at", "timestamp"), ("v", type_)]
    return Schema.of(columns, id="id", event_time="at")


_GROUPED = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-(10**18) + 1, 10**18 - 1) | st.none())
)


@given(rows=_GROUPED)
@pytest.mark.parametrize("type_", ["decimal(18,4)?", "bigint?"])
def test_sums_of_whole_numbers_and_decimals_are_exact(
    type_: str, rows: list[tuple[int, int | None]]
) -> None:
    amounts = Amounts("v", schema := _schema(type_))
    scale = schema.by_name["v"].type.scale
    given = [None if n is None else Decimal(n).scaleb(-scale) for _, n in rows]
    events = pa.table({"v": pa.array(given, schema.by_name["v"].type.arrow)})
    codes = np.array([group for group, _ in rows], np.int64)
    sums = amounts.sums(codes, amounts.weights(events), None, groups=3)
    assert sums is not None
    for group in range(3):
        expected = sum((n or 0 for g, n in rows if g == group), 0)
        assert amounts.value(sums[group]) == Decimal(expected).scaleb(-scale)


def test_an_amount_that_is_missing_or_no_number_counts_as_nothing() -> None:
    amounts = Amounts("v", _schema("double?"))
    events = pa.table({"v": pa.array([1.5, None, float("nan"), float("inf"), 2.0])})
    sums = amounts.sums(np.zeros(5, np.int64), amounts.weights(events), None, groups=1)
    assert sums is not None
    assert amounts.value(sums[0]) == 3.5


def test_without_amounts_nothing_is_added_up(shop: Workspace, file: Path) -> None:
    settings = SETTINGS.replace("amount =", "worth =")
    project = replace(shop.project, stream=_stream(settings))
    assert Amounts(None, project.stream.schema).name is None
    assert shop.backtest(file).amount == "amount"


def _stream(settings: str) -> Any:
    files = {"tidegate.toml": settings.partition("[features]")[0]}
    return Project.from_files(files, root=Path()).stream


# -- joining ---------------------------------------------------------------------------------------


@given(own=st.sets(st.integers(0, 40)), wanted=st.sets(st.integers(0, 40)), seed=st.integers(0, 9))
def test_rows_find_each_other_whatever_their_order(
    own: set[int], wanted: set[int], seed: int
) -> None:
    chance = np.random.default_rng(seed)
    have, want = (chance.permutation(np.array(sorted(s), np.int64)) for s in (own, wanted))
    at = places(have, want)
    found = (
        want.tolist()
        if at is None
        else [None if p is None else int(have[p]) for p in at.to_pylist()]
    )
    assert found == [o if o in own else None for o in want.tolist()]
