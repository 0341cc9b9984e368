"""Puts into the log which answers were given where decisions did not come in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from tidegate.controls import AnswerRecord
from tidegate.errors import TidegateError
from tidegate.pipeline import Pipeline
from tidegate.service.score.desk import SOURCE

_log = structlog.get_logger()

_LOOK_SECONDS = 0.02
_RETRY_SECONDS = 1.0
_HELD_MAX = 100_000  # answers that wait for a log that takes nothing


class Late(Protocol):
    """A request that was answered without a decision."""

    def records(self) -> Sequence[AnswerRecord] | None:
        """What was answered on each of its events; None while it is not known where they lie."""


class Recorder:
    """Takes late requests of one event loop, and appends what they were told in its own thread."""

    def __init__(self, pipeline: Pipeline, loop: asyncio.AbstractEventLoop) -> None:
        self._pipeline, self._loop = pipeline, loop
        self._unplaced: list[Late] = []
        self._held: list[AnswerRecord] = []
        self._is_looking = self._is_writing = False
        self._thread = ThreadPoolExecutor(1, "answers")
        self.given = 0  # answers without a decision so far

    def note(self, late: Late) -> None:
        """A request was answered; it is recorded once its events are durable."""
        self._unplaced.append(late)
        self._look()

    def forget(self, late: Late) -> None:
        """The events of a request were not taken: there is nothing to record."""
        if late in self._unplaced:
            self._unplaced.remove(late)

    def close(self) -> None:
        """Append what is left."""
        self._collect()
        self._thread.shutdown(wait=True)
        if self._held:
            _append(self._pipeline, self._held)

    def _look(self) -> None:
        self._collect()
        if self._held and not self._is_writing:
            self._is_writing = True
            records, self._held = self._held, []
            writing = self._loop.run_in_executor(self._thread, _append, self._pipeline, records)
            writing.add_done_callback(lambda done: self._written(records, is_good=done.result()))
        if self._unplaced and not self._is_looking:
            self._is_looking = True
            self._loop.call_later(_LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._is_looking = False
        self._look()

    def _collect(self) -> None:
        waiting, self._unplaced = self._unplaced, []
        for late in waiting:
            found = late.records()
            if found is None:
                self._unplaced.append(late)
            else:
                self.given += len(found)
                self._held += found
        del self._held[:-_HELD_MAX]

    def _written(self, records: list[AnswerRecord], *, is_good: bool) -> None:
        self._is_writing = False
        if is_good:
            self._look()
        else:
            self._held = records + self._held
            self._loop.call_later(_RETRY_SECONDS, self._look)


def _append(pipeline: Pipeline, records: Sequence[AnswerRecord]) -> bool:
    try:
        pipeline.append(records, source=SOURCE)
    except TidegateError as error:
        _log.warning("answers_not_recorded", count=len(records), reason=str(error))
        return False
    return True
