"""API keys as text, and the slow salted hash that is kept of their secret."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass

PREFIX_LENGTH = 8
SECRET_LENGTH = 43  # letters and digits: 256 bits
_PREFIX_LETTERS = string.ascii_lowercase + string.digits
_SECRET_LETTERS = string.ascii_letters + string.digits
_KEY = re.compile(
    rb"tg_([a-z0-9]{%d})_([A-Za-z0-9]{%d})" % (PREFIX_LENGTH, SECRET_LENGTH), re.ASCII
)
_SALT_BYTES = 16
_HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Cost:
    """scrypt's parameters: `n` rounds, blocks of 128 `r` bytes, `p` lanes."""

    n: int = 1 << 15
    r: int = 8
    p: int = 1

    @property
    def bytes_max(self) -> int:
        """Memory that one hash may take."""
        return 128 * self.r * (self.n + self.p + 2)


@dataclass(frozen=True, slots=True)
class Hashed:
    """What is kept of a secret: its hash, the salt, and what the hash cost."""

    salt: bytes
    digest: bytes
    cost: Cost

    def matches(self, secret: bytes) -> bool:
        """Whether this is the hash of `secret`; takes a tenth of a second, equal or not."""
        return hmac.compare_digest(_digest(secret, self.salt, self.cost), self.digest)


def hashed(secret: bytes, *, cost: Cost) -> Hashed:
    """The salted hash of a secret."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return Hashed(salt, _digest(secret, salt, cost), cost)


def unmatchable(cost: Cost) -> Hashed:
    """What an unknown prefix is checked against: it costs as much, and nothing matches it."""
    return Hashed(secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_HASH_BYTES), cost)


def _digest(secret: bytes, salt: bytes, cost: Cost) -> bytes:
    return hashlib.scrypt(
        secret,
        salt=salt,
        n=cost.n,
        r=cost.r,
        p=cost.p,
        maxmem=cost.bytes_max,
        dklen=_HASH_BYTES,
    )


def new_prefix() -> str:
    """A prefix to recognise a key by; it is no secret."""
    return "".join(secrets.choice(_PREFIX_LETTERS) for _ in range(PREFIX_LENGTH))


def new_secret() -> str:
    """A secret that nobody can guess."""
    return "".join(secrets.choice(_SECRET_LETTERS) for _ in range(SECRET_LENGTH))


def written(prefix: str, secret: str) -> str:
    """The key as it is shown once and then presented."""
    return f"tg_{prefix}_{secret}"


def parts(presented: bytes) -> tuple[str, bytes] | None:
    """Prefix and secret of a presented key; None if it is not written like one.

    >>> parts(b"tg_4k2m9x7a_" + b"s" * 43)[0]
    '4k2m9x7a'
    >>> parts(b"secret")
    """
    match = _KEY.fullmatch(presented)
    return None if match is None else (match[1].decode("ascii"), match[2])
