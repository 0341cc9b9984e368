"""The kernel that reads plain records: bytes straight into column buffers, without the GIL.

It takes what it fully understands and leaves every other record, whole, to `record`, which knows
all the rules; it never decides that a record is bad. With or without it the result is the same.

Numba notices a change of this file only: after editing a kernel that is imported here, remove
`__pycache__` beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidegate.events.bits import (
    address,
    inlined,
    kernel,
    load,
    load8,
    load_word,
    store,
    store_half,
    store_word,
)
from tidegate.events.grammar import colon, literal_end, skip, value_end
from tidegate.events.numbers import double_bits, read_number, scale
from tidegate.events.strings import string_end, unescape
from tidegate.events.times import NO_TIME, TIME_MAX, TIME_MIN, read_time
from tidegate.schema import Kind, Schema

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int64]

TEXT, BIGINT, DOUBLE, DECIMAL, BOOLEAN, TIMESTAMP, JSON = range(7)
_KINDS = {
    Kind.TEXT: TEXT,
    Kind.BIGINT: BIGINT,
    Kind.DOUBLE: DOUBLE,
    Kind.DECIMAL: DECIMAL,
    Kind.BOOLEAN: BOOLEAN,
    Kind.TIMESTAMP: TIMESTAMP,
    Kind.JSON: JSON,
}

_UNKNOWN_MAX = 16  # unknown fields of one record
_NANOSECONDS = -1000
_SIGN = -(2**63)  # of a double


class Plan(NamedTuple):
    """What the kernel must know of a schema; the arrays have one element per column.

    `keys` holds the names in quotes, with room behind for a load of eight bytes, and `key_starts`
    one place more than there are columns. `epoch` is microseconds per unit, `_NANOSECONDS`, or 0.
    """

    keys: Bytes
    key_starts: Words
    kinds: Words
    precisions: Words
    scales: Words
    required: Words
    record_bytes_max: int
    epoch: int


class Out(NamedTuple):
    """Where the kernel writes, see `batch.Rows`; and `scratch`, of `scratch_size` words."""

    words: Words
    lengths: npt.NDArray[np.int32]
    valid: Bytes
    side: Bytes
    scratch: Words


class _View(NamedTuple):
    """Plan and out by address, with the number of columns and of rows."""

    columns: int
    keys: int
    key_starts: int
    kinds: int
    precisions: int
    scales: int
    required: int
    epoch: int
    rows: int
    words: int
    lengths: int
    valid: int
    side: int
    follows: int
    unknown: int


def scratch_size(column_count: int) -> int:
    """How many words the kernel needs to remember keys."""
    return column_count + 1 + 4 * _UNKNOWN_MAX


def plan(schema: Schema, *, record_bytes_max: int, epoch_unit: str | None = None) -> Plan | None:
    """What the kernel must know of `schema`; None if it cannot be used.

    A key is compared byte by byte, so no name may need an escape.
    """
    if not all(name.isprintable() and not set(name) & set('"\\') for name in schema.names):
        return None
    keys = [f'"{name}"'.encode() for name in schema.names]
    epoch = {None: 0, "s": 1_000_000, "ms": 1_000, "us": 1, "ns": _NANOSECONDS}[epoch_unit]
    return Plan(
        keys=np.frombuffer(b"".join(keys) + bytes(8), dtype=np.uint8),
        key_starts=np.cumsum([0, *map(len, keys)], dtype=np.int64),
        kinds=np.array([_KINDS[c.type.kind] for c in schema], dtype=np.int64),
        precisions=np.array([c.type.precision for c in schema], dtype=np.int64),
        scales=np.array([c.type.scale for c in schema], dtype=np.int64),
        required=np.array([not c.nullable for c in schema], dtype=np.int64),
        record_bytes_max=record_bytes_max,
        epoch=epoch,
    )


@kernel
def scan(data: Bytes, starts: Words, ends: Words, plan: Plan, out: Out, good: Bytes) -> int:
    """Read the plain records and set `good` for them; returns how much of `out.side` is used."""
    view = _view(plan, out, len(starts))
    for c in range(view.columns + 1):  # at first keys are expected in the schema's order
        store_word(view.follows, c, c + 1 if c < view.columns else 0)
    used = 0
    last = 0
    base = address(data)
    for row in range(min(len(starts), len(ends))):
        after = -1
        start, end = starts[row], ends[row]
        # Memory is written without checks further down: bounds that break their contract end here.
        sound = last <= start <= end <= len(data) and used + end - start <= len(out.side)
        if sound and end - start <= plan.record_bytes_max:
            after = _read(base, start, end, row, view, used)
            last = end
        if after < 0:
            for c in range(view.columns + 1):
                out.valid[c, row] = 0
        else:
            good[row] = 1
            used = after
    return used


@inlined
def _view(plan: Plan, out: Out, rows: int) -> _View:
    columns = len(plan.kinds)
    return _View(
        columns,
        address(plan.keys),
        address(plan.key_starts),
        address(plan.kinds),
        address(plan.precisions),
        address(plan.scales),
        address(plan.required),
        plan.epoch,
        rows,
        address(out.words),
        address(out.lengths),
        address(out.valid),
        address(out.side),
        address(out.scratch),
        address(out.scratch) + 8 * (columns + 1),
    )


# In what follows `row` is the record's, `p` a place in the bytes, `end` where the record ends. A
# place of -1 says: not understood. `used` is how much of `out.side` is.


@inlined
def _read(data, p, end, row, view, used):  # type: ignore[no-untyped-def]
    """Read one record; returns how much of `out.side` is used then, or -1."""
    columns = view.columns
    strange = 0
    previous = columns
    p = skip(data, p, end)
    if p >= end or load(data, p) != 0x7B:
        return -1
    p = skip(data, p + 1, end)
    more = p < end and load(data, p) != 0x7D
    while more:
        key = p
        column, key_end = _key(data, p, end, view, load_word(view.follows, previous))
        p = colon(data, key_end, end)
        if p < 0:
            return -1
        if column < columns:
            store_word(view.follows, previous, column)
            previous = column
            p, used = _value(data, p, end, row, column, view, used)
        else:
            value = p
            p = value_end(data, p, end)
            if not _note(data, key, key_end, value, p, view.unknown, strange):
                return -1
            strange += 1
        if p < 0:
            return -1
        p = skip(data, p, end)
        more = p < end and load(data, p) == 0x2C
        if more:
            p = skip(data, p + 1, end)
    if p >= end or load(data, p) != 0x7D or skip(data, p + 1, end) != end:
        return -1
    for c in range(columns):
        if load_word(view.required, c) and not load(view.valid, c * view.rows + row):
            return -1
    return _put_extra(data, row, view, used, strange)


@inlined
def _key(data, p, end, view, expected):  # type: ignore[no-untyped-def]
    """The column that the key at `p` names, or the number of columns; and where the key ends."""
    columns = view.columns
    if expected < columns:
        begin = load_word(view.key_starts, expected)
        length = load_word(view.key_starts, expected + 1) - begin
        if _same(data, p, end, view.keys, begin, length):
            return expected, p + length
    if p >= end or load(data, p) != 0x22:
        return columns, -1
    quote, escaped = string_end(data, p + 1, end)
    if quote < 0 or escaped:
        return columns, -1
    for c in range(columns):
        begin = load_word(view.key_starts, c)
        length = load_word(view.key_starts, c + 1) - begin
        if length == quote + 1 - p and _same(data, p, end, view.keys, begin, length):
            return c, quote + 1
    return columns, quote + 1


@inlined
def _same(data: int, p: int, end: int, keys: int, k: int, length: int) -> bool:
    """Whether `length` bytes are the same; behind the keys there is room for eight more."""
    if p + length > end:
        return False
    if p + length + 8 > end:
        differ = 0
        for i in range(length):
            differ |= load(data, p + i) ^ load(keys, k + i)
        return differ == 0
    while length >= 8:
        if load8(data, p) != load8(keys, k):
            return False
        p, k, length = p + 8, k + 8, length - 8
    rest = load8(data, p) ^ load8(keys, k)
    return bool(rest & ((np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)) == 0)


@inlined
def _value(data, p, end, row, column, view, used):  # type: ignore[no-untyped-def]
    """Read a declared column's value; returns where it ends and how much of the side is used."""
    cell = column * view.rows + row
    if load(view.valid, cell):
        return -1, used  # a repeated key
    first = load(data, p)
    if first == 0x6E:
        return literal_end(data, p, end), used
    kind = load_word(view.kinds, column)
    word = 0
    if kind == TEXT:
        if first != 0x22:
            return -1, used
        quote, escaped = string_end(data, p + 1, end)
        if quote < 0:
            return -1, used
        word, length = p + 1, quote - p - 1
        if escaped:
            word = ~used
            begin, used = used, unescape(data, p + 1, quote, view.side, used)
            length = used - begin
        store_half(view.lengths, cell, length)
        p = quote + 1
    elif kind == BOOLEAN:
        p, word = literal_end(data, p, end), 1 if first == 0x74 else 0
    elif kind == TIMESTAMP:
        p, word = _time(data, p, end, view.epoch)
    elif kind == JSON:
        begin = p
        p, word = value_end(data, p, end), begin
        store_half(view.lengths, cell, p - begin)
    elif kind == DECIMAL:
        p, word = _decimal(
            data, p, end, load_word(view.precisions, column), load_word(view.scales, column)
        )
    else:
        p, word = _number(data, p, end, kind)
    store_word(view.words, cell, word)
    store(view.valid, cell, 1)
    return p, used


@inlined
def _number(data: int, p: int, end: int, kind: int) -> tuple[int, int]:
    p, digits, power, negative, whole = read_number(data, p, end)
    if p < 0:
        return -1, 0
    if kind == BIGINT:
        return (p if whole else -1), (-digits if negative else digits)
    bits = double_bits(digits, power)
    if bits < 0:
        return -1, 0
    return p, (bits | _SIGN if negative else bits)


@inlined
def _decimal(data: int, p: int, end: int, precision: int, scale_: int) -> tuple[int, int]:
    quoted = load(data, p) == 0x22
    if quoted:
        p += 1
    first = p
    if p >= end:
        return -1, 0
    p, digits, power, negative, _ = read_number(data, p, end)
    if p < 0:
        return -1, 0
    if quoted:
        plain = _no_exponent(data, first, p)
        if not plain or p >= end or load(data, p) != 0x22:
            return -1, 0
        p += 1
    value = scale(digits, power + scale_, precision)
    return (p if value >= 0 else -1), (-value if negative else value)


@kernel
def _no_exponent(data: int, p: int, end: int) -> bool:
    exponents = 0
    for i in range(p, end):
        exponents += (load(data, i) | 0x20) == 0x65
    return exponents == 0


@inlined
def _time(data: int, p: int, end: int, epoch: int) -> tuple[int, int]:
    if load(data, p) == 0x22:
        quote, escaped = string_end(data, p + 1, end)
        time = NO_TIME if quote < 0 or escaped else read_time(data, p + 1, quote)
        p = quote + 1
    else:
        p, digits, _, negative, whole = read_number(data, p, end)
        time = NO_TIME
        if p >= 0 and whole and epoch != 0:
            time = _epoch_time(-digits if negative else digits, epoch)
    return (p if TIME_MIN <= time <= TIME_MAX else -1), time


@kernel
def _epoch_time(units: int, epoch: int) -> int:
    if epoch == _NANOSECONDS:
        return units // 1000
    if units > TIME_MAX // epoch or units < TIME_MIN // epoch:
        return NO_TIME
    return units * epoch


@kernel
def _note(data, key, key_end, value, after, unknown, count):  # type: ignore[no-untyped-def]
    """Keep the place of an unknown field; false if it is one too many or a repeated one."""
    if count == _UNKNOWN_MAX or after < 0:
        return False
    for u in range(0, 4 * count, 4):
        begin = load_word(unknown, u)
        length = load_word(unknown, u + 1) - begin
        if length == key_end - key and _same(data, key, key_end, data, begin, length):
            return False
    store_word(unknown, 4 * count, key)
    store_word(unknown, 4 * count + 1, key_end)
    store_word(unknown, 4 * count + 2, value)
    store_word(unknown, 4 * count + 3, after)
    return True


@kernel
def _put_extra(data, row, view, used, count):  # type: ignore[no-untyped-def]
    """Write the unknown fields to the side, if there are any; returns how much of it is used."""
    if count == 0:
        return used
    begin = used
    for u in range(0, 4 * count, 4):
        key, key_end = load_word(view.unknown, u), load_word(view.unknown, u + 1)
        value, after = load_word(view.unknown, u + 2), load_word(view.unknown, u + 3)
        store(view.side, used, 0x7B if u == 0 else 0x2C)
        used = _copy(data, key, key_end, view.side, used + 1)
        store(view.side, used, 0x3A)
        used = _copy(data, value, after, view.side, used + 1)
    store(view.side, used, 0x7D)
    cell = view.columns * view.rows + row
    store_word(view.words, cell, ~begin)
    store_half(view.lengths, cell, used + 1 - begin)
    store(view.valid, cell, 1)
    return used + 1


@kernel
def _copy(data: int, p: int, end: int, out: int, at: int) -> int:
    for i in range(end - p):
        store(out, at + i, load(data, p + i))
    return at + end - p
