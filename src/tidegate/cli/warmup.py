"""Compiling the kernels once, so that no start waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tidegate.cli.terminal import remark


def compile_kernels() -> None:
    """Compile every kernel into the cache on disk, with a line for each stage."""
    from tidegate.events import decode, dedupe

    stages: dict[str, Callable[[], None]] = {
        "decoding": decode.warm_up,
        "repeated ids": dedupe.warm_up,
    }
    for number, (name, warm_up) in enumerate(stages.items(), start=1):
        begun = time.monotonic()
        warm_up()
        seconds = time.monotonic() - begun
        remark(f"compiled kernels {number}/{len(stages)}: {name}, {seconds:.1f} s")
