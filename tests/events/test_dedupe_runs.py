"""Run files and their shelf: every pair is found, by few reads; and the timeline against a twin."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.errors import DamageError, StorageFullError
from tidegate.events import runs
from tidegate.events.dedupe import warm_up
from tidegate.events.fingerprints import Integers, Words
from tidegate.events.runs import Run, RunName, Shelf, open_run, write_run
from tidegate.events.timeline import NEVER, Timeline


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    warm_up()


def random_pairs(count: int, *, seed: int, below: int = 1 << 64) -> Words:
    chance = np.random.default_rng(seed)
    fingerprints = chance.integers(0, below, count, dtype=np.uint64)
    return np.column_stack([np.sort(fingerprints), np.arange(count, dtype=np.uint64)])


def put(folder: Path, shelf: Shelf, place: int, pairs: Words) -> Run:
    changes = np.array([[0, 0]], dtype=np.int64)
    words = shelf.prepare(place, pairs)
    run = write_run(folder, pairs=pairs, changes=changes, words=words)
    shelf.put(place, run)
    return run


def as_set(hits: Integers) -> set[tuple[int, int]]:
    return {(int(row), int(offset)) for row, offset in hits}


@pytest.mark.parametrize("below", [1 << 64, 40, 1], ids=["spread", "repeated", "all equal"])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 2000])
def test_every_offset_of_a_fingerprint_is_found(tmp_path: Path, count: int, below: int) -> None:
    shelf = Shelf(run_ids=2000)
    pairs = random_pairs(count, seed=count, below=below)
    put(tmp_path, shelf, 3, pairs)
    wanted = np.unique(pairs[:, 0])[:50]
    expected = {(i, int(o)) for i, w in enumerate(wanted) for f, o in pairs if f == w}
    assert as_set(shelf.probe(wanted, 0)) == expected


def test_a_shelf_answers_for_each_of_its_runs(tmp_path: Path) -> None:
    shelf = Shelf(run_ids=500)
    for place in range(runs.SHELF_RUNS):
        pairs = random_pairs(500, seed=place)
        pairs[:, 1] += np.uint64(1000 * place)
        put(tmp_path, shelf, place, pairs)
    assert shelf.free is None
    wanted = random_pairs(500, seed=5)[:, 0].copy()
    assert as_set(shelf.probe(wanted, 0)) == {(i, 5000 + i) for i in range(500)}


def test_rows_before_the_start_are_left_out(tmp_path: Path) -> None:
    shelf = Shelf(run_ids=100)
    pairs = random_pairs(100, seed=1)
    put(tmp_path, shelf, 0, pairs)
    assert as_set(shelf.probe(pairs[:, 0].copy(), 98)) == {(98, 98), (99, 99)}


def test_a_run_that_was_dropped_is_not_asked_and_its_place_is_free(tmp_path: Path) -> None:
    shelf = Shelf(run_ids=100)
    pairs = random_pairs(100, seed=1)
    run = put(tmp_path, shelf, 0, pairs)
    shelf.drop(run)
    assert shelf.free == 0
    assert len(shelf.probe(pairs[:, 0].copy(), 0)) == 0


def test_a_place_used_again_answers_for_the_new_run_alone(tmp_path: Path) -> None:
    shelf = Shelf(run_ids=100)
    old, new = random_pairs(100, seed=1), random_pairs(100, seed=2)
    new[:, 1] += np.uint64(100)
    shelf.drop(put(tmp_path, shelf, 0, old))
    put(tmp_path, shelf, 0, new)
    assert len(shelf.probe(old[:, 0].copy(), 0)) == 0
    assert len(shelf.probe(new[:, 0].copy(), 0)) == 100


def test_fewer_than_one_in_three_hundred_new_ids_reads_a_run(tmp_path: Path) -> None:
    shelf = Shelf(run_ids=20_000)
    run = put(tmp_path, shelf, 0, random_pairs(20_000, seed=1))
    # Cut short, so that each read fails, and says so.
    os.truncate(tmp_path / run.name.name, 0)
    others = random_pairs(3_000, seed=2)[:, 0]
    assert sum(reads(shelf, others[i : i + 1].copy()) for i in range(len(others))) < 10


def reads(shelf: Shelf, wanted: Words) -> bool:
    try:
        shelf.probe(wanted, 0)
    except DamageError:
        return True
    return False


def test_a_run_read_back_equals_the_one_written(tmp_path: Path) -> None:
    pairs = random_pairs(1000, seed=9)
    first, second = Shelf(run_ids=1000), Shelf(run_ids=1000)
    written = put(tmp_path, first, 0, pairs)
    again = open_run(tmp_path, written.name, shelf=second, place=7)
    assert (again.count, again.first_offset, again.last_offset) == (1000, 0, 999)
    wanted = pairs[:, 0].copy()
    assert as_set(second.probe(wanted, 0)) == as_set(first.probe(wanted, 0))


def test_a_run_that_cannot_be_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, pairs = Shelf(run_ids=10), random_pairs(10, seed=1)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageFullError, match="No space left"):
        put(tmp_path, shelf, 0, pairs)
    assert list(tmp_path.iterdir()) == []


def floor_twin(changes: list[tuple[int, int]], target: int) -> int:
    return next((offset for offset, time in changes if time >= target), NEVER)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_timeline_equals_a_search_of_all_changes(data: st.DataObject) -> None:
    timeline = Timeline(capacity=10)
    every: list[tuple[int, int]] = []
    time = target = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidegate.events.timeline._WINDOW", 3)
        patch.setattr(Run, "read_changes", read_kept)
        for _ in range(data.draw(st.integers(1, 6))):
            for _ in range(data.draw(st.integers(0, 10))):
                time += data.draw(st.integers(0, 5))
                every.append((len(every), time))
                timeline.extend(np.array(every[-1:], dtype=np.int64))
            targets = target + np.cumsum(data.draw(st.lists(st.integers(0, 9), max_size=4)))
            got = timeline.floors(targets.astype(np.int64))
            assert got.tolist() == [floor_twin(every, t) for t in targets]
            target = int(targets[-1]) if len(targets) else target
            if data.draw(st.booleans()):
                timeline.expire(target)
            timeline.move(kept_run(timeline.changes))


KEPT: dict[str, Integers] = {}


def kept_run(changes: Integers) -> Run:
    name = str(len(KEPT))
    KEPT[name] = changes.copy()
    return Run(RunName(name, 0), -1, len(changes), len(changes), 0, 0)


def read_kept(run: Run, start: int, count: int) -> Integers:
    return KEPT[run.name.name][start : start + count]
