"""Records as they were received: one block of bytes and where each record lies in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bounds = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """`len(starts)` records; record i is `payload[starts[i]:ends[i]]`.

    The payload is kept whole, so what lies between records (line ends, the commas of an array)
    stays as it came. Bounds are int64 of shape (n,), ascending, never overlapping.
    """

    payload: bytes
    starts: Bounds
    ends: Bounds

    @classmethod
    def of(cls, records: Sequence[bytes]) -> Records:
        """Records from separate byte strings, joined by line ends."""
        ends = np.cumsum([len(r) + 1 for r in records], dtype=np.int64) - 1
        starts = ends - np.array([len(r) for r in records], dtype=np.int64)
        return cls(b"\n".join(records), starts, ends)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        return self.payload[int(self.starts[index]) : int(self.ends[index])]

    def __iter__(self) -> Iterator[bytes]:
        return (
            self.payload[a:b] for a, b in zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        )

    def cut(self, bytes_max: int) -> Iterator[Records]:
        """The same records in blocks of at most `bytes_max`, or of one record that is larger."""
        first = 0
        while first < len(self):
            begin = int(self.starts[first])
            after = int(np.searchsorted(self.ends, begin + bytes_max, side="right"))
            after = max(first + 1, after)
            end = int(self.ends[after - 1])
            bounds = (self.starts[first:after] - begin, self.ends[first:after] - begin)
            yield Records(self.payload[begin:end], *bounds)
            first = after
