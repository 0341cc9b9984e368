"""Control records: what steers the engine or is kept beside its decisions, as the log holds it.

Everything that can change a decision is a record of the log, and so is what people did: versions,
lists, labels, keys. Each record is a JSON object that names its kind; fields that came later have
defaults, so that old logs can be read. Times are UTC microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import pyarrow as pa

from tidegate.errors import DamageError
from tidegate.records import Records
from tidegate.tables import CONTROL_TABLES

Change: TypeAlias = Literal["start", "publish", "shadow", "rollback"]
Truth: TypeAlias = Literal["fraud", "legitimate"]


class VersionRecord(msgspec.Struct, tag="version", frozen=True):
    """From here on the project's files are these.

    `folder_version` is the version of the project's folder when that was decided. It differs from
    `version` after a rollback, or where rules of the folder only run in the shadow.
    """

    version: str
    files: dict[str, str]
    change: Change = "start"
    author: str = ""
    message: str = ""
    folder_version: str = ""


class ProposalRecord(msgspec.Struct, tag="proposal", frozen=True):
    """Somebody wants these files to become the version; a `VersionRecord` follows when it is ready.

    Fields as there.
    """

    version: str
    files: dict[str, str]
    change: Change
    author: str
    message: str
    folder_version: str


class TimeRecord(msgspec.Struct, tag="time", frozen=True):
    """Event time has passed to at least `event_time`."""

    event_time: int


class ListRecord(msgspec.Struct, tag="list", frozen=True):
    """Values are added to a list or removed from it; what is added counts before `until`."""

    name: str
    change: Literal["add", "remove"]
    values: tuple[str, ...]
    until: int | None = None
    reason: str = ""
    author: str = ""


class LabelRecord(msgspec.Struct, tag="label", frozen=True):
    """What an event truly was, as `source` knew it at `known_at`.

    `event_offset` is the offset of the event where it was known when the label came in, and `event`
    its declared columns then, by name, as a JSON object.
    """

    event_id: str
    label: Truth
    source: str
    known_at: int
    author: str = ""
    event_offset: int | None = None
    event: dict[str, Any] | None = None


class AnswerRecord(msgspec.Struct, tag="answer", frozen=True):
    """Who asked for a decision was given another answer, since it was not there in time."""

    event_id: str
    event_offset: int
    action: str
    reason: str
    answered_at: int


class AuditRecord(msgspec.Struct, tag="audit", frozen=True):
    """Somebody did something that changes no decision, such as making a key."""

    action: str
    subject: str
    author: str
    detail: dict[str, Any] = {}


ControlRecord: TypeAlias = (
    VersionRecord
    | ProposalRecord
    | TimeRecord
    | ListRecord
    | LabelRecord
    | AnswerRecord
    | AuditRecord
)
_CONTROL: msgspec.json.Decoder[ControlRecord] = msgspec.json.Decoder(ControlRecord)


def control(*records: ControlRecord) -> Records:
    """Control records as the log holds them."""
    return Records.of([msgspec.json.encode(record) for record in records])


def control_record(record: bytes, *, offset: int) -> ControlRecord:
    """The control record of the log at `offset`. Raises: DamageError if it is none."""
    try:
        return _CONTROL.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamageError(f"control record at offset {offset}: {error}", offset=offset) from error


def control_rows(
    records: Sequence[ControlRecord], *, first_offset: int, at: int
) -> dict[str, pa.RecordBatch]:
    """The rows that follow from consecutive records alone, by table; `at` is when they came."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for offset, record in enumerate(records, start=first_offset):
        for table, row in _rows(record):
            rows.setdefault(table, []).append({"at": at, **row, "log_offset": offset})
    return {
        table: pa.RecordBatch.from_pylist(found, schema=CONTROL_TABLES[table])
        for table, found in rows.items()
    }


def _rows(record: ControlRecord) -> list[tuple[str, dict[str, Any]]]:
    """The rows of one record, by table; times as they are, `at` and `log_offset` left out."""
    match record:
        case VersionRecord():
            row = msgspec.structs.asdict(record) | {"files": _json(record.files)}
            told: dict[str, Any] = {"message": record.message}
            action = f"version.{record.change}"
            return [("versions", row), _audited(action, record.version, record.author, told)]
        case ListRecord():
            base = {"list": record.name, "change": record.change, "reason": record.reason}
            until = {"until": record.until, "author": record.author}
            told = {"values": record.values, "until": record.until, "reason": record.reason}
            return [
                *(("list_changes", {**base, **until, "value": v}) for v in record.values),
                _audited(f"list.{record.change}", record.name, record.author, told),
            ]
        case LabelRecord():
            event = None if record.event is None else _json(record.event)
            return [("labels", msgspec.structs.asdict(record) | {"event": event})]
        case AnswerRecord():
            return [("answers", msgspec.structs.asdict(record))]
        case AuditRecord():
            return [_audited(record.action, record.subject, record.author, record.detail)]
        case ProposalRecord() | TimeRecord():
            return []


def _audited(
    action: str, subject: str, author: str, detail: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    row = {"action": action, "subject": subject, "author": author, "detail": _json(detail)}
    return "audit", row


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
