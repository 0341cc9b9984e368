"""Made-up events on their way to a server, a file or standard output."""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec
from rich.console import Console

from tidegate.cli.progress import counting
from tidegate.errors import RequestError, UnreachableError
from tidegate.testing import store

BATCH_RECORDS = 500
_TRIES = 8
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What to make; `start` is the first event time, so that the last is now where it is None."""

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
            start = int(self.start.replace(tzinfo=self.start.tzinfo or UTC).timestamp() * 1e6)
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


class Tally(msgspec.Struct):
    """What a server said of what was sent."""

    accepted: int = 0
    dead: int = 0


def send(made: Made, *, to: str, console: Console) -> None:
    """Write the events to a URL, a file, or `-` for standard output.

    Raises: UnreachableError or RequestError where a server refuses them.
    """
    batches = made.batches(now_us=time.time_ns() // 1_000)
    if to.startswith(("http://", "https://")):
        with counting("sending", made.count, console=console) as sent:
            tally = Tally()
            for answer in post(batches, url=to):
                sent(answer.accepted + answer.dead)
                tally.accepted += answer.accepted
                tally.dead += answer.dead
        console.print(f"{tally.accepted} accepted, {tally.dead} dead letters")
    elif to == "-":
        for batch in batches:
            sys.stdout.buffer.write(batch)
    else:
        with Path(to).open("wb") as file:
            file.writelines(batches)


def post(batches: Iterator[bytes], *, url: str) -> Iterator[Tally]:
    """Post NDJSON batches one after the other; a server that is busy is asked again."""
    target = urlsplit(url)
    with closing(_connection(target)) as connection:
        for batch in batches:
            yield _post(connection, target, batch)


def _connection(target: SplitResult) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    return kind(target.netloc, timeout=_TIMEOUT_SECONDS)


def _post(connection: http.client.HTTPConnection, target: SplitResult, body: bytes) -> Tally:
    headers = {"Content-Type": "application/x-ndjson"}
    for _ in range(_TRIES):
        try:
            connection.request("POST", target.path or "/v1/events", body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{target.netloc} does not answer: {error}") from error
        if response.status in (202, 207, 422):
            return msgspec.json.decode(answer, type=Tally)
        if response.status != 429:
            break
        time.sleep(float(response.headers.get("Retry-After", 1)))
    said = answer.decode("utf-8", "replace")[:500]
    raise RequestError(f"{target.netloc} answered {response.status}: {said}", code="refused")
