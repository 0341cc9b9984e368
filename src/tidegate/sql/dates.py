"""The calendar in compiled code: parts of the date of a day since 1970."""

from __future__ import annotations

from tidegate.events.fingerprints import inline
from tidegate.sql.steps import CENTURY, DAY, DECADE, DOW, DOY, ISODOW, ISOYEAR, MONTH, WEEK, YEAR


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
def date_part(part: int, days: int) -> int:
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
