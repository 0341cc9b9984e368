"""The processes that run queries: started when needed, ended when idle, late or no longer wanted.

For one event loop. Nothing here computes: a query takes from the server's own process the time to
hand on its bytes.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter

import msgspec
import structlog

from tidegate.errors import OverloadedError
from tidegate.project.settings import Query
from tidegate.service.errors import Refusal
from tidegate.service.processes import environment
from tidegate.stages import Histogram
from tidegate.warehouse.worker import Question, Told

_log = structlog.get_logger()

_START_SECONDS_MAX = 30.0
_IDLE_SECONDS = 60.0
# After these the process holds memory that it will not give back, or cannot be trusted.
_SPOILS = frozenset({"out_of_memory", "failed"})


# Takes an answer and its body; the query's place is free for another when it has returned.
Deliver = Callable[[Told, bytes], Awaitable[None]]


class QueryPool:
    """Runs queries in a few processes; beyond a number that wait, callers are turned away.

    `outcomes` counts queries by what became of them, for metrics; `ok` is one of the words.
    `begun` is told the id of each process.
    """

    def __init__(
        self, tables: Path, settings: Query, *, begun: Callable[[int], None] = lambda _: None
    ) -> None:
        self._command = [sys.executable, "-P", "-m", "tidegate.warehouse.worker", str(tables)]
        self._settings = settings
        self._begun = begun
        self._slots: asyncio.Semaphore | None = None
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self.running = 0
        self.waiting = 0
        self.latency = Histogram()
        self.outcomes: Counter[str] = Counter()

    async def run(self, question: Question, deliver: Deliver) -> None:
        """Run the query and hand on what it gives; the next one may begin when that is done.

        Waiting and running together take the project's time at most, the start of a process apart;
        cancelling ends the query.
        Raises: Refusal (400) for what is wrong with it, OverloadedError.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_us / 1e6
        with self._counted("waiting"):
            await self._turn(deadline)
        try:
            with self._counted("running"):
                told, body = await self._timed(question, deadline)
            if told.code:
                raise _refusal(told)
            await deliver(told, body)
        finally:
            self._turns().release()

    def close(self) -> None:
        """End all processes."""
        for worker in list(self._all):
            self._end(worker)

    async def _turn(self, deadline: float) -> None:
        """Wait until the query may run."""
        turns = self._turns()
        if turns.locked() and self.waiting > self._settings.waiting_max:
            self.outcomes["overloaded"] += 1
            raise OverloadedError("too many queries are asked", retry_after_seconds=1)
        try:
            async with asyncio.timeout_at(deadline):
                await turns.acquire()
        except TimeoutError as error:
            self.outcomes["query_timeout"] += 1
            raise self._too_slow() from error

    def _turns(self) -> asyncio.Semaphore:
        if self._slots is None:
            self._slots = asyncio.Semaphore(self._settings.running_max)
        return self._slots

    async def _timed(self, question: Question, deadline: float) -> tuple[Told, bytes]:
        loop = asyncio.get_running_loop()
        left = deadline - loop.time()
        worker = await self._free()
        began, outcome = perf_counter(), "cancelled"
        try:
            async with asyncio.timeout_at(loop.time() + left):
                told, body = await self._ask(worker, question)
            outcome = told.code or "ok"
        except TimeoutError as error:
            outcome = "query_timeout"
            raise self._too_slow() from error
        finally:
            self.outcomes[outcome] += 1
            self.latency.add(perf_counter() - began)
        return told, body

    async def _ask(self, worker: _Worker, question: Question) -> tuple[Told, bytes]:
        try:
            told, body = await worker.ask(question)
        except BaseException as error:
            self._end(worker)
            if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
                return _broken(), b""
            raise
        if told.code in _SPOILS:
            self._end(worker)
        else:
            self._idle.append(worker)
            worker.rest(_IDLE_SECONDS, self._end)
        return told, body

    async def _free(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            worker.wake()
            if worker.lives:
                return worker
            self._end(worker)
        return await self._start()

    async def _start(self) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the server
        )
        self._begun(process.pid)
        worker = _Worker(process)
        self._all.add(worker)
        try:
            await worker.started()
        except BaseException as error:
            self._end(worker)
            if isinstance(error, asyncio.IncompleteReadError):
                _log.error("query_process_does_not_start", exit_code=process.returncode)
                raise Refusal(503, "unavailable", _NO_PROCESS, retry_after_seconds=5) from error
            raise
        return worker

    def _end(self, worker: _Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        self._all.discard(worker)
        worker.end()

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        setattr(self, name, getattr(self, name) + 1)
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) - 1)

    def _too_slow(self) -> Refusal:
        seconds = self._settings.timeout_us / 1e6
        text = f"the query was ended after {seconds:g} seconds: filter by date, or ask for less"
        return Refusal(400, "query_timeout", text)


class _Worker:
    """A process that answers one question after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._timer: asyncio.TimerHandle | None = None
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101 - as above
        self._in, self._out = process.stdin, process.stdout

    @property
    def lives(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.returncode is None

    async def started(self) -> None:
        """Wait until it can be asked."""
        async with asyncio.timeout(_START_SECONDS_MAX):
            await self._out.readexactly(1)

    async def ask(self, question: Question) -> tuple[Told, bytes]:
        """The answer. Raises: IncompleteReadError, ConnectionError if the process ends instead."""
        text = msgspec.json.encode(question)
        self._in.write(len(text).to_bytes(4, "big") + text)
        await self._in.drain()
        size = int.from_bytes(await self._out.readexactly(4), "big")
        told = msgspec.json.decode(await self._out.readexactly(size), type=Told)
        return told, await self._out.readexactly(told.size)

    def rest(self, seconds: float, end: Callable[[_Worker], None]) -> None:
        """Be ended when nothing was asked for so long."""
        self._timer = asyncio.get_running_loop().call_later(seconds, end, self)

    def wake(self) -> None:
        """Be asked again."""
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        """Be gone, whatever it is at."""
        self.wake()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._in.close()


def _refusal(told: Told) -> Refusal:
    if told.code == "failed":
        _log.error("query_failed", error=told.message)
        return Refusal(503, "unavailable", _FAILED, retry_after_seconds=1)
    return Refusal(400, told.code, told.message)


def _broken() -> Told:
    """The process was brought down by the query: by its size, most likely."""
    _log.warning("query_process_ended")
    return Told(code="bad_query", message=_BROKEN)


_BROKEN = "the query cannot be run: it brought down the process that ran it"
_FAILED = "the tables could not be read just now; try again"
_NO_PROCESS = "no process for queries can be started; the server's log says more"
