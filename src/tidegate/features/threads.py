"""Threads in which the pieces of a large batch are worked on side by side."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import ParamSpec, TypeVar

_TASKS = 2  # pieces for each thread: as few as still even out

_P = ParamSpec("_P")
_T = TypeVar("_T")


@lru_cache
def _pool(threads: int, name: str) -> ThreadPoolExecutor:
    """The threads that all states share: work on one fills the pauses of another."""
    return ThreadPoolExecutor(threads, thread_name_prefix=name)


class Threads:
    """So many threads of a name; with one, everything is done by the caller's own."""

    def __init__(self, threads: int, name: str = "features") -> None:
        self.count = threads
        self._pool = _pool(threads, name) if threads > 1 else None

    def run(self, task: Callable[[int, int], None], size: int, *, wide: bool = True) -> None:
        """Do `task(first, last)` over `size` things, side by side where that is worth it (`wide`).

        Raises: what a task raises, once all have ended: none writes to memory that is gone.
        """
        if self._pool is None or not wide:
            task(0, size)
            return
        step = max(1, -(-size // (_TASKS * self.count)))
        tasks = [self._pool.submit(task, k, min(size, k + step)) for k in range(0, size, step)]
        wait(tasks)
        for done in tasks:
            done.result()

    def begin(self, task: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Have a task done beside the caller, at once where there is one thread."""
        if self._pool is not None:
            return self._pool.submit(task, *args, **kwargs)
        done = Future[_T]()
        done.set_result(task(*args, **kwargs))
        return done
