"""When a key ends, as people write it."""

from __future__ import annotations

from datetime import UTC, datetime

from tidegate.errors import RequestError
from tidegate.project.setting import NOWHERE
from tidegate.project.values import Duration, Refused

_LENGTH = Duration(low="1 second", high="36500 days")


def expiry_us(written: str, *, now: int) -> int:
    """The end of a key that is written as a length from `now`, or as a time; UTC microseconds.

    A time without a zone is UTC. Raises: RequestError (`bad_expiry`).

    >>> expiry_us("90d", now=0), expiry_us("1970-01-02T00:00:00Z", now=0)
    (7776000000000, 86400000000)
    """
    text = written.strip()[:100]
    try:
        return now + _LENGTH.parse(text, NOWHERE)
    except Refused:
        pass
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        message = f"`{text}` is no expiry: write a length as in `90d`, or a time as in `2027-01-31`"
        raise RequestError(message, code="bad_expiry") from None
    return _micros(parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC))


def _micros(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
