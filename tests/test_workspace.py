"""A project opened from Python."""

import shutil
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tidegate
from tidegate.project.examples import new
from tidegate.testing import store

RECORDS = list(store.generate(400, seed=11, start_time_us=1_686_081_600_000_000))


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python") / "shop"
    new(folder, example="store")
    (folder / "day.ndjson").write_bytes(b"\n".join([*RECORDS, b'{"id": "x"}']))
    tidegate.open(folder).ingest([folder / "day.ndjson"])
    return folder


@pytest.fixture
def shop(used: Path, tmp_path: Path) -> tidegate.Workspace:
    return tidegate.open(str(shutil.copytree(used, tmp_path / "shop")))


def test_a_query_comes_as_arrow_pandas_or_polars(shop: tidegate.Workspace) -> None:
    found = shop.query("SELECT id, ts FROM events ORDER BY log_offset")
    assert isinstance(found.arrow(), pa.Table)
    assert isinstance(found.pandas(), pd.DataFrame)
    assert isinstance(found.polars(), pl.DataFrame)
    assert found.polars()["id"].to_list() == found.arrow()["id"].to_pylist()
    assert len(found.pandas()) == 400


def test_a_mistake_in_a_query_is_a_query_error(shop: tidegate.Workspace) -> None:
    with pytest.raises(tidegate.QueryError, match="nothing"):
        shop.query("SELECT * FROM nothing")


def test_tables_have_rows_files_and_bytes(shop: tidegate.Workspace) -> None:
    found = {t.name: t for t in shop.tables()}
    assert found["events"].rows == found["decisions"].rows == 400
    assert found["events"].files >= 1
    assert found["events"].bytes > 1_000


def test_ingest_tells_what_became_of_the_records(shop: tidegate.Workspace, tmp_path: Path) -> None:
    (tmp_path / "more.ndjson").write_bytes(RECORDS[0] + b'\n{"id": "y"}\n')
    told: list[int] = []
    taken = shop.ingest(
        [str(tmp_path / "more.ndjson")], progress=lambda _, block: told.append(block.bytes_read)
    )
    assert (taken.records, taken.events, taken.dead_letters, taken.duplicates) == (2, 0, 1, 1)
    assert (taken.finished, taken.beside) == (True, None)
    assert told == [len(RECORDS[0]) + 13]


def test_nothing_to_take_is_fine(shop: tidegate.Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty.ndjson").write_bytes(b"")
    assert shop.ingest([tmp_path / "empty.ndjson"]) == tidegate.workspace.Taken(records=0)


def test_a_file_that_breaks_off_says_how_much_was_taken(
    shop: tidegate.Workspace, tmp_path: Path
) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(tidegate.RequestError, match=r"torn.parquet.*0 records before"):
        shop.ingest([tmp_path / "torn.parquet"])


def test_dead_letters_have_the_bytes_as_they_came(shop: tidegate.Workspace) -> None:
    (letter,) = shop.dead_letters().to_pylist()
    assert (letter["record"], letter["reason"]) == (b'{"id": "x"}', "missing_column")


def test_a_shop_is_whole_and_says_so(shop: tidegate.Workspace) -> None:
    steps: list[tuple[int, int]] = []
    found = shop.reconcile(progress=lambda done, total: steps.append((done, total)))
    assert found.equal
    assert steps[-1][0] == steps[-1][1]


def test_a_project_that_does_not_fit_its_tables_can_be_mended_and_tried_again(
    shop: tidegate.Workspace, tmp_path: Path
) -> None:
    """A failed call lets go of the folder, so that the next one does not wait for itself."""
    folder = shop.project.root
    settings = (folder / "tidegate.toml").read_text()
    (folder / "tidegate.toml").write_text(settings.replace('qty = "bigint?"', 'qty = "text?"'))
    (folder / "rules.toml").write_text("")
    sales = folder / "sales_by_store.sql"
    sales.write_text(sales.read_text().replace("sum(qty)", "count(qty)").replace(" * qty", ""))
    (tmp_path / "more.ndjson").write_bytes(RECORDS[0])
    with pytest.raises(tidegate.InputError):
        tidegate.open(folder).ingest([tmp_path / "more.ndjson"])
    assert shop.ingest([tmp_path / "more.ndjson"]).duplicates == 1


def test_before_anything_ran_a_query_says_what_makes_tables(tmp_path: Path) -> None:
    new(tmp_path / "shop", example="store")
    with pytest.raises(tidegate.InputError, match="tidegate ingest"):
        tidegate.open(tmp_path / "shop").query("SELECT 1")
