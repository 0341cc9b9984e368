"""API keys in the operational database: made, listed, revoked, and every change noted.

A change is noted in the same transaction that makes it. The notes tell other processes that
something has changed, and whoever runs the project takes them over into the event log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import URL, RowMapping

from tidegate.access.caller import SCOPES
from tidegate.access.database import connect, translated, url_of
from tidegate.access.secret import Cost, Hashed, hashed, new_prefix, new_secret, written
from tidegate.clock import Clock
from tidegate.errors import RequestError

NAME_LENGTH_MAX = 100
KEYS_MAX = 10_000

_metadata = MetaData()
_keys = Table(
    "api_keys",
    _metadata,
    Column("prefix", String(16), primary_key=True),
    Column("name", String(NAME_LENGTH_MAX), nullable=False),
    Column("scopes", String(200), nullable=False),  # by name, a blank between
    Column("salt", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("cost_n", Integer, nullable=False),
    Column("cost_r", Integer, nullable=False),
    Column("cost_p", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", String(200), nullable=False),
    Column("expires_us", BigInteger),
    Column("last_used_us", BigInteger),
    Column("revoked_us", BigInteger),
)
_changes = Table(
    "key_changes",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("author", String(200), nullable=False),
    Column("action", String(20), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("detail", String, nullable=False),  # a JSON object
    Column("is_logged", Boolean, nullable=False),
    sqlite_autoincrement=True,  # a number that was given is never given again
)
_SHOWN = [c for c in _keys.columns if c.name not in ("salt", "digest")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it may be shown: all but its secret. Times are UTC microseconds."""

    prefix: str
    name: str
    scopes: tuple[str, ...]
    created_us: int
    created_by: str
    expires_us: int | None = None
    last_used_us: int | None = None
    revoked_us: int | None = None

    def state(self, now: int) -> str:
        """`active`, `expired` or `revoked` at the time `now`."""
        if self.revoked_us is not None:
            return "revoked"
        is_over = self.expires_us is not None and self.expires_us <= now
        return "expired" if is_over else "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of keys: `add` or `revoke`, of which key, by whom; never with a secret."""

    id: int
    at_us: int
    author: str
    action: str
    prefix: str
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Found:
    """What a presented key is checked against, and the number of changes that it stands after."""

    key: ApiKey
    hashed: Hashed


class Keys:
    """The keys of an installation; several processes may use them at the same time."""

    def __init__(self, url: URL, *, clock: Clock, cost: Cost | None = None) -> None:
        self.cost = cost or Cost()
        self._clock = clock
        self._url = url
        self._engine = connect(url, _metadata)

    @classmethod
    def open(cls, path: Path, *, clock: Clock, cost: Cost | None = None) -> Keys:
        """The keys in an SQLite file, which is made if it is missing.

        Raises: StorageFullError, UnreachableError, DamageError.
        """
        return cls(url_of(path), clock=clock, cost=cost)

    def close(self) -> None:
        """Let go of the database; closing twice is fine."""
        self._engine.dispose()

    def add(
        self, name: str, *, scopes: Sequence[str], author: str, expires_us: int | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its text, which is nowhere kept: show it once.

        Raises: RequestError for a name, scopes or an expiry that cannot be; what `open` raises.
        """
        now = self._clock.now()
        _check(name, scopes, expires_us, now=now)
        secret = new_secret()
        kept = hashed(secret.encode("ascii"), cost=self.cost)
        key = ApiKey(
            prefix=new_prefix(),
            name=name,
            scopes=tuple(s for s in SCOPES if s in scopes),
            created_us=now,
            created_by=author,
            expires_us=expires_us,
        )
        with translated(self._url), self._engine.begin() as connection:
            _note(connection, now, author, "add", key)
            if (connection.scalar(select(func.count()).select_from(_keys)) or 0) >= KEYS_MAX:
                message = f"there are {KEYS_MAX} keys, and no more can be kept"
                raise RequestError(message, code="too_many_keys")
            connection.execute(insert(_keys).values(_row(key, kept)))
        return key, written(key.prefix, secret)

    def revoke(self, prefix: str, *, author: str) -> ApiKey:
        """End a key for good; one that was revoked before stays as it was.

        Raises: RequestError (`unknown_key`) if there is none; what `open` raises.
        """
        now = self._clock.now()
        with translated(self._url), self._engine.begin() as connection:
            ended = connection.execute(
                update(_keys)
                .where(_keys.c.prefix == prefix, _keys.c.revoked_us.is_(None))
                .values(revoked_us=now)
            )
            row = _find(connection, prefix)
            if row is None:
                raise RequestError(f"there is no key `{prefix[:40]}`", code="unknown_key")
            key = _key(row)
            if ended.rowcount:
                _note(connection, now, author, "revoke", key)
        return key

    def all(self) -> list[ApiKey]:
        """All keys, newest first. Raises: what `open` raises."""
        statement = select(*_SHOWN).order_by(_keys.c.created_us.desc(), _keys.c.prefix)
        with translated(self._url), self._engine.connect() as connection:
            return [_key(row) for row in connection.execute(statement).mappings()]

    def find(self, prefix: str) -> tuple[Found | None, int]:
        """The key with this prefix, and the revision at which it was read."""
        with translated(self._url), self._engine.connect() as connection:
            # The revision first: a change between the two makes the key newer than it says.
            revision = _revision(connection)
            row = _find(connection, prefix)
        if row is None:
            return None, revision
        cost = Cost(row["cost_n"], row["cost_r"], row["cost_p"])
        return Found(_key(row), Hashed(row["salt"], row["digest"], cost)), revision

    def revision(self) -> int:
        """A number that grows with each change, whichever process made it."""
        with translated(self._url), self._engine.connect() as connection:
            return _revision(connection)

    def note_use(self, used: Mapping[str, int]) -> None:
        """Keep when keys were last used, by prefix; a time that is older than known is ignored."""
        with translated(self._url), self._engine.begin() as connection:
            for prefix, at in used.items():
                older = or_(_keys.c.last_used_us.is_(None), _keys.c.last_used_us < at)
                where = (_keys.c.prefix == prefix, older)
                connection.execute(update(_keys).where(*where).values(last_used_us=at))

    def unlogged(self) -> list[Change]:
        """Changes that the event log has not taken yet, oldest first."""
        statement = select(_changes).where(~_changes.c.is_logged).order_by(_changes.c.id)
        with translated(self._url), self._engine.connect() as connection:
            return [_change(row) for row in connection.execute(statement).mappings()]

    def mark_logged(self, changes: Sequence[Change]) -> None:
        """Say that the event log has these."""
        ids = [change.id for change in changes]
        with translated(self._url), self._engine.begin() as connection:
            connection.execute(
                update(_changes).where(_changes.c.id.in_(ids)).values(is_logged=True)
            )


def _check(name: str, scopes: Sequence[str], expires_us: int | None, *, now: int) -> None:
    if not (name.strip() and name.isprintable() and len(name) <= NAME_LENGTH_MAX):
        message = f"a key's name has 1 to {NAME_LENGTH_MAX} characters that can be printed"
        raise RequestError(message, code="bad_name")
    if unknown := [s for s in scopes if s not in SCOPES]:
        known = ", ".join(f"`{s}`" for s in SCOPES)
        message = f"there is no scope `{unknown[0][:40]}`; the scopes are {known}"
        raise RequestError(message, code="unknown_scope")
    if not scopes:
        raise RequestError("a key needs at least one scope", code="no_scope")
    if expires_us is not None and not now < expires_us < 1 << 62:
        raise RequestError("a key must expire after now", code="bad_expiry")


def _row(key: ApiKey, kept: Hashed) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "scopes": " ".join(key.scopes),
        "salt": kept.salt,
        "digest": kept.digest,
        "cost_n": kept.cost.n,
        "cost_r": kept.cost.r,
        "cost_p": kept.cost.p,
        "created_us": key.created_us,
        "created_by": key.created_by,
        "expires_us": key.expires_us,
    }


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        prefix=row["prefix"],
        name=row["name"],
        scopes=tuple(row["scopes"].split()),
        created_us=row["created_us"],
        created_by=row["created_by"],
        expires_us=row["expires_us"],
        last_used_us=row["last_used_us"],
        revoked_us=row["revoked_us"],
    )


def _change(row: RowMapping) -> Change:
    return Change(
        id=row["id"],
        at_us=row["at_us"],
        author=row["author"],
        action=row["action"],
        prefix=row["prefix"],
        detail=json.loads(row["detail"]),
    )


def _note(connection: Connection, now: int, author: str, action: str, key: ApiKey) -> None:
    detail = {"name": key.name, "scopes": list(key.scopes), "expires_us": key.expires_us}
    values = {
        "at_us": now,
        "author": author,
        "action": action,
        "prefix": key.prefix,
        "detail": json.dumps(detail),
        "is_logged": False,
    }
    connection.execute(insert(_changes).values(values))


def _find(connection: Connection, prefix: str) -> RowMapping | None:
    return connection.execute(select(_keys).where(_keys.c.prefix == prefix)).mappings().first()


def _revision(connection: Connection) -> int:
    return connection.scalar(select(func.max(_changes.c.id))) or 0
