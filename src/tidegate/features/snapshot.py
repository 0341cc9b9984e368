"""What a snapshot of an entity's state looks like, and how it is taken while updates go on.

The first buffer is a header of words: what it is, its version, the marks of plan and key, the
number of shards, and for each shard how many keys and words it has. Then each shard has a buffer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from tidegate.errors import DamageError
from tidegate.features.memory import Words
from tidegate.features.plan import EntityPlan

_MAGIC = int.from_bytes(b"tgentity", "little")
_VERSION = 1
_HEAD = 5

Part = tuple[int, Words]  # keys, and what was packed of them


def mark_of(plan: EntityPlan) -> int:
    """63 bits that tell plans apart."""
    return int.from_bytes(hashlib.sha256(repr(plan).encode()).digest()[:8], "little") >> 1


class SnapshotJob:
    """The state as it was when the job began, copied shard by shard.

    `copy_next` and `buffers` may be called by one thread while another goes on updating: a shard
    is held still while it is copied, and an update copies what it is about to change first.
    """

    def __init__(
        self, *, shards: int, marks: tuple[int, int], copy: Callable[[int], Part], lock: Lock
    ) -> None:
        self._marks, self._copy, self._lock = marks, copy, lock
        self._pending = set(range(shards))
        self._parts: list[Part | None] = [None] * shards

    @property
    def done(self) -> bool:
        """Whether all shards are copied."""
        return not self._pending

    def pending(self, shards: Iterable[int]) -> list[int]:
        """Those of the shards that are not copied yet."""
        return [s for s in shards if s in self._pending]

    def copy(self, shard: int) -> None:
        """Copy a shard; the caller holds the state still."""
        self._parts[shard] = self._copy(shard)
        self._pending.discard(shard)

    def copy_next(self) -> bool:
        """Copy one shard more; False when none was left."""
        with self._lock:
            if not self._pending:
                return False
            self.copy(min(self._pending))
            return True

    def buffers(self) -> Iterator[memoryview]:
        """All of it, as bytes; what was given out is held no longer."""
        while self.copy_next():
            pass
        counts = [n for part in self._parts if part for n in (part[0], len(part[1]))]
        head = [_MAGIC, _VERSION, *self._marks, len(self._parts), *counts]
        yield _bytes(np.array(head, dtype=np.int64))
        for s, part in enumerate(self._parts):
            self._parts[s] = None
            if part is not None:
                yield _bytes(part[1])


def _bytes(words: Words) -> memoryview:
    given: Any = words.view(np.uint8)
    return memoryview(given)


def read_parts(buffers: Iterable[Any], *, marks: tuple[int, int]) -> Iterator[Part]:
    """The parts of a snapshot, one for each shard, as its buffers are read.

    The buffers may be cut differently from how they were given, so long as their order is kept.
    Raises: DamageError if they are no snapshot, or one of another plan, key or version.
    """
    source = _Source(buffers)
    head = source.words(_HEAD)
    for what, seen, wanted in zip(
        ("the kind of", "the version of", "the plan of", "the key of"),
        head.tolist(),
        (_MAGIC, _VERSION, *marks),
        strict=False,
    ):
        if seen != wanted:
            raise DamageError(f"{what} a snapshot of windows is {seen:x}, expected {wanted:x}")
    counts = source.words(2 * int(head[4])).reshape(-1, 2).tolist()
    for keys, words in counts:
        yield keys, source.words(words)
    source.end()


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
