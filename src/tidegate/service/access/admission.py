"""Lets callers in by their API key, before anything else is done for them."""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidegate.access import LOCAL, NOBODY, Caller, Keys, Rejected, Verifier
from tidegate.access.audit import Append, relay
from tidegate.clock import Clock
from tidegate.datafolder import DataFolder
from tidegate.errors import OverloadedError, TidegateError
from tidegate.project.project import Project
from tidegate.service.access.scopes import Row, row_of
from tidegate.service.errors import Refusal, refusal_of, status_refusal

# Each takes a tenth of a second of a processor and 32 MiB.
_CHECKS_AT_ONCE = 2
_CHECKS_WAITING_MAX = 64

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +(\S{1,200}) *")

Admitted = Caller | Refusal


class Access:
    """Who may make which request, for one event loop.

    Where the project asks for no keys, everybody is `LOCAL` and nothing is looked at.
    """

    def __init__(
        self, path: Path, *, clock: Clock, is_required: bool, wrong_per_minute: int
    ) -> None:
        self._path = path
        self._clock = clock
        self._keys: Keys | None = None
        self._opening = threading.Lock()
        self._checks = ThreadPoolExecutor(_CHECKS_AT_ONCE, "keys")
        self._running: dict[bytes, asyncio.Future[Admitted]] = {}
        self._verifier: Verifier | None = None
        if is_required:
            self._verifier = Verifier(self.keys(), clock=clock, wrong_per_minute=wrong_per_minute)
            self._verifier.look()
            self._verifier.start()

    @classmethod
    def of(cls, project: Project, *, clock: Clock) -> Access:
        """Access as the project's `[access]` has it. Raises: as `Keys.open`."""
        settings = project.access
        return cls(
            DataFolder(project.data).operational,
            clock=clock,
            is_required=settings.required,
            wrong_per_minute=settings.wrong_keys_per_minute,
        )

    @property
    def is_required(self) -> bool:
        """Whether keys are asked for."""
        return self._verifier is not None

    def admit(
        self, authorization: bytes | None, path: str, method: str, address: str
    ) -> Admitted | None:
        """Who asks, or why they are refused; None where only `identify` can tell.

        `authorization` is the header's value, `path` and `method` are those of the request,
        `address` is the client's. Takes microseconds.
        """
        verifier = self._verifier
        if verifier is None:
            return LOCAL
        row = row_of(path)
        if row is None:
            return status_refusal(404)
        if method not in row.methods and not (method == "HEAD" and "GET" in row.methods):
            return status_refusal(405, allow=row.allow)
        if not row.scopes:
            return NOBODY
        presented = _presented(authorization)
        if presented is None:
            return _unauthenticated(_MISSING)
        caller = verifier.known(presented)
        if caller is not None:
            return _within(caller, row, method)
        rejected = verifier.is_held_off(presented, address)
        return None if rejected is None else _refusal(rejected)

    async def identify(
        self, authorization: bytes | None, path: str, method: str, address: str
    ) -> Admitted:
        """The same as `admit` the slow way, which always knows: a tenth of a second for a new key.

        Requests that present the same key wait for one check of it.
        """
        at_once = self.admit(authorization, path, method, address)
        row, presented = row_of(path), _presented(authorization)
        if at_once is not None or row is None or presented is None or self._verifier is None:
            return at_once if at_once is not None else status_refusal(404)
        digest = self._verifier.digest(presented)
        running = self._running.get(digest)
        if running is None:
            if len(self._running) >= _CHECKS_WAITING_MAX:
                return refusal_of(OverloadedError(_CROWDED, retry_after_seconds=1))
            running = asyncio.ensure_future(self._check(self._verifier, presented, address))
            self._running[digest] = running
            running.add_done_callback(lambda _: self._running.pop(digest, None))
        # One who goes away does not end the check that others wait for.
        admitted = await asyncio.shield(running)
        return admitted if isinstance(admitted, Refusal) else _within(admitted, row, method)

    async def _check(self, verifier: Verifier, presented: bytes, address: str) -> Admitted:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._checks, verifier.check, presented, address)
        except TidegateError as error:
            return refusal_of(error)
        return _refusal(found) if isinstance(found, Rejected) else found

    def keys(self) -> Keys:
        """The keys themselves, opened when they are first asked for. Raises: as `Keys.open`."""
        with self._opening:
            if self._keys is None:
                self._keys = Keys.open(self._path, clock=self._clock)
            return self._keys

    def changed(self, append: Append) -> None:
        """Take over changes of keys, if there are any: at once here, and by `append` into the log.

        Raises: as `Keys` and `append`.
        """
        if self._verifier is not None:
            self._verifier.look()
        if self._path.exists():
            relay(self.keys(), append)

    def close(self) -> None:
        """End the threads and let go of the database."""
        self._checks.shutdown(wait=False, cancel_futures=True)
        if self._verifier is not None:
            self._verifier.close()
        if self._keys is not None:
            self._keys.close()


def authorization_of(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The value of the `Authorization` header (names in lower case); the first if there are two."""
    return next((value for name, value in headers if name == b"authorization"), None)


def _presented(authorization: bytes | None) -> bytes | None:
    match = None if authorization is None else _BEARER.fullmatch(authorization)
    return None if match is None else match[1]


def _within(caller: Caller, row: Row, method: str) -> Admitted:
    if not caller.scopes.isdisjoint(row.scopes):
        return caller
    needed = " or ".join(f"`{scope}`" for scope in row.scopes)
    path = row.path.removesuffix("/*")
    message = f"the key `{caller.prefix}` lacks the scope {needed} that {method} {path} needs"
    return Refusal(403, "forbidden", message)


def _refusal(rejected: Rejected) -> Refusal:
    if rejected.retry_after_seconds is None:
        return _unauthenticated(rejected.message)
    retry = rejected.retry_after_seconds
    return Refusal(429, "too_many_attempts", rejected.message, retry_after_seconds=retry)


def _unauthenticated(message: str) -> Refusal:
    return Refusal(401, "unauthenticated", message, challenge="Bearer")


_MISSING = "this needs an API key: send the header `Authorization: Bearer tg_…`"
_CROWDED = "too many keys are being checked"
