"""Kernels that write the chosen rows of column buffers as the body of an Arrow record batch.

Compiled by Numba, run without the GIL. `measure` computes sizes and places, `fill` writes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tidegate.events.bits import address, load, load8, store, store8

WORD = 0  # eight bytes a value: bigint, double, timestamp
BIT = 1  # boolean
WIDE = 2  # decimal128 from an int64
SPAN = 3  # text

SLACK = 64  # bytes behind the body that may be written to

_ALIGN = 64


@njit(nogil=True, cache=True)
def _padded(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


@njit(nogil=True, cache=True)
def measure(lengths, valid, chosen, forms, nodes, buffers):  # type: ignore[no-untyped-def]
    """The size of the body in bytes; fills `nodes` (length, nulls) and `buffers` (place, size)."""
    n = len(chosen)
    place = 0
    b = 0
    for c in range(len(forms)):
        present = 0
        text = 0
        for k in range(n):
            i = chosen[k]
            if valid[c, i]:
                present += 1
                if forms[c] == SPAN:
                    text += lengths[c, i]
        nodes[c, 0] = n
        nodes[c, 1] = n - present
        sizes = ((n + 7) // 8 if present < n else 0, _value_bytes(forms[c], n), text)
        for s in range(3 if forms[c] == SPAN else 2):
            buffers[b, 0] = place
            buffers[b, 1] = sizes[s]
            place += _padded(sizes[s])
            b += 1
    return place


@njit(nogil=True, cache=True)
def _value_bytes(form: int, n: int) -> int:
    if form == BIT:
        return (n + 7) // 8
    if form == SPAN:
        return 4 * (n + 1)
    return 16 * n if form == WIDE else 8 * n


@njit(nogil=True, cache=True)
def fill(words, lengths, valid, chosen, forms, payload, side, nodes, buffers, body):  # type: ignore[no-untyped-def]
    """Write every buffer at the place that `measure` gave it; `body` has `SLACK` bytes more."""
    b = 0
    for c in range(len(forms)):
        if nodes[c, 1] > 0:
            _fill_bits(valid[c], chosen, body[buffers[b, 0] :])
        values = body[buffers[b + 1, 0] : buffers[b + 1, 0] + buffers[b + 1, 1]]
        if forms[c] == BIT:
            _fill_flags(words[c], valid[c], chosen, values)
        elif forms[c] == WIDE:
            _fill_wide(words[c], valid[c], chosen, values.view(np.int64))
        elif forms[c] == WORD:
            _fill_words(words[c], valid[c], chosen, values.view(np.int64))
        else:
            text = body[buffers[b + 2, 0] : buffers[b + 2, 0] + buffers[b + 2, 1]]
            offsets = values.view(np.int32)
            _fill_text(words[c], lengths[c], valid[c], chosen, payload, side, offsets, text)
        b += 3 if forms[c] == SPAN else 2


@njit(nogil=True, cache=True)
def _fill_bits(flags, chosen, out):  # type: ignore[no-untyped-def]
    for k in range(0, len(chosen), 8):
        byte = 0
        for j in range(min(8, len(chosen) - k)):
            byte |= (flags[chosen[k + j]] != 0) << j
        out[k >> 3] = byte


@njit(nogil=True, cache=True)
def _fill_flags(words, valid, chosen, out):  # type: ignore[no-untyped-def]
    for k in range(0, len(chosen), 8):
        byte = 0
        for j in range(min(8, len(chosen) - k)):
            i = chosen[k + j]
            if valid[i]:
                byte |= (words[i] != 0) << j
        out[k >> 3] = byte


@njit(nogil=True, cache=True)
def _fill_words(words, valid, chosen, out):  # type: ignore[no-untyped-def]
    for k in range(len(chosen)):
        i = chosen[k]
        out[k] = words[i] if valid[i] else 0


@njit(nogil=True, cache=True)
def _fill_wide(words, valid, chosen, out):  # type: ignore[no-untyped-def]
    for k in range(len(chosen)):
        i = chosen[k]
        word = words[i] if valid[i] else 0
        out[2 * k] = word
        out[2 * k + 1] = word >> 63


@njit(nogil=True, cache=True)
def _fill_text(words, lengths, valid, chosen, payload, side, offsets, text):  # type: ignore[no-untyped-def]
    at = 0
    here, aside, to = address(payload), address(side), address(text)
    for k in range(len(chosen)):
        i = chosen[k]
        offsets[k] = at
        if valid[i]:
            start = words[i]
            if start >= 0:
                _copy(here + start, lengths[i], len(payload) - start, to + at)
            else:
                _copy(aside + ~start, lengths[i], len(side) - ~start, to + at)
            at += lengths[i]
    offsets[len(chosen)] = at


@njit(nogil=True, cache=True)
def _copy(source: int, length: int, room: int, target: int) -> None:
    """Copy bytes, eight at a time while the source has them: what is written too far is mended.

    The bytes behind a text belong to the next text, which is written later, or to `SLACK`.
    """
    done = 0
    while done < length and done + 8 <= room:
        store8(target, done, load8(source, done))
        done += 8
    while done < length:
        store(target, done, load(source, done))
        done += 1
