"""Runs out of room, or may not write, then goes on: `warehouse_limits.py full|read-only FOLDER`.

Started as root of its own user and mount namespace, so that it may mount a small tmpfs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from warehouse_rows import held, opened, outcome, unchanged

from tidegate.errors import StorageFullError
from tidegate.warehouse import Warehouse


def main(harm: str, folder: Path) -> None:
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", folder)
    warehouse = opened(folder / "tables", compact_after=1_000)
    end = 0
    if harm == "full":
        (folder / "ballast").write_bytes(bytes(2 << 20))
        end = write_until_refused(warehouse)
        (folder / "ballast").unlink()
    else:
        warehouse.write([outcome(0, 30)])
        mount("-o", "remount,ro", folder)
        end = write_until_refused(warehouse)
        refused(warehouse.sync)
        refused(lambda: opened(folder / "tables").close())
        mount("-o", "remount,rw", folder)
    warehouse.write([outcome(max(warehouse.position - 3, 0), end + 200)])
    warehouse.maintain()
    assert unchanged(held(warehouse), end + 200)
    warehouse.close()
    assert opened(folder / "tables").position == end + 200


def write_until_refused(warehouse: Warehouse) -> int:
    """Write and write again; returns where it ended, having been refused three times."""
    refusals = 0
    while refusals < 3:
        end = warehouse.position + 40
        try:
            warehouse.write([outcome(warehouse.position, end)])
        except StorageFullError as error:
            refusals += 1
            print(error)  # noqa: T201 - what the test reads
    return warehouse.position


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except StorageFullError as error:
        print(error)  # noqa: T201 - what the test reads
    else:
        raise AssertionError(f"{call} went through")


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
