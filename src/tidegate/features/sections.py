"""The states of several entities as one stream of bytes, and back.

Each entity is a mark of 32 bytes (its fingerprint), then its buffers, each after its length in
eight bytes, then eight bytes of ones. All lengths are multiples of eight, so that words stay
aligned wherever the stream is cut at such a multiple.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from tidegate.errors import DamageError

Buffer: TypeAlias = bytes | bytearray | memoryview

MARK = 32
_LENGTH = 8
_END = b"\xff" * _LENGTH


def framed(mark: str, buffers: Iterable[memoryview]) -> Iterator[Buffer]:
    """The sections of one entity, whose fingerprint in hexadecimal is `mark`."""
    yield bytes.fromhex(mark)
    for buffer in buffers:
        yield buffer.nbytes.to_bytes(_LENGTH, "little")
        yield buffer.cast("B")
    yield _END


class Sections:
    """Reads what `framed` gave; the sections may be cut differently, in the same order."""

    def __init__(self, sections: Iterable[Buffer]) -> None:
        self._sections = iter(sections)
        self._rest = memoryview(b"")

    def entity(self, mark: str) -> Iterator[memoryview]:
        """The buffers of the next entity, to be read before what follows it.

        Raises: DamageError if it is another one, or if the sections end too early.
        """
        seen = self._exactly(MARK).hex()
        if seen != mark:
            raise DamageError(f"the state of windows {seen[:12]} stands where {mark[:12]} should")
        while (length := self._exactly(_LENGTH)) != _END:
            yield from self._pieces(int.from_bytes(length, "little"))

    def end(self) -> None:
        """Raises: DamageError if anything is left."""
        left = len(self._rest) + sum(memoryview(s).nbytes for s in self._sections)
        if left:
            raise DamageError(f"the state of the features has {left} bytes too many")

    def _exactly(self, size: int) -> bytes:
        return b"".join(self._pieces(size))

    def _pieces(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._rest:
                self._rest = self._more()
            taken, self._rest = self._rest[:size], self._rest[size:]
            size -= len(taken)
            yield taken

    def _more(self) -> memoryview:
        section = next(self._sections, None)
        if section is None:
            raise DamageError("the state of the features ends too early")
        return memoryview(section).cast("B")
