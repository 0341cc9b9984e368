"""When callers are told to come back later, so that who is let in is answered soon."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.errors import OverloadedError

_FREE_WAITING = 64  # that many may wait, whatever the time that the oldest of them has waited


def check_room(
    *,
    waiting: int,
    waiting_max: int,
    oldest: Callable[[], float],
    hold_back_seconds: float,
) -> None:
    """Pass if there is room behind those that wait. Raises: OverloadedError.

    How many events would come counts for nothing: who asks for a thousand at once is let in as soon
    as who asks for one. `oldest` tells how many seconds the oldest of those that wait has waited.
    """
    if waiting >= waiting_max:
        raise OverloadedError("too many events wait for their decision", retry_after_seconds=1)
    if waiting >= _FREE_WAITING and oldest() > hold_back_seconds:
        raise OverloadedError("decisions take too long at present", retry_after_seconds=1)
