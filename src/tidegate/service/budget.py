"""A bounded number of bytes that all requests together may hold."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tidegate.errors import OverloadedError


class Budget:
    """Bytes of bodies that are being received or wait to be committed. For one event loop.

    What is charged is what has arrived, not what was announced: a sender that announces much and
    sends nothing takes nothing from the others. A request that is alone may hold more than all.

    >>> budget = Budget(10)
    >>> with budget.share() as share:
    ...     share.grow(8)
    ...     budget.held
    8
    >>> budget.held
    0
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.held = 0

    def share(self) -> Share:
        """What one request holds; given back when its `with` block ends."""
        return Share(self)

    def _grow(self, size: int, *, own: int) -> None:
        if self.held + size > self._bytes_max and self.held > own:
            raise OverloadedError("too much is being received at once", retry_after_seconds=1)
        self.held += size


class Share:
    """The bytes that one request holds."""

    __slots__ = ("_budget", "_is_handed_on", "held")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held = 0
        self._is_handed_on = False

    def grow(self, size: int) -> None:
        """Hold `size` bytes more. Raises: OverloadedError."""
        self._budget._grow(size, own=self.held)
        self.held += size

    def shrink(self, size: int) -> None:
        """Give `size` bytes back."""
        self._budget.held -= size
        self.held -= size

    def hand_on(self) -> None:
        """Keep what is held beyond the `with` block: somebody else calls `give_back`."""
        self._is_handed_on = True

    def give_back(self) -> None:
        """Give all back."""
        self.shrink(self.held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_handed_on:
            self.give_back()
