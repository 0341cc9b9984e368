"""The id of a record, read without the decoder of the engine."""

from __future__ import annotations

import msgspec


class IdReader:
    """Reads the id column out of records."""

    def __init__(self, column: str) -> None:
        field = msgspec.field(name=column)
        shape = msgspec.defstruct("OnlyId", [("value", str | int, field)])
        self._decode = msgspec.json.Decoder(shape).decode

    def read(self, record: bytes) -> str | None:
        """The id as text; None where the record has none that can be read."""
        try:
            return str(self._decode(record).value)  # type: ignore[attr-defined] # made above
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
