"""Why a record could not become an event: every reason, and a sentence on each for the docs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DeadReason(StrEnum):
    """Why a record became a dead letter; the values are what tables and reports show.

    A record has one reason. The checks run in the order of the members down to `not_object`;
    after that the declared columns are checked in the order of the schema, and the first one that
    is wrong decides.
    """

    TOO_LONG = "too_long"
    TOO_DEEP = "too_deep"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    MISSING_COLUMN = "missing_column"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    BAD_TIME = "bad_time"
    IN_FUTURE = "in_future"

    @property
    def sentence(self) -> str:
        """What the reason means, in one sentence.

        >>> DeadReason.MISSING_COLUMN.sentence
        'A column that must have a value is absent or null.'
        """
        return _SENTENCES[self]


_SENTENCES = {
    DeadReason.TOO_LONG: "The record has more bytes than the stream allows.",
    DeadReason.TOO_DEEP: "Objects and arrays lie in one another more than 128 deep.",
    DeadReason.NOT_UTF8: (
        "The record holds bytes, or half of a `\\u` surrogate pair, that are no UTF-8 text."
    ),
    DeadReason.NOT_JSON: "The record is no valid JSON; the message points at the place.",
    DeadReason.NOT_OBJECT: "The record is valid JSON, but not an object.",
    DeadReason.MISSING_COLUMN: "A column that must have a value is absent or null.",
    DeadReason.WRONG_TYPE: "A value is not of its column's declared type.",
    DeadReason.OUT_OF_RANGE: "A number is of the right type, but beyond what the type can hold.",
    DeadReason.BAD_TIME: "A time is not written as ISO 8601, or no calendar or clock shows it.",
    DeadReason.IN_FUTURE: "The event time lies further ahead of the ingest time than allowed.",
}


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """A record that did not become an event: its index among the records, and why.

    `column` is the declared column at fault, where there is one.
    """

    row: int
    reason: DeadReason
    column: str | None
    message: str


class Fault(Exception):  # noqa: N818 - not a failure of the program: what is wrong with a record
    """What is wrong with a record; raised and caught within this package."""

    def __init__(self, reason: DeadReason, message: str, *, column: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.column = column
