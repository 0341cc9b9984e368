"""The SQLite log keeps the contract of event logs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.eventlog import SqliteLog
from tidegate.testing.eventlog import EventLogContract, Opener


class TestSqliteLog(EventLogContract):
    @pytest.fixture
    def new_log(self, tmp_path: Path) -> Callable[[], Opener]:
        numbers = itertools.count()

        def new() -> Opener:
            path = tmp_path / f"{next(numbers)}.sqlite"
            return lambda: SqliteLog.open(path)

        return new
