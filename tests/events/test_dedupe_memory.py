"""Memory of a process that holds ten times as many ids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from tidegate.events.dedupe import Dedupe

BATCH = 20_000
HEX = np.array([list(b"%02x" % i) for i in range(256)], dtype=np.uint8)
BOUNDS = pa.py_buffer(np.arange(0, 16 * BATCH + 1, 16, dtype=np.int32))

def ids(start):
    mixed = np.arange(start, start + BATCH, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return pa.StringArray.from_buffers(BATCH, BOUNDS, pa.py_buffer(HEX[mixed.view(np.uint8)]))

def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024

found = Dedupe.open(Path(sys.argv[1]), horizon=10**15, key=bytes(16), lookup=lambda o: [])
for start in range(0, 10_000_000, BATCH):
    offsets = np.arange(start, start + BATCH)
    assert not found.update(ids(start), offsets=offsets, ingest_times=offsets).duplicate.any()
    if start + BATCH in (1_000_000, 10_000_000):
        print(resident())
assert found.ids_held == 10_000_000
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory there")
def test_ten_million_ids_take_no_more_than_60_mb_above_one_million(tmp_path: Path) -> None:
    program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    one, ten = map(float, done.stdout.split())
    assert ten - one < 60
