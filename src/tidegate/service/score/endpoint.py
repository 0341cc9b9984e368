"""The route that a checkout waits for: from the body's bytes to the decision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from tidegate.errors import OverloadedError, TidegateError, TransientError
from tidegate.hiding import Hiding
from tidegate.service.answer import answer, refuse
from tidegate.service.bodies import Bodies
from tidegate.service.errors import Refusal, internal_error, refusal_of
from tidegate.service.events.body import Disconnected, check_media_type
from tidegate.service.exchange import Exchange, is_one_record
from tidegate.service.score.desk import Desk
from tidegate.service.score.question import Question
from tidegate.service.score.recorder import Late, Recorder
from tidegate.service.score.refusals import Refusals
from tidegate.service.score.shapes import PATH, TIMEOUT_MS_MAX, Fallback
from tidegate.service.state import State
from tidegate.verdicts import Decided, Repeated, Results, Verdict

_RECENT_MAX = 4_096
_LOOKUPS_MAX = 64  # running and waiting; each reads files


class ScoreEndpoint:
    """An ASGI application that takes one request of `POST /v1/score`; `take` is its short way."""

    path_format = PATH

    def __init__(self, state: State) -> None:
        self._state = state
        settings = state.pipeline.project.score
        self._settings = settings
        self._bodies = Bodies(state, records_max=settings.events_max)
        self._office: _Office | None = None

    def take(self, exchange: Exchange) -> None:
        """Answer a small request that has come whole, once its events are decided."""
        seconds = 0.0
        try:
            seconds = self._seconds(exchange.query)
            check_media_type(exchange.content_type)
            hiding = self._state.hiding_from_sender(exchange.authorization, self.path_format)
            body, content_type = bytes(exchange.body), exchange.content_type
            self._ask(exchange, body, content_type, seconds=seconds, hiding=hiding)
        except OverloadedError as error:
            self._office_here().refusals.put(exchange, error, until=exchange.began + seconds)
        except TidegateError as error:
            exchange.refuse(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that is not small or not plain."""
        reply = _Waiting(scope["state"]["request_id"])
        with self._state.budget.share() as share:
            try:
                seconds = self._seconds(scope["query_string"])
                self._state.check()
                body, content_type = await self._bodies.receive(scope, receive, share)
                hiding = self._state.hiding_from(scope["state"]["caller"])
                self._ask(reply, body, content_type, seconds=seconds, hiding=hiding)
                status, told = await reply.told
            except Disconnected:
                return
            except TidegateError as error:
                await refuse(scope, send, refusal_of(error))
                return
        await answer(send, status, told)

    def _ask(
        self,
        reply: Exchange | _Waiting,
        body: bytes,
        content_type: bytes,
        *,
        seconds: float,
        hiding: Hiding | None,
    ) -> None:
        """Put a question. Raises: Refusal, RequestError, OverloadedError."""
        state, office = self._state, self._office_here()
        state.check()
        state.check_backlog()
        if is_one_record(body):
            office.desk.check()
            question = Question(office, reply, body, seconds=seconds, is_array=False, hiding=hiding)
            office.desk.put_one(body, question)
            return
        records = self._bodies.split_here(body, content_type)
        office.desk.check()
        is_array = len(records) > 1 or body.lstrip()[:1] == b"["
        question = Question(
            office, reply, records, seconds=seconds, is_array=is_array, hiding=hiding
        )
        office.desk.put(records, question)

    def _seconds(self, query: bytes) -> float:
        """How long the caller waits. Raises: Refusal (422)."""
        if not query:
            return self._settings.timeout_us / 1e6
        given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("timeout_ms")
        if given is None:
            return self._settings.timeout_us / 1e6
        text = given[-1]
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= TIMEOUT_MS_MAX):
            message = f"query.timeout_ms: a whole number from 1 to {TIMEOUT_MS_MAX} is wanted"
            raise Refusal(422, "invalid_request", f"{message}, saw `{text[:40]}`")
        return int(text) / 1000

    def _office_here(self) -> _Office:
        if self._office is None:
            self._office = _Office(self._state, asyncio.get_running_loop())
            self._state.closers.append(self._office.close)
        return self._office


class _Waiting:
    """The reply to a request that came through the application."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.began = perf_counter()
        self.told: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def answer(self, status: int, body: bytes) -> None:
        if not self.told.done():
            self.told.set_result((status, body))

    def refuse(self, error: TidegateError) -> None:
        if not self.told.done():
            self.told.set_exception(error)


class _Recent:
    """The decisions told last, by the offset of their event."""

    def __init__(self) -> None:
        self._kept: dict[int, Decided] = {}

    def keep(self, decided: Decided) -> None:
        """Remember one; the one that came first goes where there are too many."""
        self._kept[decided.log_offset] = decided
        if len(self._kept) > _RECENT_MAX:
            del self._kept[next(iter(self._kept))]

    def get(self, verdict: Verdict) -> Verdict | None:
        """The verdict itself, or the first decision where it is a repetition; None if forgotten."""
        if isinstance(verdict, Repeated):
            return self._kept.get(verdict.first_offset)
        return verdict


class _Office:
    """What the questions of one event loop share."""

    def __init__(self, state: State, loop: asyncio.AbstractEventLoop) -> None:
        pipeline = state.pipeline
        self.loop = loop
        self.id_column = pipeline.program.schema.id
        self._state = state
        self._settings = pipeline.project.score
        self._recorder = Recorder(pipeline, loop)
        self._recent = _Recent()
        self._looking = 0
        self.refusals = Refusals(loop)
        self.desk = Desk(
            pipeline.door,
            pipeline.verdicts,
            loop,
            waiting_max=self._settings.waiting_max,
            hold_back_seconds=self._settings.hold_back_after_us / 1e6,
        )
        state.desk, state.recorder, state.office = self.desk, self._recorder, self

    def fallback(self, seconds: float) -> Fallback:
        """What is answered when a time has run out."""
        reason = f"no decision within {seconds * 1000:g} ms"
        version = self._state.pipeline.engine.program.version
        return Fallback(self._settings.fallback_action, reason, version)

    def first_decisions(self, verdicts: Sequence[Verdict], then: Callable[[Results], None]) -> None:
        """Look up the first decisions on repeated events, and go on with them in their place."""
        found = [self._recent.get(v) for v in verdicts]
        if None not in found:
            then([f for f in found if f is not None])
        elif self._looking >= _LOOKUPS_MAX:
            then(OverloadedError("too many repeated events are asked for", retry_after_seconds=1))
        else:
            self._looking += 1
            looking = self.loop.run_in_executor(self._state.lookups, self._looked_up, verdicts)
            looking.add_done_callback(partial(self._seen, then))

    def _seen(self, then: Callable[[Results], None], looking: asyncio.Future[Results]) -> None:
        self._looking -= 1
        try:
            then(looking.result())
        except Exception as error:  # noqa: BLE001 - whoever waits must be told
            then(error if isinstance(error, TidegateError) else internal_error())

    def keep(self, decided: Decided) -> None:
        """Remember a decision for a while, for callers who ask again."""
        self._recent.keep(decided)

    def _looked_up(self, verdicts: Sequence[Verdict]) -> Results:
        repeated = [v for v in verdicts if isinstance(v, Repeated)]
        first = self._state.pipeline.first_decisions(v.first_offset for v in repeated)
        for verdict in repeated:
            decided = first.get(verdict.first_offset)
            if decided is None or decided.event_id != verdict.event_id:
                return TransientError(f"the decision on `{verdict.event_id}` cannot be read yet")
        return [first[v.first_offset] if isinstance(v, Repeated) else v for v in verdicts]

    def now(self) -> int:
        """The time, UTC microseconds."""
        return self._state.pipeline.clock.now()

    def note(self, late: Late) -> None:
        """A request was answered without a decision."""
        self._recorder.note(late)

    def forget(self, late: Late) -> None:
        """The events of a request answered so were not taken."""
        self._recorder.forget(late)

    def close(self) -> None:
        """Record and answer what is left."""
        self.refusals.close()
        self._recorder.close()
