"""JSON's grammar between and around values, as kernels: blanks, colons, and where a value ends.

As everywhere in the kernels, `p` is a place, `end` where the record ends, and -1 says that what
stands there is not understood.
"""

from __future__ import annotations

import numpy as np

from tidegate.events.bits import inlined, kernel, load
from tidegate.events.numbers import read_number
from tidegate.events.strings import string_end

_NEST_MAX = 60  # levels below a field; one bit each, and well within the slow path's limit


@inlined
def skip(data: int, p: int, end: int) -> int:
    """The first place from `p` on that holds no blank."""
    while p < end:
        byte = load(data, p)
        if byte != 0x20 and byte != 0x0A and byte != 0x0D and byte != 0x09:
            break
        p += 1
    return p


@inlined
def colon(data: int, p: int, end: int) -> int:
    """The first byte of the value behind the colon."""
    if p < 0:
        return -1
    p = skip(data, p, end)
    if p >= end or load(data, p) != 0x3A:
        return -1
    p = skip(data, p + 1, end)
    return p if p < end else -1


@inlined
def literal_end(data: int, p: int, end: int) -> int:
    """Behind `true`, `false` or `null`."""
    if end - p >= 4:
        first = load(data, p)
        second, third, fourth = load(data, p + 1), load(data, p + 2), load(data, p + 3)
        if first == 0x74 and second == 0x72 and third == 0x75 and fourth == 0x65:
            return p + 4
        if first == 0x6E and second == 0x75 and third == 0x6C and fourth == 0x6C:
            return p + 4
        if first == 0x66 and second == 0x61 and third == 0x6C and fourth == 0x73:
            return p + 5 if end - p >= 5 and load(data, p + 4) == 0x65 else -1
    return -1


@kernel
def value_end(data: int, p: int, end: int) -> int:
    """Behind the JSON value at `p`, of whatever kind and depth."""
    objects = np.uint64(0)  # one bit a level, the lowest for the innermost: 1 for an object
    depth = 0
    while p < end:
        byte = load(data, p)
        if byte == 0x7B or byte == 0x5B:
            depth += 1
            if depth > _NEST_MAX:
                return -1
            objects = (objects << np.uint64(1)) | np.uint64(byte == 0x7B)
            p = skip(data, p + 1, end)
            empty = p < end and load(data, p) == byte + 2  # `}` and `]` lie two above
            if not empty:
                if byte == 0x7B:
                    p = _member(data, p, end)
                    if p < 0:
                        return -1
                continue
        else:
            p = _scalar_end(data, p, end)
            if p < 0:
                return -1
        # A value has ended (or, where empty, its closing bracket stands at `p`).
        while depth > 0:
            p = skip(data, p, end)
            if p >= end:
                return -1
            within = objects & np.uint64(1)
            if load(data, p) == 0x2C:
                break
            if load(data, p) != (0x7D if within else 0x5D):
                return -1
            p += 1
            depth -= 1
            objects >>= np.uint64(1)
        if depth == 0:
            return p
        p = skip(data, p + 1, end)
        if objects & np.uint64(1):
            p = _member(data, p, end)
            if p < 0:
                return -1
    return -1


@kernel
def _member(data: int, p: int, end: int) -> int:
    """Behind the key and colon at `p`."""
    if p >= end or load(data, p) != 0x22:
        return -1
    quote, _ = string_end(data, p + 1, end)
    return colon(data, quote + 1, end) if quote >= 0 else -1


@kernel
def _scalar_end(data: int, p: int, end: int) -> int:
    byte = load(data, p)
    if byte == 0x22:
        quote, _ = string_end(data, p + 1, end)
        return quote + 1 if quote >= 0 else -1
    if byte == 0x74 or byte == 0x66 or byte == 0x6E:
        return literal_end(data, p, end)
    return read_number(data, p, end)[0]
