"""A shop under test: a project folder, a real server process, and clients that never give up."""

from __future__ import annotations

import gzip
import http.client
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tidegate.project.examples import new
from tidegate.testing import store
from waiting import until

# For what takes seconds, on machines that are shared and slow at times.
LONG_SECONDS = 240.0
WAITING = "tidegate_backlog_records|tidegate_writer_pending_rows|tidegate_sink_lag_records"
RATE_PER_SECOND = 5.0  # of event time
START_US = 1_686_081_600_000_000  # 2023-06-06 20:00

# Everything that happens now and then happens all the time.
HASTE = """
[warehouse]
commit_every = "50 ms"
commit_rows = 500
compact_after = 4
vacuum_after = "2 seconds"
snapshot_every = "150 ms"
"""


FEATURES = """
SELECT
  count(*) OVER customer AS customer_events,
  sum(price * qty) OVER customer AS customer_spent,
  avg(discount) OVER store AS store_discount,
  count(DISTINCT cust_id) OVER store AS store_customers,
  lag(price) OVER (PARTITION BY cust_id ORDER BY ts) AS price_before
FROM events
WINDOW customer AS (PARTITION BY cust_id ORDER BY ts
  RANGE BETWEEN INTERVAL 10 MINUTES PRECEDING AND CURRENT ROW),
store AS (PARTITION BY store_id ORDER BY ts
  RANGE BETWEEN INTERVAL 5 MINUTES PRECEDING AND INTERVAL 10 SECONDS PRECEDING)
"""
OTHER_FEATURES = FEATURES.replace(
    "AS price_before", "AS price_before, max(price) OVER store AS store_price"
)
FEATURE_RULE = """
[[rule]]
name = "spender"
when = "store_customers > 3 AND customer_spent > 25000"
action = "review"
reason = "{store_customers} customers at store {store_id}, {customer_spent} spent by this one"
"""


def with_features(folder: Path, features: str = FEATURES) -> Path:
    """Give a shop features, and a rule that uses them; or other features than before."""
    settings, rules = folder / "tidegate.toml", folder / "rules.toml"
    if not (folder / "features.sql").exists():
        with settings.open("a") as file:
            file.write('[features]\nsql = "features.sql"\nlateness = "1 minute"\n')
        rules.write_text(rules.read_text() + FEATURE_RULE)
    (folder / "features.sql").write_text(features)
    return folder


def make(folder: Path, *, edits: Sequence[tuple[str, str]] = ()) -> Path:
    """The store example, hurried; `edits` are patterns in tidegate.toml and what replaces them."""
    new(folder, example="store")
    file = folder / "tidegate.toml"
    text = re.sub(r'every = "[^"]*"', 'every = "100 ms"', file.read_text())
    for pattern, replacement in edits:
        text, count = re.subn(pattern, replacement, text)
        assert count, f"nothing to replace for {pattern}"
    file.write_text(text + HASTE)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`tidegate run` as a process of its own."""

    def __init__(self, folder: Path, *, port: int) -> None:
        self.folder, self.port = folder, port
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, "-m", "tidegate", "run", str(self.folder)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=log, stderr=subprocess.STDOUT
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + LONG_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, f"the server ended:\n{self.tail()}"
            if self.get("/readyz")[0] == 200:
                return
            time.sleep(0.02)
        raise AssertionError(f"the server did not come up:\n{self.tail()}")

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def settle(self) -> None:
        """Wait until all that was taken is decided, written and delivered.

        For before a stop, which leaves to the next start what takes it too long.
        """
        until(lambda: self._left() == 0, "there is always more to do", seconds=2 * LONG_SECONDS)

    def _left(self) -> float:
        """Of all that waits for a later stage, the most records in one place; -1 if not known."""
        status, text = self.get("/metrics")
        counts = re.findall(rf"^(?:{WAITING})(?:{{.*}})? (\S+)$", text.decode(), re.MULTILINE)
        return max(map(float, counts)) if status == 200 else -1.0

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """End it in good order; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=LONG_SECONDS)

    def wait(self, *, seconds: float) -> int:
        """Wait for it to end by itself; returns its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=seconds)

    def abandon(self) -> None:
        """Make sure that nothing is left running."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def tail(self) -> str:
        return self.log.read_text()[-4_000:]


@dataclass
class Clients:
    """Threads that post events, each batch again and again until it is acknowledged."""

    port: int
    seed: int
    threads: int = 4
    acknowledged: list[bytes] = field(default_factory=list)  # records, as they were sent
    refusals: int = 0
    answers: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._batches = self._generate()
        self._running = [
            threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(self.threads)
        ]

    def start(self) -> None:
        for thread in self._running:
            thread.start()

    def stop(self) -> None:
        """Take no new batch; what is under way is finished, so the server must be up."""
        self._stop.set()
        for thread in self._running:
            thread.join(timeout=LONG_SECONDS)
            assert not thread.is_alive(), "a client hangs"

    def wait_for(self, records: int) -> None:
        """Wait until at least so many records are acknowledged."""
        deadline = time.monotonic() + LONG_SECONDS
        while len(self.acknowledged) < records:
            assert time.monotonic() < deadline, f"only {len(self.acknowledged)} acknowledged"
            time.sleep(0.01)

    def _generate(self) -> Iterator[list[bytes]]:
        """Batches of changing size; event times ascend over all batches."""
        chance = random.Random(self.seed)
        records = store.generate(
            50_000_000,
            seed=self.seed,
            start_time_us=START_US,
            rate_per_second=RATE_PER_SECOND,
            unreadable_share=0.01,
            duplicate_share=0.01,
            shuffle_seconds=20.0,
        )
        while True:
            yield [next(records) for _ in range(chance.choice([1, 1, 3, 20, 60]))]

    def _run(self, number: int) -> None:
        chance = random.Random(self.seed * 100 + number)
        while not self._stop.is_set():
            with self._lock:
                batch = next(self._batches)
            self._deliver(batch, chance)
            time.sleep(0.002)

    def _deliver(self, batch: list[bytes], chance: random.Random) -> None:
        while True:
            try:
                status = self._post(batch, chance)
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)  # the server is down: the outcome is unknown, so again
                continue
            self.answers.add(status)
            if status in (202, 207, 422):
                with self._lock:
                    self.acknowledged += batch
                return
            self.refusals += 1
            time.sleep(0.05)

    def _post(self, batch: list[bytes], chance: random.Random) -> int:
        body, headers = b"\n".join(batch), {"Content-Type": "application/x-ndjson"}
        if chance.random() < 0.3:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/v1/events", body, headers)
            return connection.getresponse().status
        finally:
            connection.close()


def readable(record: bytes) -> str | None:
    """The id of a record that is an event of the store; None for one that is broken."""
    try:
        event = msgspec.json.decode(record, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    times = str(event.get("ts", "")).startswith("2023-")
    return str(event["id"]) if "id" in event and times and event.get("qty") != "many" else None
