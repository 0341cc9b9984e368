"""What is really taken away, added or exchanged on the disk is found, and named by its id."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import tidegate
from tidegate.errors import DamageError
from tidegate.project.examples import new
from tidegate.reconcile import stages
from tidegate.reconcile.comparison import Comparison, Reconciliation
from tidegate.testing import store
from tidegate.workspace import Workspace

START_US = 1_686_081_600_000_000  # 2023-06-06 20:00
LOGGED = "log = events + dead letters + duplicates"
IDS = "ids in the log = ids in the tables"
DECIDED = "events = decisions"
DONE = "what people did = its tables"


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("used") / "shop"
    new(folder, example="store")
    batches = store.generate_batches(
        3_000,
        seed=3,
        start_time_us=START_US,
        batch_records=700,
        rate_per_second=5.0,
        unreadable_share=0.02,
        duplicate_share=0.02,
    )
    files = []
    for number, batch in enumerate(batches):
        files.append(folder.parent / f"{number}.ndjson")
        files[-1].write_bytes(batch)
    tidegate.open(folder).ingest(files)
    return folder


@pytest.fixture
def shop(used: Path, tmp_path: Path) -> Workspace:
    return tidegate.open(shutil.copytree(used, tmp_path / "shop"))


def stage(found: Reconciliation, name: str) -> Comparison:
    return next(c for c in found.comparisons if c.stage.startswith(name))


def table(shop: Workspace, name: str) -> DeltaTable:
    return DeltaTable(str(shop.project.data / "tables" / name))


def an_event(shop: Workspace, where: str = "true") -> tuple[int, str]:
    sql = f"SELECT log_offset, event_id FROM decisions WHERE {where} ORDER BY 1 LIMIT 1 OFFSET 7"
    (row,) = shop.query(sql).arrow().to_pylist()
    return row["log_offset"], row["event_id"]


def test_a_shop_left_alone_is_whole(shop: Workspace) -> None:
    found = shop.reconcile()
    assert found.equal
    assert stage(found, LOGGED).counts == (3_000, 3_000)
    assert stage(found, "sink fraud").counts[0] > 50
    assert stage(found, "sink all_events").counts == stage(found, DECIDED).counts


@pytest.mark.parametrize(
    ("name", "amiss"),
    [("events", {LOGGED, IDS, DECIDED, "sink all_events"}), ("decisions", {DECIDED})],
)
def test_a_row_that_is_gone_is_named(shop: Workspace, name: str, amiss: set[str]) -> None:
    offset, event_id = an_event(shop, "action = 'approve'")
    table(shop, name).delete(f"log_offset = {offset}")
    found = shop.reconcile()
    assert {c.stage for c in found.comparisons if not c.equal} == amiss
    keys = {(k.log_offset, k.id) for c in found.comparisons for k in (*c.missing, *c.unexpected)}
    assert keys <= {(offset, event_id), (offset, None)}
    assert (offset, event_id) in keys


def test_a_dead_letter_that_is_gone_is_named_by_its_offset(shop: Workspace) -> None:
    offset = shop.dead_letters()["log_offset"][3].as_py()
    table(shop, "dead_letters").delete(f"log_offset = {offset}")
    found = shop.reconcile()
    assert [k.log_offset for k in stage(found, LOGGED).missing] == [offset]


def test_what_people_did_and_its_tables_lack_is_named(shop: Workspace) -> None:
    event_id = an_event(shop)[1]
    told = shop.label([{"event_id": event_id, "label": "fraud", "source": "bank"}])
    assert (told.accepted, told.finished) == (1, True)
    found = stage(shop.reconcile(), DONE)
    assert found.equal
    assert found.counts[0] >= 3  # the version and its line of the audit among them
    offset = max(row["log_offset"] for row in table(shop, "labels").to_pyarrow_table().to_pylist())
    table(shop, "labels").delete(f"log_offset = {offset}")
    found = stage(shop.reconcile(), DONE)
    assert [(k.log_offset, k.id) for k in found.missing] == [(offset, "labels")]
    assert not found.unexpected


def test_an_id_exchanged_is_seen_though_the_counts_are_equal(shop: Workspace) -> None:
    offset, event_id = an_event(shop)
    table(shop, "events").update(updates={"id": "'other'"}, predicate=f"log_offset = {offset}")
    found = shop.reconcile()
    ids = stage(found, IDS)
    assert ids.counts[0] == ids.counts[1]
    assert [(k.log_offset, k.id) for k in ids.missing] == [(offset, event_id)]
    assert [(k.log_offset, k.id) for k in ids.unexpected] == [(offset, "other")]
    assert stage(found, LOGGED).equal
    assert not stage(found, DECIDED).equal


def test_a_row_that_is_there_twice_is_seen(shop: Workspace) -> None:
    decisions = table(shop, "decisions")
    row = decisions.to_pyarrow_table().slice(5, 1)
    write_deltalake(decisions, row, mode="append")
    found = stage(shop.reconcile(), DECIDED)
    assert found.counts[1] == found.counts[0] + 1
    assert [k.log_offset for k in found.unexpected] == row["log_offset"].to_pylist()


def sink_files(shop: Workspace, folder: str) -> list[Path]:
    return sorted(p for p in (shop.project.data / "objects" / folder).rglob("*") if p.is_file())


def test_an_object_that_is_gone_is_named_by_its_event(shop: Workspace) -> None:
    victim = sink_files(shop, "fraud-events")[4]
    event_id = json.loads(victim.read_bytes())["id"]
    victim.unlink()
    found = shop.reconcile()
    assert [k.id for k in stage(found, "sink fraud").missing] == [event_id]
    assert [c.stage for c in found.comparisons if not c.equal] == ["sink fraud"]


def test_an_object_that_nobody_delivered_is_seen(shop: Workspace) -> None:
    model = sink_files(shop, "fraud-events")[4]
    event = json.loads(model.read_bytes()) | {"id": "forged"}
    model.with_name("1686081600000000_0000000000000000001.json").write_text(json.dumps(event))
    found = stage(shop.reconcile(), "sink fraud")
    assert [k.id for k in found.unexpected] == ["forged"]


def test_an_object_that_is_damaged_is_told(shop: Workspace) -> None:
    sink_files(shop, "fraud-events")[4].write_bytes(b"{not json")
    with pytest.raises(DamageError, match="sink `fraud`"):
        shop.reconcile()


def test_files_that_are_not_the_sinks_are_left_alone(shop: Workspace) -> None:
    folder = sink_files(shop, "fraud-events")[0].parent
    (folder / "README.txt").write_text("put here by somebody")
    assert shop.reconcile().equal


def delivered_up_to(shop: Workspace, sink: str, offset: int) -> None:
    """Put a sink back, as if it had planned the rest and not yet written that down."""
    import sqlite3

    with sqlite3.connect(shop.project.data / "sinks.sqlite") as ledger:
        ledger.execute("UPDATE sinks SET next_offset = ? WHERE name = ?", (offset, sink))
    ledger.close()


def test_what_a_sink_holds_beyond_its_offset_is_not_judged(shop: Workspace) -> None:
    """A delivery under way: its files are there, whole or in part, its offset is not."""
    delivered_up_to(shop, "fraud", 1_500)
    for path in sink_files(shop, "fraud-events"):
        event = json.loads(path.read_bytes())
        if event["log_offset"] >= 1_500 and event["log_offset"] % 2:
            path.unlink()
    found = shop.reconcile()
    assert found.equal
    assert any("sink fraud" in note and "1500" in note for note in found.notes)


def test_a_sink_below_its_offset_is_judged_also_while_it_is_behind(shop: Workspace) -> None:
    delivered_up_to(shop, "fraud", 1_500)
    first = min(sink_files(shop, "fraud-events"), key=lambda p: p.name.partition("_")[2])
    first.unlink()
    assert len(stage(shop.reconcile(), "sink fraud").missing) == 1


@pytest.mark.parametrize("length", [701, 1_000])
def test_stretches_that_cut_through_entries_give_the_same(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    whole = shop.reconcile()
    monkeypatch.setattr(stages, "STRETCH", length)
    told: list[tuple[int, int]] = []
    assert shop.reconcile(progress=lambda done, total: told.append((done, total))) == whole
    assert told == [(i + 1, len(told)) for i in range(len(told))]


def test_hours_of_arrival_are_told_apart(shop: Workspace) -> None:
    (hour,) = {h.hour for c in shop.reconcile().comparisons for h in c.hours if h.left}
    came = shop.query("SELECT min(ingest_time) AS t FROM events").polars()["t"].cast(pl.Int64)[0]
    assert hour == came - came % 3_600_000_000


def test_rows_that_are_not_yet_in_every_table_are_not_judged(
    shop: Workspace, rewind: Callable[[Workspace, int], None]
) -> None:
    """The tables are written one after the other; only the note of all of them counts."""
    rewind(shop, 2_000)
    table(shop, "decisions").delete("log_offset >= 2000")
    found = shop.reconcile()
    assert (found.equal, found.next_offset) == (True, 2_000)
    assert any("not in the tables yet" in note for note in found.notes)


@pytest.fixture
def rewind() -> Callable[[Workspace, int], None]:
    from tidegate.warehouse import checkpoint

    def back(shop: Workspace, position: int) -> None:
        root = shop.project.data / "tables"
        noted = checkpoint.read(root)
        assert noted is not None
        checkpoint.write(root, checkpoint.Checkpoint(position, noted.versions))

    return back


def test_ids_of_any_spelling_are_read_alike(tmp_path: Path) -> None:
    """The reader of ids shares nothing with the decoder, so they must agree on what an id is."""
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "tidegate.toml").write_text(
        '[stream]\nid = "id"\nevent_time = "ts"\n'
        '[stream.columns]\nid = "bigint"\nts = "timestamp"\n'
    )
    ids = ["1", "-2", "9223372036854775807", "3.0", "4e0", '"5"', "null", '"x"', "1e400"]
    records = [f'{{"id": {i}, "ts": "2023-06-06T20:00:00Z", "n": {{"id": 9}}}}' for i in ids]
    (folder / "odd.ndjson").write_text("\n".join(records))
    shop = tidegate.open(folder)
    shop.ingest([folder / "odd.ndjson"])
    assert shop.reconcile().equal, shop.query("SELECT * FROM events").arrow().to_pylist()
    assert pa.types.is_integer(shop.query("SELECT id FROM events").schema.field("id").type)
