"""What the answers of `POST /v1/score` look like, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from tidegate.service.errors import ErrorDetail

PATH = "/v1/score"
TIMEOUT_MS_MAX = 60_000
_NAMINGS = 16  # sets of features that are known how to write; each version has one


class Reason(msgspec.Struct, frozen=True):
    """A live rule whose condition held, and why, in words."""

    name: str
    action: str
    reason: str


class Scored(msgspec.Struct, frozen=True):
    """The decision on one event.

    `offset` is the event's place in the log, `latency_us` the time from the request's head to this
    answer. With `duplicate` the decision is the first one on this id, which came earlier; with
    `fallback` there was none in time, and `action` is the one that the project names for that.
    """

    event_id: str | None
    action: str
    score: float | None
    rules: list[Reason]
    features: dict[str, Any]
    version: str
    offset: int | None
    latency_us: int
    duplicate: bool | UnsetType = UNSET
    fallback: bool | UnsetType = UNSET


class NotScored(msgspec.Struct, frozen=True):
    """A record of a request that is no event; it is kept as the dead letter of this id."""

    dead_letter: int
    reason: str
    column: str | None
    message: str


class NoneScored(msgspec.Struct, frozen=True):
    """422: no record is an event; all are kept as dead letters."""

    error: ErrorDetail
    dead_letters: list[NotScored]


@dataclass(frozen=True, slots=True)
class Fallback:
    """What is answered where a decision did not come in time."""

    action: str
    reason: str
    version: str


Answer: TypeAlias = Scored | NotScored


@lru_cache(maxsize=_NAMINGS)
def featured(names: tuple[str, ...]) -> Callable[..., Any]:
    """Makes the `features` of an answer from their values, in the order of their names.

    A struct of its own is written in a third of the time that a `dict` takes, and is written alike.

    >>> msgspec.json.encode(featured(("amount_1h", "events_1h"))(12.5, 2))
    b'{"amount_1h":12.5,"events_1h":2}'
    """
    fields = [f"f{number}" for number in range(len(names))]
    try:
        return msgspec.defstruct(
            "Features",
            [(field, Any) for field in fields],
            rename=dict(zip(fields, names, strict=True)),
            frozen=True,
            gc=False,
        )
    except ValueError:  # a name has a quote or the like, which a struct's must not have
        return lambda *values: dict(zip(names, values, strict=True))


def fallen_back(
    fallback: Fallback, *, event_id: str | None, offset: int | None, latency_us: int
) -> Scored:
    """The answer where there is no decision in time."""
    reasons = [Reason("fallback", fallback.action, fallback.reason)]
    return Scored(
        *(event_id, fallback.action, None, reasons, {}, fallback.version, offset, latency_us),
        fallback=True,
    )


def written(answers: Sequence[Answer], *, is_array: bool, request_id: str) -> tuple[int, bytes]:
    """Status and body: 200, 207 where some records are no events, 422 where none is."""
    if not is_array and isinstance(answers[0], Scored):
        return 200, encoded(answers[0])
    dead = [a for a in answers if isinstance(a, NotScored)]
    if len(dead) == len(answers):
        message = f"none of the {len(dead)} records is an event; they are kept as dead letters"
        if len(dead) == 1:
            message = f"the record is no event: {dead[0].message}; it is kept as a dead letter"
        return 422, _encode(NoneScored(ErrorDetail("no_events", message, request_id), dead))
    return 207 if dead else 200, _encode(answers if is_array else answers[0])


def encoded(scored: Scored) -> bytes:
    """The body of an answer with one decision, whose status is 200."""
    return _encode(scored)


def id_of(record: bytes, column: str) -> str | None:
    """The id in a record, as far as it can be read; None for what is no JSON object."""
    try:
        fields = msgspec.json.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    found = fields.get(column) if isinstance(fields, dict) else None
    return str(found) if isinstance(found, str | int) else None


_encode = msgspec.json.Encoder().encode
