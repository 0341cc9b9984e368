"""The id of a request: the sender's own if it is a sane one, else made here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count

_SANE = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")


class RequestIds:
    """Ids that no other request of this process has; `prefix` tells processes apart.

    >>> ids = RequestIds("a1")
    >>> ids.make(), ids.of([(b"x-request-id", b"order-7")]), ids.of([(b"x-request-id", b"{}")])
    ('a1-1', 'order-7', 'a1-2')
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._numbers = count(1)

    def make(self) -> str:
        """A new id."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The id of the request with these headers (names in lower case)."""
        for name, value in headers:
            if name == b"x-request-id" and _SANE.fullmatch(value):
                return value.decode("ascii")
        return self.make()
