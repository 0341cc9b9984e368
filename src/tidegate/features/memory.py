"""Memory of a shard: words that grow in place, and the allocator of blocks among them.

All state is int64 words; doubles are kept by their bits. A segment grows by moving its pages, not
their contents. Kernels reach segments by address, so that a call takes few arguments.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from tidegate.events.fingerprints import inline

Words = npt.NDArray[np.int64]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_PAGE = mmap.PAGESIZE
_HUGE = 4 << 20

# The modules whose functions are compiled, as paths from here.
_COMPILED = (
    "accumulators",
    "aggregates",
    "amend",
    "columns",
    "compaction",
    "counts",
    "distinct",
    "emission",
    "extremes",
    "foresight",
    "history",
    "inputs",
    "intake",
    "keys",
    "late",
    "layout",
    "lots",
    "memory",
    "packing",
    "positions",
    "runs",
    "shards",
    "sums",
    "unpacking",
    "variance",
    "../events/fingerprints",
)

_waiting: list[tuple[Any, Any]] = []
_compiling = Lock()

# What a shard knows of itself: one row of the directory that kernels are given.
(
    TABLE,
    TABLE_BITS,
    RECORDS,
    RECORDS_MAX,
    RECORDS_USED,
    RECORDS_FREE,
    KEYS,
    HEAP,
    HEAP_MAX,
    HEAP_TOP,
    ROWS,
    CURSOR,
    NEED,
    DONE_ROWS,
    DONE_GROUPS,
    GROUPS,
    DEFERRED,
    HEAP_USED,
    COPY_NEXT,
    COPY_END,
    COPIES,
    KEPT,
    KEPT_TOP,
    COPY_DONE,
) = range(24)
FREE = 32
CLASSES = 80
DIRECTORY = FREE + CLASSES


def kernel(signature: Any) -> Callable[[_Function], _Function]:
    """A decorator: native code for one signature, kept on disk, compiled by `compile_kernels`.

    Unlike the kernels of `events`, these call inline functions of other modules of this package:
    what is on disk counts as stale as soon as any of them has changed.
    """

    def decorate(function: _Function) -> _Function:
        compiled: Any = njit(nogil=True, cache=True, error_model="numpy")(function)
        # Numba compares this with what it wrote beside the code; its own looks at one file.
        compiled._cache._cache_file._source_stamp = _stamp()
        _waiting.append((compiled, signature))
        return cast(_Function, compiled)

    return decorate


def unfolded(function: _Function) -> _Function:
    """An inline function whose code stands where it is called, however long it is.

    For what is called for each row with dozens of arguments, which would all go through memory.
    """
    return cast(_Function, njit(nogil=True, forceinline=True)(function))


def _stamp() -> tuple[tuple[str, int, int], ...]:
    files = [Path(__file__).parent / f"{name}.py" for name in _COMPILED]
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)


def compile_kernels() -> None:
    """Compile all kernels of this package imported so far, or load them from the cache on disk.

    Takes a minute and a half the first time and a second after that; several threads may call it.
    """
    with _compiling:
        while _waiting:
            compiled, signature = _waiting[-1]
            compiled.compile(signature)
            compiled.disable_compile()
            _waiting.pop()


class Segment:
    """Zeroed words at an address that changes when they grow; pages never written cost nothing.

    Many of them lie in `large` pages, if wanted: they are found sooner and take longer to clear.
    """

    def __init__(self, words: int, *, large: bool = True) -> None:
        self._large = large
        self._memory = _pages(words, large=large)
        self._look()

    def _look(self) -> None:
        self.words: Words = np.frombuffer(self._memory, dtype=np.int64)
        self.address = int(self.words.ctypes.data)

    def grow(self, words: int) -> None:
        """Have room for `words` at least; what is there stays, the rest is zero."""
        size = _rounded(max(words, len(self.words) + len(self.words) // 2))
        del self.words
        try:
            self._memory.resize(size)
        except (SystemError, OSError, ValueError):  # not every system can move pages
            larger = _pages(size // 8, large=self._large)
            larger[: len(self._memory)] = self._memory[:]
            self._memory = larger
        if self._large:
            _prefer_huge(self._memory)
        self._look()


def _rounded(words: int) -> int:
    size = 8 * words
    step = _HUGE // 2 if size >= _HUGE else _PAGE
    return (size + step - 1) // step * step


def _pages(words: int, *, large: bool) -> mmap.mmap:
    memory = mmap.mmap(-1, _rounded(words), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if large:
        _prefer_huge(memory)
    return memory


def _prefer_huge(memory: mmap.mmap) -> None:
    # Random access to small pages spends more time on finding the page than on the word in it.
    if len(memory) >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system built without them refuses
            memory.madvise(mmap.MADV_HUGEPAGE)


_pointer_type: Any = types.CPointer


def _pointer_to(item: Any) -> Any:
    def pointer(typing: Any, address: Any) -> Any:  # noqa: ARG001 - as Numba calls it
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = context.get_value_type(signature.return_type)
            return builder.inttoptr(arguments[0], kind)

        return _pointer_type(item)(types.int64), generate

    return intrinsic(pointer)


# What lies from an address on, by its place; nothing checks how much there is. Plain pointers and
# not arrays, since Numba counts references to arrays, which threads would contend for.
words_at: Callable[[int], Words] = _pointer_to(types.int64)
bytes_at: Callable[[int], npt.NDArray[np.uint8]] = _pointer_to(types.uint8)
bounds_at: Callable[[int], npt.NDArray[np.int32]] = _pointer_to(types.int32)


_code: Any = cgutils


def _prefetch(typing: Any, address: Any) -> Any:  # noqa: ARG001 - as Numba calls it
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001 - as Numba calls it
        pointer = builder.inttoptr(arguments[0], _code.voidptr_t)
        word = _code.int32_t
        numbers = [word(0), word(3), word(1)]  # to be read, to be kept, data
        kind = _code.ir.FunctionType(_code.ir.VoidType(), [pointer.type, word, word, word])
        function = _code.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, *numbers])
        return context.get_dummy_value()

    return types.void(types.int64), generate


# Asks for the line of memory at an address, which need not be there, ahead of its use.
prefetch: Callable[[int], None] = cast(Any, intrinsic(_prefetch))


def _cast(to: Any, given: Any) -> Any:
    def convert(typing: Any, value: Any) -> Any:  # noqa: ARG001 - as Numba calls it
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

        return to(given), generate

    return intrinsic(convert)


# The double whose bits are in a word, and the bits of a double as a word.
real: Callable[[int], float] = _cast(types.float64, types.int64)
bits: Callable[[float], int] = _cast(types.int64, types.float64)


_CLASS_OF_FOUR = 2 * 1023 + 3


@inline
def class_size(c: int) -> int:
    """Words of a block of size class c: 4, 6, 8, 12, 16, 24, ..."""
    return (6 if c & 1 else 4) << (c >> 1)


@inline
def class_of(words: int) -> int:
    """The smallest size class with this many words."""
    if words <= 4:
        return 0
    # A double has the power of two in its exponent, and the half above it in the bit that follows.
    return (bits(float(words - 1)) >> 51) - _CLASS_OF_FOUR


@inline
def allocate(shard: Words, words: int) -> int:
    """A block of at least this many words, as its place in the heap; its contents are anything.

    The caller has made sure that there is room.
    """
    c = class_of(words)
    size = class_size(c)
    shard[HEAP_USED] += size
    place = shard[FREE + c]
    if place != 0:
        following = words_at(shard[HEAP])[place]
        prefetch(shard[HEAP] + 8 * following)  # where the next block of this size will be
        shard[FREE + c] = following
        return int(place)
    place = shard[HEAP_TOP]
    shard[HEAP_TOP] = place + size
    return int(place)


@inline
def release(shard: Words, place: int, words: int) -> None:
    """Give back a block that was allocated with this many words."""
    c = class_of(words)
    shard[HEAP_USED] -= class_size(c)
    words_at(shard[HEAP])[place] = shard[FREE + c]
    shard[FREE + c] = place
