"""Waiting for what must come to pass, however slow the machine is that it comes to pass on."""

import time
from collections.abc import Callable

# Long, since only a test that fails takes so long: CI machines are shared, and slow at times.
PATIENCE_SECONDS = 60.0


def until(
    holds: Callable[[], object],
    otherwise: str = "it did not come to pass",
    *,
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Wait until something holds. Raises: AssertionError with `otherwise` if it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)
