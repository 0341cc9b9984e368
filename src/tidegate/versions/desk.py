"""Publishing, comparing and taking back versions, beside a running server or without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TypeAlias

from tidegate.clock import Clock, SystemClock
from tidegate.controls import Change, ControlRecord, ProposalRecord, VersionRecord
from tidegate.datafolder import DataFolder
from tidegate.errors import InputError, LockedError, RequestError
from tidegate.eventlog.contract import EventLog
from tidegate.ingest import Taker, log_of, steering, taking
from tidegate.logged import records_of
from tidegate.pipeline import Pipeline
from tidegate.program import Program
from tidegate.project.project import Project, version
from tidegate.proposals import fulfils, why_not
from tidegate.versions.check import compiled, refuse_misfit
from tidegate.versions.compare import Difference, differences
from tidegate.versions.effects import Effect, effects
from tidegate.versions.history import History, Version
from tidegate.versions.shadow import Merged, check_merge, merged

FOLDER = "folder"  # stands for what the project's files say now
TIMEOUT_SECONDS = 600.0
AUTHOR_MAX, MESSAGE_MAX = 200, 10_000  # characters
_POLL_SECONDS = 0.02
_STANDSTILL_SECONDS = 3.0

Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A version that was published, and what became of it.

    `offset` is where the stream switched to it, after `seconds`; None where that had not happened
    when the time was over: it will, and `versions` shows it then. `beside` says who runs the
    project, where that is another process. `shadows` names the rules that a shadow publication put
    in the shadow, `remarks` say what of it could not be tried.
    """

    version: str
    change: str
    before: str | None
    proposed_at: int
    offset: int | None
    seconds: float
    beside: str | None = None
    shadows: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Versions:
    """The versions of one project; `tidegate.open(folder).versions`.

    `pipeline` is the one that this process runs, if it runs the project.
    """

    def __init__(
        self, project: Project, *, clock: Clock | None = None, pipeline: Pipeline | None = None
    ) -> None:
        self._project = project
        self._clock = clock or SystemClock()
        self._pipeline = pipeline
        self._folder = DataFolder(project.data)

    def all(self) -> list[Version]:
        """All versions that decided, oldest first; the last one decides now."""
        return list(self._history().versions)

    def files(self, named: str) -> Mapping[str, str]:
        """The files of a version, of whose name the first few digits are enough.

        Raises: RequestError if there is none.
        """
        history = self._history()
        return history.files(history.find(named))

    def one(self, named: str) -> tuple[Version, Mapping[str, str]]:
        """A version and its files. Raises: as `files`."""
        history = self._history()
        found = history.find(named)
        return found, history.files(found)

    def diff(self, before: str | None = None, after: str | None = None) -> list[Difference]:
        """What differs from version `before` (the running one) to `after` (the folder).

        Raises: RequestError for a version that there is not; ProjectError if the folder does not
        compile.
        """
        history = self._history()
        first = history.running.version if before is None else before
        sides = (self._program(history, side or FOLDER) for side in (first, after))
        return differences(*sides)

    def effects(self) -> list[Effect]:
        """What the rules in the shadow would have done since the running version took over.

        Raises: RequestError if no version is known; InputError if there are no tables yet.
        """
        history = self._history()
        running = history.running
        program = self._program(history, running.version)
        return effects(program, self._folder.tables, since=running.offset)

    def publish(
        self,
        *,
        files: Mapping[str, str] | None = None,
        message: str = "",
        author: str = "",
        shadow: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
        progress: Progress | None = None,
    ) -> Publication:
        """Make files the version, those of the folder by default, and wait until it decides.

        With `shadow`, the rules that decide go on deciding, and what is new or changed stands
        beside them as shadow rules. `progress` is told what is waited for.
        Raises: ProjectError with every mistake, before anything is published; RequestError where
        nothing changes, or where something newer took its place; TidegateError if the version was
        turned down all the same.
        """
        _refuse_long(author, message)
        given = self._project.files if files is None else files
        candidate = compiled(given, root=self._project.root)
        history = self._history()
        both = self._in_shadow(history, candidate) if shadow else None
        program = candidate if both is None else compiled(both.files, root=self._project.root)
        change: Change = "publish" if both is None else "shadow"
        return self._propose(
            history, program, change=change, told=(author, message), merged=both,
            timeout_seconds=timeout_seconds, progress=progress,
        )  # fmt: skip

    def rollback(
        self,
        named: str | None = None,
        *,
        message: str = "",
        author: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        progress: Progress | None = None,
    ) -> Publication:
        """Go back to a version, by default to the one before, and wait until it decides.

        Raises: RequestError if there is no such version, or it runs already; else as `publish`.
        """
        _refuse_long(author, message)
        history = self._history()
        target = history.before() if named is None else history.find(named)
        program = compiled(history.files(target), root=self._project.root)
        return self._propose(
            history, program, change="rollback", told=(author, message), merged=None,
            timeout_seconds=timeout_seconds, progress=progress,
        )  # fmt: skip

    # -- what is compared ------------------------------------------------------------------------

    def _history(self) -> History:
        with self._log() as log:
            return History.of(self._folder.tables, log)

    def _log(self) -> AbstractContextManager[EventLog]:
        return log_of(self._project, pipeline=self._pipeline)

    def _program(self, history: History, named: str) -> Program:
        if named == FOLDER:
            return Program.compile(self._project)
        files = history.files(history.find(named))
        return compiled(files, root=self._project.root)

    def _in_shadow(self, history: History, candidate: Program) -> Merged:
        base = compiled(history.files(history.base()), root=self._project.root)
        found = merged(base, candidate)
        if not found.shadows:
            message = "no rule is new or changed: there is nothing to try in the shadow"
            raise RequestError(message, code="nothing_new")
        check_merge(base, compiled(found.files, root=self._project.root))
        return found

    # -- publishing ------------------------------------------------------------------------------

    def _propose(
        self,
        history: History,
        program: Program,
        *,
        change: Change,
        told: tuple[str, str],
        merged: Merged | None,
        timeout_seconds: float,
        progress: Progress | None,
    ) -> Publication:
        before = history.versions[-1] if history.versions else None
        running = None if before is None else self._program(history, before.version)
        refuse_misfit(program, running, self._folder.tables)
        own = version(self._project)
        if (
            before is not None
            and before.version == program.version
            and before.folder_version == own
        ):
            message = f"version `{before.version}` runs already: nothing is published"
            raise RequestError(message, code="runs_already")
        record = ProposalRecord(program.version, dict(program.files), change, *told, own)
        wait = _Wait(time.monotonic(), timeout_seconds, progress or (lambda _: None))
        with self._taker() as taker:
            offset = taker.append([record], source="publish")
            switched = self._wait(taker, record, offset, wait)
        return Publication(
            version=program.version,
            change=change,
            before=None if before is None else before.version,
            proposed_at=offset,
            offset=switched,
            seconds=time.monotonic() - wait.begun,
            beside=taker.beside,
            shadows=() if merged is None else merged.shadows,
            remarks=() if merged is None else merged.remarks,
        )

    def _taker(self) -> AbstractContextManager[Taker]:
        return steering(self._project, pipeline=self._pipeline, clock=self._clock)

    def _wait(self, taker: Taker, record: ProposalRecord, offset: int, wait: _Wait) -> int | None:
        """Wait for the switch; its offset, or None when the time is over."""
        switched: int | None = None
        moved_at, reached = time.monotonic(), -1
        with self._log() as log:
            fate = _Fate(log, record, offset)
            while not wait.is_over:
                if switched is None:
                    wait.progress("made ready beside the version that decides")
                    switched = fate.switched()
                elif taker.reached() > switched:
                    return switched
                else:
                    wait.progress("switching")
                if taker.reached() != reached:
                    moved_at, reached = time.monotonic(), taker.reached()
                if taker.beside and time.monotonic() - moved_at > _STANDSTILL_SECONDS:
                    with suppress(LockedError):  # it is at work: nothing to do but to wait
                        self._stand_in(fate, wait)
                    moved_at = time.monotonic()
                time.sleep(_POLL_SECONDS)
        return switched

    def _stand_in(self, fate: _Fate, wait: _Wait) -> None:
        """Do what the process that ran the project left to do. Raises: LockedError if it runs."""
        with taking(self._project, clock=self._clock, as_logged=True) as taker:
            if taker.beside:
                raise LockedError(taker.beside)
            while fate.switched() is None and not wait.is_over:
                time.sleep(_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class _Wait:
    """How long is waited for, and who is told."""

    begun: float
    seconds: float
    progress: Progress

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self.begun > self.seconds


class _Fate:
    """What becomes of a proposal, as the log tells it; it is read on from where it was read to."""

    def __init__(self, log: EventLog, proposal: ProposalRecord, offset: int) -> None:
        self._log, self._proposal, self._offset = log, proposal, offset
        self._next = offset
        self._newer: dict[int, ProposalRecord] = {}

    def switched(self) -> int | None:
        """The offset of the record that fulfils it; None while there is none.

        Raises: RequestError if something newer took its place; InputError if it was turned down.
        """
        end = self._log.next_offset
        for place, record in records_of(self._log.controls(self._next)):
            if place > self._offset and self._is_fulfilled(record, place):
                return place
        self._next = max(self._next, end)
        return None

    def _is_fulfilled(self, record: ControlRecord, place: int) -> bool:
        name = self._proposal.version
        if isinstance(record, VersionRecord) and fulfils(record, self._proposal):
            return True
        if (why := why_not(record, self._offset)) is not None:
            raise InputError(f"version `{name}` was turned down: {why}")
        if isinstance(record, ProposalRecord):
            self._newer[place] = record
        for offset, newer in self._newer.items():
            taken = isinstance(record, VersionRecord) and fulfils(record, newer)
            if taken or why_not(record, offset) is not None:
                message = f"version `{name}` gave way to one that was published after it"
                raise RequestError(message, code="replaced")
        return False


def _refuse_long(author: str, message: str) -> None:
    for name, text, most in (("author", author, AUTHOR_MAX), ("message", message, MESSAGE_MAX)):
        if len(text) > most:
            raise RequestError(f"the {name} has more than {most} characters", code="too_long")
