"""What the server and the processes that it starts have in common."""

from __future__ import annotations

import gc
import os

# What a process needs to find its own modules; secrets are in no variable that it is given.
_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


def environment() -> dict[str, str]:
    """The environment of a process that the server starts."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def tune_collector() -> None:
    """Look seldom for cycles, in a process that serves and nothing else.

    What is loaded by now stays: to look through it again and again would halve the rate of single
    events and stop the loop for tenths of a second at a time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
