"""What a snapshot of an entity's state looks like, and how it is taken while updates go on.

The first buffer is a header of words: what it is, its version, the marks of plan and key, the
number of shards, and for each shard how many keys it has. Then come parts, shard by shard: how many
keys end in it, how many words it takes, and these words. A key of many rows runs through several.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from tidegate.errors import DamageError
from tidegate.features.memory import Words
from tidegate.features.plan import EntityPlan

_MAGIC = int.from_bytes(b"tgentity", "little")
_VERSION = 3
_HEAD = 5

Part = tuple[int, Words]  # how many keys end in it, and what was packed of them


def mark_of(plan: EntityPlan) -> int:
    """63 bits that tell plans apart."""
    return int.from_bytes(hashlib.sha256(repr(plan).encode()).digest()[:8], "little") >> 1


class SnapshotJob:
    """The state as it was when the job began, copied part by part.

    `buffers` may be read by one thread while another goes on updating: the state is held still
    while a part of a megabyte is copied, and an update keeps of the keys that are not copied yet
    what it is about to change. `copy(shard, piece)` gives the next part of a shard, in `piece` if
    it has room for any, None when there are no more; `piece()` makes one whose memory is at hand,
    so that no update waits for that.
    """

    def __init__(
        self,
        *,
        keys: Sequence[int],
        marks: tuple[int, int],
        piece: Callable[[], Words],
        copy: Callable[[int, Words], Words | None],
        lock: Lock,
    ) -> None:
        self._head = [_MAGIC, _VERSION, *marks, len(keys), *keys]
        self._piece, self._copy, self._lock = piece, copy, lock
        self._shard, self._shards = 0, len(keys)

    @property
    def done(self) -> bool:
        """Whether all is copied."""
        return self._shard == self._shards

    def buffers(self) -> Iterator[memoryview]:
        """All of it, as bytes, to be read once and to its end; what was given out is not held."""
        yield _bytes(np.array(self._head, dtype=np.int64))
        while (part := self._next()) is not None:
            yield _bytes(part)

    def _next(self) -> Words | None:
        piece = self._piece()
        with self._lock:
            while not self.done:
                part = self._copy(self._shard, piece)
                if part is not None:
                    return part
                self._shard += 1
        return None


def _bytes(words: Words) -> memoryview:
    given: Any = words.view(np.uint8)
    return memoryview(given)


def read_shards(
    buffers: Iterable[Any], *, marks: tuple[int, int], shards: int
) -> Iterator[tuple[int, list[Part]]]:
    """The keys of each shard, how many and as parts, as the buffers of a snapshot are read.

    The buffers may be cut differently from how they were given, so long as their order is kept;
    parts may lie in them, so none may be used for anything else before the part was.
    Raises: DamageError if they are no snapshot, or one of another plan, key or version.
    """
    source = _Source(buffers)
    for what, seen, wanted in zip(
        ("kind", "version", "plan", "key", "number of shards"),
        source.words(_HEAD).tolist(),
        (_MAGIC, _VERSION, *marks, shards),
        strict=True,
    ):
        if seen != wanted:
            raise DamageError(
                f"the {what} of a snapshot of windows is {seen:x}, expected {wanted:x}"
            )
    for keys in source.words(shards).tolist():
        yield keys, list(_parts(source, keys))
    source.end()


def _parts(source: _Source, keys: int) -> Iterator[Part]:
    """The parts that make up so many keys."""
    left = keys
    while left:
        held, words = source.words(2).tolist()
        if not 0 <= held <= left or words <= 0:
            raise DamageError(
                f"a part of a snapshot of windows has {held} keys of {left} left in {words} words"
            )
        left -= held
        yield held, source.words(words)


class _Source:
    """Words out of buffers of any length, without copying where a buffer has them all."""

    def __init__(self, buffers: Iterable[Any]) -> None:
        self._buffers = iter(buffers)
        self._rest: npt.NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def words(self, count: int) -> Words:
        size = 8 * count
        if len(self._rest) < size:
            self._rest = self._gather(size)
        taken, self._rest = self._rest[:size], self._rest[size:]
        if taken.ctypes.data % 8:
            taken = taken.copy()
        return taken.view(np.int64)

    def _more(self) -> None:
        buffer = next(self._buffers, None)
        if buffer is None:
            raise DamageError("a snapshot of windows ends too early")
        self._rest = np.frombuffer(buffer, dtype=np.uint8)

    def _gather(self, size: int) -> npt.NDArray[np.uint8]:
        """What is left and as many buffers as make up `size`, in one piece."""
        pieces, held = [self._rest], len(self._rest)
        while held < size:
            self._more()
            pieces.append(self._rest)
            held += len(self._rest)
        whole = [p for p in pieces if len(p)]
        return whole[0] if len(whole) == 1 else np.concatenate(whole)

    def end(self) -> None:
        """Make sure that nothing is left."""
        left = len(self._rest) + sum(len(memoryview(b).cast("B")) for b in self._buffers)
        if left:
            raise DamageError(f"a snapshot of windows has {left} bytes too many")
