"""The machine that runs expressions on small batches: steps over registers, compiled once.

A register holds a word for each row and a byte that says whether it is known; doubles are kept by
their bits, decimals are whole numbers, scaled, times microseconds. What stands in the place of a
null means nothing. Registers below 0 are constants, one word for all rows: -1 is the first.

A step is `WIDTH` words: what to do, the register it writes, and up to four things that it reads.
A column is described by five words: its form, and the addresses of its values, its validity and
its bounds (0: none), and where in them its rows begin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from tidegate.events.fingerprints import inline
from tidegate.sql.compiled import Compiled
from tidegate.sql.dates import date_part
from tidegate.sql.places import finder, putter
from tidegate.sql.pointers import Words, bits, bytes_at, real, words_at
from tidegate.sql.reading import compare_with_column, compare_with_literal, find_texts, load
from tidegate.sql.steps import (
    ADD,
    ADD_DOUBLE,
    AND,
    BOOLEAN,
    CHOOSE,
    CLOCK,
    COALESCE,
    DECIMAL,
    DESCALE,
    DESCRIPTION,
    EQUAL,
    EQUAL_DOUBLE,
    IN,
    IN_TEXT,
    INT32,
    INT64,
    IS_FALSE,
    IS_NULL,
    IS_TRUE,
    LESS,
    LESS_DOUBLE,
    LOAD,
    MUL,
    MUL_DOUBLE,
    NEGATE_DOUBLE,
    NOT,
    NOT_ZERO,
    NOT_ZERO_DOUBLE,
    OR,
    SCALE,
    SECONDS,
    SUB_DOUBLE,
    TEXT_TO_COLUMN,
    TEXT_TO_LITERAL,
    TO_DOUBLE,
    TRUTH,
    WIDTH,
)

_DAY_US = 86_400_000_000
_MICROS = 1_000_000.0
_PRODUCT_MAX = 2.0**62
_INT32_MAX = 2.0**31 - 1


# -- one row --------------------------------------------------------------------------------------


@inline
def _less_double(x: float, y: float) -> bool:
    """As DuckDB orders doubles: NaN equals NaN and is greatest."""
    return (x < y) | ((y != y) & (x == x))


@inline
def _of_two(op: int, x: int, y: int) -> int:
    """A comparison of words, or arithmetic of doubles."""
    if op == EQUAL:
        return 1 if x == y else 0
    if op == LESS:
        return 1 if x < y else 0
    a, b = real(x), real(y)
    if op == EQUAL_DOUBLE:
        return 1 if (a == b) | ((a != a) & (b != b)) else 0
    if op == LESS_DOUBLE:
        return 1 if _less_double(a, b) else 0
    if op == ADD_DOUBLE:
        return bits(a + b)
    if op == SUB_DOUBLE:
        return bits(a - b)
    if op == MUL_DOUBLE:
        return bits(a * b)
    return bits(a / b)


@inline
def _exact(op: int, x: int, y: int, within: int) -> tuple[int, bool]:
    """A sum, difference or product of whole numbers, and whether it may lie beyond its range."""
    if op == MUL:
        estimate = abs(float(x) * float(y))
        return x * y, estimate > (_INT32_MAX if within == INT32 else _PRODUCT_MAX)
    made, changed = (x + y, y) if op == ADD else (x - y, ~y)
    if within == INT32:
        return made, made != np.int64(np.int32(made))
    return made, (within == INT64) & (((made ^ x) & (made ^ changed)) < 0)


@inline
def _of_one(op: int, x: int, c: int, e: int) -> tuple[int, bool]:
    """A conversion or a part of a time, and whether it may lie beyond its range."""
    if op == TO_DOUBLE:
        return bits(float(x)), False
    if op == NOT_ZERO:
        return 1 if x != 0 else 0, False
    if op == NOT_ZERO_DOUBLE:
        return 1 if real(x) != 0.0 else 0, False
    if op == NEGATE_DOUBLE:
        return bits(-real(x)), False
    if op == SCALE:
        return x * c, abs(float(x)) * float(c) >= real(e)
    if op == DESCALE:
        return bits(float(x) / float(c)), False
    if op == SECONDS:
        return bits(float(x) / _MICROS), False
    if op == CLOCK:
        return x % _DAY_US // c % e, False
    return date_part(c, x // _DAY_US), False


# -- all rows -------------------------------------------------------------------------------------


@inline
def _logic(
    op: int, n: int, a: Words, ka: Any, sa: int, b: Words, kb: Any, sb: int, d: Words, kd: Any
) -> None:
    """AND, OR, COALESCE: one part may decide, whatever is unknown beside it."""
    for i in range(n):
        x, y, p, q = a[i * sa], b[i * sb], ka[i * sa], kb[i * sb]
        if op == COALESCE:
            d[i], kd[i] = x if p else y, p | q
            continue
        decides = 1 if op == OR else 0
        decided = (p & (x == decides)) | (q & (y == decides))
        d[i] = decides if decided else 1 - decides
        kd[i] = decided | (p & q)


@inline
def _asked(op: int, n: int, a: Words, ka: Any, sa: int, d: Words, kd: Any) -> None:
    """NOT, IS NULL, IS TRUE, IS FALSE."""
    for i in range(n):
        x, p = a[i * sa], ka[i * sa]
        if op == NOT:
            d[i], kd[i] = 1 - x, p
        else:
            kd[i] = 1
            if op == IS_NULL:
                d[i] = 1 - p
            else:
                d[i] = p & (x if op == IS_TRUE else 1 - x)


@inline
def _pairs(
    op: int, n: int, a: Words, ka: Any, sa: int, b: Words, kb: Any, sb: int, d: Words, kd: Any
) -> None:
    for i in range(n):
        d[i] = _of_two(op, a[i * sa], b[i * sb])
    for i in range(n):
        kd[i] = ka[i * sa] & kb[i * sb]


@inline
def _exactly(
    op: int,
    n: int,
    a: Words,
    ka: Any,
    sa: int,
    b: Words,
    kb: Any,
    sb: int,
    within: int,
    d: Words,
    kd: Any,
) -> bool:
    beyond = False
    for i in range(n):
        known = ka[i * sa] & kb[i * sb]
        made, wrong = _exact(op, a[i * sa], b[i * sb], within)
        d[i], kd[i] = made, known
        beyond |= wrong & (known != 0)
    return beyond


@inline
def _singly(op: int, n: int, a: Words, ka: Any, sa: int, c: int, e: int, d: Words, kd: Any) -> bool:
    beyond = False
    for i in range(n):
        made, wrong = _of_one(op, a[i * sa], c, e)
        d[i], kd[i] = made, ka[i * sa]
        beyond |= wrong & (ka[i * sa] != 0)
    return beyond


@inline
def _chosen(
    n: int,
    c: Words,
    kc: Any,
    sc: int,
    a: Words,
    ka: Any,
    sa: int,
    b: Words,
    kb: Any,
    sb: int,
    d: Words,
    kd: Any,
) -> None:
    """The first value where the condition is true, else the second."""
    for i in range(n):
        if c[i * sc] & kc[i * sc]:
            d[i], kd[i] = a[i * sa], ka[i * sa]
        else:
            d[i], kd[i] = b[i * sb], kb[i * sb]


@inline
def _among(
    lists: Words, first: int, count: int, n: int, a: Words, ka: Any, sa: int, d: Words, kd: Any
) -> None:
    for i in range(n):
        found = 0
        for k in range(first, first + count):
            if a[i * sa] == lists[k]:
                found = 1
                break
        d[i], kd[i] = found, ka[i * sa]


# -- out ------------------------------------------------------------------------------------------


@inline
def _write_known(n: int, known: Any, s: int, valid: Any) -> int:
    """Write the bits of what is known; how many nulls there are."""
    there = 0
    for first in range(0, n, 8):
        byte = 0
        for i in range(first, min(first + 8, n)):
            byte |= int(known[i * s]) << (i & 7)
            there += int(known[i * s])
        valid[first >> 3] = byte
    return n - there


@inline
def _write(form: int, n: int, values: Words, known: Any, s: int, to: int) -> None:
    """Write what is known as a column of Arrow; zeros stand in the place of nulls."""
    if form == BOOLEAN:
        for first in range(0, n, 8):
            byte = 0
            for i in range(first, min(first + 8, n)):
                byte |= (values[i * s] & known[i * s]) << (i & 7)
            bytes_at(to)[first >> 3] = byte
    elif form == TRUTH:
        for i in range(n):
            bytes_at(to)[i] = values[i * s] & known[i * s]
    elif form == DECIMAL:
        for i in range(n):
            word = values[i * s] if known[i * s] else 0
            words_at(to)[2 * i] = word
            words_at(to)[2 * i + 1] = word >> 63
    else:
        for i in range(n):
            words_at(to)[i] = values[i * s] if known[i * s] else 0


@inline
def _step(
    code: Words,
    at: int,
    constants: Words,
    known: Any,
    lists: Words,
    columns: Words,
    n: int,
    base: int,
    flags: int,
) -> bool:
    """One step; whether a row may have an error."""
    op, to = code[at], code[at + 1]
    d, kd = words_at(base + 8 * n * to), bytes_at(flags + n * to)
    x, y, z, e = code[at + 2], code[at + 3], code[at + 4], code[at + 5]
    if op == LOAD:
        load(columns, DESCRIPTION * x, n, d, kd)
        return False
    if op == TEXT_TO_LITERAL:
        at_literal = lists[y : y + 2]
        compare_with_literal(columns, DESCRIPTION * x, at_literal[0], at_literal[1], z, n, d, kd)
        return False
    if op == TEXT_TO_COLUMN:
        compare_with_column(columns, DESCRIPTION * x, DESCRIPTION * y, z, n, d, kd)
        return False
    if op == IN_TEXT:
        find_texts(columns, DESCRIPTION * x, lists, y, z, n, d, kd)
        return False
    sa = 1 if x >= 0 else 0
    a = words_at(base + 8 * n * x if x >= 0 else constants.ctypes.data - 8 * (x + 1))
    ka = bytes_at(flags + n * x if x >= 0 else known.ctypes.data - (x + 1))
    if op == IN:
        _among(lists, y, z, n, a, ka, sa, d, kd)
        return False
    if NOT <= op <= IS_FALSE:
        _asked(op, n, a, ka, sa, d, kd)
        return False
    if op == NEGATE_DOUBLE or op >= TO_DOUBLE:
        return _singly(op, n, a, ka, sa, z, e, d, kd)
    sb = 1 if y >= 0 else 0
    b = words_at(base + 8 * n * y if y >= 0 else constants.ctypes.data - 8 * (y + 1))
    kb = bytes_at(flags + n * y if y >= 0 else known.ctypes.data - (y + 1))
    if op == CHOOSE:
        sc = 1 if z >= 0 else 0
        c = words_at(base + 8 * n * z if z >= 0 else constants.ctypes.data - 8 * (z + 1))
        kc = bytes_at(flags + n * z if z >= 0 else known.ctypes.data - (z + 1))
        _chosen(n, a, ka, sa, b, kb, sb, c, kc, sc, d, kd)
        return False
    if op in (AND, OR, COALESCE):
        _logic(op, n, a, ka, sa, b, kb, sb, d, kd)
        return False
    if ADD <= op <= MUL:
        return _exactly(op, n, a, ka, sa, b, kb, sb, z, d, kd)
    _pairs(op, n, a, ka, sa, b, kb, sb, d, kd)
    return False


_WORDS = types.int64[::1]
_BYTES = types.uint8[::1]
_SIGNATURE = types.int64(
    *(_WORDS, _WORDS, _BYTES, _WORDS, _WORDS, types.int64, types.int64, _WORDS, _WORDS),
    types.int64,
)


def _run(
    code: Words,
    constants: Words,
    known: Any,
    lists: Words,
    columns: Words,
    n: int,
    registers: int,
    scratch: Words,
    outputs: Words,
    top: int,
) -> int:
    """Run all steps for n rows and write the outputs; 1 where a row may have an error, else 0.

    `scratch` has room for the registers: 9 bytes for each row of each. Each output has five words:
    its register, its form, where behind the address `top` its validity (-1: not wanted) and its
    values begin; then comes out the number of nulls.
    """
    base = scratch.ctypes.data
    flags = base + 8 * n * registers
    for s in range(len(code) // WIDTH):
        if _step(code, WIDTH * s, constants, known, lists, columns, n, base, flags):
            return 1
    for o in range(0, len(outputs), 5):
        r, form = outputs[o], outputs[o + 1]
        stride = 1 if r >= 0 else 0
        values = words_at(base + 8 * n * r if r >= 0 else constants.ctypes.data - 8 * (r + 1))
        here = bytes_at(flags + n * r if r >= 0 else known.ctypes.data - (r + 1))
        if outputs[o + 2] >= 0:
            outputs[o + 4] = _write_known(n, here, stride, bytes_at(top + outputs[o + 2]))
        _write(form, n, values, here, stride, top + outputs[o + 3])
    scratch[0] = 0  # what is not used any more may be freed
    return 0


machine = Compiled(
    _run,
    _SIGNATURE,
    *("registers", "dates", "pointers", "reading", "steps", "../events/fingerprints"),
)


def warm_up() -> None:
    """Compile, or load, all that small batches are evaluated with, so that none waits for it."""
    machine.get()
    finder.get()
    putter.get()
