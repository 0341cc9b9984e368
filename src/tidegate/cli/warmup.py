"""Compiling the kernels once, so that no start waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tidegate.cli.terminal import remark


def compile_kernels() -> None:
    """Compile every kernel into the cache on disk, with a line for each stage."""
    import tidegate.features.entity  # noqa: F401 - what is imported waits to be compiled
    from tidegate.events import decode, dedupe
    from tidegate.features.memory import compile_kernels as compile_features
    from tidegate.sql.registers import warm_up as compile_expressions

    stages: dict[str, Callable[[], object]] = {
        "decoding": decode.warm_up,
        "repeated ids": dedupe.warm_up,
        "expressions": compile_expressions,
        "features": compile_features,
    }
    for number, (name, warm_up) in enumerate(stages.items(), start=1):
        begun = time.monotonic()
        warm_up()
        seconds = time.monotonic() - begun
        remark(f"compiled kernels {number}/{len(stages)}: {name}, {seconds:.1f} s")
