"""The answers of `POST /v1/events`: what was taken, and what is wrong with each bad record."""

from __future__ import annotations

import msgspec

from tidegate.door import Receipt
from tidegate.service.errors import ErrorDetail


class Taken(msgspec.Struct, frozen=True):
    """202: all records are taken; their offsets are `first_offset` to `next_offset - 1`."""

    accepted: int
    dead: int
    first_offset: int
    next_offset: int


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that is no event: its index in the request, its id (log offset), and why."""

    index: int
    id: int
    reason: str
    column: str | None
    message: str


class PartlyTaken(msgspec.Struct, frozen=True):
    """207: some records are no events; they are kept as dead letters, the others are taken."""

    accepted: int
    dead: int
    first_offset: int
    next_offset: int
    dead_letters: list[DeadLetter]


class NoneTaken(msgspec.Struct, frozen=True):
    """422: no record is an event; all are kept as dead letters."""

    accepted: int
    dead: int
    first_offset: int
    next_offset: int
    dead_letters: list[DeadLetter]
    error: ErrorDetail


def report(receipt: Receipt, *, request_id: str) -> tuple[int, bytes]:
    """Status and body that tell of a receipt."""
    first, count, dead = receipt.first_offset, receipt.count, len(receipt.dead)
    counts = (count - dead, dead, first, first + count)
    if not dead:
        return 202, _encode(Taken(*counts))
    letters = _letters(receipt)
    if dead < count:
        return 207, _encode(PartlyTaken(*counts, letters))
    message = f"none of the {count} records is an event; they are kept as dead letters"
    error = ErrorDetail("no_events", message, request_id)
    return 422, _encode(NoneTaken(*counts, letters, error))


def _letters(receipt: Receipt) -> list[DeadLetter]:
    first = receipt.first_offset
    return [
        DeadLetter(d.row, first + d.row, d.reason.value, d.column, d.message) for d in receipt.dead
    ]


_encode = msgspec.json.Encoder().encode
