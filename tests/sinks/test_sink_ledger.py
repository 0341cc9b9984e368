"""The ledger of sinks: positions and plans that survive, and stragglers that cannot harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tidegate.errors import DamageError, LockedError, StorageFullError
from tidegate.sinks.ledger import Ledger, Position


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sinks.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(Ledger(path)) as made:
        yield made


def test_a_new_sink_begins_where_it_is_told(ledger: Ledger) -> None:
    assert ledger.open("s", start=7) == Position(7)


def test_a_known_sink_goes_on_where_it_was(ledger: Ledger) -> None:
    ledger.open("s")
    ledger.skip("s", first=0, until=9)
    assert ledger.open("s", start=0) == Position(9)


def test_positions_and_plans_survive_closing(path: Path) -> None:
    with closing(Ledger(path)) as first:
        first.open("s")
        first.skip("s", first=0, until=3)
        first.plan("s", first=3, until=8)
    with closing(Ledger(path)) as second:
        assert second.positions() == {"s": Position(3, planned=8)}


def test_sinks_do_not_touch_each_other(ledger: Ledger) -> None:
    for name in "ab":
        ledger.open(name)
    ledger.plan("a", first=0, until=5)
    ledger.deliver("a", first=0, until=5)
    assert ledger.positions() == {"a": Position(5), "b": Position(0)}


def test_a_straggler_cannot_move_a_sink_back(ledger: Ledger) -> None:
    ledger.open("s")
    ledger.plan("s", first=0, until=5)
    ledger.deliver("s", first=0, until=5)
    ledger.plan("s", first=5, until=6)
    with pytest.raises(LockedError, match="moved by someone else"):
        ledger.deliver("s", first=0, until=5)
    assert ledger.open("s") == Position(5, planned=6)


def test_a_plan_cannot_be_replaced_or_skipped(ledger: Ledger) -> None:
    ledger.open("s")
    ledger.plan("s", first=0, until=5)
    with pytest.raises(LockedError):
        ledger.plan("s", first=0, until=6)
    with pytest.raises(LockedError):
        ledger.skip("s", first=0, until=6)


def test_a_forgotten_sink_begins_anew(ledger: Ledger) -> None:
    ledger.open("s")
    ledger.skip("s", first=0, until=9)
    ledger.forget("s")
    assert ledger.open("s") == Position(0)


def test_a_closed_ledger_refuses_work_and_closes_twice(path: Path) -> None:
    ledger = Ledger(path)
    ledger.close()
    ledger.close()
    with pytest.raises(LockedError, match="closed"):
        ledger.open("s")


def test_a_file_that_is_no_ledger_is_damage(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(DamageError, match=r"sinks\.sqlite"):
        Ledger(path)


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageFullError):
        Ledger(tmp_path / "missing" / "sinks.sqlite")
