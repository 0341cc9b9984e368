"""The answers of `POST /v1/labels`: what was accepted, and what is wrong with each other label."""

from __future__ import annotations

import msgspec

from tidegate.labelling import Receipt
from tidegate.service.errors import ErrorDetail


class LabelsTaken(msgspec.Struct, frozen=True):
    """202: all labels are accepted; their offsets are `first_offset` to `next_offset - 1`."""

    accepted: int
    refused: int
    first_offset: int
    next_offset: int


class LabelRefusal(msgspec.Struct, frozen=True):
    """A label that cannot be taken: its index in the request, and why. It is not kept."""

    index: int
    reason: str
    field: str | None
    message: str


class LabelsPartlyTaken(msgspec.Struct, frozen=True):
    """207: some labels cannot be taken; the others are accepted."""

    accepted: int
    refused: int
    first_offset: int
    next_offset: int
    refusals: list[LabelRefusal]


class NoLabelsTaken(msgspec.Struct, frozen=True):
    """422: no label can be taken."""

    accepted: int
    refused: int
    refusals: list[LabelRefusal]
    error: ErrorDetail


BODIES = (LabelsTaken, LabelsPartlyTaken, NoLabelsTaken, LabelRefusal)


def report(receipt: Receipt, *, request_id: str) -> tuple[int, bytes]:
    """Status and body that tell of a receipt."""
    refusals = [LabelRefusal(m.index, m.reason, m.field, m.message) for m in receipt.mistakes]
    refused = len(refusals)
    counts = (receipt.accepted, refused, receipt.first_offset, receipt.next_offset)
    if not refused:
        return 202, _encode(LabelsTaken(*counts))
    if receipt.accepted:
        return 207, _encode(LabelsPartlyTaken(*counts, refusals))
    message = f"none of the {refused} records is a label; the first: {refusals[0].message}"
    error = ErrorDetail("no_labels", message, request_id)
    return 422, _encode(NoLabelsTaken(0, refused, refusals, error))


_encode = msgspec.json.Encoder().encode
