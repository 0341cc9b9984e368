"""Made-up events on their way to a server, a file or standard output."""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import msgspec

from tidegate.cli.progress import counting
from tidegate.cli.terminal import remark
from tidegate.errors import RequestError, UnreachableError
from tidegate.testing import cards, store

BATCH_RECORDS = 500
_TRIES = 8
_TIMEOUT_SECONDS = 60


class Made(Protocol):
    """What to make."""

    @property
    def count(self) -> int:
        """How many events, or about how many."""

    def batches(self, *, now_us: int) -> Iterator[bytes]:
        """The events as NDJSON, some hundred at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Store events; `start` is the first event time, so that the last is now where it is None."""

    count: int
    seed: int
    rate_per_second: float
    start: datetime | None
    missing_store_share: float
    unreadable_share: float
    duplicate_share: float

    def batches(self, *, now_us: int) -> Iterator[bytes]:
        """The events as NDJSON, some hundred at a time."""
        start = now_us - int(self.count / self.rate_per_second * 1e6)
        if self.start is not None:
            start = _micros(self.start)
        return store.generate_batches(
            self.count,
            seed=self.seed,
            start_time_us=start,
            batch_records=BATCH_RECORDS,
            rate_per_second=self.rate_per_second,
            missing_store_share=self.missing_store_share,
            unreadable_share=self.unreadable_share,
            duplicate_share=self.duplicate_share,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """Card payments of so many days, the first of which begins at `start`."""

    days: int
    seed: int
    start: datetime
    customers: int
    terminals: int

    @property
    def count(self) -> int:
        """About how many events there are."""
        return cards.expected_events(self.days, customers=self.customers)

    def batches(self, *, now_us: int) -> Iterator[bytes]:  # noqa: ARG002 - the same whenever made
        """The events as NDJSON, some hundred at a time."""
        return cards.generate_ndjson(
            self.days,
            seed=self.seed,
            start_time_us=_micros(self.start),
            customers=self.customers,
            terminals=self.terminals,
            batch_records=BATCH_RECORDS,
        )


def _micros(time: datetime) -> int:
    """UTC microseconds; without a zone it is UTC."""
    return int(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1e6)


class Tally(msgspec.Struct):
    """What a server said of what was sent."""

    accepted: int = 0
    dead: int = 0


def send(made: Made, *, to: str) -> None:
    """Write the events to a URL, a file, or `-` for standard output.

    Raises: UnreachableError; RequestError where a server refuses or a file cannot be written.
    """
    batches = made.batches(now_us=time.time_ns() // 1_000)
    if to.startswith(("http://", "https://")):
        _send_to_server(batches, count=made.count, url=to)
    elif to == "-":
        sys.stdout.buffer.writelines(batches)
        sys.stdout.buffer.flush()
    else:
        _send_to_file(batches, count=made.count, path=Path(to))


def _send_to_server(batches: Iterable[bytes], *, count: int, url: str) -> None:
    whole = Tally()
    begun = time.monotonic()
    with counting("sending", count) as sent:
        for answer in post(batches, url=url):
            sent(answer.accepted + answer.dead)
            whole.accepted += answer.accepted
            whole.dead += answer.dead
    seconds = time.monotonic() - begun
    remark(f"{whole.accepted} accepted, {whole.dead} dead letters, in {seconds:.1f} s")


def _send_to_file(batches: Iterable[bytes], *, count: int, path: Path) -> None:
    try:
        with path.open("wb") as file, counting("writing", count) as written:
            for batch in batches:
                file.write(batch)
                written(batch.count(b"\n"))
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}", code="no_output") from error


def post(batches: Iterable[bytes], *, url: str) -> Iterator[Tally]:
    """Post NDJSON batches one after the other; a server that is busy is asked again.

    Raises: UnreachableError where nothing answers; RequestError where the answer is a refusal.
    """
    target = _target(url)
    with closing(_connection(target)) as connection:
        for batch in batches:
            yield _post(connection, target, batch)


def _target(url: str) -> SplitResult:
    try:
        target = urlsplit(url)
        if target.hostname and target.port != 0:
            return target
    except ValueError:
        pass
    raise RequestError(f"`{url}` is no URL of a server", code="no_url")


def _connection(target: SplitResult) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    host = target.netloc.rpartition("@")[2]
    return kind(host, timeout=_TIMEOUT_SECONDS)


def _path(target: SplitResult) -> str:
    path = target.path if target.path not in ("", "/") else "/v1/events"
    return f"{path}?{target.query}" if target.query else path


def _post(connection: http.client.HTTPConnection, target: SplitResult, body: bytes) -> Tally:
    headers = {"Content-Type": "application/x-ndjson"}
    for _ in range(_TRIES):
        try:
            connection.request("POST", _path(target), body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreachableError(f"{target.netloc} does not answer: {why}") from error
        if response.status in (202, 207, 422):
            return msgspec.json.decode(answer, type=Tally)
        if response.status != 429:
            break
        time.sleep(float(response.headers.get("Retry-After", 1)))
    said = answer.decode("utf-8", "replace")[:500]
    raise RequestError(f"{target.netloc} answered {response.status}: {said}", code="refused")
