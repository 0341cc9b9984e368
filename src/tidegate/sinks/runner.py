"""A thread for each sink, so that none waits for another, and nothing waits for a sink."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from tidegate.clock import Clock
from tidegate.memory import Turn
from tidegate.sinks.contract import Feed, Sink
from tidegate.sinks.courier import Courier, Pace, SinkStatus
from tidegate.sinks.ledger import Ledger

_REST_SECONDS_MAX = 60.0
_HOLD_SECONDS = 0.02
_HOLD_SECONDS_MAX = 5.0
_HOLD_FACTOR = 49.0  # a sink that holds back takes a fiftieth of a processor


class Bell(Protocol):
    """What the thread sleeps on; `threading.Event` is one."""

    def set(self) -> None:
        """Wake the sleeper, or keep it from falling asleep next time."""

    def clear(self) -> None:
        """Forget that it was rung."""

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until it is rung or the seconds are over."""


class SinkRunner:
    """A sink at work in a thread of its own: `start` it, `wake` it, `stop` it.

    While `busy` says that there is more urgent work, the sink holds back: it takes a fiftieth of a
    processor, and waits some seconds for its `turn` among those who take memory for a while.
    The thread is a daemon and every outside call has a time limit, so neither `stop` nor the end of
    the process waits for an outside that hangs. What was not delivered is after the next start. The
    sink is closed when the thread ends.
    """

    def __init__(
        self,
        name: str,
        *,
        sink: Sink,
        feed: Feed,
        ledger: Ledger,
        pace: Pace,
        clock: Clock,
        random: Callable[[], float],
        bell: Bell | None = None,
        start: int = 0,
        delivered: Callable[[int], None] = lambda _offset: None,
        busy: Callable[[], bool] = lambda: False,
        turn: Turn | None = None,
    ) -> None:
        self.name = name
        self._busy, self._turn = busy, turn or Turn()
        self._sink = sink
        self._courier = Courier(
            name,
            sink=sink,
            feed=feed,
            ledger=ledger,
            pace=pace,
            clock=clock,
            random=random,
            start=start,
            delivered=delivered,
        )
        self._bell = bell or threading.Event()
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._flush = False
        self._end = 0
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self, end: int | None = None) -> None:
        """Say that the feed has grown (to `end`, if known). Any thread may; returns at once."""
        if end is not None:
            self._end = end
        self._bell.set()

    def status(self) -> SinkStatus:
        """How the sink is doing now, its lag current even while the outside hangs."""
        status = self._courier.status
        return replace(status, end=max(status.end, self._end))

    def begin_stop(self, *, flush: bool = False) -> None:
        """Tell the thread to end, as `stop` does, and do not wait for it."""
        self._flush = flush
        self._stopping.set()
        self._bell.set()

    def stop(self, *, timeout_seconds: float, flush: bool = False) -> bool:
        """End the thread; with `flush` deliver first what the feed has, trying once.

        Returns within `timeout_seconds`: True if the thread has ended. If not (the outside hangs),
        it is left behind, delivers nothing new and ends by itself when its call comes back.
        """
        self.begin_stop(flush=flush)
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        self._abandoned.set()
        return not self._thread.is_alive()

    def _run(self) -> None:
        with closing(self._sink):
            self._deliver()

    def _deliver(self) -> None:
        while not self._stopping.is_set():
            with self._turn.taken(seconds=_HOLD_SECONDS_MAX, waits=self._is_urged):
                begun = time.thread_time()
                rest_us = self._courier.step()
            self._hold_back(_HOLD_FACTOR * (time.thread_time() - begun))
            if rest_us:
                self._bell.wait(min(rest_us / 1e6, _REST_SECONDS_MAX))
                self._bell.clear()
        while self._flush and not self._abandoned.is_set():
            if self._courier.step(drain=True):
                return

    def _is_urged(self) -> bool:
        """Whether there is more urgent work, for which a sink waits with its own."""
        return self._busy() and not self._stopping.is_set()

    def _hold_back(self, seconds: float) -> None:
        until = time.monotonic() + min(seconds, _HOLD_SECONDS_MAX)
        while time.monotonic() < until and self._is_urged():
            self._stopping.wait(_HOLD_SECONDS)
