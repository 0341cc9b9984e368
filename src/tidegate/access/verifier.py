"""Presented keys checked: in microseconds where the key is known, by the slow hash where not."""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

from tidegate.access.attempts import Attempts
from tidegate.access.caller import Caller
from tidegate.access.keys import Found, Keys
from tidegate.access.secret import parts, unmatchable
from tidegate.clock import Clock
from tidegate.errors import TidegateError

_POLL_SECONDS = 0.5
# Known keys are trusted for this long after the last look at the database; beyond it the slow way
# is taken, which fails where the database does.
_TRUSTED_US = 5_000_000
_KNOWN_MAX = 10_000
_NEVER_US = 1 << 62
_NOTE_USE_POLLS = 60


@dataclass(frozen=True, slots=True)
class Rejected:
    """A key that is not let through, and why; `retry_after_seconds` where there were too many."""

    message: str
    retry_after_seconds: float | None = None


_WRONG = Rejected("the key is not valid")


class Verifier:
    """Checks presented keys; may be used from several threads.

    A key that was checked once is known by a keyed digest, and costs microseconds from then on. A
    thread looks twice a second whether any process has changed a key; then all are checked anew.
    """

    def __init__(self, keys: Keys, *, clock: Clock, wrong_per_minute: int) -> None:
        self._keys = keys
        self._clock = clock
        self._attempts = Attempts(per_minute=wrong_per_minute, clock=clock)
        self._digest_key = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[Caller, int]] = {}  # by digest: who, and until when
        self._lock = threading.Lock()
        self._revision = -1
        self._looked_us = -_NEVER_US
        self._used: dict[str, int] = {}
        self._nothing = unmatchable(keys.cost)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def digest(self, presented: bytes) -> bytes:
        """What a presented key is known by inside this process."""
        return blake2b(presented, key=self._digest_key, digest_size=16).digest()

    def known(self, presented: bytes) -> Caller | None:
        """Whose key this is, if it was checked before and nothing has changed since."""
        found = self._known.get(self.digest(presented))
        if found is None:
            return None
        caller, until = found
        now = self._clock.now()
        if now >= until or not -_TRUSTED_US < now - self._looked_us < _TRUSTED_US:
            return None
        self._used[caller.prefix] = now
        return caller

    def is_held_off(self, presented: bytes, address: str) -> Rejected | None:
        """The rejection of an address, or of a prefix, that has had too many wrong keys."""
        split = parts(presented)
        if split is None:
            return _WRONG
        now = self._clock.now()
        wait_us = self._attempts.wait_us(address=address, prefix=split[0], now=now)
        return _too_many(wait_us / 1e6) if wait_us else None

    def check(self, presented: bytes, address: str) -> Caller | Rejected:
        """Whose key this is, by the slow hash: about a tenth of a second, without the lock.

        An unknown prefix takes as long as a wrong secret. Raises: as `Keys`.
        """
        split = parts(presented)
        if split is None:
            return _WRONG
        self.look()
        if (caller := self.known(presented)) is not None:
            return caller
        prefix, secret = split
        wait = self._attempts.begin(address=address, prefix=prefix)
        if wait is not None:
            return _too_many(wait)
        found, revision = self._keys.find(prefix)
        against = self._nothing if found is None else found.hashed
        if not against.matches(secret) or found is None:
            return _WRONG
        return self._judged(found, presented, address, revision=revision)

    def _judged(
        self, found: Found, presented: bytes, address: str, *, revision: int
    ) -> Caller | Rejected:
        """Whoever has the secret may know what became of the key."""
        key, now = found.key, self._clock.now()
        if (state := key.state(now)) != "active":
            past = "has expired" if state == "expired" else "was revoked"
            return Rejected(f"the key `{key.prefix}` {past}")
        self._attempts.forgive(address=address, prefix=key.prefix)
        caller = Caller(key.name, key.prefix, frozenset(key.scopes))
        until = _NEVER_US if key.expires_us is None else key.expires_us
        with self._lock:
            # A change since it was read would not be seen again: then it is checked once more.
            if revision == self._revision:
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[self.digest(presented)] = (caller, until)
        self._used[key.prefix] = now
        return caller

    def look(self) -> None:
        """See whether a key was changed, here or in another process. Raises: as `Keys`."""
        revision, now = self._keys.revision(), self._clock.now()
        with self._lock:
            if revision > self._revision:
                self._known.clear()
                self._revision = revision
            self._looked_us = now

    def start(self) -> None:
        """Begin to look for changes, in a thread of its own."""
        self._thread = threading.Thread(target=self._watch, name="keys", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        polls = 0
        while not self._stopping.wait(_POLL_SECONDS):
            polls += 1
            # A database that does not answer: known keys are trusted for some seconds more.
            with suppress(TidegateError):
                self.look()
                if polls % _NOTE_USE_POLLS == 0:
                    self.note_use()

    def note_use(self) -> None:
        """Write down when keys were last used. Raises: as `Keys`."""
        used, self._used = self._used, {}
        if used:
            self._keys.note_use(used)

    def close(self) -> None:
        """End the thread and let go of the database."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(TidegateError):
            self.note_use()
        self._keys.close()


def _too_many(seconds: float) -> Rejected:
    message = "too many wrong keys came from this address or for this prefix; try again later"
    return Rejected(message, retry_after_seconds=seconds)
