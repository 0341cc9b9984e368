"""What durability costs at the least: small writes and fdatasync, while the processors are busy.

python -m benchmarks.disk FOLDER SECONDS

A virtual machine's disk is served by a process beside those of its processors, so that it may have
to wait where these are busy: what a disk does on an idle machine is no floor for one under load.
Prints one line of JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

RATE = 200.0  # a second, as many as there are commits under load
_BYTES = 36 << 10  # of a commit of a hundred and some events
_FILE_BYTES = 64 << 20  # written over and over, as the log's WAL is


def main(arguments: Sequence[str]) -> None:
    folder, seconds = arguments
    context = multiprocessing.get_context("spawn")
    busy = [
        context.Process(target=_spin, daemon=True) for _ in range(max(1, (os.cpu_count() or 1) - 1))
    ]
    for process in busy:
        process.start()
    try:
        taken = _synced(Path(folder) / "floor", float(seconds))
    finally:
        for process in busy:
            process.kill()
    p50, p99 = np.percentile(taken, (50, 99))
    print(json.dumps({"p50_ms": p50, "p99_ms": p99, "max_ms": max(taken), "count": len(taken)}))


def _spin() -> None:
    while True:
        pass


def _synced(path: Path, seconds: float) -> list[float]:
    """Milliseconds that each write took to be durable."""
    taken: list[float] = []
    block = os.urandom(_BYTES)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for first in range(0, _FILE_BYTES, _BYTES):
            os.pwrite(handle, block, first)
        os.fsync(handle)
        until = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < until:
            os.pwrite(handle, block, len(taken) * _BYTES % _FILE_BYTES)
            os.fdatasync(handle)
            taken.append((time.perf_counter() - begun) * 1e3)
            time.sleep(max(0.0, 1 / RATE + begun - time.perf_counter()))
    finally:
        os.close(handle)
    return taken


if __name__ == "__main__":
    main(sys.argv[1:])
