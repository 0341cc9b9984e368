"""Where windows lie on the time line, and when they close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", int, npt.NDArray[np.int64])


@dataclass(frozen=True, slots=True)
class Grid:
    """Windows of `size` that begin every `hop`, numbered along the time line.

    All in microseconds. Window j runs from `origin + j * hop` for `size`. With `includes_end` an
    event that falls on a bound belongs to the window that ends there, `(start, end]` as in Stream
    Analytics; otherwise to the one that starts there, `[start, end)`. Time is counted in whole
    microseconds, so `(start, end]` is `[start + 1, end + 1)`, and that is how it is computed.

    A window closes at its `closing` time: as soon as the watermark reaches the first instant that
    no longer belongs to it. An event that lies exactly the allowed lateness behind the newest one
    is therefore never late.

    >>> import numpy as np
    >>> five = Grid(size=5, hop=5)
    >>> five.first(np.array([-1, 0, 4, 5])).tolist()
    [-1, 0, 0, 1]
    >>> Grid(size=5, hop=5, includes_end=True).first(np.array([-1, 0, 4, 5])).tolist()
    [-1, -1, 0, 0]
    """

    size: int
    hop: int
    origin: int = 0
    includes_end: bool = False

    def last(self, times: Number) -> Number:
        """The number of the last window that holds each time."""
        return (times - self._shift - self.origin) // self.hop

    def first(self, times: Number) -> Number:
        """The number of the first window that holds each time."""
        return (times - self._shift - self.origin - self.size) // self.hop + 1

    def open(self, watermarks: Number) -> Number:
        """The number of the first window that is still open at each watermark."""
        return self.first(watermarks)

    def start(self, numbers: Number) -> Number:
        """The start of each window."""
        return numbers * self.hop + self.origin

    def end(self, numbers: Number) -> Number:
        """The end of each window."""
        return self.start(numbers) + self.size

    def closing(self, numbers: Number) -> Number:
        """The watermark at which each window closes."""
        return self.end(numbers) + self._shift

    @property
    def _shift(self) -> int:
        return int(self.includes_end)
