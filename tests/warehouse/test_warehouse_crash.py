"""Killed at any moment, cut by a loss of power: afterwards every row is there once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from warehouse_rows import expected, held, opened, outcome, unchanged, write_all

CRASHER = Path(__file__).with_name("warehouse_crasher.py")


@pytest.mark.crash
def test_a_writer_killed_many_times_leaves_every_row_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, CRASHER, tmp_path, "15", "11"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    warehouse = opened(tmp_path)
    end = warehouse.position + 100
    assert end > 200  # the rounds got somewhere
    warehouse.write([outcome(max(warehouse.position - 50, 0), end)])
    assert unchanged(held(warehouse), end)


def last_commit(root: Path) -> Path:
    return max((root / "events/_delta_log").glob("*.json"))


def last_data_file(root: Path) -> Path:
    return max((root / "events").glob("*/*.parquet"), key=lambda f: f.stat().st_mtime_ns)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def halved(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def zeroed(file: Path) -> None:
    """The length reached the disk, the content did not."""
    file.write_bytes(bytes(file.stat().st_size))


def gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("harm", [emptied, halved, zeroed])
@pytest.mark.parametrize("victim", [last_commit, last_data_file])
def test_what_power_loss_tore_is_cut_said_and_written_again(
    tmp_path: Path, victim: Callable[[Path], Path], harm: Callable[[Path], None]
) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 20])
    warehouse.sync()
    write_all(warehouse, [20, 30])
    write_all(warehouse, [30, 31])  # one event
    harm(victim(tmp_path))
    again = opened(tmp_path)
    assert again.position == 20  # tables without rows since then: nothing says they lack none
    assert "`events`" in again.repairs[0]
    again.write([outcome(20, 40)])
    assert unchanged(held(again), 40)


def test_a_data_file_that_never_reached_the_disk_is_written_again(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 20])
    warehouse.sync()
    write_all(warehouse, [20, 22])
    gone(last_data_file(tmp_path))
    again = opened(tmp_path)
    again.write([outcome(again.position, 25)])
    assert unchanged(held(again), 25)


def test_damage_below_the_note_takes_the_position_back_with_it(tmp_path: Path) -> None:
    """The note says 30; the table that was cut no longer holds that much, and says so."""
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 20, 30])
    warehouse.close()
    emptied(last_commit(tmp_path))
    again = opened(tmp_path)
    assert again.position == 20
    assert again.repairs
    again.write([outcome(20, 35)])
    assert unchanged(held(again), 35)


def test_a_table_that_is_gone_is_made_anew_from_the_first_offset(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 20])
    warehouse.close()
    (tmp_path / "decisions").rename(tmp_path.parent / "elsewhere")
    again = opened(tmp_path)
    assert again.position == 0
    assert "`decisions` is gone" in again.repairs[0]
    again.write([outcome(0, 20)])
    assert unchanged(held(again), 20)


def test_a_table_whose_log_cannot_be_read_at_all_is_put_aside(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 20])
    warehouse.close()
    emptied(tmp_path / "events/_delta_log/00000000000000000000.json")
    again = opened(tmp_path)
    assert again.position == 0
    assert list((tmp_path / ".lost/events").glob("*/*.parquet"))
    again.write([outcome(0, 20)])
    assert unchanged(held(again), 20)


@pytest.mark.parametrize("harm", [emptied, halved, zeroed, gone])
def test_a_torn_delta_checkpoint_is_dropped_and_the_log_read_instead(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, range(80))
    warehouse.close()
    harm(max((tmp_path / "events/_delta_log").glob("*.checkpoint.parquet")))
    again = opened(tmp_path)
    assert again.position == 79
    assert unchanged(held(again), 79)


def test_a_commit_that_cannot_be_read_below_a_torn_checkpoint_is_cut(tmp_path: Path) -> None:
    warehouse = opened(tmp_path)
    write_all(warehouse, range(80))
    log = tmp_path / "events/_delta_log"
    checkpoint = max(log.glob("*.checkpoint.parquet"))
    halved(checkpoint)
    halved(log / f"{int(checkpoint.name[:20]) - 3:020d}.json")
    again = opened(tmp_path)
    assert again.position < 79
    again.write([outcome(again.position, 80)])
    assert held(again)["events"] == expected(0, 80)["events"]


def test_a_creation_that_was_cut_short_is_made_good(tmp_path: Path) -> None:
    (tmp_path / "events/_delta_log").mkdir(parents=True)
    (tmp_path / "late_rows").mkdir()
    warehouse = opened(tmp_path)
    write_all(warehouse, [0, 15])
    assert unchanged(held(warehouse), 15)
