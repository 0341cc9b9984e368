"""JSON strings as kernels: where they end, whether they are sound, and their text.

Sound means what the slow path accepts: valid UTF-8, valid escapes, no half of a surrogate pair, no
bare control character.
"""

from __future__ import annotations

import numpy as np

from tidegate.events.bits import inlined, kernel, load, load8, store, zeros_below

_ONES = np.uint64(0x0101010101010101)
_TOPS = np.uint64(0x8080808080808080)
_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_SPACES = np.uint64(0x2020202020202020)


@inlined
def string_end(data: int, p: int, end: int) -> tuple[int, bool]:
    """The closing quote of the string whose text begins at `p`, and whether there are escapes.

    -1 if there is none before `end` or the string is not sound.
    """
    escaped = False
    while True:
        p = _plain_end(data, p, end)
        if p >= end:
            return -1, False
        byte = load(data, p)
        if byte == 0x22:
            return p, escaped
        if byte == 0x5C:
            escaped = True
            p = _escape_end(data, p, end)
        elif byte >= 0x80:
            p = _sequence_end(data, p, end)
        else:
            return -1, False
        if p < 0:
            return -1, False


@inlined
def _plain_end(data: int, p: int, end: int) -> int:
    """The first byte from `p` on that is a quote, a backslash, a control or no ASCII.

    Eight bytes at a time. A test for a small byte may also mark one above a marked byte, never one
    below, so the lowest mark is right. Source: Warren, Hacker's Delight, 6-1.
    """
    while p + 8 <= end:
        word = load8(data, p)
        quotes, backslashes = word ^ _QUOTES, word ^ _BACKSLASHES
        marks = (quotes - _ONES) & ~quotes
        marks |= (backslashes - _ONES) & ~backslashes
        marks |= ((word - _SPACES) & ~word) | word
        marks &= _TOPS
        if marks:
            plain: int = zeros_below(marks) >> 3
            return p + plain
        p += 8
    while p < end:
        byte = load(data, p)
        if byte == 0x22 or byte == 0x5C or byte < 0x20 or byte >= 0x80:
            break
        p += 1
    return p


@kernel
def _sequence_end(data: int, p: int, end: int) -> int:
    """Behind the UTF-8 sequence of two to four bytes at `p`; -1 if it is not valid."""
    lead = load(data, p)
    if lead < 0xC2 or lead > 0xF4:
        return -1
    after = p + (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4)
    if after > end:
        return -1
    # Only the second byte has narrower bounds: no overlong forms, no surrogates, nothing too high.
    second = load(data, p + 1)
    lowest = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
    highest = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
    if second < lowest or second > highest:
        return -1
    for i in range(p + 2, after):
        if (load(data, i) & 0xC0) != 0x80:
            return -1
    return after


@kernel
def _escape_end(data: int, p: int, end: int) -> int:
    """Behind the escape at `p`, both halves of a surrogate pair; -1 if it is not valid."""
    if p + 2 > end:
        return -1
    byte = load(data, p + 1)
    if byte != 0x75:
        return p + 2 if _short_escape(byte) >= 0 else -1
    unit = _hex(data, p + 2, end)
    if unit < 0xD800 or unit > 0xDFFF:
        return p + 6 if unit >= 0 else -1
    if unit >= 0xDC00 or p + 8 > end or load(data, p + 6) != 0x5C or load(data, p + 7) != 0x75:
        return -1
    low = _hex(data, p + 8, end)
    return p + 12 if 0xDC00 <= low <= 0xDFFF else -1


@kernel
def _short_escape(byte: int) -> int:
    """What a backslash and this byte stand for, or -1."""
    if byte == 0x22 or byte == 0x5C or byte == 0x2F:
        return byte
    if byte == 0x6E:
        return 0x0A
    if byte == 0x74:
        return 0x09
    if byte == 0x72:
        return 0x0D
    if byte == 0x62:
        return 0x08
    return 0x0C if byte == 0x66 else -1


@kernel
def _hex(data: int, p: int, end: int) -> int:
    """The value of four hexadecimal digits, or -1."""
    if p + 4 > end:
        return -1
    value = 0
    for i in range(p, p + 4):
        byte = load(data, i)
        letter = byte | 0x20
        if 0x30 <= byte <= 0x39:
            value = value * 16 + byte - 0x30
        elif 0x61 <= letter <= 0x66:
            value = value * 16 + letter - 0x61 + 10
        else:
            return -1
    return value


@kernel
def unescape(data: int, p: int, end: int, out: int, at: int) -> int:
    """Write the text of the sound string `data[p:end]` to `out` from `at` on; returns its end."""
    while p < end:
        byte = load(data, p)
        if byte != 0x5C:
            store(out, at, byte)
            p, at = p + 1, at + 1
        elif load(data, p + 1) != 0x75:
            store(out, at, _short_escape(load(data, p + 1)))
            p, at = p + 2, at + 1
        else:
            code = _hex(data, p + 2, end)
            p += 6
            if 0xD800 <= code <= 0xDFFF:
                code = 0x10000 + ((code - 0xD800) << 10) + _hex(data, p + 2, end) - 0xDC00
                p += 6
            at = _put_code(out, at, code)
    return at


@kernel
def _put_code(out: int, at: int, code: int) -> int:
    """Write a code point as UTF-8; returns where it ends. Never longer than its escape."""
    if code < 0x80:
        store(out, at, code)
        return at + 1
    if code < 0x800:
        store(out, at, 0xC0 | code >> 6)
    else:
        if code < 0x10000:
            store(out, at, 0xE0 | code >> 12)
        else:
            store(out, at, 0xF0 | code >> 18)
            store(out, at + 1, 0x80 | (code >> 12 & 0x3F))
            at += 1
        store(out, at + 1, 0x80 | (code >> 6 & 0x3F))
        at += 1
    store(out, at + 1, 0x80 | (code & 0x3F))
    return at + 2
