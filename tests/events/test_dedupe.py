"""Duplicates against a slow, obvious twin, however the stream is cut and whatever happens."""

from __future__ import annotations

import itertools
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.errors import DamageError, StorageFullError
from tidegate.events.dedupe import Dedupe, warm_up
from tidegate.events.held import run_names
from tidegate.events.runs import sync_runs, write_run

from .ids import EXACT, KEY, Record, Stream, plain, twin

T = TypeVar("T")


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    warm_up()


@contextmanager
def folder() -> Iterator[Path]:
    # Examples of one test must not see each other's files.
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Record], list[int]]:
    """Records with few ids, gaps in the offsets and a clock that may step back; and cuts."""
    size = draw(st.integers(0, 120))
    alphabet = draw(st.integers(1, 80))
    ids = draw(st.lists(st.integers(0, alphabet), min_size=size, max_size=size))
    steps = draw(st.lists(st.integers(-5, 12), min_size=size, max_size=size))
    gaps = draw(st.lists(st.integers(1, 3), min_size=size, max_size=size))
    times = [max(0, t) for t in itertools.accumulate(steps)]
    offsets = itertools.accumulate(gaps)
    records = [Record(_name(i), o, t) for i, o, t in zip(ids, offsets, times, strict=True)]
    cuts = draw(st.lists(st.integers(0, size), max_size=8))
    return records, sorted({0, size, *cuts})


def _name(number: int) -> str:
    # Lengths on both sides of a word of the hash, and text beyond ASCII.
    return "é" * (number % 5) + str(number) * (number % 7)


MASKS = st.sampled_from([EXACT, 0, 1, 3, 3 << 62, (7 << 61) | 1])
TABLES = st.integers(1, 40)
HORIZONS = st.one_of(st.integers(0, 60), st.integers(0, 2000))


@given(streams(), HORIZONS, TABLES, MASKS)
@settings(max_examples=150, deadline=None)
@example((plain(["a", "a"]), [0, 2]), 0, 1, EXACT)
@example((plain([""]), [0, 1]), 0, 1, EXACT)
def test_what_is_a_duplicate_equals_a_dict_of_firsts(
    cut: tuple[list[Record], list[int]], horizon: int, table_ids: int, mask: int
) -> None:
    records, cuts = cut
    with folder() as where:
        stream = Stream(records, where, horizon=horizon)
        found = stream.open(table_ids=table_ids, mask=mask)
        got = [f for a, b in itertools.pairwise(cuts) for f in stream.feed(found, a, b)]
        found.close()
    assert got == twin(records, horizon=horizon)


@given(streams(), HORIZONS, TABLES, MASKS)
@settings(max_examples=80, deadline=None)
def test_a_restart_at_any_cut_changes_nothing(
    cut: tuple[list[Record], list[int]], horizon: int, table_ids: int, mask: int
) -> None:
    records, cuts = cut
    got = []
    with folder() as where:
        stream = Stream(records, where, horizon=horizon)
        found = stream.open(table_ids=table_ids, mask=mask)
        for a, b in itertools.pairwise(cuts):
            got += stream.feed(found, a, b)
            kept = found.snapshot()
            found.close()
            found = stream.restore(kept)
            assert found.snapshot() == kept
            found.prune(run_names(kept))
        found.close()
    assert got == twin(records, horizon=horizon)


@given(streams(), HORIZONS, TABLES)
@settings(max_examples=60, deadline=None)
def test_snapshot_and_run_files_do_not_depend_on_how_the_stream_was_cut(
    cut: tuple[list[Record], list[int]], horizon: int, table_ids: int
) -> None:
    records, cuts = cut
    states = []
    for pieces in (cuts, [0, len(records)], list(range(len(records) + 1))):
        with folder() as where:
            stream = Stream(records, where, horizon=horizon)
            found = stream.open(table_ids=table_ids)
            for a, b in itertools.pairwise(pieces):
                stream.feed(found, a, b)
            states.append((found.snapshot(), {p.name: p.read_bytes() for p in where.iterdir()}))
            found.close()
    assert states[0] == states[1] == states[2]


@given(streams(), st.integers(0, 30), TABLES, st.data())
@settings(max_examples=60, deadline=None)
def test_an_update_that_failed_on_the_log_or_the_disk_is_repeated_without_a_trace(
    cut: tuple[list[Record], list[int]], horizon: int, table_ids: int, data: st.DataObject
) -> None:
    records, _ = cut
    failures = data.draw(st.lists(st.booleans(), max_size=6))
    with folder() as where, folder() as other:
        stream = Stream(records, where, horizon=horizon)
        calm = Stream(records, other, horizon=horizon)
        found, steady = stream.open(table_ids=table_ids), calm.open(table_ids=table_ids)
        half = len(records) // 2
        with failing(found, failures):
            got = until_done(lambda: stream.feed(found, 0, half))
            got += until_done(lambda: stream.feed(found, half, len(records)))
            kept = until_done(found.snapshot)  # which waits for the last run, that may fail too
        assert got == calm.feed(steady, 0, len(records))
        assert kept == steady.snapshot()
        found.close()
        steady.close()


@contextmanager
def failing(found: Dedupe, failures: list[bool]) -> Iterator[None]:
    """Let look-ups and run writes fail as the list says, then go through."""
    lookup = found._lookup
    left = iter(failures)

    def fail_maybe() -> None:
        if next(left, False):
            raise StorageFullError("full")

    def failing_lookup(offsets: Sequence[int]) -> Sequence[str]:
        fail_maybe()
        return lookup(offsets)

    def failing_write(*args: object, **kwargs: object) -> object:
        fail_maybe()
        return write_run(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidegate.events.aside.write_run", failing_write)
        patch.setattr(found, "_lookup", failing_lookup)
        yield


def until_done(step: Callable[[], T]) -> T:
    while True:
        with suppress(StorageFullError):
            return step()


def test_both_ends_of_the_horizon_count(tmp_path: Path) -> None:
    stream = Stream(plain("aaa", times=[0, 10, 11]), tmp_path, horizon=10)
    assert stream.feed(stream.open(table_ids=8), 0, 3) == [-1, 0, -1]


def test_duplicates_do_not_prolong_the_horizon(tmp_path: Path) -> None:
    stream = Stream(plain("aaaa", times=[0, 8, 16, 24]), tmp_path, horizon=10)
    assert stream.feed(stream.open(table_ids=8), 0, 4) == [-1, 0, -1, 2]


def test_a_clock_that_steps_back_does_not_revive_what_has_expired(tmp_path: Path) -> None:
    stream = Stream(plain("axa", times=[0, 100, 5]), tmp_path, horizon=10)
    assert stream.feed(stream.open(table_ids=8), 0, 3) == [-1, -1, -1]


def test_nothing_is_looked_up_while_all_ids_are_new(tmp_path: Path) -> None:
    stream = Stream(plain([str(i) for i in range(3000)]), tmp_path, horizon=10)
    stream.feed(stream.open(table_ids=100), 0, 3000)
    assert stream.looked_up == []


def test_what_has_expired_is_never_looked_up(tmp_path: Path) -> None:
    times = [i * 5 for i in range(300)]
    stream = Stream(plain([str(i % 60) for i in range(300)], times=times), tmp_path, horizon=100)
    found = stream.open(table_ids=10)
    for i in range(300):
        stream.feed(found, i, i + 1)
        assert all(times[i] - times[o] <= 100 for o in stream.looked_up)
        stream.looked_up.clear()


def test_an_id_that_returns_after_each_horizon_needs_no_run_file(tmp_path: Path) -> None:
    records = plain(["a"] * 500, times=list(range(0, 5000, 10)))
    stream = Stream(records, tmp_path, horizon=5)
    found = stream.open(table_ids=4)
    stream.feed(found, 0, 500)
    assert list(tmp_path.iterdir()) == []
    assert found.ids_held <= 4


def test_runs_beyond_the_horizon_are_let_go_and_pruned(tmp_path: Path) -> None:
    records = plain([str(i) for i in range(1000)], times=list(range(1000)))
    stream = Stream(records, tmp_path, horizon=100)
    found = stream.open(table_ids=20)
    stream.feed(found, 0, 1000)
    assert len(list(tmp_path.iterdir())) > 40
    found.prune(run_names(found.snapshot()))
    assert len(list(tmp_path.iterdir())) in (5, 6)
    assert found.ids_held <= 140


@given(streams(), HORIZONS, TABLES, MASKS)
@settings(max_examples=60, deadline=None)
def test_a_copy_is_of_its_moment_whenever_it_is_written(
    cut: tuple[list[Record], list[int]], horizon: int, table_ids: int, mask: int
) -> None:
    records, cuts = cut
    with folder() as where:
        stream = Stream(records, where, horizon=horizon)
        found = stream.open(table_ids=table_ids, mask=mask)
        copies = []
        for a, b in itertools.pairwise(cuts):
            stream.feed(found, a, b)
            copies.append((found.copy(), found.snapshot()))
        written = [(copied.written(), kept) for copied, kept in reversed(copies[::2])]
        found.close()
        written += [(copied.written(), kept) for copied, kept in copies[1::2]]
        assert all(run_names(kept) == copied.runs for copied, kept in copies)
    assert all(late == kept for late, kept in written)


def test_runs_are_made_durable_when_a_copy_is_written_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def sync(where: Path, names: Sequence[str]) -> None:
        if len(synced) == 0:
            synced.append("failed")
            raise StorageFullError("no space is left")
        synced.extend(names)
        sync_runs(where, names)

    monkeypatch.setattr("tidegate.events.dedupe.sync_runs", sync)
    stream = Stream(plain([str(i) for i in range(60)]), tmp_path, horizon=10**9)
    found = stream.open(table_ids=20)
    stream.feed(found, 0, 50)
    first, second = found.copy(), found.copy()
    assert (len(first.runs), synced) == (2, [])
    with pytest.raises(StorageFullError):
        first.written()
    second.written()
    assert synced == ["failed", *sorted(second.runs)]
    found.snapshot()
    assert len(synced) == 3
    found.close()


def test_a_snapshot_takes_no_more_than_a_few_copies_of_the_ids(tmp_path: Path) -> None:
    records = plain([f"{i:040}" for i in range(100_000)])
    stream = Stream(records, tmp_path, horizon=10**9)
    found = stream.open(table_ids=150_000)
    stream.feed(found, 0, 100_000)
    found.snapshot()
    tracemalloc.start()
    try:
        found.snapshot()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5 * 8 * 100_000
    # Which is packed in several parts.
    again = stream.restore(found.snapshot())
    assert again.snapshot() == found.snapshot()
    ids = pa.array([r.id for r in records], pa.string())
    assert np.array_equal(again.find(ids, ingest_time=0), np.arange(100_000))


def test_prune_keeps_what_an_older_snapshot_refers_to(tmp_path: Path) -> None:
    records = plain([str(i) for i in range(200)], times=list(range(200)))
    stream = Stream(records, tmp_path, horizon=30)
    found = stream.open(table_ids=10)
    stream.feed(found, 0, 100)
    older = found.snapshot()
    stream.feed(found, 100, 200)
    (tmp_path / "torn.tmp").write_bytes(b"half")
    found.prune(run_names(older))
    again = stream.restore(older)
    assert stream.feed(again, 100, 200) == [-1] * 100
    assert not (tmp_path / "torn.tmp").exists()


def test_replay_from_an_older_snapshot_writes_the_same_files(tmp_path: Path) -> None:
    stream = Stream(plain([str(i % 90) for i in range(200)]), tmp_path, horizon=10)
    found = stream.open(table_ids=10)
    stream.feed(found, 0, 50)
    older = found.snapshot()
    named = {p.name for p in tmp_path.iterdir()}
    expected = stream.feed(found, 50, 200)
    newest = found.snapshot()
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    found.close()
    for name in files.keys() - named:
        (tmp_path / name).write_bytes(b"torn by a crash")
    again = stream.restore(older)
    assert stream.feed(again, 50, 200) == expected
    assert again.snapshot() == newest
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files


@pytest.mark.parametrize("part", [0, 100, 4096, 4100, 4250, -1])
def test_a_run_with_one_wrong_byte_is_reported_by_name(tmp_path: Path, part: int) -> None:
    stream = Stream(plain([str(i) for i in range(10)]), tmp_path, horizon=10)
    kept = filled_snapshot(stream)
    run = next(tmp_path.glob("*.run"))
    spoiled = bytearray(run.read_bytes())
    spoiled[part] ^= 1
    run.write_bytes(spoiled)
    with pytest.raises(DamageError, match=run.name):
        stream.restore(kept)


@pytest.mark.parametrize("size", [0, 10, 4096, 4100, 4290])
def test_a_run_that_was_cut_short_is_reported_by_name(tmp_path: Path, size: int) -> None:
    stream = Stream(plain([str(i) for i in range(10)]), tmp_path, horizon=10)
    kept = filled_snapshot(stream)
    run = next(tmp_path.glob("*.run"))
    assert size < run.stat().st_size
    run.write_bytes(run.read_bytes()[:size])
    with pytest.raises(DamageError, match=run.name):
        stream.restore(kept)


def test_a_missing_run_is_reported_by_name(tmp_path: Path) -> None:
    stream = Stream(plain([str(i) for i in range(10)]), tmp_path, horizon=10)
    kept = filled_snapshot(stream)
    run = next(tmp_path.glob("*.run"))
    run.unlink()
    with pytest.raises(DamageError, match=run.name):
        stream.restore(kept)


def filled_snapshot(stream: Stream) -> bytes:
    found = stream.open(table_ids=10)
    stream.feed(found, 0, 10)
    kept = found.snapshot()
    found.close()
    return kept


def test_a_run_cut_short_while_open_is_damage_not_a_new_id(tmp_path: Path) -> None:
    stream = Stream(plain([str(i % 10) for i in range(20)]), tmp_path, horizon=10)
    found = stream.open(table_ids=10)
    stream.feed(found, 0, 10)
    found.snapshot()  # which waits for the run
    run = next(tmp_path.glob("*.run"))
    with run.open("r+b") as file:
        file.truncate(4100)
    with pytest.raises(DamageError, match=run.name):
        stream.feed(found, 10, 20)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_damaged_snapshot_is_refused(data: st.DataObject) -> None:
    with folder() as where:
        stream = Stream(plain([str(i) for i in range(15)]), where, horizon=10)
        kept = bytearray(filled_snapshot(stream))
        at = data.draw(st.integers(0, len(kept) - 1))
        kept[at] ^= data.draw(st.integers(1, 255))
        with pytest.raises(DamageError):
            stream.restore(bytes(kept))
        with pytest.raises(DamageError):
            stream.restore(bytes(kept[:at]))


@pytest.mark.parametrize(("horizon", "key"), [(11, KEY), (10, bytes(16))])
def test_a_snapshot_of_another_horizon_or_key_is_refused(
    tmp_path: Path, horizon: int, key: bytes
) -> None:
    stream = Stream(plain([str(i) for i in range(5)]), tmp_path, horizon=10)
    kept = filled_snapshot_of(stream, 5)
    with pytest.raises(DamageError, match="another horizon or key"):
        Dedupe.restore(kept, tmp_path, horizon=horizon, key=key, lookup=stream.lookup)


def filled_snapshot_of(stream: Stream, count: int) -> bytes:
    found = stream.open(table_ids=10)
    stream.feed(found, 0, count)
    return found.snapshot()


def test_a_full_disk_leaves_no_file_and_the_update_may_be_repeated(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    stream = Stream(plain([str(i % 15) for i in range(30)]), inner, horizon=10)
    found = stream.open(table_ids=6)
    inner.rmdir()
    with pytest.raises(StorageFullError):
        stream.feed(found, 0, 30)
    with pytest.raises(ValueError, match="repeat"):
        found.snapshot()
    inner.mkdir()
    assert stream.feed(found, 0, 30) == twin(stream.records, horizon=10)


def test_another_batch_after_a_failed_one_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    stream = Stream(plain([str(i) for i in range(30)]), inner, horizon=10)
    found = stream.open(table_ids=10)
    inner.rmdir()
    with pytest.raises(StorageFullError):
        stream.feed(found, 0, 20)
    with pytest.raises(ValueError, match="same records"):
        stream.feed(found, 20, 30)


@pytest.mark.parametrize("offsets", [[3, 4], [5, 5], [6, 5], [5]])
def test_offsets_that_do_not_ascend_are_refused(tmp_path: Path, offsets: list[int]) -> None:
    stream = Stream(plain("abcde"), tmp_path, horizon=10)
    found = stream.open(table_ids=10)
    stream.feed(found, 0, 5)
    with pytest.raises(ValueError, match="offsets"):
        found.update(
            pa.array(["x", "y"]),
            offsets=np.array(offsets, dtype=np.int64),
            ingest_times=np.array([0, 0], dtype=np.int64),
        )


@pytest.mark.parametrize("ids", [pa.array(["a", None]), pa.array([1, 2])])
def test_ids_that_are_missing_or_not_text_are_refused(tmp_path: Path, ids: pa.StringArray) -> None:
    found = Stream([], tmp_path, horizon=10).open(table_ids=10)
    two = np.array([0, 1], dtype=np.int64)
    with pytest.raises(ValueError, match="strings without nulls"):
        found.update(ids, offsets=two, ingest_times=two)


def test_a_slice_of_a_longer_column_is_read_where_it_lies(tmp_path: Path) -> None:
    found = Stream([], tmp_path, horizon=10).open(table_ids=10)
    two = np.array([0, 1], dtype=np.int64)
    seen = found.update(pa.array(["x", "y", "a", "a", "z"])[2:4], offsets=two, ingest_times=two)
    assert seen.duplicate.tolist() == [False, True]


def test_a_lookup_with_the_wrong_number_of_ids_is_refused(tmp_path: Path) -> None:
    found = Dedupe.open(tmp_path, horizon=10, key=KEY, lookup=lambda offsets: [])
    one = np.array([0], dtype=np.int64)
    found.update(pa.array(["a"]), offsets=one, ingest_times=one)
    with pytest.raises(ValueError, match="0 ids for 1"):
        found.update(pa.array(["a"]), offsets=one + 1, ingest_times=one)


@pytest.mark.parametrize(
    "wrong", [{"horizon": -1}, {"table_ids": 0}, {"key": b"short"}], ids=lambda w: next(iter(w))
)
def test_settings_without_sense_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    settings_given: dict[str, object] = {"horizon": 1, "key": KEY, "lookup": lambda offsets: []}
    with pytest.raises(ValueError, match=r"at least|16 bytes"):
        Dedupe.open(tmp_path, **{**settings_given, **wrong})  # type: ignore[arg-type]


@given(streams(), HORIZONS, TABLES, MASKS, st.integers(0, 90))
@settings(max_examples=80, deadline=None)
def test_an_id_is_found_at_any_point_and_nothing_is_remembered_of_the_question(
    cut: tuple[list[Record], list[int]], horizon: int, table_ids: int, mask: int, later: int
) -> None:
    records, cuts = cut
    got = []
    with folder() as where:
        stream = Stream(records, where, horizon=horizon)
        found = stream.open(table_ids=table_ids, mask=mask)
        for a, b in itertools.pairwise(cuts):
            got += stream.feed(found, a, b)
            asked = sorted({r.id for r in records} | {"never"})
            now = max((r.time for r in records[:b]), default=0) + later
            offset = records[b - 1].offset + 1 if b else 0
            question = [Record(i, offset + n, now) for n, i in enumerate(asked)]
            wanted = twin([*records[:b], *question], horizon=horizon)[b:]
            assert found.find(pa.array(asked, pa.string()), ingest_time=now).tolist() == wanted
        found.close()
    assert got == twin(records, horizon=horizon)
