"""How the process asks for memory: sparingly, since it is meant to live beside others for long."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import mmap
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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

_TRIM_EVERY_SECONDS = 0.5
_LEAVE_CODE_EVERY_SECONDS = 5.0
_TURN_SECONDS = 0.02  # between looks whether to wait on
_BULK_RATE = 20_000.0  # records a second: more than come in requests of a few each

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
    trim()


def trim() -> None:
    """Give back freed memory that the heap still holds; see `spare`. Takes some milliseconds."""
    if _sparing:
        with contextlib.suppress(OSError, AttributeError):  # as above
            ctypes.CDLL(None).malloc_trim(0)


class Thrift:
    """A thread that gives memory back while many records come in: `start` it, `stop` it.

    What each of the stages takes and lets go lies scattered between what the others hold, so that
    a heap grows to what all of them would need at the same time, and stays so. After a moment
    there is little of that yet. Nothing is given back where records come in requests of a few: code
    that was given up comes back page by page, and each decision that is made meanwhile takes a
    hundred milliseconds.
    """

    def __init__(
        self, passed: Callable[[], int], *, are_few: Callable[[], bool] = lambda: False
    ) -> None:
        """`passed` tells how many records have been decided on so far.

        `are_few` tells whether they come a few at a time, however many they are in all.
        """
        self._passed, self._are_few = passed, are_few
        self._looked_at = self._left_at = time.monotonic()
        self._looked_passed = passed()
        self._may_be_more = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thrift", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def expect(self) -> None:
        """Say that memory was let go of, which is to be given back even if no records come in."""
        self._may_be_more = True

    def _run(self) -> None:
        while not self._stopping.wait(_TRIM_EVERY_SECONDS):
            self.look()

    def look(self) -> None:
        """Give back what there is if many records came since the last look, and after the last."""
        now, passed = time.monotonic(), self._passed()
        rate = (passed - self._looked_passed) / max(now - self._looked_at, 1e-3)
        self._looked_at, self._looked_passed = now, passed
        is_bulk = rate >= _BULK_RATE and not self._are_few()
        if is_bulk and now - self._left_at >= _LEAVE_CODE_EVERY_SECONDS:
            self._left_at = now
            leave_out("")
        if is_bulk or (self._may_be_more and not rate):
            trim()
            self._may_be_more = is_bulk


class Turn:
    """Lets jobs that take much memory come one after the other, in the order in which they ask."""

    def __init__(self) -> None:
        self._asked: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, *, seconds: float, waits: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Wait for those who asked before: no longer than that, and only while `waits` says so.

        Whoever asks later waits for this one all the same.
        """
        own, until = object(), time.monotonic() + seconds
        with self._changed:
            self._asked.append(own)
            while self._asked[0] is not own and time.monotonic() < until and waits():
                self._changed.wait(_TURN_SECONDS)
        try:
            yield
        finally:
            with self._changed:
                self._asked.remove(own)
                self._changed.notify_all()
