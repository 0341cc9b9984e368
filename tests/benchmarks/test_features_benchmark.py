"""The benchmark of features compares ways that agree, and its parts run on small input."""

from pathlib import Path

import pyarrow.compute as pc
import pytest
from benchmarks.features_data import GROWTH_SQL, PUBLISHED_SQL, WIDE_SQL, Payments

from benchmarks import corpus, features, features_data, features_run, features_state, process


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made files lie in a folder of the test, and payments are generated ones."""
    for module in (corpus, process):
        monkeypatch.setattr(module, "DATA", tmp_path)
    monkeypatch.setattr(features_data, "_PUBLISHED", tmp_path / "none.parquet")
    monkeypatch.setattr(features_data, "_DAYS", 20)


def sums(way: str, payments: Payments, text: Path) -> dict[str, float]:
    _, table = features_run.WAYS[way](payments, text.read_text())
    assert len(table) == payments.rows
    return {name: pc.sum(table[name]).as_py() for name in table.column_names}


@pytest.mark.parametrize("peer", ["duckdb", "polars", "python"])
def test_tidegate_and_a_peer_find_the_published_windows_alike(peer: str) -> None:
    payments = features_data.card_payments(150_000)
    ours = sums("tidegate", payments, PUBLISHED_SQL)
    assert ours == pytest.approx(sums(peer, payments, PUBLISHED_SQL), rel=1e-9)
    assert all(value > 0 for value in ours.values())


def test_tidegate_and_duckdb_find_the_24_features_alike() -> None:
    events = features_data.wide(20_000)
    ours = sums("tidegate", events, WIDE_SQL)
    assert len(ours) == 24
    assert ours == pytest.approx(sums("duckdb", events, WIDE_SQL), rel=1e-9)


def test_the_first_rows_of_a_file_are_the_same_to_both_sides() -> None:
    payments = features_data.card_payments(1_000)
    assert Payments.at(payments.path, rows=1_000) == payments
    assert sum(batch.num_rows for batch in payments.batches()) == 1_000
    _, table = features_run.in_duckdb(payments, "SELECT max(id) AS last, count(*) AS n FROM events")
    assert table.to_pylist() == [{"last": 999, "n": 1_000}]


def test_sums_that_differ_stop_the_benchmark() -> None:
    features.agree({"n": 10_000.0}, {"n": 10_000.5}, peer="another")
    with pytest.raises(SystemExit, match=r"the sum of n is 10000\.0, and 10002\.0 in another"):
        features.agree({"n": 10_000.0}, {"n": 10_002.0}, peer="another")


def test_growth_counts_every_event_and_key() -> None:
    found = features_state.growth(25_000, 500)
    assert (found["rows"], found["keys"]) == (25_000, 500)
    assert found["ns"] > 0
    assert found["mb"] > 0


@pytest.mark.parametrize("part", ["live", "batches"])
def test_the_stage_is_measured_on_a_filled_state(part: str) -> None:
    found = features_state.PARTS[part](5_000, 300)
    assert len(found) == {"live": 6, "batches": 2}[part]
    assert all(value > 0 for value in found.values())


def test_a_state_is_written_and_read_back_while_updates_go_on() -> None:
    found = features_state.snapshot(20_000, 500)
    assert {"mb", "save", "load", "stall_ms", "alone_ms"} == found.keys()
    assert all(value > 0 for value in found.values())


def test_the_growth_text_has_eight_features_of_one_entity() -> None:
    plan = features_run.plan_of(GROWTH_SQL.read_text())
    assert len(plan.features) == 8
    assert len(plan.entities) == 1
