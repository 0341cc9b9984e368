"""A process that delivers rows and is killed, again and again, until all are delivered.

Usage: sink_crasher.py FOLDER FORM SEED. Prints how often it was killed amid its work.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
from sink_rows import captured, opened, settings

from tidegate.clock import SystemClock
from tidegate.sinks.courier import Courier, Pace
from tidegate.sinks.ledger import Ledger
from tidegate.testing.sinks import RowsFeed

ROWS = 1_500


def deliver(folder: Path, form: str, rows: pa.Table) -> None:
    """Deliver what is left, then end the process."""
    path = "all/{PartitionId}" if form == "capture" else "all/{event_type}"
    sink = opened(settings("blobs", form=form, path=path, partitions=3), rows, folder)
    courier = Courier(
        "s",
        sink=sink,
        feed=RowsFeed(rows, end=ROWS),
        ledger=Ledger(folder / "sinks.sqlite"),
        pace=Pace(rows_max=17),
        clock=SystemClock(),
        random=random.random,
    )
    while courier.step(drain=True) == 0:
        pass
    os._exit(0 if courier.status.offset == ROWS else 1)


def main(folder: Path, form: str, seed: int) -> int:
    """Kill until a process ends by itself; returns how often that took."""
    chance = random.Random(seed)
    rows = captured(ROWS)
    for kills in range(10_000):
        child = os.fork()
        if child == 0:
            deliver(folder, form, rows)
        # Longer and longer, so that it comes to an end on the slowest machine.
        time.sleep(chance.uniform(0, 0.05 + kills * 0.005))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return kills
    raise AssertionError("it never came to an end")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))  # noqa: T201 - its one result
