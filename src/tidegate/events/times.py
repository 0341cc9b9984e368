"""Times out of bytes, as a kernel: ISO 8601 text to UTC microseconds since 1970."""

from __future__ import annotations

import numpy as np

from tidegate.events.bits import inlined, load

NO_TIME = -(2**63)
TIME_MIN = -62_135_596_800_000_000  # 0001-01-01T00:00:00
TIME_MAX = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999

_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


@inlined
def read_time(data: int, p: int, end: int) -> int:
    """The time written in all of `data[p:end]`, or `NO_TIME` if that is for the slow path."""
    if end - p < 10 or load(data, p + 4) != 0x2D or load(data, p + 7) != 0x2D:
        return NO_TIME
    year = _two(data, p) * 100 + _two(data, p + 2)
    month, day = _two(data, p + 5), _two(data, p + 8)
    if _two(data, p) < 0 or _two(data, p + 2) < 0 or year < 1 or not 1 <= month <= 12:
        return NO_TIME
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day < 1 or day > _DAYS[month - 1] + (leap and month == 2):
        return NO_TIME
    midnight = _days(year, month, day) * 86_400_000_000
    if end - p == 10:
        return midnight
    if load(data, p + 10) != 0x54 and load(data, p + 10) != 0x20:
        return NO_TIME
    clock = _clock(data, p + 11, end)
    return midnight + clock if clock != NO_TIME else NO_TIME


@inlined
def _two(data: int, p: int) -> int:
    """The value of two digits; negative, and far from any sum of such, if they are none."""
    tens: int = load(data, p) - 0x30
    ones: int = load(data, p + 1) - 0x30
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1_000_000
    return tens * 10 + ones


@inlined
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01. Source: Hinnant, "chrono-compatible low-level date algorithms"."""
    if month <= 2:
        year -= 1
        month += 12
    era_day = 365 * year + year // 4 - year // 100 + year // 400
    return era_day + (153 * (month - 3) + 2) // 5 + day - 1 - 719_468


@inlined
def _clock(data: int, p: int, end: int) -> int:
    """Microseconds since midnight UTC for `HH:MM[:SS[.f]]` with an optional zone, or `NO_TIME`."""
    if end - p < 5 or load(data, p + 2) != 0x3A:
        return NO_TIME
    hour, minute = _two(data, p), _two(data, p + 3)
    second = 0
    micros = 0
    p += 5
    if p < end and load(data, p) == 0x3A:
        if end - p < 3:
            return NO_TIME
        second = _two(data, p + 1)
        p += 3
        if p < end and load(data, p) == 0x2E:
            p, micros = _fraction(data, p + 1, end)
    if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 59) or p < 0:
        return NO_TIME
    zone = _zone(data, p, end)
    return (
        (hour * 3600 + minute * 60 + second - zone) * 1_000_000 + micros
        if zone != NO_TIME
        else zone
    )


@inlined
def _fraction(data: int, p: int, end: int) -> tuple[int, int]:
    """Where one to nine digits end, or -1; and their value in microseconds, cut off."""
    first = p
    micros = 0
    unit = 100_000
    while p < end and 0x30 <= load(data, p) <= 0x39:
        micros += (load(data, p) - 0x30) * unit
        unit //= 10
        p += 1
    return (p if 1 <= p - first <= 9 else -1), micros


@inlined
def _zone(data: int, p: int, end: int) -> int:
    """A zone's distance from UTC in seconds: nothing, `Z`, `±HH`, `±HHMM` or `±HH:MM`."""
    size = end - p
    if size == 0 or (size == 1 and load(data, p) == 0x5A):
        return 0
    sign = load(data, p)
    if (sign != 0x2B and sign != 0x2D) or not (size == 3 or size == 5 or size == 6):
        return NO_TIME
    if size == 6 and load(data, p + 3) != 0x3A:
        return NO_TIME
    hours, minutes = _two(data, p + 1), (_two(data, end - 2) if size > 3 else 0)
    if not (0 <= hours <= 23 and 0 <= minutes <= 59):
        return NO_TIME
    return (hours * 3600 + minutes * 60) * (-1 if sign == 0x2D else 1)
