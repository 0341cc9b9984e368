"""How the process asks for memory: sparingly, since it is meant to live beside others for long."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's mallopt
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD
_MAPPED_BYTES = 4 << 20
_LOADING = 100_000  # new objects between looks for cycles while modules are loaded, 700 else

# Of the allocators inside Polars and the Delta library: memory that was freed goes back after half
# a second, and few threads keep a stock of their own. Sooner, and a load takes longer.
_JEMALLOC, _JEMALLOC_SPARING = (
    "_RJEM_MALLOC_CONF",
    "narenas:2,dirty_decay_ms:500,muzzy_decay_ms:0",
)

_USUAL = gc.get_threshold()

_sparing = False  # whether this process was asked to


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
    """Make freed memory go back to where it came from. To be called before Arrow and Polars load.

    For a process that runs a project, not for a notebook. Arrow's own allocator keeps much of what
    it once used, and glibc keeps a heap for each of many threads: together a third of the resident
    memory under load. Large blocks are asked for one by one and given back at once, rather than cut
    from a heap that they leave full of holes; smaller ones are not, since memory that is new has to
    be cleared, which costs more than it saves.

    Modules and compiled code are a million objects that live to the end: looking for cycles among
    them takes a third of the time of a start, and of an end. See `loaded`.
    """
    global _sparing
    _sparing = True
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault(_JEMALLOC, _JEMALLOC_SPARING)
    if not any(isinstance(finder, _WithoutPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutPandas())
    with contextlib.suppress(OSError, AttributeError):  # another C library has other ways
        libc = ctypes.CDLL(None)
        libc.mallopt(_ARENA_MAX, 2)
        libc.mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
    gc.set_threshold(_LOADING)
    atexit.register(_end)


def _end() -> None:
    """Leave what is there to the system, unless it would be told of as lost, as DuckDB's would."""
    if "_duckdb" in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()


def loaded() -> None:
    """Say that what is there now stays for good: what comes from here on is looked through alone.

    For a process that asked to `spare`. Cycles that it has dropped already stay too: they are few.
    """
    if _sparing:
        gc.freeze()
        gc.set_threshold(*_USUAL)


def leave_out(library: str) -> None:
    """Give back the memory of a shared library's code that is not needed for now; see `spare`.

    Code lies in a file as it is: should it be needed after all, it is read again. Numba's compiler
    takes 50 MB of it to load kernels, and then has nothing more to do.
    """
    if not _sparing:
        return
    with contextlib.suppress(OSError, AttributeError, ValueError):  # another system has other ways
        advise = ctypes.CDLL(None).madvise
        for begin, end in _code(library):
            advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _code(library: str) -> Iterator[tuple[int, int]]:
    """The addresses of the code of libraries whose names begin so.

    That is what lies in a file as it is: constants may have been changed when they were loaded, and
    code that was made here is in no file.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, mode, *rest = line.split(maxsplit=5)
        folder, _, name = rest[-1].rpartition("/")
        if mode == "r-xp" and folder and ".so" in name and name.startswith(library):
            begin, end = (int(bound, 16) for bound in bounds.split("-"))
            yield begin, end


def give_back() -> None:
    """Give back freed memory that the heap still holds, and code; see `spare` and `leave_out`.

    Takes some milliseconds. Of the code of all libraries half has done its work for good; what is
    needed still comes back from the system's memory of files.
    """
    leave_out("")
    if _sparing:
        with contextlib.suppress(OSError, AttributeError):  # as above
            ctypes.CDLL(None).malloc_trim(0)
