"""The lodge: the house's side of its porters. Starts them, gives them connections, and decides.

For one event loop. Porters are started when the first connection is to be given away, and again
should one end; while none is ready, connections simply stay where they are.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from time import monotonic
from typing import Any, cast

import msgspec
import numpy as np
import structlog

from tidegate.controls import AnswerRecord
from tidegate.errors import TidegateError, TransientError
from tidegate.project.settings import Service
from tidegate.records import Records
from tidegate.rows import Rows
from tidegate.service.errors import refusal_of
from tidegate.service.porter.head import NotPlain, Reader
from tidegate.service.porter.messages import (
    Asked,
    Close,
    Decisions,
    Elsewhere,
    Frames,
    FromHouse,
    FromPorter,
    Late,
    NoEvents,
    Passed,
    Ready,
    Refused,
    Welcome,
    framed,
)
from tidegate.service.porter.moves import Moves, pair
from tidegate.service.processes import environment, processors
from tidegate.service.score.desk import SOURCE
from tidegate.service.score.shapes import PATH
from tidegate.service.state import State
from tidegate.verdicts import Awaited, Decided, Results, Settled

_log = structlog.get_logger()

_AGAIN_SECONDS = 10.0  # after one has ended that was not told to
_MANY_SECONDS = 10.0  # that connections are given away after many have waited
_TOLD_MAX = 4_096  # submissions kept after they were told, for answers without a decision

# Connections that one porter is given before the next has its first. With fewer the server is what
# callers wait for, and it does more at once for one porter than for each of two.
_CONNECTIONS_OF_ONE = 512
_PORTERS_MAX = 4  # unless said otherwise; the server has no more for them to do

Adopt = Callable[[socket.socket, bytes], None]


class Lodge:
    """Porters of one server; `adopt` takes a connection that one of them gives back."""

    def __init__(self, state: State, *, adopt: Adopt = lambda sock, _: sock.close()) -> None:
        self._state, self.adopt = state, adopt
        self._count = porters_of(state.settings)
        self._porters: list[_Porter] = []
        self._is_closing = False
        self._not_before = self._many_until = 0.0
        self._reader = Reader()
        self.heard = 0  # how often something came on a connection that is here

    @property
    def waiting(self) -> int:
        """Events whose decision somebody waits for."""
        return sum(porter.waiting for porter in self._porters)

    @property
    def is_busy(self) -> bool:
        """Whether a porter has not ended yet."""
        return bool(self._porters)

    def wants(self) -> bool:
        """Whether a connection may be given away; starts the porters if there are none."""
        if self._is_closing or not self._count or self._are_few():
            return False
        self._start()
        return any(porter.is_ready for porter in self._porters)

    def suits(self, data: bytes) -> bool:
        """Whether this begins a request that a porter does not give back at once."""
        try:
            self._reader.find(data)
        except NotPlain:
            return False
        return True

    def _are_few(self) -> bool:
        """Whether there were never many who wait, of late: who is refused does not wait either."""
        desk, now = self._state.desk, monotonic()
        here = 0 if desk is None else desk.waiting
        if here + self.waiting >= self._state.settings.porters_from:
            self._many_until = now + _MANY_SECONDS
        return now >= self._many_until

    def take(self, connection: int, data: bytes) -> None:
        """Give away a connection, by a descriptor that is closed when it has gone.

        `data` was read of it and is not answered.
        """
        ready = [porter for porter in self._porters if porter.is_ready]
        with_room = [porter for porter in ready if porter.connections < _CONNECTIONS_OF_ONE]
        porter = with_room[0] if with_room else min(ready, key=lambda p: p.connections)
        porter.connections += 1
        porter.moves.send(connection, data)

    def close(self) -> None:
        """Have the porters take nothing more and end."""
        self._is_closing = True
        for porter in self._porters:
            porter.close()

    def kill(self) -> None:
        """End those that have not ended."""
        for porter in list(self._porters):
            porter.kill()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if len(self._porters) >= self._count or loop.time() < self._not_before:
            return
        self._not_before = loop.time() + _AGAIN_SECONDS
        for _ in range(self._count - len(self._porters)):
            porter = _Porter(self, self._state, loop)
            self._porters.append(porter)
            porter.starting = loop.create_task(porter.start())

    @property
    def connections(self) -> int:
        """How many the porters have together."""
        return sum(porter.connections for porter in self._porters)

    def ended(self, porter: _Porter) -> None:
        """One of them has ended."""
        with suppress(ValueError):
            self._porters.remove(porter)
        if not self._is_closing:
            _log.warning("porter_ended", exit_code=porter.exit_code)


class _Porter(asyncio.Protocol):
    """One of them; the protocol of the talk with it."""

    def __init__(self, lodge: Lodge, state: State, loop: asyncio.AbstractEventLoop) -> None:
        self._lodge, self._state, self._loop = lodge, state, loop
        self._frames = Frames()
        self._decoder: msgspec.msgpack.Decoder[FromPorter] = msgspec.msgpack.Decoder(FromPorter)
        self._asked: dict[int, _Submitted] = {}
        self._told: OrderedDict[int, _Submitted] = OrderedDict()
        self._process: asyncio.subprocess.Process | None = None
        self._talk: asyncio.Transport | None = None
        own, self._other_moves = pair()
        self.moves = Moves(own, loop, taken=lodge.adopt)
        self.starting: asyncio.Task[None] | None = None
        self._has_begun = False
        self._heard = 0
        self.waiting = 0
        self.connections = 0  # that it was given and has not told to have left

    @property
    def is_ready(self) -> bool:
        """Whether it takes connections."""
        return self._has_begun and self._talk is not None and not self._talk.is_closing()

    @property
    def exit_code(self) -> int | None:
        """What it ended with, as far as is known."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start the process and greet it."""
        own, other = socket.socketpair()
        handed = (other.fileno(), self._other_moves.fileno())
        module = "tidegate.service.porter.process"
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, *map(str, handed), *_log_options()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=handed,
                env=environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the server
            )
        except OSError as error:
            _log.warning("porter_does_not_start", reason=str(error))
            own.close()
            self._end()
            return
        finally:
            other.close()
            self._other_moves.close()
        self._state.pipeline.together.release(self._process.pid)
        own.settimeout(0)
        await self._loop.connect_accepted_socket(lambda: self, own)
        self._greet()

    def _greet(self) -> None:
        pipeline, settings = self._state.pipeline, self._state.pipeline.project.score
        self._say(
            Welcome(
                pipeline.program.schema.id,
                pipeline.engine.program.version,
                settings.timeout_us / 1e6,
                settings.fallback_action,
                settings.waiting_max,
                settings.hold_back_after_us / 1e6,
                self._state.settings.slow_request_us / 1e6,
                secrets.token_hex(4),
            )
        )

    def _say(self, message: FromHouse) -> None:
        if self._talk is not None and not self._talk.is_closing():
            self._talk.write(framed(message))

    def close(self) -> None:
        """Have it end when it has answered."""
        if self._talk is None:
            self.kill()
        self._say(Close())

    def kill(self) -> None:
        """End it, whatever it is at."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
        self._end()

    def _end(self) -> None:
        self.moves.close()
        self._lodge.ended(self)

    # -- what the talk tells ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process can be told."""
        self._talk = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is gone either way
        """The process has ended."""
        self._talk = None
        # What it sent on its way out is taken first.
        self._loop.call_soon(self._end)

    def data_received(self, data: bytes) -> None:
        """It says something."""
        for body in self._frames.feed(data):
            message = self._decoder.decode(body)
            if isinstance(message, Asked):
                self._take(message)
            elif isinstance(message, Late):
                self._note(message)
            elif isinstance(message, Ready):
                self._has_begun = True
            else:
                self.connections -= message.left
                tally = self._state.tally
                tally.merge(PATH, message.statuses, message.counts, message.seconds)

    # -- deciding --------------------------------------------------------------------------------

    def _take(self, asked: Asked) -> None:
        state, number = self._state, asked.number
        is_known = state.lets_post(asked.authorization, PATH, "")
        if not is_known or state.hiding_from_sender(asked.authorization, PATH) is not None:
            self._say(Elsewhere(number))
            return
        awaited = Awaited(number, self._tell, in_rows=True)
        self._asked[number] = _Submitted(awaited, len(asked.ends))
        self.waiting += len(asked.ends)
        try:
            state.check()
            state.check_backlog()
            ends = np.array(asked.ends, np.int64)
            starts = np.concatenate([[0], ends[:-1] + 1])
            state.pipeline.door.offer(
                Records(asked.payload, starts, ends),
                source=SOURCE,
                token=awaited,
                notify=self._refuse,
                awaiting=state.pipeline.verdicts,
            )
        except TidegateError as error:
            self._settle([(awaited, error)])

    def _refuse(self, results: Sequence[tuple[Any, Any]]) -> None:
        """Called from the door's thread for what cannot be taken."""
        self._tell([(a, r) for a, r in results if isinstance(r, TidegateError)])

    def _tell(self, results: Sequence[tuple[Awaited, Any]]) -> None:
        """Called from the engine's thread, with what was decided."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._settle, results)

    def _settle(self, results: Sequence[tuple[Awaited, Settled | TidegateError]]) -> None:
        is_idle = self._is_idle()
        for awaited, found in results:
            number: int = awaited.token
            submitted = self._asked.pop(number)
            self._say(Passed(number, is_idle, self._lodge.connections - self.connections))
            self.waiting -= submitted.count
            self._told[number] = submitted
            if len(self._told) > _TOLD_MAX:
                self._told.popitem(last=False)
            if isinstance(found, TidegateError):
                submitted.forget(self._state)
                self._say(_refused(number, None, found))
            else:
                self._say_settled(number, awaited, found)

    def _is_idle(self) -> bool:
        """Whether nobody else has wanted anything since this was last asked.

        Who does needs the interpreter, and has a hard time where the engine is at work without a
        pause: so each time it has to wait until a porter has given its answers.
        """
        desk, heard, self._heard = self._state.desk, self._heard, self._lodge.heard
        return heard == self._heard and (desk is None or not desk.waiting)

    def _say_settled(self, number: int, awaited: Awaited, settled: Settled) -> None:
        receipt = awaited.receipt
        assert receipt is not None  # noqa: S101 - it was decided, so it lies somewhere
        first = receipt.first_offset
        places = [offset - first for offset in settled.rows.offsets]
        if places:
            self._say(Decisions(number, places, settled.rows))
        if receipt.dead:
            dead = [
                (d.row, first + d.row, d.reason.value, d.column, d.message) for d in receipt.dead
            ]
            self._say(NoEvents(number, dead))
        repeated = [r.log_offset - first for r in settled.repeated]
        if repeated:
            assert self._state.office is not None  # noqa: S101 - made with the first request
            then = partial(self._say_repeated, number, repeated)
            self._state.office.first_decisions(settled.repeated, then)
        told = {*places, *repeated, *(d.row for d in receipt.dead)}
        if len(told) < receipt.count:
            # The engine read them from the log before the door had said who waits for them.
            error = TransientError("the decision is made and cannot be told: send the event again")
            lost = [place for place in range(receipt.count) if place not in told]
            self._say(_refused(number, lost, error))

    def _say_repeated(self, number: int, places: list[int], found: Results) -> None:
        if isinstance(found, TidegateError):
            self._say(_refused(number, places, found))
            return
        told = [(p, v) for p, v in zip(places, found, strict=True) if isinstance(v, Decided)]
        for _, alike in groupby(told, key=lambda pair: list(pair[1].features)):
            there, decided = zip(*alike, strict=True)
            self._say(Decisions(number, list(there), _rows(decided), are_repeated=True))

    # -- answers without a decision --------------------------------------------------------------

    def _note(self, late: Late) -> None:
        submitted = self._asked.get(late.number) or self._told.get(late.number)
        office = self._state.office
        if submitted is None or office is None:
            _log.warning("answers_not_recorded", count=1, reason="they are told of too late")
            return
        given = _Given(submitted.awaited, late)
        if late.number in self._asked or submitted.awaited.receipt is not None:
            submitted.late.append(given)
            office.note(given)


class _Submitted:
    """Events of one message, and who was answered without a decision on them."""

    __slots__ = ("awaited", "count", "late")

    def __init__(self, awaited: Awaited, count: int) -> None:
        self.awaited, self.count = awaited, count
        self.late: list[_Given] = []

    def forget(self, state: State) -> None:
        """They were not taken: there is nothing to record."""
        for given in self.late:
            if state.office is not None:
                state.office.forget(given)


class _Given:
    """An answer without a decision, to be recorded."""

    __slots__ = ("_awaited", "_late")

    def __init__(self, awaited: Awaited, late: Late) -> None:
        self._awaited, self._late = awaited, late

    def records(self) -> list[AnswerRecord] | None:
        """What was answered; None while it is not known where the event lies."""
        receipt, late = self._awaited.receipt, self._late
        if receipt is None:
            return None
        if any(dead.row == late.place for dead in receipt.dead):
            return []
        offset = receipt.first_offset + late.place
        return [AnswerRecord(late.event_id, offset, late.action, late.reason, late.answered_at)]


def porters_of(settings: Service) -> int:
    """How many porters there are: one for two processors, unless said otherwise."""
    if settings.porters is not None:
        return settings.porters
    return max(1, min(_PORTERS_MAX, processors() // 2))


def _log_options() -> list[str]:
    """So that its lines in the log look as those of the house do."""
    last = structlog.get_config()["processors"][-1]
    return ["--json-logs"] if isinstance(last, structlog.processors.JSONRenderer) else []


def _refused(number: int, places: list[int] | None, error: TidegateError) -> Refused:
    found = refusal_of(error)
    return Refused(
        *(number, places, found.status, found.code, str(found), found.retry_after_seconds)
    )


def _rows(decided: Sequence[Decided]) -> Rows:
    """Decisions by column; all have the same features."""
    names = list(decided[0].features)
    return Rows(
        [d.event_id for d in decided],
        [d.action for d in decided],
        [d.score for d in decided],
        [d.rules for d in decided],
        [d.version for d in decided],
        [d.log_offset for d in decided],
        names,
        [[d.features[name] for d in decided] for name in names],
    )
