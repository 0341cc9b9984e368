"""The answers of `POST /v1/score`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tidegate.access.pii import hidden_features
from tidegate.events.decode import DeadRecord
from tidegate.hiding import Hiding
from tidegate.service.errors import ErrorDetail
from tidegate.verdicts import Decided


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


Answer = Scored | NotScored


def scored(
    found: Decided, *, latency_us: int, is_repeated: bool = False, hiding: Hiding | None = None
) -> Scored:
    """The answer that tells of a decision, to somebody from whom `hiding` hides features."""
    features = found.features if hiding is None else hidden_features(found.features, hiding)
    live = [r for r in found.rules if r["mode"] == "live"]
    return Scored(
        found.event_id,
        found.action,
        found.score,
        [Reason(r["name"], r["action"], r["reason"]) for r in live],
        features,
        found.version,
        found.log_offset,
        latency_us,
        duplicate=True if is_repeated else UNSET,
    )


def fallen_back(
    fallback: Fallback, *, event_id: str | None, offset: int | None, latency_us: int
) -> Scored:
    """The answer where there is no decision in time."""
    reasons = [Reason("fallback", fallback.action, fallback.reason)]
    return Scored(
        *(event_id, fallback.action, None, reasons, {}, fallback.version, offset, latency_us),
        fallback=True,
    )


def not_scored(offset: int, dead: DeadRecord) -> NotScored:
    """The answer on a record that is no event."""
    return NotScored(offset, dead.reason.value, dead.column, dead.message)


def written(answers: Sequence[Answer], *, is_array: bool, request_id: str) -> tuple[int, bytes]:
    """Status and body: 200, 207 where some records are no events, 422 where none is."""
    dead = [a for a in answers if isinstance(a, NotScored)]
    if len(dead) == len(answers):
        message = f"none of the {len(dead)} records is an event; they are kept as dead letters"
        if len(dead) == 1:
            message = f"the record is no event: {dead[0].message}; it is kept as a dead letter"
        return 422, _encode(NoneScored(ErrorDetail("no_events", message, request_id), dead))
    return 207 if dead else 200, _encode(answers if is_array else answers[0])


_encode = msgspec.json.Encoder().encode
