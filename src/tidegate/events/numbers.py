"""Numbers out of bytes, as kernels: JSON's grammar, exact scaling, correctly rounded doubles."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate.events.bits import inlined, kernel, load, product_high, zeros_above

DIGITS_MAX = 18  # as many as always fit an int64
_POWER_MAX = 60  # beyond these powers of ten a double is left to the slow path

_EXACT = np.array([10.0**i for i in range(23)])
_WHOLE = np.array([10**i for i in range(DIGITS_MAX + 1)], dtype=np.int64)


def _normalised(power: int) -> int:
    """The 128 highest bits of 10**power, cut off."""
    if power >= 0:
        whole = int(10**power)
        return (whole << 128) >> whole.bit_length()
    divisor = int(10**-power)
    return (1 << (127 + divisor.bit_length())) // divisor


_POWERS = [_normalised(i) for i in range(-_POWER_MAX, _POWER_MAX + 1)]
_HIGH = np.array([p >> 64 for p in _POWERS], dtype=np.uint64)
_LOW = np.array([p & (2**64 - 1) for p in _POWERS], dtype=np.uint64)


@inlined
def read_number(data: int, p: int, end: int) -> tuple[int, int, int, bool, bool]:
    """Where a JSON number at `p` ends, its digits as int64, its power of ten, its sign and form.

    The value is `digits * 10**power`; `negative` is the sign, `whole` says that neither fraction
    nor exponent was written. The end is -1 if it is no number or has more than 18 digits.
    """
    negative = load(data, p) == 0x2D
    if negative:
        p += 1
    first = p
    digits, p, count = _read_digits(data, p, end, 0, 0)
    if p == first or (load(data, first) == 0x30 and p > first + 1):
        return -1, 0, 0, False, False
    power = 0
    whole = True
    if p < end and load(data, p) == 0x2E:
        whole = False
        first = p + 1
        digits, p, count = _read_digits(data, first, end, digits, count)
        power = first - p
        if power == 0:
            return -1, 0, 0, False, False
    if p < end and (load(data, p) | 0x20) == 0x65:
        whole = False
        p, exponent = _read_exponent(data, p + 1, end)
        power += exponent
    return (p if count <= DIGITS_MAX else -1), digits, power, negative, whole


@inlined
def _read_digits(data: int, p: int, end: int, digits: int, count: int) -> tuple[int, int, int]:
    while p < end:
        digit = load(data, p) - 0x30
        if digit < 0 or digit > 9:
            break
        digits = digits * 10 + digit  # wraps beyond 18 digits, when it is not used
        count += digits != 0
        p += 1
    return digits, p, count


@kernel
def _read_exponent(data: int, p: int, end: int) -> tuple[int, int]:
    """Where the exponent ends, or -1; and its value, at most four digits of it."""
    sign = 1
    if p < end and (load(data, p) == 0x2B or load(data, p) == 0x2D):
        sign = -1 if load(data, p) == 0x2D else 1
        p += 1
    exponent, last, _ = _read_digits(data, p, end, 0, 0)
    if last == p or last - p > 4:
        return -1, 0
    return last, sign * exponent


@inlined
def scale(digits: int, power: int, precision: int) -> int:
    """`digits * 10**power` if that is whole and below 10**precision, else -1."""
    if digits == 0:
        return 0
    if power < -DIGITS_MAX or power > DIGITS_MAX:
        return -1
    if power < 0:
        if digits % _WHOLE[-power] != 0:
            return -1
        digits //= _WHOLE[-power]
        return digits if digits < _WHOLE[precision] else -1
    factor: int = _WHOLE[power]
    return digits * factor if digits <= (_WHOLE[precision] - 1) // factor else -1


@inlined
def double_bits(digits: int, power: int) -> int:
    """The bits of the double nearest to `digits * 10**power`, -1 where that is not certain.

    Source: Clinger 1990 for the exact case; Lemire 2021, "Number parsing at a gigabyte per second",
    for the rest.
    """
    if digits <= 1 << 53 and -22 <= power <= 22:
        value = float(digits)
        value = value / _EXACT[-power] if power < 0 else value * _EXACT[power]
        bits: Any = np.float64(value).view(np.int64)
        return int(bits)
    if digits == 0 or power < -_POWER_MAX or power > _POWER_MAX:
        return -1
    nearest: int = _nearest(np.uint64(digits), power)
    return nearest


@kernel
def _nearest(digits: Any, power: int) -> Any:
    """As `double_bits`, for a uint64 that is not zero."""
    shift = zeros_above(digits)
    digits = digits << np.uint64(shift)
    exponent = ((217706 * power) >> 16) + 64 + 1023 - shift
    high, low = _product(digits, power + _POWER_MAX)
    low_bits = high & np.uint64(0x1FF)
    if low_bits == np.uint64(0x1FF) and low == ~np.uint64(0):
        return -1
    upper = high >> np.uint64(63)
    mantissa = high >> (upper + np.uint64(9))
    exponent -= 1 - np.int64(upper)
    if low == np.uint64(0) and low_bits == 0 and (mantissa & np.uint64(3)) == np.uint64(1):
        return -1  # half way between two doubles
    mantissa = (mantissa + (mantissa & np.uint64(1))) >> np.uint64(1)
    if mantissa >> np.uint64(53):
        mantissa >>= np.uint64(1)
        exponent += 1
    return (exponent << 52) | np.int64(mantissa & np.uint64((1 << 52) - 1))


@kernel
def _product(digits: Any, index: int) -> tuple[Any, Any]:
    """The upper 128 bits of digits times a power of ten; the second half only where it counts."""
    high, low = product_high(digits, _HIGH[index]), digits * _HIGH[index]
    if (high & np.uint64(0x1FF)) == np.uint64(0x1FF) and low + digits < digits:
        more = product_high(digits, _LOW[index])
        if low + more < low:
            high += np.uint64(1)
        low += more
    return high, low
