"""Proposals: versions that somebody published and the stream has not switched to yet.

A publication is a `ProposalRecord` of the log. Whoever runs the project prepares it, and a
`VersionRecord` of the same content follows, at which the stream switches; or an `AuditRecord` says
why not. What waits is part of the engine's state, so that it is taken up again after a crash.
"""

from __future__ import annotations

import msgspec

from tidegate.controls import AuditRecord, ControlRecord, ProposalRecord, VersionRecord

REFUSED = "version.refused"  # it does not compile, or the tables cannot take its rows
REPLACED = "version.replaced"  # something newer took its place before it was ready


class Proposal(msgspec.Struct, frozen=True):
    """A proposal and the log offset that it has."""

    offset: int
    record: ProposalRecord


def fulfils(version: VersionRecord, proposal: ProposalRecord) -> bool:
    """Whether a version is what was proposed."""
    return version == version_of(proposal)


def version_of(proposal: ProposalRecord) -> VersionRecord:
    """The record that fulfils a proposal."""
    return VersionRecord(
        proposal.version,
        proposal.files,
        proposal.change,
        proposal.author,
        proposal.message,
        proposal.folder_version,
    )


def turned_down(proposal: Proposal, action: str, reason: str) -> AuditRecord:
    """The record that says that a proposal does not become the version, and why."""
    detail = {"proposal": proposal.offset, "reason": reason}
    return AuditRecord(action, proposal.record.version, proposal.record.author, detail)


def why_not(record: ControlRecord, offset: int) -> str | None:
    """Why the proposal at an offset does not become the version, if a record says so."""
    match record:
        case AuditRecord(action=action, detail=detail) if action in (REFUSED, REPLACED):
            return str(detail.get("reason")) if detail.get("proposal") == offset else None
    return None


def waiting(before: Proposal | None, record: ControlRecord, *, offset: int) -> Proposal | None:
    """The proposal that waits after a record at `offset`, where `before` waited till then.

    Of several the newest alone waits.
    """
    match record:
        case ProposalRecord():
            return Proposal(offset, record)
        case VersionRecord() if before is not None and fulfils(record, before.record):
            return None
        case AuditRecord() if before is not None and why_not(record, before.offset) is not None:
            return None
    return before
