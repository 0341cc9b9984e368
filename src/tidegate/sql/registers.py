"""The machine that runs expressions on small batches: steps over registers, compiled once.

A register holds a word for each row and a byte that says whether it is known; doubles are kept by
their bits, decimals are whole numbers, scaled, times microseconds. What stands in the place of a
null means nothing. Registers below 0 are constants, one word for all rows: -1 is the first.

A step is `WIDTH` words: what to do, the register it writes, and up to four things that it reads.
A column is described by five words: its form, and the addresses of its values, its validity and
its bounds (0: none), and where in them its rows begin.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.extending import intrinsic

from tidegate.events.fingerprints import inline
from tidegate.sql.steps import (
    ADD,
    ADD_DOUBLE,
    AND,
    BOOLEAN,
    CENTURY,
    CHOOSE,
    CLOCK,
    COALESCE,
    DAY,
    DECADE,
    DECIMAL,
    DESCALE,
    DESCRIPTION,
    DOW,
    DOY,
    EQUAL,
    EQUAL_DOUBLE,
    IF_EQUAL,
    IF_GREATER,
    IF_LESS,
    IN,
    IN_TEXT,
    INT32,
    INT64,
    IS_FALSE,
    IS_NULL,
    IS_TRUE,
    ISODOW,
    ISOYEAR,
    LESS,
    LESS_DOUBLE,
    LOAD,
    MONTH,
    MUL,
    MUL_DOUBLE,
    NEGATE_DOUBLE,
    NOT,
    NOT_ZERO,
    NOT_ZERO_DOUBLE,
    OR,
    PLAIN,
    SCALE,
    SECONDS,
    SUB_DOUBLE,
    TEXT_TO_COLUMN,
    TEXT_TO_LITERAL,
    TO_DOUBLE,
    TRUTH,
    WEEK,
    WIDTH,
    YEAR,
)

Words = npt.NDArray[np.int64]

_DAY_US = 86_400_000_000
_MICROS = 1_000_000.0
_PRODUCT_MAX = 2.0**62
_INT32_MAX = 2.0**31 - 1


def _pointer_to(item: Any) -> Any:
    def pointer(typing: Any, address: Any) -> Any:  # noqa: ARG001 - as Numba calls it
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = context.get_value_type(signature.return_type)
            return builder.inttoptr(arguments[0], kind)

        return cast(Any, types.CPointer)(item)(types.int64), generate

    return intrinsic(pointer)


# What lies from an address on, by its place; nothing checks how much there is.
_words: Callable[[int], Words] = _pointer_to(types.int64)
_bytes: Callable[[int], npt.NDArray[np.uint8]] = _pointer_to(types.uint8)
_bounds: Callable[[int], npt.NDArray[np.int32]] = _pointer_to(types.int32)


def _cast(to: Any, given: Any) -> Any:
    def convert(typing: Any, value: Any) -> Any:  # noqa: ARG001 - as Numba calls it
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

        return to(given), generate

    return intrinsic(convert)


_real: Callable[[int], float] = _cast(types.float64, types.int64)
_bits: Callable[[float], int] = _cast(types.int64, types.float64)


# -- columns --------------------------------------------------------------------------------------


@inline
def _is_known(columns: Words, c: int, i: int) -> int:
    """1 where row i of the column described from word c on is not null."""
    if columns[c + 2] == 0:
        return 1
    k = columns[c + 4] + i
    return int((np.int64(_bytes(columns[c + 2])[k >> 3]) >> (k & 7)) & 1)


@inline
def _load(columns: Words, c: int, n: int, values: Words, known: Any) -> None:
    form, base, offset = columns[c], columns[c + 1], columns[c + 4]
    for i in range(n):
        known[i] = _is_known(columns, c, i)
    if form == PLAIN:
        for i in range(n):
            values[i] = _words(base)[offset + i]
    elif form == DECIMAL:
        for i in range(n):
            values[i] = _words(base)[2 * (offset + i)]
    elif form == BOOLEAN:
        for i in range(n):
            k = offset + i
            values[i] = (np.int64(_bytes(base)[k >> 3]) >> (k & 7)) & 1


@inline
def _compare_texts(a: int, size: int, b: int, other: int) -> int:
    """IF_LESS, IF_EQUAL or IF_GREATER, by bytes."""
    for k in range(min(size, other)):
        x, y = _bytes(a)[k], _bytes(b)[k]
        if x != y:
            return IF_LESS if x < y else IF_GREATER
    if size == other:
        return IF_EQUAL
    return IF_LESS if size < other else IF_GREATER


@inline
def _text(columns: Words, c: int, i: int) -> tuple[Any, Any]:
    """Where the text of row i begins, and its bytes."""
    bounds, k = _bounds(columns[c + 3]), columns[c + 4] + i
    begin = np.int64(bounds[k])
    return columns[c + 1] + begin, np.int64(bounds[k + 1]) - begin


@inline
def _with_literal(
    columns: Words, c: int, literal: int, size: int, wanted: int, n: int, values: Words, known: Any
) -> None:
    for i in range(n):
        known[i] = _is_known(columns, c, i)
        values[i] = 0
        if known[i]:
            begin, own = _text(columns, c, i)
            values[i] = 1 if _compare_texts(begin, own, literal, size) & wanted else 0


@inline
def _with_column(
    columns: Words, c: int, other: int, wanted: int, n: int, values: Words, known: Any
) -> None:
    for i in range(n):
        known[i] = _is_known(columns, c, i) & _is_known(columns, other, i)
        values[i] = 0
        if known[i]:
            begin, own = _text(columns, c, i)
            there, size = _text(columns, other, i)
            values[i] = 1 if _compare_texts(begin, own, there, size) & wanted else 0


@inline
def _in_texts(
    columns: Words, c: int, lists: Words, first: int, count: int, n: int, values: Words, known: Any
) -> None:
    """`lists` has the address and the size of each text."""
    for i in range(n):
        known[i] = _is_known(columns, c, i)
        values[i] = 0
        if known[i]:
            begin, own = _text(columns, c, i)
            for k in range(count):
                at = first + 2 * k
                if own == lists[at + 1] and _compare_texts(begin, own, lists[at], own) == IF_EQUAL:
                    values[i] = 1
                    break


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
    a, b = _real(x), _real(y)
    if op == EQUAL_DOUBLE:
        return 1 if (a == b) | ((a != a) & (b != b)) else 0
    if op == LESS_DOUBLE:
        return 1 if _less_double(a, b) else 0
    if op == ADD_DOUBLE:
        return _bits(a + b)
    if op == SUB_DOUBLE:
        return _bits(a - b)
    if op == MUL_DOUBLE:
        return _bits(a * b)
    return _bits(a / b)


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
def _year_of(days: int) -> tuple[int, int]:
    """The year of a day since 1970, and the days before it in the year that begins in March."""
    shifted = days + 719_468
    era = shifted // 146_097
    day = shifted - era * 146_097
    of_era = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * of_era + of_era // 4 - of_era // 100)
    return of_era + era * 400 + (1 if of_year >= 306 else 0), of_year


@inline
def _day_of_year(days: int) -> int:
    year, of_year = _year_of(days)
    if of_year >= 306:
        return of_year - 305
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return of_year + 60 + (1 if leap else 0)


@inline
def _month_and_day(days: int) -> tuple[int, int]:
    of_year = _year_of(days)[1]
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    return month + 3 if month < 10 else month - 9, day


@inline
def _date_part(part: int, days: int) -> int:
    """A part of the date of a day since 1970, in the calendar that NumPy and DuckDB have."""
    weekday = (days + 3) % 7 + 1  # Monday 1 to Sunday 7; 1970 began on a Thursday
    thursday = days - weekday + 4
    if part in (YEAR, DECADE, CENTURY):
        year = _year_of(days)[0]
        if part == YEAR:
            return year
        if part == DECADE:
            return year // 10 if year >= 0 else -(-year // 10)
        return (year + 99) // 100 if year > 0 else -((100 - year) // 100)
    if part in (ISODOW, DOW):
        return weekday if part == ISODOW else weekday % 7
    if part == DOY:
        return _day_of_year(days)
    if part == WEEK:
        return (_day_of_year(thursday) + 6) // 7
    if part == ISOYEAR:
        return _year_of(thursday)[0]
    month, day = _month_and_day(days)
    if part == DAY:
        return day
    return month if part == MONTH else (month + 2) // 3


@inline
def _of_one(op: int, x: int, c: int, e: int) -> tuple[int, bool]:
    """A conversion or a part of a time, and whether it may lie beyond its range."""
    if op == TO_DOUBLE:
        return _bits(float(x)), False
    if op == NOT_ZERO:
        return 1 if x != 0 else 0, False
    if op == NOT_ZERO_DOUBLE:
        return 1 if _real(x) != 0.0 else 0, False
    if op == NEGATE_DOUBLE:
        return _bits(-_real(x)), False
    if op == SCALE:
        return x * c, abs(float(x)) * float(c) >= _real(e)
    if op == DESCALE:
        return _bits(float(x) / float(c)), False
    if op == SECONDS:
        return _bits(float(x) / _MICROS), False
    if op == CLOCK:
        return x % _DAY_US // c % e, False
    return _date_part(c, x // _DAY_US), False


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
            _bytes(to)[first >> 3] = byte
    elif form == TRUTH:
        for i in range(n):
            _bytes(to)[i] = values[i * s] & known[i * s]
    elif form == DECIMAL:
        for i in range(n):
            word = values[i * s] if known[i * s] else 0
            _words(to)[2 * i] = word
            _words(to)[2 * i + 1] = word >> 63
    else:
        for i in range(n):
            _words(to)[i] = values[i * s] if known[i * s] else 0


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
    d, kd = _words(base + 8 * n * to), _bytes(flags + n * to)
    x, y, z, e = code[at + 2], code[at + 3], code[at + 4], code[at + 5]
    if op == LOAD:
        _load(columns, DESCRIPTION * x, n, d, kd)
        return False
    if op == TEXT_TO_LITERAL:
        at_literal = lists[y : y + 2]
        _with_literal(columns, DESCRIPTION * x, at_literal[0], at_literal[1], z, n, d, kd)
        return False
    if op == TEXT_TO_COLUMN:
        _with_column(columns, DESCRIPTION * x, DESCRIPTION * y, z, n, d, kd)
        return False
    if op == IN_TEXT:
        _in_texts(columns, DESCRIPTION * x, lists, y, z, n, d, kd)
        return False
    sa = 1 if x >= 0 else 0
    a = _words(base + 8 * n * x if x >= 0 else constants.ctypes.data - 8 * (x + 1))
    ka = _bytes(flags + n * x if x >= 0 else known.ctypes.data - (x + 1))
    if op == IN:
        _among(lists, y, z, n, a, ka, sa, d, kd)
        return False
    if NOT <= op <= IS_FALSE:
        _asked(op, n, a, ka, sa, d, kd)
        return False
    if op == NEGATE_DOUBLE or op >= TO_DOUBLE:
        return _singly(op, n, a, ka, sa, z, e, d, kd)
    sb = 1 if y >= 0 else 0
    b = _words(base + 8 * n * y if y >= 0 else constants.ctypes.data - 8 * (y + 1))
    kb = _bytes(flags + n * y if y >= 0 else known.ctypes.data - (y + 1))
    if op == CHOOSE:
        sc = 1 if z >= 0 else 0
        c = _words(base + 8 * n * z if z >= 0 else constants.ctypes.data - 8 * (z + 1))
        kc = _bytes(flags + n * z if z >= 0 else known.ctypes.data - (z + 1))
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
    _WORDS, _WORDS, _BYTES, _WORDS, _WORDS, types.int64, types.int64, _WORDS, _WORDS
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
) -> int:
    """Run all steps for n rows and write the outputs; 1 where a row may have an error, else 0.

    `scratch` has room for the registers: 9 bytes for each row of each. Each output has five words:
    its register, its form, the addresses of its validity (0: not wanted) and its values; then comes
    out the number of nulls.
    """
    base = scratch.ctypes.data
    flags = base + 8 * n * registers
    for s in range(len(code) // WIDTH):
        if _step(code, WIDTH * s, constants, known, lists, columns, n, base, flags):
            return 1
    for o in range(0, len(outputs), 5):
        r, form = outputs[o], outputs[o + 1]
        stride = 1 if r >= 0 else 0
        values = _words(base + 8 * n * r if r >= 0 else constants.ctypes.data - 8 * (r + 1))
        here = _bytes(flags + n * r if r >= 0 else known.ctypes.data - (r + 1))
        if outputs[o + 2] != 0:
            outputs[o + 4] = _write_known(n, here, stride, _bytes(outputs[o + 2]))
        _write(form, n, values, here, stride, outputs[o + 3])
    scratch[0] = 0  # what is not used any more may be freed
    return 0


_compiling = Lock()
_compiled: list[Any] = []


def machine() -> Callable[..., int]:
    """The compiled `run`; compiled, or loaded from the cache on disk, when first asked for."""
    with _compiling:
        if not _compiled:
            made: Any = njit(nogil=True, cache=True, error_model="numpy")(_run)
            # What it calls and knows lies in other modules too, at which Numba would not look.
            made._cache._cache_file._source_stamp = _stamp()
            made.compile(_SIGNATURE)
            made.disable_compile()
            _compiled.append(made)
    return cast(Callable[..., int], _compiled[0])


def _stamp() -> tuple[tuple[str, int, int], ...]:
    here = Path(__file__)
    files = [here, here.with_name("steps.py"), here.parent.parent / "events" / "fingerprints.py"]
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)
