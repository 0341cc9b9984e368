"""The data folder: held by one process, with a secret of its own."""

import stat
from pathlib import Path

import pytest

from tidegate.datafolder import DataFolder
from tidegate.errors import DamageError, LockedError


def test_the_key_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    key = DataFolder(tmp_path).key()
    assert len(key) == 16
    assert DataFolder(tmp_path).key() == key
    mode = (tmp_path / "installation.key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_each_installation_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert DataFolder(tmp_path / "a").key() != DataFolder(tmp_path / "b").key()


def test_a_draft_of_the_key_that_a_crash_left_behind_is_written_anew(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    draft = tmp_path / "installation.draft"
    draft.write_bytes(b"half")
    draft.chmod(0o644)
    assert len(folder.key()) == 16
    assert stat.S_IMODE((tmp_path / "installation.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("left", [0, 15, 17])
def test_a_torn_key_is_refused(tmp_path: Path, left: int) -> None:
    folder = DataFolder(tmp_path)
    (tmp_path / "installation.key").write_bytes(bytes(left))
    with pytest.raises(DamageError, match=f"holds {left} bytes, expected 16"):
        folder.key()


def test_the_second_to_lock_it_is_told_who_was_first(tmp_path: Path) -> None:
    first, second = DataFolder(tmp_path), DataFolder(tmp_path)
    first.lock(purpose="tidegate run at somewhere")
    with pytest.raises(LockedError, match=r"in use by tidegate run at somewhere \(process \d+\)"):
        second.lock(purpose="another")
    first.unlock()
    second.lock(purpose="another")
    second.unlock()
    second.unlock()
