"""A thread for each sink, so that none waits for another, and nothing waits for a sink."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from tidegate.clock import Clock
from tidegate.sinks.contract import Feed, Sink
from tidegate.sinks.courier import Courier, Pace, SinkStatus
from tidegate.sinks.ledger import Ledger

_REST_SECONDS_MAX = 60.0


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

    The thread is a daemon and every outside call has a time limit, so neither `stop` nor the end of
    the process waits for an outside that hangs. What was not delivered is after the next start.
    The sink is closed when the thread ends.
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
    ) -> None:
        self.name = name
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

    def stop(self, *, timeout_seconds: float, flush: bool = False) -> bool:
        """End the thread; with `flush` deliver first what the feed has, trying once.

        Returns within `timeout_seconds`: True if the thread has ended. If not (the outside hangs),
        it is left behind, delivers nothing new and ends by itself when its call comes back.
        """
        self._flush = flush
        self._stopping.set()
        self._bell.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        self._abandoned.set()
        return not self._thread.is_alive()

    def _run(self) -> None:
        with closing(self._sink):
            self._deliver()

    def _deliver(self) -> None:
        while not self._stopping.is_set():
            rest_us = self._courier.step()
            if rest_us:
                self._bell.wait(min(rest_us / 1e6, _REST_SECONDS_MAX))
                self._bell.clear()
        while self._flush and not self._abandoned.is_set():
            if self._courier.step(drain=True):
                return
