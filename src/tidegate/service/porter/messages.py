"""What house and porter tell each other: MessagePack behind its length (four bytes, big-endian).

Connections travel beside that, each with the bytes that were read of it and not answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from tidegate.rows import Rows

LENGTH_BYTES = 4


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """What a porter must know; the first message."""

    id_column: str
    version: str
    timeout_seconds: float
    fallback_action: str
    waiting_max: int
    hold_back_seconds: float
    slow_seconds: float
    request_prefix: str


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """A porter has read its welcome and takes connections."""


class Asked(msgspec.Struct, frozen=True, array_like=True, tag="asked"):
    """Events of one caller: record i is `payload[ends[i - 1] + 1 : ends[i]]`."""

    number: int
    authorization: bytes | None
    payload: bytes
    ends: list[int]


class Late(msgspec.Struct, frozen=True, array_like=True, tag="late"):
    """An event of `Asked` was answered without a decision, at a time (UTC microseconds)."""

    number: int
    place: int
    event_id: str
    action: str
    reason: str
    answered_at: int


class Served(msgspec.Struct, frozen=True, array_like=True, tag="served"):
    """Answers since the last such message: how many of each status, and how long they took.

    Beside them, how many connections the porter has no more.
    """

    statuses: dict[int, int]
    counts: list[int]
    seconds: float
    left: int


class Passed(msgspec.Struct, frozen=True, array_like=True, tag="passed"):
    """The house is through with `Asked`: what it says of it comes next, or is being looked up.

    If `is_idle` it has nothing else to do, and may be asked again before anybody is answered. The
    other porters have so many connections as `elsewhere` says.
    """

    number: int
    is_idle: bool
    elsewhere: int


class Decisions(msgspec.Struct, frozen=True, array_like=True, tag="decisions"):
    """Decisions on the events of `Asked` at some places."""

    number: int
    places: list[int]
    rows: Rows
    are_repeated: bool = False


class NoEvents(msgspec.Struct, frozen=True, array_like=True, tag="no_events"):
    """Records of `Asked` that are no events: place, offset, reason, column, message."""

    number: int
    records: list[tuple[int, int, str, str | None, str]]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """Events of `Asked` that are answered with an error; of all of them without `places`."""

    number: int
    places: list[int] | None
    status: int
    code: str
    message: str
    retry_after_seconds: float | None


class Elsewhere(msgspec.Struct, frozen=True, array_like=True, tag="elsewhere"):
    """The caller of `Asked` is not known here: its connections are to be given back."""

    number: int


class Close(msgspec.Struct, frozen=True, array_like=True, tag="close"):
    """Take nothing more, answer what was asked, and end."""


FromPorter: TypeAlias = Ready | Asked | Late | Served
FromHouse: TypeAlias = Welcome | Passed | Decisions | NoEvents | Refused | Elsewhere | Close

_encoder = msgspec.msgpack.Encoder()


def framed(message: FromPorter | FromHouse) -> bytes:
    """A message behind its length."""
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class Frames:
    """Cuts a stream of bytes into messages.

    >>> frames = Frames()
    >>> sent = framed(Close())
    >>> [len(found) for found in frames.feed(sent + sent[:3])], list(frames.feed(sent[3:])) != []
    ([8], True)
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole with these bytes."""
        held, start = self._held + data if self._held else data, 0
        while len(held) - start >= LENGTH_BYTES:
            first = start + LENGTH_BYTES
            end = first + int.from_bytes(held[start:first], "big")
            if end > len(held):
                break
            yield held[first:end]
            start = end
        self._held = held[start:]
