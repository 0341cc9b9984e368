"""Labels in the middle of traffic over HTTP, while the server is killed again and again."""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tidegate
from chargebacks import Step, expected, table, traffic, write
from waiting import until

from .shop import LONG_SECONDS, Server, free_port

ROUNDS = 6

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1_200)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(write(tmp_path / "bank").root, port=free_port())
    yield server
    server.abandon()


class Sender:
    """A thread that posts payments and labels in turn, each until it is acknowledged."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._steps = traffic(1_000_000, seed=seed)
        self._stop = threading.Event()
        self.labels: list[tuple[str, str]] = []  # acknowledged
        self.payments = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=LONG_SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._deliver(next(self._steps))
            time.sleep(0.004)

    def _deliver(self, step: Step) -> None:
        path = "/v1/events" if step.payments else "/v1/labels"
        body = b"[" + b",".join(step.records) + b"]"
        while True:
            try:
                if self._post(path, body) in (202, 207):
                    break
            except (OSError, http.client.HTTPException):
                pass  # the server is down: whether it has taken the request is unknown, so again
            time.sleep(0.02)
        self.payments += len(step.payments)
        self.labels += [(row["event_id"], row["label"]) for row in step.labels]

    def _post(self, path: str, body: bytes) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        finally:
            connection.close()


def test_features_see_each_acknowledged_label_however_often_the_server_is_killed(
    server: Server,
) -> None:
    chance = random.Random(random.randrange(1 << 30))
    sender = Sender(server.port, seed=chance.randrange(1 << 30))
    for _ in range(ROUNDS):
        server.start(wait=False)
        if chance.random() < 0.8:  # else it is killed while it starts, and replays
            server.wait_until_ready()
        time.sleep(chance.uniform(0.1, 1.0))
        server.kill()
    server.start()
    enough = (sender.payments + 300, len(sender.labels) + 100)
    until(
        lambda: sender.payments >= enough[0] and len(sender.labels) >= enough[1],
        "the sender does not get on",
        seconds=LONG_SECONDS,
    )
    sender.stop()
    server.settle()
    assert server.stop() == 0, server.tail()
    check(server.folder, sender.labels)


def check(folder: Path, acknowledged: list[tuple[str, str]]) -> None:
    bank = tidegate.open(folder)
    kept = table(bank.project, "labels", date="at_date").to_pylist()
    assert not set(acknowledged) - {(row["event_id"], row["label"]) for row in kept}
    assert sum(row["event_offset"] is not None for row in kept) > 50
    seen, wanted = table(bank.project, "features").to_pylist(), expected(bank.project)
    assert len(seen) == len(wanted)
    for row, other in zip(seen, wanted, strict=True):
        for name, value in other.items():
            assert equal(row[name], value), json.dumps([row, other], default=str)
    assert bank.reconcile().equal
    verified = bank.verify()
    assert verified.equal, verified.differences
    bank.replay()
    sql = "SELECT count(*) AS n FROM (SELECT {0} FROM features EXCEPT SELECT {0} FROM replay)"
    names = "log_offset, card_frauds, card_known, card_lost, shop_rate, shop_frauds, payments"
    assert bank.query(sql.format(names)).arrow().to_pylist() == [{"n": 0}]


def equal(seen: object, wanted: object) -> bool:
    if isinstance(seen, float) and isinstance(wanted, float):
        return math.isclose(seen, wanted, rel_tol=1e-9)
    return seen == wanted
