"""Writes a warehouse and is killed, round after round: `warehouse_crasher.py FOLDER ROUNDS SEED`.

Each round is a fresh process that opens the folder, checks what it holds, and writes stretches of
random length while upkeep runs beside it, until SIGKILL ends it at a random moment: early, or after
a number of stretches, which a slow machine takes longer for.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from warehouse_rows import held, opened, outcome, unchanged

from tidegate.warehouse import Warehouse


def main(root: Path, rounds: int, seed: int) -> int:
    chance = random.Random(seed)
    for turn in range(rounds):
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            live(root, random.Random(seed * 1_000 + turn), tell)
        os.close(tell)
        if turn % 3:
            wait_for(chance.randrange(1, 20), told)
        time.sleep(chance.random() * 0.3)  # the other rounds may end while the folder is opened
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(told)
        if os.WIFEXITED(status):
            return 1
    return 0


def wait_for(stretches: int, told: int) -> None:
    """Wait until so many are written, or the writer has ended by itself."""
    while stretches > 0 and (written := os.read(told, stretches)):
        stretches -= len(written)


def live(root: Path, chance: random.Random, tell: int) -> None:
    """Write until killed, and tell each stretch; ends by itself only where something is wrong."""
    try:
        warehouse = opened(root, compact_after=10, vacuum_after=200_000)
        assert not warehouse.repairs, warehouse.repairs
        assert unchanged(held(warehouse), warehouse.position)
        threading.Thread(target=upkeep, args=(warehouse,), daemon=True).start()
        while True:
            first = max(warehouse.position - chance.randrange(5), 0)
            warehouse.write([outcome(first, warehouse.position + chance.randrange(1, 60))])
            os.write(tell, b".")
    except BaseException:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
    os._exit(1)


def upkeep(warehouse: Warehouse) -> None:
    try:
        while True:
            warehouse.maintain()
    except BaseException:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
