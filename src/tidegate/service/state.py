"""What the endpoints share: the pipeline behind them and whether it may be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tidegate.access import NOBODY, Caller
from tidegate.access.audit import SOURCE
from tidegate.access.pii import hiding_of
from tidegate.hiding import Hiding
from tidegate.pipeline import Pipeline
from tidegate.program import Program
from tidegate.project.settings import Service
from tidegate.service.access.admission import Access
from tidegate.service.budget import Budget
from tidegate.service.errors import Refusal
from tidegate.service.exchange import Route
from tidegate.service.journal import Journal
from tidegate.service.metrics.tally import Tally
from tidegate.service.query.pool import QueryPool
from tidegate.service.score.desk import Desk
from tidegate.service.score.recorder import Late, Recorder
from tidegate.verdicts import Results, Verdict


class Office(Protocol):
    """What is shared by all who answer `POST /v1/score`, wherever they read the requests."""

    def first_decisions(self, verdicts: Sequence[Verdict], then: Callable[[Results], None]) -> None:
        """Look up the first decisions on repeated events, and go on with them in their place."""

    def note(self, late: Late) -> None:
        """A request was answered without a decision."""

    def forget(self, late: Late) -> None:
        """The events of a request answered so were not taken."""


# The log may run ahead of the engine by this many full queues before senders are held back.
_BACKLOG_QUEUES = 10


@dataclass(eq=False)
class State:
    """One for each application. `closing` is set when the server has been told to stop."""

    pipeline: Pipeline
    budget: Budget
    access: Access
    queries: QueryPool
    tally: Tally
    closing: bool = False
    newest_offset: int = 0  # of labels, which do not come through the door
    # The hot routes by path, each of which answers small requests without the application.
    short_routes: dict[bytes, Route] = field(default_factory=dict)
    closers: list[Callable[[], None]] = field(default_factory=list)
    _hiding: tuple[Program, Hiding | None] | None = None
    # Those of `POST /v1/score`, once somebody has asked it.
    desk: Desk | None = None
    recorder: Recorder | None = None
    office: Office | None = None
    porters_wait: Callable[[], int] = lambda: 0  # events that came by porters
    # Splitting and inflating let go of the interpreter's lock, so two threads are of use.
    bodies: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "body"))
    lookups: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "lookup"))
    # Labels may wait for a reading of the tables, which those that come together share.
    labels: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16, "labels"))

    @classmethod
    def of(cls, pipeline: Pipeline) -> State:
        """The state for a pipeline that is open."""
        project = pipeline.project
        access = Access.of(project, clock=pipeline.clock)
        budget = Budget(project.service.queue_bytes_max)
        begun = pipeline.together.release  # queries are not to run where decisions are made
        queries = QueryPool(pipeline.folder.tables, project.query, begun=begun)
        journal = Journal(slow_seconds=project.service.slow_request_us / 1e6)
        return cls(pipeline, budget, access, queries, Tally(journal))

    @property
    def settings(self) -> Service:
        """The project's settings for the service."""
        return self.pipeline.project.service

    @property
    def backlog_max(self) -> int:
        """Records that may wait to be decided before senders are held back."""
        return self.settings.queue_records_max * _BACKLOG_QUEUES

    def check(self) -> None:
        """Pass if the pipeline takes records. Raises: Refusal (503)."""
        if self.pipeline.failure is not None:
            raise Refusal(503, "engine_failed", _FAILED, retry_after_seconds=5)
        if self.closing:
            raise Refusal(503, "shutting_down", _CLOSING, retry_after_seconds=1)

    def check_backlog(self) -> None:
        """Pass if the engine keeps up with the log. Raises: Refusal (429)."""
        labels = self.newest_offset - self.pipeline.engine.offset
        if max(self.pipeline.backlog, labels) > self.backlog_max:
            raise Refusal(429, "overloaded", _BEHIND, retry_after_seconds=1)

    def lets_post(self, authorization: bytes | None, path: str, address: str) -> bool:
        """Whether it is known already that a caller may post to a path."""
        return isinstance(self.access.admit(authorization, path, "POST", address), Caller)

    def hiding_from(self, caller: Caller) -> Hiding | None:
        """What is hidden from a caller, by the marks of the folder and of what decides now."""
        if "pii" in caller.scopes:
            return None
        program = self.pipeline.engine.program
        if self._hiding is None or self._hiding[0] is not program:
            projects = (self.pipeline.project, program.project)
            self._hiding = (program, hiding_of(*projects, folder=self.pipeline.folder))
        return self._hiding[1]

    def hiding_from_sender(self, authorization: bytes | None, path: str) -> Hiding | None:
        """The same for a request that was let in on the short way; it costs next to nothing."""
        hiding = self.hiding_from(NOBODY)
        if hiding is None:
            return None
        caller = self.access.admit(authorization, path, "POST", "")
        return self.hiding_from(caller) if isinstance(caller, Caller) else hiding

    def note_keys(self) -> None:
        """Take over what has changed about API keys, into the log too. Raises: as the log."""
        self.access.changed(partial(self.pipeline.append, source=SOURCE))

    def close(self) -> None:
        """End the threads; what they are at is not waited for, but for what must not be lost."""
        for close in self.closers:
            close()
        self.bodies.shutdown(wait=False, cancel_futures=True)
        self.lookups.shutdown(wait=False, cancel_futures=True)
        self.labels.shutdown(wait=False, cancel_futures=True)
        self.access.close()
        self.queries.close()


_FAILED = "the engine has stopped on an error; the server's log says why"
_CLOSING = "the server is shutting down"
_BEHIND = "too many records wait to be decided; try again"
