"""The command line in this process, and projects for it."""

import shutil
import sys
from pathlib import Path

import pytest

import tidegate
from tidegate.cli.app import main
from tidegate.project.examples import new

from .command import Answer, Run
from .command import generate as generated


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process: quick, with the errors and exit codes of the real one."""

    def call(*words: object) -> Answer:
        capfdbinary.readouterr()
        monkeypatch.setattr(sys, "argv", ["tidegate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfdbinary.readouterr()
        return Answer(int(ended.value.code or 0), out, err.decode())

    return call


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A project in which nothing has run."""
    new(tmp_path / "shop", example="store")
    return tmp_path / "shop"


@pytest.fixture(scope="session")
def used_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("used") / "shop"
    new(folder, example="store")
    file = generated(folder.parent / "day.ndjson", count=2_000, unreadable=0.02, repeated=0.02)
    tidegate.open(folder).ingest([file])
    return folder


@pytest.fixture
def shop(used_once: Path, tmp_path: Path) -> Path:
    """A project that has taken 2,000 records; a copy for each test."""
    return Path(shutil.copytree(used_once, tmp_path / "shop"))
