"""How the process asks for memory: sparingly, since it is meant to live beside others for long."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's mallopt


class _WithoutPandas(MetaPathFinder):
    """Arrow imports pandas (50 MB) wherever it is installed; here nothing uses it."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as Python's protocol has it
        target: ModuleType | None = None,  # noqa: ARG002 - as above
    ) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is left out to spare memory", name=name)


def spare() -> None:
    """Make freed memory go back to where it came from. To be called before Arrow is imported.

    For a process that runs a project, not for a notebook. Arrow's own allocator keeps much of what
    it once used, and glibc keeps a heap for each of many threads: together a third of the resident
    memory under load.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if not any(isinstance(finder, _WithoutPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutPandas())
    with contextlib.suppress(OSError, AttributeError):  # another C library has other ways
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)
