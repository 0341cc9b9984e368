"""Labels as they come in: each is read, or refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from tidegate.controls import LabelRecord, Truth
from tidegate.events.decode import DeadReason, Decoder
from tidegate.events.values import shown
from tidegate.records import Records
from tidegate.schema import Schema

FIELDS = Schema.of(
    [
        *(("event_id", "json"), ("label", "json")),
        *(("source", "text?"), ("known_at", "timestamp?")),
    ],
    id="event_id",
    event_time="known_at",
)
RECORD_BYTES_MAX = 16 << 10
EVENT_ID_BYTES_MAX = 4 << 10
SOURCE_CHARS_MAX = 200
AHEAD_MAX_US = 86_400_000_000  # clocks of those who know of frauds may be a little fast

_LABELS: dict[str, Truth] = {
    **dict.fromkeys(("fraud", "true", "1"), "fraud"),
    **dict.fromkeys(("legitimate", "false", "0"), "legitimate"),
}
_Plain: TypeAlias = str | int | float | bool | None
_decoder: msgspec.json.Decoder[_Plain] = msgspec.json.Decoder(str | int | float | bool | None)


@dataclass(frozen=True, slots=True)
class Mistake:
    """A label that cannot be taken: its index among those given, and why.

    `field` is the one at fault, where there is one.
    """

    index: int
    reason: str
    field: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: labels in their order, and what is wrong with the others."""

    labels: list[LabelRecord] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)


class LabelReader:
    """Reads labels; instances may be shared by threads."""

    def __init__(self) -> None:
        self._decoder = Decoder(FIELDS, record_bytes_max=RECORD_BYTES_MAX)

    def read(self, records: Records, *, source: str, now: int, author: str = "") -> Reading:
        """Labels out of JSON objects with the fields `event_id`, `label`, `source`, `known_at`.

        What has no `source` is of the one given, what has no `known_at` is known since `now`.

        >>> given = [b'{"event_id":"p1","label":"fraud"}', b'{"event_id":"p2","label":"odd"}']
        >>> reading = LabelReader().read(Records.of(given), source="bank", now=5)
        >>> reading.labels[0].label, reading.mistakes[0].message
        ('fraud', 'field `label`: expected "fraud" or "legitimate", saw text "odd"')
        """
        decoded = self._decoder.decode(records)
        reading = Reading()
        reading.mistakes.extend(
            Mistake(d.row, d.reason.value, d.column, d.message.replace("column `", "field `", 1))
            for d in decoded.dead
        )
        defaults = {"source": source, "known_at": now}
        for index, row in zip(decoded.rows.tolist(), _rows(decoded.events), strict=True):
            given = {
                name: row[name] if row[name] is not None else v for name, v in defaults.items()
            }
            found = _label(row | given, index=index, now=now, author=author)
            (reading.mistakes if isinstance(found, Mistake) else reading.labels).append(found)  # type: ignore[arg-type] # each list takes its own
        reading.mistakes.sort(key=lambda m: m.index)
        return reading


def _rows(events: Any) -> Iterator[dict[str, Any]]:
    place = events.schema.get_field_index("known_at")
    yield from events.set_column(place, "known_at", events.column(place).cast("int64")).to_pylist()


def _label(row: dict[str, Any], *, index: int, now: int, author: str) -> LabelRecord | Mistake:
    def refuse(reason: DeadReason | str, name: str | None, message: str) -> Mistake:
        where = "" if name is None else f"field `{name}`: "
        return Mistake(index, str(reason), name, where + message)

    if row["extra"] is not None:
        unknown = next(iter(msgspec.json.decode(row["extra"], type=dict[str, msgspec.Raw])))
        known = ", ".join(f"`{name}`" for name in FIELDS.names)
        return refuse("unknown_field", unknown[:80], f"there is no such field; there are {known}")
    event_id, truth = _event_id(row["event_id"]), _truth(row["label"])
    if event_id is None:
        what = f"expected the id of an event, at most {EVENT_ID_BYTES_MAX} bytes"
        saw = shown(row["event_id"].encode())
        return refuse(DeadReason.WRONG_TYPE, "event_id", f"{what}, saw {saw}")
    if truth is None:
        saw = shown(row["label"].encode())
        message = f'expected "fraud" or "legitimate", saw {saw}'
        return refuse(DeadReason.WRONG_TYPE, "label", message)
    if len(row["source"]) > SOURCE_CHARS_MAX:
        message = f"it has more than {SOURCE_CHARS_MAX} characters"
        return refuse(DeadReason.TOO_LONG, "source", message)
    if row["known_at"] > now + AHEAD_MAX_US:
        return refuse(DeadReason.IN_FUTURE, "known_at", "it lies more than a day in the future")
    return LabelRecord(event_id, truth, row["source"], row["known_at"], author)


def _event_id(written: str) -> str | None:
    value = _plain(written)
    if value is None or isinstance(value, bool):
        return None
    # A number is taken as it is written: in CSV `12e7` is an id like any other.
    text = value if isinstance(value, str) else written
    return text if 0 < len(text.encode()) <= EVENT_ID_BYTES_MAX else None


def _truth(written: str) -> Truth | None:
    value = _plain(written)
    if isinstance(value, bool):
        return "fraud" if value else "legitimate"
    if isinstance(value, str | int):
        return _LABELS.get(str(value).lower())
    return None


def _plain(written: str) -> _Plain:
    """The value of JSON text; None for what is no number, text or boolean."""
    try:
        return _decoder.decode(written)
    except msgspec.MsgspecError:
        return None
