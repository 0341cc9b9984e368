"""Labels from the command line: files of several kinds, one by one, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tidegate

from .command import Run, generate


@pytest.fixture
def sold(empty: Path) -> list[str]:
    """A shop with a few events; their ids."""
    shop = tidegate.open(empty)
    shop.ingest([generate(empty / "day.ndjson", count=20)])
    rows = shop.query("SELECT id FROM events ORDER BY log_offset").arrow().to_pylist()
    return [row["id"] for row in rows]


def labelled(shop: Path) -> list[tuple[object, ...]]:
    sql = "SELECT event_id, label, source, action IS NOT NULL AS decided FROM labelled ORDER BY 1"
    return [tuple(row.values()) for row in tidegate.open(shop).query(sql).arrow().to_pylist()]


def test_one_event_is_labelled(run: Run, empty: Path, sold: list[str]) -> None:
    done = run("labels", empty, "add", sold[0], "fraud", "--source", "chargeback")
    assert (done.code, done.text) == (0, "1 labels taken, 0 refused\n")
    assert labelled(empty) == [(sold[0], "fraud", "chargeback", True)]
    told = tidegate.open(empty).query("SELECT author <> '' AS told FROM labels").arrow()
    assert told.to_pylist() == [{"told": True}]


def test_files_of_labels_are_taken_whatever_they_are(
    run: Run, empty: Path, sold: list[str]
) -> None:
    (empty / "a.ndjson").write_text(f'{{"event_id": "{sold[0]}", "label": 1, "source": "bank"}}\n')
    (empty / "b.csv").write_text(f"event_id,label\n{sold[1]},legitimate\n12e7,true\n")
    rows = pa.table({"event_id": [sold[2]], "label": [True]})
    pq.write_table(rows, empty / "c.parquet")
    files = [empty / name for name in ("a.ndjson", "b.csv", "c.parquet")]
    done = run("labels", empty, *files)
    assert (done.code, done.text) == (0, "4 labels taken, 0 refused\n")
    wanted = [
        (sold[0], "fraud", "bank", True),
        (sold[1], "legitimate", "file:b.csv", True),
        (sold[2], "fraud", "file:c.parquet", True),
        ("12e7", "fraud", "file:b.csv", False),
    ]
    assert labelled(empty) == sorted(wanted)


def test_what_is_no_label_is_told_and_fails_the_command(run: Run, empty: Path) -> None:
    (empty / "a.csv").write_text("event_id,label\na,fraud\nb,maybe\n")
    done = run("labels", empty, empty / "a.csv")
    assert (done.code, done.text) == (1, "1 labels taken, 1 refused\n")
    assert 'label 1: field `label`: expected "fraud" or "legitimate", saw text "maybe"' in done.err


def test_a_file_that_is_not_there_is_told_before_anything_is_taken(run: Run, empty: Path) -> None:
    done = run("labels", empty, empty / "none.csv")
    assert done.code == 1
    assert "none.csv" in done.err
