"""What was decided is computed again from the log; whatever was changed since is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

import tidegate
from payments import FEATURES, MORE_FEATURES, RULES, encoded, payments, write
from tidegate import verify as verifying
from tidegate.datafolder import DataFolder
from tidegate.errors import DamageError, InputError
from tidegate.eventlog.sqlite import SqliteLog
from tidegate.verify import Difference, Verified
from tidegate.workspace import Workspace

VERSIONS = [  # a life: features changed, rules changed, features gone, features back
    (FEATURES, RULES),
    (MORE_FEATURES, RULES),
    (MORE_FEATURES, RULES.replace("0.55", "0.5")),
    (None, ""),
    (FEATURES, RULES),
]
EACH = 300


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "shop"
    for number, (features, rules) in enumerate(VERSIONS):
        write(folder, features=features, rules=rules)
        source = folder / f"{number}.ndjson"
        rows = encoded(payments(EACH, seed=number, first=EACH * number))
        source.write_bytes(b"\n".join([*rows, b"{", rows[0]]))
        tidegate.open(folder).ingest([source])
    return folder


@pytest.fixture
def shop(lived: Path, tmp_path: Path) -> Workspace:
    return tidegate.open(shutil.copytree(lived, tmp_path / "shop"))


def delta(shop: Workspace, name: str) -> DeltaTable:
    return DeltaTable(str(shop.project.data / "tables" / name))


def an_offset(shop: Workspace, where: str) -> int:
    sql = f"SELECT log_offset FROM features WHERE {where} ORDER BY 1 LIMIT 1 OFFSET 5"
    (row,) = shop.query(sql).arrow().to_pylist()
    return int(row["log_offset"])


@pytest.mark.parametrize("rows", [64, 1 << 20])
def test_a_life_of_many_versions_comes_out_equal(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(verifying, "_COMPARED_ROWS", rows)
    told: list[tuple[int, int]] = []
    found = shop.verify(progress=lambda done, total: told.append((done, total)))
    assert found.equal, found.differences
    assert found.rows == {"decisions": 5 * EACH, "features": 4 * EACH}
    assert (found.first_offset, found.begun_at, found.is_trimmed) == (0, 0, False)
    assert told[-1] == (found.next_offset, found.next_offset)


def the_one(found: Verified) -> Difference:
    (difference,) = found.differences
    assert found.differing == 1
    assert not found.equal
    return difference


def test_a_changed_feature_is_named_with_both_values(shop: Workspace) -> None:
    offset = an_offset(shop, "shop_risk IS NOT NULL")
    (before,) = (
        shop.query(f"SELECT * FROM features WHERE log_offset = {offset}").arrow().to_pylist()
    )
    # The smallest change that a double can have.
    changed = f"CAST({before['shop_risk']!r} AS DOUBLE) + 1.2e-16"
    delta(shop, "features").update({"shop_risk": changed}, predicate=f"log_offset = {offset}")
    found = the_one(shop.verify())
    assert (found.table, found.log_offset, found.column) == ("features", offset, "shop_risk")
    assert found.event_id == before["event_id"]
    assert found.computed == before["shop_risk"] != found.given


def test_a_changed_action_is_named(shop: Workspace) -> None:
    sql = "SELECT log_offset FROM decisions WHERE action = 'block' ORDER BY 1 LIMIT 1 OFFSET 3"
    offset = shop.query(sql).arrow()["log_offset"][0].as_py()
    table = delta(shop, "decisions")
    table.update({"action": "'approve'"}, predicate=f"log_offset = {offset}")
    found = the_one(shop.verify())
    assert (found.log_offset, found.given, found.computed) == (offset, "approve", "block")


def test_when_it_was_decided_is_not_compared(shop: Workspace) -> None:
    delta(shop, "decisions").update({"decided_at": "to_timestamp('2001-01-01T00:00:00Z')"})
    assert shop.verify().equal


def test_a_row_that_is_missing_is_named(shop: Workspace) -> None:
    offset = an_offset(shop, "true")
    delta(shop, "features").delete(f"log_offset = {offset}")
    found = the_one(shop.verify())
    assert (found.log_offset, found.column, found.given) == (offset, None, None)
    assert isinstance(found.computed, dict)


@pytest.mark.parametrize("offset_of", [lambda shop: an_offset(shop, "true"), lambda shop: EACH + 1])
def test_a_row_too_many_is_named(shop: Workspace, offset_of: Callable[[Workspace], int]) -> None:
    """Once more than it should be there, and where there should be none (a dead letter)."""
    table, offset = delta(shop, "features"), offset_of(shop)
    row = table.to_pyarrow_table().slice(7, 1)
    place = row.schema.get_field_index("log_offset")
    write_deltalake(
        table, row.set_column(place, row.schema.field(place), [[offset]]), mode="append"
    )
    found = shop.verify()
    assert found.differences[0].computed is None
    assert found.differences[0].log_offset == offset


def test_differences_beyond_the_first_are_counted(shop: Workspace) -> None:
    delta(shop, "features").update({"payments_1h": "payments_1h + 1"})
    found = shop.verify()
    assert found.differing == 4 * EACH
    assert len(found.differences) == verifying.SHOWN_MAX
    assert found.differences[0].log_offset == 1


def test_from_an_offset_is_computed_from_the_snapshot_before_it(shop: Workspace) -> None:
    offsets = sorted(int(p.stem) for p in (shop.project.data / "snapshots").glob("*.snapshot"))
    found = shop.verify(first=offsets[-2] + 10)
    assert (found.begun_at, found.first_offset) == (offsets[-2], offsets[-2] + 10)
    assert found.equal
    assert 0 < found.rows["decisions"] < 2 * EACH


def test_an_offset_beyond_the_tables_is_refused(shop: Workspace) -> None:
    with pytest.raises(InputError, match="what lies below offset"):
        shop.verify(first=10**9)


def trim(shop: Workspace) -> int:
    """Let go of all that the oldest snapshot does not need; the first offset that is left."""
    log = SqliteLog.open(DataFolder(shop.project.data).log)
    try:
        return log.trim(before_time=2**62)
    finally:
        log.close()


def test_a_trimmed_log_is_computed_from_the_oldest_good_snapshot(shop: Workspace) -> None:
    assert trim(shop) > 0
    snapshots = sorted((shop.project.data / "snapshots").glob("*.snapshot"))
    found = shop.verify()
    assert (found.equal, found.is_trimmed) == (True, True)
    assert found.begun_at == found.first_offset == int(snapshots[0].stem)
    content = bytearray(snapshots[0].read_bytes())
    content[-60] ^= 1
    snapshots[0].write_bytes(content)
    found = shop.verify()
    assert found.begun_at == int(snapshots[1].stem)
    snapshots[1].unlink()
    with pytest.raises(DamageError, match="no good snapshot"):
        shop.verify()


def test_nothing_in_the_data_folder_is_changed(shop: Workspace) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = [p for p in shop.project.data.rglob("*") if p.is_file() and "sqlite" not in p.name]
        return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}

    before = state()
    shop.verify()
    shop.verify(first=EACH)
    assert state() == before
