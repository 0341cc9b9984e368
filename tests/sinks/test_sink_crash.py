"""A process killed amid deliveries, many times, leaves each row in the store once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastavro
import pytest
from sink_crasher import ROWS

from waiting import PATIENCE_SECONDS

_CRASHER = Path(__file__).with_name("sink_crasher.py")


def held(folder: Path, form: str) -> list[int]:
    """The offsets in the files, read without any of our code."""
    offsets: list[int] = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith("."):
            continue
        if form == "capture":
            with path.open("rb") as file:
                records: list[Any] = list(fastavro.reader(file))
            offsets += [r["SequenceNumber"] for r in records]
        else:
            offsets += [json.loads(line)["log_offset"] for line in path.read_text().splitlines()]
    return sorted(offsets)


@pytest.mark.parametrize("form", ["capture", "ndjson"])
def test_each_row_is_in_the_store_once_after_many_kills(tmp_path: Path, form: str) -> None:
    command = [sys.executable, str(_CRASHER), str(tmp_path), form, "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=8 * PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) >= 3
    assert held(tmp_path / "blobs", form) == list(range(ROWS))
