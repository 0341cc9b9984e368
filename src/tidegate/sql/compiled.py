"""Functions compiled when they are first asked for, or loaded from the cache on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar, cast

from numba import njit

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Compiled(Generic[Given, Result]):
    """A function, and native code of it for one signature; any thread may ask for that.

    `modules` are those whose functions are compiled into it, as paths from here: what is on disk
    counts as stale as soon as any of them has changed. Numba would look at one file only.
    """

    def __init__(self, function: Callable[Given, Result], signature: Any, *modules: str) -> None:
        self._function, self._signature, self._modules = function, signature, modules
        self._compiling = Lock()
        self._made: Callable[Given, Result] | None = None

    def get(self) -> Callable[Given, Result]:
        """The native code."""
        if self._made is None:
            with self._compiling:
                if self._made is None:
                    self._made = self._compile()
        return self._made

    def _compile(self) -> Callable[Given, Result]:
        made: Any = njit(nogil=True, cache=True, error_model="numpy")(self._function)
        here = Path(__file__).parent
        files = [here / f"{name}.py" for name in self._modules]
        stamp = tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)
        made._cache._cache_file._source_stamp = stamp
        made.compile(self._signature)
        made.disable_compile()
        return cast("Callable[Given, Result]", made)
