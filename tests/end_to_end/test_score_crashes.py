"""Callers ask for decisions while the server is killed, and labels, lists and versions change."""

import http.client
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import tidegate

from .shop import HASTE, LONG_SECONDS, Server, free_port

ROUNDS = int(os.environ.get("TIDEGATE_CRASH_ROUNDS", "25")) // 3

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600 + 40 * ROUNDS)]

SETTINGS = """
[stream]
id = "id"
event_time = "ts"
[stream.columns]
id = "text"
ts = "timestamp"
card = "text"
amount = "double"
is_fraud = "bigint?"
[features]
sql = "features.sql"
lateness = "1 minute"
[labels]
column = "is_fraud"
[lists.blocked_cards]
type = "text"
[access]
required = false
"""
FEATURES = """
SELECT
  count(*)      OVER hour AS payments_1h,
  sum(amount)   OVER hour AS amount_1h,
  sum(is_fraud) OVER hour AS frauds_1h
FROM events
WINDOW hour AS (PARTITION BY card ORDER BY ts
                RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW)
"""
RULES = """
[[rule]]
name = "blocked"
when = "card IN LIST('blocked_cards')"
action = "block"
reason = "Card {card} is on the list"

[[rule]]
name = "known_fraud"
when = "frauds_1h > 0"
action = "review"
reason = "{frauds_1h} frauds within the hour"

[[rule]]
name = "burst"
when = "payments_1h > 30"
action = "review"
reason = "{payments_1h} payments within the hour"
"""
OTHER_RULES = RULES.replace("payments_1h > 30", "payments_1h > 10")
CARDS = [f"card-{n}" for n in range(12)]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "tidegate.toml").write_text(SETTINGS + HASTE)
    (folder / "features.sql").write_text(FEATURES)
    (folder / "rules.toml").write_text(RULES)
    server = Server(folder, port=free_port())
    yield server
    server.abandon()


@dataclass
class Callers:
    """Threads that ask for decisions, and one that changes what decides."""

    port: int
    seed: int
    decided: dict[str, dict[str, Any]] = field(default_factory=dict)
    fallbacks: int = 0
    lost: int = 0  # questions that were sent, and whose answer never came
    changes: dict[str, int] = field(default_factory=dict)
    statuses: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()
        work = [self._ask, self._ask, self._ask, self._change]
        self._threads = [
            threading.Thread(target=run, args=(random.Random(self.seed + n),), daemon=True)
            for n, run in enumerate(work)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=LONG_SECONDS)
            assert not thread.is_alive(), "a caller hangs"

    def _ask(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = next(self._numbers)
            payment = {
                "id": f"p{number}",
                "ts": (BEGIN + timedelta(seconds=number)).isoformat(),
                "card": chance.choice(CARDS),
                "amount": chance.randrange(1, 100_000) / 100,
            }
            path = "/v1/score?timeout_ms=20" if chance.random() < 0.05 else "/v1/score"
            found = self._until_answered("POST", path, payment)
            if found.get("fallback"):
                with self._lock:
                    self.fallbacks += 1
            else:
                self.decided[found["event_id"]] = found

    def _change(self, chance: random.Random) -> None:
        makes = [self._label, self._list, self._unlist, self._publish, self._roll_back]
        while not self._stop.is_set():
            make = chance.choices(makes, weights=[8, 3, 3, 1, 1])[0]
            if make(chance):
                self.changes[make.__name__] = self.changes.get(make.__name__, 0) + 1
            time.sleep(0.02)

    def _label(self, chance: random.Random) -> bool:
        known = list(self.decided)[-50:]
        if not known:
            return False
        truth = chance.choice(["fraud", "legitimate"])
        label = {"event_id": chance.choice(known), "label": truth, "source": "analyst"}
        return self._post("/v1/labels", label)[0] == 202

    def _list(self, chance: random.Random) -> bool:
        until = (BEGIN + timedelta(seconds=chance.randrange(10_000))).isoformat()
        asked = {"values": [chance.choice(CARDS)], "until": until, "reason": "stolen"}
        return self._post("/v1/lists/blocked_cards", asked)[0] == 200

    def _unlist(self, chance: random.Random) -> bool:
        path = f"/v1/lists/blocked_cards?value={chance.choice(CARDS)}"
        return self._send("DELETE", path, b"")[0] == 200

    def _publish(self, chance: random.Random) -> bool:
        rules = chance.choice([RULES, OTHER_RULES])
        files = {
            "tidegate.toml": SETTINGS + HASTE,
            "features.sql": FEATURES,
            "rules.toml": rules,
        }
        asked = {"files": files, "message": "less noise", "shadow": chance.random() < 0.3}
        return self._post("/v1/versions", asked)[0] in (200, 202)

    def _roll_back(self, chance: random.Random) -> bool:
        return self._post("/v1/versions/rollback", {})[0] in (200, 202)

    def _until_answered(self, method: str, path: str, body: Any) -> dict[str, Any]:
        while True:
            status, text = self._send(method, path, json.dumps(body).encode())
            if status == 200:
                return dict(json.loads(text))
            assert status in (0, 429, 503), text
            time.sleep(0.02)

    def _post(self, path: str, body: Any) -> tuple[int, bytes]:
        return self._send("POST", path, json.dumps(body).encode())

    def _send(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.connect()
        except OSError:
            return 0, b""  # the server is down
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.lost += path.startswith("/v1/score")
            return 0, b""
        finally:
            connection.close()
        self.statuses.add(status)
        return status, text


def test_every_answered_decision_is_found_equal_after_kills(server: Server) -> None:
    """SIGKILL at random points, with changes of all kinds in the middle of the traffic."""
    seed = random.randrange(1 << 30)  # pytest-randomly seeds this, and prints its seed
    chance, callers = random.Random(seed), Callers(server.port, seed=seed)
    server.start()
    callers.start()
    for _ in range(ROUNDS):
        time.sleep(chance.uniform(0.1, 1.2))
        server.kill()
        server.start(wait=False)
        if chance.random() < 0.8:
            server.wait_until_ready()
    server.wait_until_ready()
    deadline = time.monotonic() + LONG_SECONDS
    while len(callers.decided) < 1_000 or len(callers.changes) < 5:
        assert time.monotonic() < deadline, (len(callers.decided), callers.changes)
        time.sleep(0.1)
    callers.stop()
    server.settle()
    assert server.stop() == 0, server.tail()
    assert callers.statuses <= {200, 202, 404, 409, 422, 429, 503}, callers.statuses
    as_answered(server.folder, callers)


def as_answered(folder: Path, callers: Callers) -> None:
    shop = tidegate.open(folder)
    sql = """
    SELECT d.event_id, d.action, d.version, d.log_offset, d.rules,
           f.payments_1h, f.amount_1h, f.frauds_1h
    FROM decisions AS d JOIN features AS f ON f.log_offset = d.log_offset
    """
    rows = shop.query(sql).arrow().to_pylist()
    found = {row["event_id"]: row for row in rows}
    assert len(found) == len(rows), "an event was decided twice"
    for event_id, told in callers.decided.items():
        row = found[event_id]
        live = [r for r in row["rules"] if r["mode"] == "live"]
        assert (row["action"], row["version"]) == (told["action"], told["version"])
        assert row["log_offset"] == told["offset"]
        assert [(r["name"], r["reason"]) for r in live] == [
            (r["name"], r["reason"]) for r in told["rules"]
        ]
        assert {name: row[name] for name in told["features"]} == told["features"]
    assert (verified := shop.verify()).equal, verified.differences
    assert (reconciled := shop.reconcile()).equal, reconciled
    answers = shop.query("SELECT event_id, action FROM answers").arrow().to_pylist()
    assert len(answers) <= callers.fallbacks + callers.lost
    assert {answer["action"] for answer in answers} <= {"review"}
    assert {row["event_id"] for row in answers} <= set(found)
