"""Kernels that write the chosen rows of column buffers as the body of an Arrow record batch.

Compiled by Numba, run without the GIL. `measure` computes sizes and places, `fill` writes.
"""

from __future__ import annotations

import numpy as np

from tidegate.events.bits import address, inlined, kernel, load, load8, store, store8

WORD = 0  # eight bytes a value: bigint, double, timestamp
BIT = 1  # boolean
WIDE = 2  # decimal128 from an int64
SPAN = 3  # text

_ALIGN = 64
_ROWS = 256  # a multiple of eight, as bits are written by the byte


@inlined
def _padded(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


@kernel
def measure(lengths, valid, chosen, forms, nodes, buffers):  # type: ignore[no-untyped-def]
    """The size of the body in bytes; fills `nodes` (length, nulls) and `buffers` (place, size)."""
    n = len(chosen)
    place = 0
    b = 0
    for c in range(len(forms)):
        present = 0
        text = 0
        for k in range(n):
            present += valid[c, chosen[k]]
        if forms[c] == SPAN:
            for k in range(n):
                i = chosen[k]
                text += lengths[c, i] if valid[c, i] else 0
        nodes[c, 0] = n
        nodes[c, 1] = n - present
        sizes = ((n + 7) // 8 if present < n else 0, _value_bytes(forms[c], n), text)
        for s in range(3 if forms[c] == SPAN else 2):
            buffers[b, 0] = place
            buffers[b, 1] = sizes[s]
            place += _padded(sizes[s])
            b += 1
    return place


@inlined
def _value_bytes(form: int, n: int) -> int:
    if form == BIT:
        return (n + 7) // 8
    if form == SPAN:
        return 4 * (n + 1)
    return 16 * n if form == WIDE else 8 * n


@kernel
def fill(words, lengths, valid, chosen, forms, payload, side, nodes, buffers, body):  # type: ignore[no-untyped-def]
    """Write every buffer at the place that `measure` gave it.

    Some hundred rows at a time in all columns, so that their texts are still near at hand.
    """
    n = len(chosen)
    for first in range(0, max(n, 1), _ROWS):
        rows = chosen[first : first + _ROWS]
        b = 0
        for c in range(len(forms)):
            if nodes[c, 1] > 0:
                _fill_bits(valid[c], rows, body[buffers[b, 0] + first // 8 :])
            values = body[buffers[b + 1, 0] : buffers[b + 1, 0] + buffers[b + 1, 1]]
            if forms[c] == BIT:
                _fill_flags(words[c], valid[c], rows, values[first // 8 :])
            elif forms[c] == WIDE:
                _fill_wide(words[c], valid[c], rows, values.view(np.int64)[2 * first :])
            elif forms[c] == WORD:
                _fill_words(words[c], valid[c], rows, values.view(np.int64)[first:])
            else:
                text = body[buffers[b + 2, 0] : buffers[b + 2, 0] + buffers[b + 2, 1]]
                offsets = values.view(np.int32)[first:]
                if first == 0:
                    offsets[0] = 0
                _fill_text(words[c], lengths[c], valid[c], rows, payload, side, offsets, text)
            b += 3 if forms[c] == SPAN else 2


@inlined
def _fill_bits(flags, rows, out):  # type: ignore[no-untyped-def]
    for k in range(0, len(rows), 8):
        byte = 0
        for j in range(min(8, len(rows) - k)):
            byte |= (flags[rows[k + j]] != 0) << j
        out[k >> 3] = byte


@inlined
def _fill_flags(words, valid, rows, out):  # type: ignore[no-untyped-def]
    for k in range(0, len(rows), 8):
        byte = 0
        for j in range(min(8, len(rows) - k)):
            i = rows[k + j]
            if valid[i]:
                byte |= (words[i] != 0) << j
        out[k >> 3] = byte


@inlined
def _fill_words(words, valid, rows, out):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        i = rows[k]
        out[k] = words[i] if valid[i] else 0


@inlined
def _fill_wide(words, valid, rows, out):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        i = rows[k]
        word = words[i] if valid[i] else 0
        out[2 * k] = word
        out[2 * k + 1] = word >> 63


@inlined
def _fill_text(words, lengths, valid, rows, payload, side, offsets, text):  # type: ignore[no-untyped-def]
    at = offsets[0]
    here, aside, to = address(payload), address(side), address(text)
    for k in range(len(rows)):
        i = rows[k]
        if valid[i]:
            start = words[i]
            source = here + start if start >= 0 else aside + ~start
            room = len(payload) - start if start >= 0 else len(side) - ~start
            _copy(source, lengths[i], min(room, len(text) - at), to + at)
            at += lengths[i]
        offsets[k + 1] = at


@inlined
def _copy(source: int, length: int, room: int, target: int) -> None:
    """Copy bytes, eight at a time while there is room: the next text mends what is too much."""
    done = 0
    while done < length and done + 8 <= room:
        store8(target, done, load8(source, done))
        done += 8
    while done < length:
        store(target, done, load(source, done))
        done += 1
