"""A thread that tidies up after writes, asleep while there is nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Upkeep:
    """Runs `work` every `pause_seconds` after a `wake` until it returns True: all is tidy."""

    def __init__(self, work: Callable[[], bool], *, pause_seconds: float) -> None:
        self._work = work
        self._pause_seconds = pause_seconds
        self._awake = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Say that there is something to do; the thread starts with the first call."""
        if self._awake.is_set():
            return
        self._awake.set()
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="eventlog", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread after the work it is at."""
        with self._lock:
            self._stop.set()
            self._awake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._awake.wait() and not self._stop.is_set():
            # Cleared before the work, so that what comes during the work is seen to later.
            self._awake.clear()
            while not self._stop.wait(self._pause_seconds) and not self._work():
                pass
