"""Wrong keys counted, so that nobody can go on guessing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from tidegate.clock import Clock

_WINDOW_US = 60_000_000
_HELD_MAX = 10_000  # addresses, and as many prefixes
_PREFIX_FACTOR = 5  # one key may be guessed at from several addresses


class Attempts:
    """Wrong keys of the last minute or so, by client address and by prefix; bounded memory.

    An attempt counts as failed from when it begins until `forgive` takes it back, so that many at
    once cannot slip through. IPv6 addresses count by network, since a client has many.
    """

    def __init__(self, *, per_minute: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._addresses = _Counts(per_minute)
        self._prefixes = _Counts(per_minute * _PREFIX_FACTOR)

    def begin(self, *, address: str, prefix: str) -> float | None:
        """Count an attempt; the seconds to wait where there were too many, else None."""
        now = self._clock.now()
        with self._lock:
            wait_us = self.wait_us(address=address, prefix=prefix, now=now)
            if wait_us:
                return wait_us / 1e6
            self._addresses.add(_client(address), now)
            self._prefixes.add(prefix, now)
        return None

    def wait_us(self, *, address: str, prefix: str, now: int) -> int:
        """How long this client or this prefix is to wait; 0 if not at all."""
        return max(
            self._addresses.wait_us(_client(address), now), self._prefixes.wait_us(prefix, now)
        )

    def forgive(self, *, address: str, prefix: str) -> None:
        """Take back an attempt that turned out to be no failure."""
        with self._lock:
            self._addresses.take_back(_client(address))
            self._prefixes.take_back(prefix)


class _Counts:
    """Failures by name in windows of a minute; the names that were seen last are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[str, tuple[int, int]] = OrderedDict()  # begin of window, failures

    def wait_us(self, name: str, now: int) -> int:
        since, count = self._held.get(name, (0, 0))
        is_over = count >= self._limit and since <= now < since + _WINDOW_US
        return since + _WINDOW_US - now if is_over else 0

    def add(self, name: str, now: int) -> None:
        since, count = self._held.pop(name, (now, 0))
        if not since <= now < since + _WINDOW_US:
            since, count = now, 0
        self._held[name] = (since, count + 1)
        if len(self._held) > _HELD_MAX:
            self._held.popitem(last=False)

    def take_back(self, name: str) -> None:
        since, count = self._held.get(name, (0, 0))
        if count > 1:
            self._held[name] = (since, count - 1)
        else:
            self._held.pop(name, None)


def _client(address: str) -> str:
    """The address, or the network of 64 bits that an IPv6 address is in.

    >>> _client("2001:db8::17"), _client("192.0.2.1"), _client("::ffff:192.0.2.1")
    ('2001:db8::', '192.0.2.1', '192.0.2.1')
    """
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
