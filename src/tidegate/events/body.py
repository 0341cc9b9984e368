"""Where records lie in what was received: lines of a file, or the body of a request.

Splitting never changes a byte and never judges: a record that is no event is found out by the
decoder, which gives the reason.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from tidegate.errors import RequestError
from tidegate.events.bits import kernel
from tidegate.records import Bounds, Records

_BLANKS = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINES = ("ndjson", "jsonl", "json-lines", "jsonlines", "json-seq", "stream+json")

_any = msgspec.json.Decoder(msgspec.Raw)


def split_ndjson(block: bytes) -> Records:
    r"""The lines of `block`; they end with `\n` or `\r\n`, and blank lines are no records.

    A byte order mark at the beginning belongs to no record.

    >>> list(split_ndjson(b'{"a":1}\r\n\n{"a":2}'))
    [b'{"a":1}', b'{"a":2}']
    """
    starts, ends = _lines(block)
    return Records(block, starts, ends)


def split_body(body: bytes, *, content_type: str | None, records_max: int) -> Records:
    r"""The records in a request's body: one JSON object, the elements of an array, or lines.

    A content type of lines (`application/x-ndjson` and its kin) is taken at its word. Any other
    body is one record if it is a JSON object, an array's elements if it is an array, and lines if
    at least half of them begin with `{` and end with `}`. What cannot be split is one record, blank
    bodies hold none. Raises: RequestError with code `too_many_records` beyond `records_max`, and
    for nothing else.

    >>> list(split_body(b'[{"a":1}, {"a":2}]', content_type="application/json", records_max=9))
    [b'{"a":1}', b'{"a":2}']
    """
    if _names_lines(content_type):
        return _bounded(split_ndjson(body), records_max)
    start, end = _content(body)
    if start == end:
        return _records(body, [])
    if body[start] == ord("[") and _is_json(body[start:end]):
        return _elements(body, start, end, records_max)
    if b"\n" in body[start:end] and not _is_json(body[start:end]):
        lines = split_ndjson(body)
        if _look_like_objects(lines):
            return _bounded(lines, records_max)
    return _records(body, [(start, end)])


def _names_lines(content_type: str | None) -> bool:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return media_type.endswith(_LINES)


def _content(body: bytes) -> tuple[int, int]:
    """Where the body begins and ends without a byte order mark and the blanks around it."""
    start = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    rest = body[start:]
    start += len(rest) - len(rest.lstrip(_BLANKS))
    return start, start + len(rest.strip(_BLANKS))


def _is_json(text: bytes) -> bool:
    try:
        _any.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _records(body: bytes, bounds: list[tuple[int, int]]) -> Records:
    array = np.array(bounds, dtype=np.int64).reshape(-1, 2)
    return Records(body, array[:, 0].copy(), array[:, 1].copy())


def _bounded(records: Records, records_max: int) -> Records:
    if len(records) > records_max:
        message = f"the body holds more than {records_max} records: send them in several requests"
        raise RequestError(message, code="too_many_records")
    return records


def _lines(block: bytes) -> tuple[Bounds, Bounds]:
    """Bounds of the lines that are not blank, without their line ends."""
    data = np.frombuffer(block, dtype=np.uint8)
    feeds = np.flatnonzero(data == ord("\n"))
    first = len(_BYTE_ORDER_MARK) if block.startswith(_BYTE_ORDER_MARK) else 0
    starts = np.concatenate((np.array([first]), feeds + 1))
    ends = np.append(feeds, len(block))
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    ends = ends - (data[ends - 1] == ord("\r"))
    keep = ends > starts
    # Only lines that begin with a blank can be nothing but blanks; there are few of them.
    for i in np.flatnonzero(keep & (data[np.minimum(starts, len(block) - 1)] <= ord(" "))).tolist():
        keep[i] = bool(block[starts[i] : ends[i]].strip(_BLANKS))
    return starts[keep], ends[keep]


def _look_like_objects(lines: Records) -> bool:
    data = np.frombuffer(lines.payload, dtype=np.uint8)
    whole = (data[lines.starts] == ord("{")) & (data[lines.ends - 1] == ord("}"))
    return bool(2 * np.count_nonzero(whole) >= len(lines))


def _elements(body: bytes, start: int, end: int, records_max: int) -> Records:
    """The elements of the valid JSON array `body[start:end]`, each with its exact bytes."""
    data = np.frombuffer(body, dtype=np.uint8)
    room = min(records_max + 1, (end - start) // 2 + 1)
    bounds = np.empty((2, room), dtype=np.int64)
    count = find_elements(data, start, end, bounds)
    found = Records(body, bounds[0, :count].copy(), bounds[1, :count].copy())
    return _bounded(found, records_max)


@kernel
def find_elements(data: npt.NDArray[np.uint8], start: int, end: int, bounds: Bounds) -> int:
    """Fill in the elements' bounds until they are full or the array ends; returns how many."""
    count = 0
    depth = 0
    in_string = False
    first, last = -1, -1
    i = start
    while i < end and count < bounds.shape[1]:
        byte = data[i]
        if not in_string and depth == 1 and (byte == 0x2C or byte == 0x5D):  # , ]
            if first >= 0:
                bounds[0, count], bounds[1, count] = first, last + 1
                count += 1
                first = -1
        elif depth >= 1 and byte > 0x20:
            first, last = (i if first < 0 else first), i
        if in_string and byte == 0x5C:  # backslash
            i += 1
            last = i
        elif byte == 0x22:
            in_string = not in_string
        elif not in_string:
            depth += (byte == 0x5B or byte == 0x7B) - (byte == 0x5D or byte == 0x7D)
        i += 1
    return count
