"""Versions and lists change under traffic while the server is killed again and again."""

import contextlib
import http.client
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tidegate
from waiting import until

from .shop import (
    FEATURES,
    LONG_SECONDS,
    OTHER_FEATURES,
    Clients,
    Server,
    free_port,
    make,
    with_features,
)
from .verdict import every_acknowledged_event_is_there_once, every_event_has_one_decision

# More by option, for a long night: TIDEGATE_CRASH_ROUNDS=500 pytest -m crash
ROUNDS = int(os.environ.get("TIDEGATE_CRASH_ROUNDS", "8"))

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1_800 + 20 * ROUNDS)]

LISTS = '\n[lists.customers]\ntype = "bigint"\ndescription = "who may not buy"\n'
RULE = """
[[rule]]
name = "listed"
when = "cust_id IN LIST('customers')"
action = "block"
reason = "customer {cust_id} may not buy"
[[rule]]
name = "half"
when = "qty > 4"
action = "review"
reason = "{qty} pieces"
rollout = "50 %"
rollout_by = "cust_id"
"""
ALL = {"publish", "rollback", "add", "remove"}
HIT = """
SELECT d.log_offset FROM decisions d
WHERE list_contains([r.name FOR r IN d.rules], 'listed') ORDER BY 1
"""
ENOUGH = f"""
SELECT count(DISTINCT version) >= 3 AND EXISTS ({HIT.replace("ORDER BY 1", "")}) AS enough
FROM decisions
"""
# The newest change before an event counts, for events before its end.
ORACLE = """
SELECT e.log_offset FROM events AS e ASOF JOIN (
  SELECT log_offset, value::BIGINT AS value, change, until FROM list_changes ORDER BY log_offset
) AS c ON e.cust_id = c.value AND e.log_offset > c.log_offset
WHERE c.change = 'add' AND (c.until IS NULL OR e.ts < c.until) ORDER BY 1
"""


class Engineers:
    """Threads that publish, take back and change lists, whatever becomes of the server."""

    def __init__(self, server: Server, *, seed: int) -> None:
        self._server, self._seed = server, seed
        self._stop = threading.Event()
        self.answers: Counter[tuple[str, int]] = Counter()
        jobs = (self._publish, self._lists, self._lists)
        self._threads = [
            threading.Thread(target=self._run, args=(job, seed + n), daemon=True)
            for n, job in enumerate(jobs)
        ]

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(timeout=60)

    @property
    def done(self) -> set[str]:
        """What was answered as done, now or before."""
        return {what for what, status in [*self.answers] if status in (200, 202)}

    def _run(self, job: Any, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                job(chance)
            time.sleep(chance.uniform(0.0, 0.1))

    def _publish(self, chance: random.Random) -> None:
        if chance.random() < 0.3:
            self._send("rollback", "POST", "/v1/versions/rollback", {})
            return
        files = {p.name: p.read_text() for p in self._server.folder.glob("*.toml")}
        files |= {p.name: p.read_text() for p in self._server.folder.glob("*.sql")}
        files["rules.toml"] = (
            files["rules.toml"]
            .replace("qty > 4", f"qty > {chance.randrange(3, 6)}")
            .replace('"50 %"', f'"{chance.randrange(100)} %"')
        )
        if "features.sql" in files:
            files["features.sql"] = chance.choice([FEATURES, OTHER_FEATURES])
        body = {"files": files, "shadow": chance.random() < 0.2}
        self._send("publish", "POST", "/v1/versions", body)

    def _lists(self, chance: random.Random) -> None:
        customer = chance.randrange(1, 400)
        if chance.random() < 0.3:
            self._send("remove", "DELETE", f"/v1/lists/customers?value={customer}", None)
            return
        minutes = chance.randrange(60)
        until = f"2023-06-06T20:{minutes:02d}:00Z" if chance.random() < 0.3 else None
        values = [customer, customer + 1]
        self._send("add", "POST", "/v1/lists/customers", {"values": values, "until": until})

    def _send(self, what: str, method: str, path: str, body: object) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            answer.read()
            self.answers[what, answer.status] += 1
        finally:
            connection.close()


@pytest.mark.parametrize("seed", [1])
def test_what_was_decided_follows_from_the_log_whenever_the_server_was_killed(
    tmp_path: Path, seed: int
) -> None:
    folder = with_features(make(tmp_path / "shop"))
    with (folder / "tidegate.toml").open("a") as file:
        file.write(LISTS)
    with (folder / "rules.toml").open("a") as file:
        file.write(RULE)
    server = Server(folder, port=free_port())
    chance, clients = random.Random(seed), Clients(server.port, seed=seed)
    engineers = Engineers(server, seed=seed)
    clients.start()
    try:
        with engineers.at_work():
            for _ in range(ROUNDS):
                server.start(wait=False)
                if chance.random() < 0.9:
                    server.wait_until_ready()
                time.sleep(chance.uniform(0.2, 2.0))
                server.kill()
            server.start()
            said = "some change was never answered"
            until(lambda: engineers.done == ALL, said, seconds=LONG_SECONDS)
            said = "fewer than three versions have decided, or none has found a listed customer"
            until(lambda: has_decided_enough(server), said, seconds=LONG_SECONDS)
            clients.wait_for(4_000)
        clients.stop()
        server.settle()
        assert server.stop() == 0, server.tail()
    finally:
        server.abandon()
    assert clients.answers <= {202, 207, 422, 429, 503}
    shop = tidegate.open(folder)
    events = shop.query("SELECT * FROM events ORDER BY log_offset").polars()
    every_acknowledged_event_is_there_once(shop, events, clients.acknowledged)
    every_event_has_one_decision(shop, events)
    assert (found := shop.verify()).equal, found.differences
    assert (whole := shop.reconcile()).equal, whole
    hit = shop.query(HIT).arrow()["log_offset"].to_pylist()
    assert hit == shop.query(ORACLE).arrow()["log_offset"].to_pylist()
    assert hit
    assert shop.query(ENOUGH).arrow()["enough"].to_pylist() == [True]


def has_decided_enough(server: Server) -> bool:
    """Whether several versions have decided, and one has found a listed customer, as written.

    Not so where the answer does not come in time: all of the machine may be taken by the clients.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("POST", "/v1/query", json.dumps({"sql": ENOUGH}))
        answer = connection.getresponse()
        return answer.status == 200 and json.load(answer)["rows"] == [[True]]
    return False
