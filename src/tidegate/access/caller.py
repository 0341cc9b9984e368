"""Who asks, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass

# What a key can be good for. `pii` opens no route: it shows columns marked `pii` in clear.
SCOPES = ("ingest", "score", "label", "query", "admin", "pii")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes a request: the name and prefix of the key, and its scopes."""

    name: str
    prefix: str
    scopes: frozenset[str]


# Where no keys are asked for, everybody on this machine may do everything but see `pii` in clear.
LOCAL = Caller("local", "", frozenset(SCOPES) - {"pii"})
# Who asks for what is open to all.
NOBODY = Caller("nobody", "", frozenset())
