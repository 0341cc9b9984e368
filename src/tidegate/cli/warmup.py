"""Compiling the kernels once, so that no start waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console


def compile_kernels(*, console: Console) -> None:
    """Compile every kernel into the cache on disk, with a line for each stage."""
    from tidegate.events import decode, dedupe

    stages: dict[str, Callable[[], None]] = {
        "decoding": decode.warm_up,
        "repeated ids": dedupe.warm_up,
    }
    for number, (name, warm_up) in enumerate(stages.items(), start=1):
        begun = time.monotonic()
        console.print(f"compiling kernels {number}/{len(stages)}: {name} …", end=" ")
        warm_up()
        console.print(f"{time.monotonic() - begun:.1f} s")
