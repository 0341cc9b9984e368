"""Writes a warehouse and is killed, round after round: `warehouse_crasher.py FOLDER ROUNDS SEED`.

Each round is a fresh process that opens the folder, checks what it holds, and writes stretches of
random length while upkeep runs beside it, until SIGKILL ends it at a random moment.
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
        child = os.fork()
        if child == 0:
            live(root, random.Random(seed * 1_000 + turn))
        # Some rounds end while the folder is being opened.
        time.sleep(chance.choice((0.02, 0.1, 0.3)) + chance.random() * 0.4)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            return 1
    return 0


def live(root: Path, chance: random.Random) -> None:
    """Write until killed; ends by itself only where something is wrong."""
    try:
        warehouse = opened(root, compact_after=10, vacuum_after=200_000)
        assert not warehouse.repairs, warehouse.repairs
        assert unchanged(held(warehouse), warehouse.position)
        threading.Thread(target=upkeep, args=(warehouse,), daemon=True).start()
        while True:
            first = max(warehouse.position - chance.randrange(5), 0)
            warehouse.write([outcome(first, warehouse.position + chance.randrange(1, 60))])
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
