"""A request that waits for decisions, until they come or its time runs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Protocol

from tidegate.controls import AnswerRecord
from tidegate.errors import TidegateError
from tidegate.hiding import Hiding
from tidegate.records import Records
from tidegate.service.edge import log_failure
from tidegate.service.errors import internal_error
from tidegate.service.score.answers import not_scored, scored
from tidegate.service.score.shapes import PATH, Answer, Fallback, fallen_back, id_of, written
from tidegate.verdicts import Awaited, Decided, Refused, Repeated, Results, Verdict


class Reply(Protocol):
    """Where the answer goes; only the first call counts."""

    request_id: str
    began: float

    def answer(self, status: int, body: bytes) -> None:
        """Send an answer."""

    def refuse(self, error: TidegateError) -> None:
        """Answer with an error."""


class Office(Protocol):
    """What questions need of the route that asks them."""

    loop: asyncio.AbstractEventLoop
    id_column: str

    def fallback(self, seconds: float) -> Fallback:
        """What is answered when a time has run out."""

    def first_decisions(self, verdicts: Sequence[Verdict], then: Callable[[Results], None]) -> None:
        """Look up the first decisions on repeated events, and go on with them in their place."""

    def keep(self, decided: Decided) -> None:
        """Remember a decision for a while, for callers who ask again."""

    def now(self) -> int:
        """The time, UTC microseconds."""

    def note(self, question: Question) -> None:
        """A question was answered without a decision."""

    def forget(self, question: Question) -> None:
        """The events of a question answered so were not taken."""


class Question:
    """One request; all of it belongs to the loop's thread."""

    __slots__ = (
        "_answered_at",
        "_given",
        "_hiding",
        "_is_array",
        "_office",
        "_repeated",
        "_reply",
        "_seconds",
        "_timer",
        "awaited",
        "count",
        "events",
        "place",
    )

    def __init__(
        self,
        office: Office,
        reply: Reply,
        events: Records | bytes,
        *,
        seconds: float,
        is_array: bool,
        hiding: Hiding | None = None,
    ) -> None:
        self._office, self._reply, self._seconds = office, reply, seconds
        self.events = events
        self.count = 1 if isinstance(events, bytes) else len(events)
        self._is_array = is_array
        self._hiding = hiding
        self._given: Fallback | None = None
        self._answered_at = 0
        self._repeated: Sequence[bool] = [False] * self.count
        self.awaited: Awaited | None = None
        self.place = 0
        left = seconds - (perf_counter() - reply.began)
        self._timer = office.loop.call_later(max(0.0, left), self._expire)

    def told(self, results: Results) -> None:
        """The verdicts on its records, or why there are none."""
        if self._given is not None:
            if isinstance(results, TidegateError):
                self._office.forget(self)
            return
        if isinstance(results, TidegateError):
            self._timer.cancel()
            self._reply.refuse(results)
        elif any(isinstance(v, Repeated) for v in results):
            self._repeated = [isinstance(v, Repeated) for v in results]
            self._office.first_decisions(results, self.told)
        else:
            self._timer.cancel()
            self._finish(
                [self._answer(*pair) for pair in zip(results, self._repeated, strict=True)]
            )

    def failed(self, error: Exception) -> None:
        """Answer that the server has failed on this; its log says how."""
        self._timer.cancel()
        log_failure(error, route=PATH, request_id=self._reply.request_id)
        self._reply.refuse(internal_error())

    def _answer(self, verdict: Verdict, is_repeated: bool) -> Answer:  # noqa: FBT001 - from pairs
        if isinstance(verdict, Refused):
            return not_scored(verdict.log_offset, verdict.dead)
        assert isinstance(verdict, Decided)  # noqa: S101 - looked up before
        latency_us, hiding = self._latency(), self._hiding
        return scored(verdict, latency_us=latency_us, is_repeated=is_repeated, hiding=hiding)

    def _finish(self, answers: Sequence[Answer]) -> None:
        reply = self._reply
        status, body = written(answers, is_array=self._is_array, request_id=reply.request_id)
        reply.answer(status, body)

    def _latency(self) -> int:
        return int((perf_counter() - self._reply.began) * 1e6)

    # -- out of time -------------------------------------------------------------------------------

    def _expire(self) -> None:
        """Answer without a decision; the events are decided all the same."""
        self._given = given = self._office.fallback(self._seconds)
        self._answered_at = self._office.now()
        offsets = self._offsets()
        answers = [
            fallen_back(given, event_id=event_id, offset=offset, latency_us=self._latency())
            for event_id, offset in zip(self._ids(), offsets, strict=True)
        ]
        self._finish(answers)
        self._office.note(self)

    def _offsets(self) -> Sequence[int | None]:
        receipt = None if self.awaited is None else self.awaited.receipt
        if receipt is None:
            return [None] * self.count
        first = receipt.first_offset + self.place
        return range(first, first + self.count)

    def _ids(self) -> list[str | None]:
        records = [self.events] if isinstance(self.events, bytes) else self.events
        return [id_of(record, self._office.id_column) for record in records]

    def records(self) -> list[AnswerRecord] | None:
        """What was answered on each event; None while it is not known where they lie."""
        receipt = None if self.awaited is None else self.awaited.receipt
        if receipt is None or self._given is None:
            return None
        dead = {receipt.first_offset + d.row for d in receipt.dead}
        given = self._given
        return [
            AnswerRecord(event_id or "", offset, given.action, given.reason, self._answered_at)
            for event_id, offset in zip(self._ids(), self._offsets(), strict=True)
            if offset is not None and offset not in dead
        ]
