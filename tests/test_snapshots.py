"""Snapshots are whole or not there, and what was damaged is passed over."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from weakref import ref

import msgspec
import pytest

from tidegate.engine import EngineState
from tidegate.errors import StorageFullError
from tidegate.snapshots import Snapshots

EVERYTHING = 2**62


def state(offset: int, *, dedupe: bytes = b"index") -> EngineState:
    return EngineState(
        offset=offset,
        newest_event_time=offset * 10,
        newest_ingest_time=offset * 20,
        version="v1",
        files={"tidegate.toml": "text"},
        dedupe=dedupe,
        windows={"orders": b"rows"},
    )


SECTIONS: list[bytes | bytearray | memoryview] = [
    b"keys",
    b"",
    memoryview(array("q", range(5))),
    bytearray(range(200)) * 10,
]


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    found = Snapshots(tmp_path)
    for offset in (3, 20, 100):
        found.save(state(offset), SECTIONS)
    return found


def offsets(snapshots: Snapshots, *, offset_max: int = EVERYTHING) -> list[int]:
    return [s.state.offset for s in snapshots.load(offset_max=offset_max) if s.is_whole()]


def pruned(snapshots: Snapshots, *, keep: int, offset_max: int = EVERYTHING) -> list[int]:
    """The offsets of what pruning keeps."""
    return snapshots.prune(keep=keep, offset_max=offset_max, note=lambda state: state.offset)


def file(folder: Path, offset: int) -> Path:
    return folder / f"{offset:020d}.snapshot"


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    Snapshots(tmp_path).save(state(7), SECTIONS)
    (found,) = Snapshots(tmp_path).load(offset_max=7)
    assert found.state == state(7)
    assert [bytes(s) for s in found.sections()] == [bytes(s) for s in SECTIONS]


def test_a_snapshot_of_the_first_format_is_read(tmp_path: Path) -> None:
    """Its state lacks what has been added since, and there are no sections."""
    body = msgspec.msgpack.encode(
        {k: v for k, v in msgspec.structs.asdict(state(7)).items() if k != "newest_of_events"}
    )
    head = b"TIDEGATE-SNAPSHOT-1\n" + hashlib.sha256(body).digest()
    file(tmp_path, 7).write_bytes(head + body)
    (found,) = Snapshots(tmp_path).load(offset_max=7)
    assert found.state == state(7)
    assert list(found.sections()) == []
    assert found.is_whole()
    file(tmp_path, 7).write_bytes(head + flipped(body))
    assert list(Snapshots(tmp_path).load(offset_max=7)) == []


def test_a_draft_does_not_count_until_it_is_published(snapshots: Snapshots, tmp_path: Path) -> None:
    snapshots.draft(state(200), SECTIONS)
    assert pruned(snapshots, keep=1) == [100]
    snapshots.publish(200)
    assert offsets(snapshots) == [200, 100]


class Section(bytearray):
    """Bytes of which it can be told whether someone still holds them."""


def test_sections_are_fetched_a_few_ahead_and_let_go(tmp_path: Path) -> None:
    given: list[ref[Section]] = []
    counts = []

    def many() -> Iterator[Section]:
        for number in range(50):
            section = Section(number.to_bytes(2))
            given.append(ref(section))
            counts.append(sum(g() is not None for g in given))
            yield section

    Snapshots(tmp_path).save(state(1), many())
    (found,) = Snapshots(tmp_path).load(offset_max=1)
    assert [bytes(s) for s in found.sections()] == [number.to_bytes(2) for number in range(50)]
    assert 2 <= max(counts) <= 6


def test_a_draft_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the state is gone")

    snapshots = Snapshots(tmp_path)
    with pytest.raises(RuntimeError, match="gone"):
        snapshots.draft(state(1), failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left_out", range(len(SECTIONS)))
def test_a_file_that_lacks_a_section_is_torn(tmp_path: Path, left_out: int) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.save(state(1), SECTIONS)
    whole = file(tmp_path, 1).read_bytes()
    snapshots.save(state(1), SECTIONS[:left_out])
    shorter = len(file(tmp_path, 1).read_bytes()) - 40
    file(tmp_path, 1).write_bytes(whole[:shorter] + whole[-40:])
    assert offsets(snapshots) == []


def test_the_newest_comes_first(snapshots: Snapshots) -> None:
    assert offsets(snapshots) == [100, 20, 3]
    assert snapshots.offsets() == [3, 20, 100]


def test_what_lies_behind_the_offset_asked_for_is_left_out(snapshots: Snapshots) -> None:
    assert offsets(snapshots, offset_max=20) == [20, 3]
    assert offsets(snapshots, offset_max=19) == [3]
    assert offsets(snapshots, offset_max=2) == []


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a bit of the state flipped": flipped,
    "a bit of the checksum flipped": lambda data: data[:30] + flipped(data[30:31]) + data[31:],
    "a bit of the length flipped": lambda data: data[:20] + flipped(data[20:21]) + data[21:],
    "only the end is missing": lambda data: data[:-40],
    "another format": lambda data: data.replace(b"SNAPSHOT-2", b"SNAPSHOT-3"),
    "longer than it was": lambda data: data + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_passed_over(
    snapshots: Snapshots, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = file(tmp_path, 100)
    path.write_bytes(damage(path.read_bytes()))
    assert offsets(snapshots) == [20, 3]


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.save(state(1), [b"keys", b"", b"rows"])
    whole = file(tmp_path, 1).read_bytes()
    for at in range(len(whole)):
        file(tmp_path, 1).write_bytes(whole[:at] + flipped(whole[at : at + 1]) + whole[at + 1 :])
        assert offsets(snapshots) == [], at


def test_foreign_files_are_let_alone(snapshots: Snapshots, tmp_path: Path) -> None:
    foreign = [tmp_path / n for n in ("notes.txt", "old.snapshot", "7.snapshot", "²0.snapshot")]
    for path in foreign:
        path.write_bytes(b"mine")
    assert offsets(snapshots) == [100, 20, 3]
    pruned(snapshots, keep=1)
    assert all(path.exists() for path in foreign)


def test_a_file_under_another_offset_than_its_own_is_passed_over(
    snapshots: Snapshots, tmp_path: Path
) -> None:
    file(tmp_path, 100).rename(file(tmp_path, 50))
    assert offsets(snapshots) == [20, 3]


def test_a_file_that_cannot_be_read_is_passed_over(snapshots: Snapshots, tmp_path: Path) -> None:
    file(tmp_path, 100).unlink()
    file(tmp_path, 100).mkdir()
    assert offsets(snapshots) == [20, 3]


def test_pruning_keeps_the_newest_of_those_that_may_be_used(snapshots: Snapshots) -> None:
    assert pruned(snapshots, keep=1, offset_max=20) == [20]
    assert snapshots.offsets() == [20, 100]


def test_a_damaged_snapshot_does_not_count_among_those_that_are_kept(
    snapshots: Snapshots, tmp_path: Path
) -> None:
    file(tmp_path, 20).write_bytes(b"torn")
    assert pruned(snapshots, keep=2) == [100, 3]
    snapshots.save(state(200))
    pruned(snapshots, keep=2)
    assert snapshots.offsets() == [100, 200]


def test_what_is_known_and_unchanged_is_not_read_again(
    snapshots: Snapshots, tmp_path: Path
) -> None:
    known = {offset: f"known {offset}" for offset in (3, 20, 100)}
    read: list[int] = []

    def note(found: EngineState) -> str:
        read.append(found.offset)
        return f"read {found.offset}"

    def kept() -> list[str]:
        return snapshots.prune(keep=3, offset_max=EVERYTHING, note=note, known=known)

    assert kept() == ["known 100", "known 20", "known 3"]
    assert read == []
    file(tmp_path, 100).write_bytes(b"torn")
    os.utime(file(tmp_path, 20), ns=(0, 0))
    assert kept() == ["read 20", "known 3"]
    again = Snapshots(tmp_path)
    assert again.prune(keep=3, offset_max=EVERYTHING, note=note, known=known) == [
        "read 20",
        "read 3",
    ]


def test_pruning_with_less_than_is_to_be_kept_removes_nothing(snapshots: Snapshots) -> None:
    pruned(snapshots, keep=5)
    assert snapshots.offsets() == [3, 20, 100]


def test_drafts_of_a_crash_are_removed(snapshots: Snapshots, tmp_path: Path) -> None:
    draft = tmp_path / "00000000000000000007.draft"
    draft.write_bytes(b"half")
    assert offsets(snapshots) == [100, 20, 3]
    pruned(snapshots, keep=3)
    assert not draft.exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StorageFullError, match="a snapshot cannot be written"):
        snapshots.save(state(1))


SAVING = """
import sys
from pathlib import Path
from tidegate.engine import EngineState
from tidegate.snapshots import Snapshots
snapshots = Snapshots(Path(sys.argv[1]))
for offset in range(1_000_000):
    snapshots.save(EngineState(
        offset=offset, newest_event_time=0, newest_ingest_time=0, version="v", files={},
        dedupe=bytes(300_000), windows={},
    ), [bytes(100_000)] * 3)
    snapshots.prune(keep=2, offset_max=offset, note=lambda state: state.offset)
    print("saved", flush=True)
"""


@pytest.mark.crash
def test_a_process_that_is_killed_leaves_whole_snapshots(tmp_path: Path) -> None:
    """SIGKILL while it saves: every file that has the name of a snapshot is good."""
    for round_ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", SAVING, str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.05 + 0.037 * round_)
            os.kill(process.pid, signal.SIGKILL)
        snapshots = Snapshots(tmp_path)
        assert snapshots.offsets()
        assert offsets(snapshots) == snapshots.offsets()[::-1]
