"""One record to the values of its columns, by the full rules: the slow path that defines them.

The kernel in `scan` knows the plain records and hands all others to this module; it never decides
that a record is bad. So what is written here is what holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from tidegate.events.reasons import DeadReason, Fault
from tidegate.events.values import Value, reader, shown
from tidegate.schema import Schema

DEPTH_MAX = 128

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder(msgspec.Raw)
_encode = msgspec.json.Encoder().encode

# Strings first, so that brackets inside them do not count; one that never ends runs to the end.
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_KEY_BEFORE = re.compile(rb'("(?:[^"\\]|\\.)*")[ \t\r\n]*(:)[ \t\r\n]*\Z', re.DOTALL)
_PLACE = re.compile(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)")


class RecordReader:
    """Reads single records of one schema."""

    def __init__(self, schema: Schema, *, record_bytes_max: int, epoch_unit: str | None) -> None:
        self._record_bytes_max = record_bytes_max
        self._columns = [
            (c.name, reader(c, epoch_unit=epoch_unit), c.nullable, c.type) for c in schema
        ]
        self._names = frozenset(schema.names)

    def read(self, record: bytes) -> list[Value | None]:
        """The values of the declared columns, then that of `extra`. Raises: Fault."""
        fields = self._fields(record)
        values: list[Value | None] = []
        for name, read, nullable, type_ in self._columns:
            raw = fields.get(name)
            if raw is None or raw == b"null":
                if not nullable:
                    what = "absent" if raw is None else "null"
                    message = f"column `{name}`: expected {type_}, but it is {what}"
                    raise Fault(DeadReason.MISSING_COLUMN, message, column=name)
                values.append(None)
            else:
                values.append(read(raw))
        values.append(self._extra(fields))
        return values

    def _fields(self, record: bytes) -> dict[str, bytes]:
        """Each field's value as its exact bytes; the last one where a key is repeated."""
        if len(record) > self._record_bytes_max:
            message = f"{len(record)} bytes, the limit is {self._record_bytes_max}"
            raise Fault(DeadReason.TOO_LONG, message)
        _check_depth(record)
        self._check_text(record)
        try:
            return {name: bytes(raw) for name, raw in _fields.decode(record).items()}
        except msgspec.ValidationError:
            self._refuse_value(record)
        except msgspec.DecodeError as error:
            self._refuse_syntax(record, error)

    def _extra(self, fields: dict[str, bytes]) -> bytes | None:
        """The unknown fields as a JSON object's text, in their order; None if there are none."""
        if len(fields) <= len(self._names) and self._names.issuperset(fields):
            return None
        unknown = (_encode(k) + b":" + v for k, v in fields.items() if k not in self._names)
        return b"{" + b",".join(unknown) + b"}"

    def _check_text(self, record: bytes) -> None:
        try:
            record.decode()
        except UnicodeDecodeError as error:
            column = self._undecodable(record)
            where = f"column `{column}`: " if column else ""
            seen = f"byte 0x{record[error.start]:02x} at {_place(record, error.start)}"
            message = f"{where}not UTF-8 text, {seen}"
            raise Fault(DeadReason.NOT_UTF8, message, column=column) from error

    def _undecodable(self, record: bytes) -> str | None:
        """The first declared column whose value is no UTF-8, if the record is JSON otherwise."""
        try:
            fields = _fields.decode(record)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return next(
            (n for n in fields if n in self._names and not _is_text(bytes(fields[n]))), None
        )

    def _refuse_value(self, record: bytes) -> NoReturn:
        """Refuse what does not begin like an object; it may be no JSON at all further on."""
        try:
            _any.decode(record)
        except msgspec.DecodeError as error:
            self._refuse_syntax(record, error)
        message = f"expected a JSON object, saw {shown(record.strip())}"
        raise Fault(DeadReason.NOT_OBJECT, message)

    def _refuse_syntax(self, record: bytes, error: Exception) -> NoReturn:
        if _has_lone_surrogate(record):
            message = "half of a surrogate pair (`\\ud800` to `\\udfff`) stands alone"
            raise Fault(DeadReason.NOT_UTF8, message) from error
        what, at = _described(record, error)
        match = _valueless_key(record, at)
        if match is None:
            raise Fault(DeadReason.NOT_JSON, f"{what} at {_place(record, at)}") from error
        key = msgspec.json.decode(match[1], type=str)
        message = f"key `{key}` has no value at {_place(record, match.end(2))}"
        column = key if key in self._names else None
        raise Fault(DeadReason.NOT_JSON, message, column=column) from error


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_depth(record: bytes) -> None:
    if record.count(b"{") + record.count(b"[") <= DEPTH_MAX:
        return
    depth = 0
    for match in _BRACKET.finditer(record):
        bracket = match[0]
        depth += 1 if bracket in b"{[" else -1 if bracket in b"}]" else 0
        if depth > DEPTH_MAX:
            message = f"nested more than {DEPTH_MAX} deep at {_place(record, match.start())}"
            raise Fault(DeadReason.TOO_DEEP, message)


def _described(record: bytes, error: Exception) -> tuple[str, int]:
    """What is wrong with the syntax and at which byte."""
    match = _PLACE.fullmatch(str(error))
    if match is None:  # the only message without a place: the text is over too early
        return ("nothing but blanks" if not record.strip() else "unexpected end"), len(record)
    if record.startswith(b"\xef\xbb\xbf"):
        return "a byte order mark", 0
    # msgspec counts one too many here.
    return match[1], int(match[2]) - (match[1] == "trailing characters")


def _valueless_key(record: bytes, at: int) -> re.Match[bytes] | None:
    """The key, in group 1, whose value should stand before byte `at`; group 2 is its colon."""
    if record[at : at + 1] not in (b"", b",", b"}"):
        return None
    # Only a little text is searched: a key that says something is short.
    return _KEY_BEFORE.search(record, max(0, at - 200), at)


def _place(record: bytes, at: int) -> str:
    """A byte's place, counted from 0, and its line and column in bytes, counted from 1."""
    line = record.count(b"\n", 0, at) + 1
    column = at - record.rfind(b"\n", 0, at)
    return f"byte {at} (line {line}, column {column})"


def _has_lone_surrogate(record: bytes) -> bool:
    """Whether the record is JSON but for surrogates: Python's own reader lets them pass."""
    try:
        text = record.decode()
        parsed = json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except ValueError:
        return False
    return False


def _refuse_constant(name: str) -> Sequence[str]:
    raise ValueError(name)
