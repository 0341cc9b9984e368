"""Connections kept by porters: answered as by the house itself, and given back to it in time."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

import tidegate
from tidegate.access import Keys
from tidegate.clock import SystemClock
from tidegate.project.settings import Service
from tidegate.service.porter import lodge
from tidegate.service.score.refusals import AT_ONCE
from waiting import PATIENCE_SECONDS, until

from .process import ServerProcess, end, event, launch

FEATURES = """
SELECT
  count(*)      OVER hour AS events_1h,
  sum(discount) OVER hour AS discount_1h,
  ts - lag(ts) OVER (PARTITION BY event_type ORDER BY ts) AS since_last
FROM events
WINDOW hour AS (PARTITION BY event_type ORDER BY ts
                RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW)
"""
SETTINGS = """
porters = 1
porters_from = 0
request_timeout = "3 seconds"
[features]
sql = "features.sql"
"""
STORM = 400
REFUSED = 'tidegate_http_requests_total{method="POST",route="/v1/score",status="429"}'
TIMED = 'tidegate_http_request_seconds_count{route="/v1/score"}'
SLOW = """
import time
from tidegate.engine import Engine

def process(self, work):
    if any(b"slow" in w.entry.records.payload for w in work):
        time.sleep(0.6)
    yield from sound(self, work)

sound, Engine.process = Engine.process, process
"""


def started(folder: Path, *, settings: str = "", **how: Any) -> ServerProcess:
    (folder / "features.sql").write_text(FEATURES)
    return launch(folder, settings=SETTINGS + settings, **how)


@pytest.fixture(scope="module")
def porter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that only talk to it."""
    running = started(tmp_path_factory.mktemp("porter"), before=SLOW)
    yield running
    end(running)


class Caller:
    """A connection that asks for decisions; `carry` has a porter keep it.

    One that `closes` is the house's: no porter takes a connection that ends with its request.
    """

    def __init__(self, server: ServerProcess, *, key: str = "", closes: bool = False) -> None:
        self.server = server
        self.connection = http.client.HTTPConnection(*server.address, timeout=15)
        self.headers = {"content-type": "application/json"}
        if closes:
            self.headers["connection"] = "close"
        if key:
            self.headers["authorization"] = f"Bearer {key}"
        self.who = ""  # answered last: the beginning of the request's id

    def ask(self, body: bytes, path: str = "/v1/score", method: str = "POST") -> tuple[int, Any]:
        self.connection.request(method, path, body, self.headers)
        answer = self.connection.getresponse()
        self.who = (answer.getheader("x-request-id") or "").partition("-")[0]
        text = answer.read()
        is_json = (answer.getheader("content-type") or "").startswith("application/json")
        return answer.status, msgspec.json.decode(text) if is_json else text

    def carry(self) -> None:
        """Ask until it is not the house that answers."""
        with closing(Caller(self.server)) as other:
            other.ask(b"", "/healthz", "GET")
        deadline = time.monotonic() + PATIENCE_SECONDS
        self.ask(event(uuid4().hex))
        socket_before = self.connection.sock
        while self.who == other.who:
            assert time.monotonic() < deadline, "no porter took the connection"
            self.ask(event(uuid4().hex))
        assert self.connection.sock is socket_before

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def caller(porter: ServerProcess) -> Iterator[Caller]:
    """A connection that a porter keeps."""
    with closing(Caller(porter)) as caller:
        caller.carry()
        yield caller


def told(answer: Any) -> dict[str, Any]:
    """What does not differ from one asking to the next."""
    return {k: v for k, v in answer.items() if k not in ("event_id", "offset", "latency_us")}


def keepers(server: ServerProcess, count: int) -> list[str]:
    """The porters that connections are given to which come one by one, and leave together."""
    with ExitStack() as stack:
        callers = [stack.enter_context(closing(Caller(server))) for _ in range(count)]
        for caller in callers:
            caller.carry()
        return [caller.who for caller in callers]


def test_a_porter_answers_as_the_house_does(porter: ServerProcess, caller: Caller) -> None:
    by_house: list[dict[str, Any]] = []
    by_porter: list[dict[str, Any]] = []
    kinds = uuid4().hex, uuid4().hex
    for number in range(4):
        more = {"discount": 25.5 * number, "ts": f"2026-01-01T00:0{number}:00Z"}
        with closing(Caller(porter, closes=True)) as other:
            asked = zip(kinds, (by_house, by_porter), (other, caller), strict=True)
            for kind, answers, who in asked:
                status, answer = who.ask(event(uuid4().hex, event_type=kind, **more))
                assert status == 200
                assert answer["latency_us"] > 0
                answers.append(told(answer))
            assert other.who != caller.who
    assert by_porter == by_house
    assert [a["action"] for a in by_porter] == ["approve"] * 2 + ["review"] * 2
    assert by_porter[3]["features"] == {
        "events_1h": 4,
        "discount_1h": 153.0,
        "since_last": by_house[3]["features"]["since_last"],
    }


def test_a_repeated_id_gets_the_first_decision_wherever_it_was_asked(
    porter: ServerProcess, caller: Caller
) -> None:
    key, kind = uuid4().hex, uuid4().hex
    _, first = caller.ask(event(key, event_type=kind, discount=70.0))
    _, again = caller.ask(event(key, event_type=kind, discount=0.0))
    assert again.pop("duplicate") is True
    assert (told(again), again["offset"]) == (told(first), first["offset"])
    with closing(Caller(porter, closes=True)) as other:
        _, third = other.ask(event(key))
        assert third.pop("duplicate") is True
        assert told(third) == told(first)


def test_many_repeated_ids_at_once_get_their_own_first_decisions(porter: ServerProcess) -> None:
    """Some are known to the house alone, some wait to be written, some are in the tables."""
    asked = {uuid4().hex: 10.0 * n for n in range(24)}
    first: dict[str, Any] = {}
    again: dict[str, Any] = {}

    def ask(answers: dict[str, Any], key: str) -> None:
        with closing(Caller(porter)) as one:
            one.carry()
            status, answers[key] = one.ask(event(key, event_type=key, discount=asked[key]))
            assert status == 200, answers[key]

    for answers in (first, again):
        with ThreadPoolExecutor(len(asked)) as pool:
            list(pool.map(partial(ask, answers), asked))
    assert all(answer.pop("duplicate") for answer in again.values())
    for key, answer in again.items():
        assert answer | {"latency_us": 0} == first[key] | {"latency_us": 0}
    assert len({answer["features"]["discount_1h"] for answer in again.values()}) == len(asked)


def test_what_is_no_event_is_told_alike(porter: ServerProcess, caller: Caller) -> None:
    bad = event(uuid4().hex, discount="much")
    status, answer = caller.ask(bad)
    with closing(Caller(porter, closes=True)) as other:
        house_status, by_house = other.ask(bad)
    assert (status, house_status) == (422, 422)
    for one in (answer, by_house):
        one["error"].pop("request_id")
        one["dead_letters"][0].pop("dead_letter")
    assert answer == by_house


def test_other_requests_on_the_same_connection_are_the_houses(caller: Caller) -> None:
    mine, before = caller.who, caller.connection.sock
    array = b"[" + event(uuid4().hex) + b"," + event(uuid4().hex, discount=60.0) + b"]"
    status, found = caller.ask(array)
    assert (status, [one["action"] for one in found]) == (200, ["approve", "review"])
    assert caller.who != mine
    status, text = caller.ask(b"", "/metrics", "GET")
    assert (status, b"tidegate_http_requests_total" in text) == (200, True)
    assert caller.ask(event(uuid4().hex))[0] == 200
    assert caller.connection.sock is before


def test_a_large_request_on_the_same_connection_comes_whole_to_the_house(
    porter: ServerProcess, caller: Caller
) -> None:
    ids = [uuid4().hex for _ in range(2_000)]
    body = b"\n".join(event(i, note="x" * 300) for i in ids)
    status, answer = caller.ask(body, "/v1/events")
    assert (status, answer["accepted"]) == (202, len(ids))


def test_what_a_porter_answers_is_counted(porter: ServerProcess, caller: Caller) -> None:
    def counted() -> float:
        with closing(Caller(porter)) as other:
            _, text = other.ask(b"", "/metrics", "GET")
        lines = text.decode().splitlines()
        begin = 'tidegate_http_requests_total{method="POST",route="/v1/score",status="200"} '
        return sum(float(line.removeprefix(begin)) for line in lines if line.startswith(begin))

    before = counted()
    for _ in range(20):
        caller.ask(event(uuid4().hex))
    until(lambda: counted() >= before + 20, "the answers were not counted")


def test_several_requests_at_once_are_answered_in_their_order(
    porter: ServerProcess, caller: Caller
) -> None:
    wire = caller.connection.sock
    assert wire is not None
    ids = [uuid4().hex for _ in range(5)]
    requests = [b"POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s"] * 5
    sent = b"".join(r % (len(event(i)), event(i)) for r, i in zip(requests, ids, strict=True))
    wire.sendall(sent + b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    received = b""
    while data := wire.recv(65_536):
        received += data
    places = [received.find(i.encode()) for i in ids]
    assert all(place > 0 for place in places)
    assert places == sorted(places)
    assert received.endswith(b'{"status":"ok"}')


def test_a_request_that_is_slow_to_come_has_the_houses_time(caller: Caller) -> None:
    wire = caller.connection.sock
    assert wire is not None
    body = event(uuid4().hex)
    request = b"POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
    wire.sendall(request[:30])
    time.sleep(2.0)  # the porter gives it back after one second
    wire.sendall(request[30:])
    assert b"200 OK" in wire.recv(65_536)
    wire.sendall(request[:30])
    received = b""
    while data := wire.recv(65_536):
        received += data
    assert received.startswith(b"HTTP/1.1 408 ")


def test_past_the_deadline_the_fallback_is_answered_and_the_log_has_both(tmp_path: Path) -> None:
    server = started(tmp_path, before=SLOW)
    key = uuid4().hex
    try:
        with closing(Caller(server)) as caller:
            caller.carry()
            slow = event(key, event_type="slow", discount=70.0)
            _, found = caller.ask(slow, "/v1/score?timeout_ms=100")
            caller.ask(event(uuid4().hex))
        assert server.stop() == 0
    finally:
        end(server)
    assert (found["event_id"], found["action"], found["fallback"]) == (key, "review", True)
    shop = tidegate.open(tmp_path)
    (given,) = shop.query("SELECT event_id, event_offset, action FROM answers").arrow().to_pylist()
    asked = f"SELECT log_offset FROM events WHERE id = '{key}'"
    ((offset,),) = shop.query(asked).polars().rows()
    assert given == {"event_id": key, "event_offset": offset, "action": "review"}
    assert shop.verify().equal


# -- who may ask -----------------------------------------------------------------------------------


def test_only_callers_whom_the_house_knows_are_answered(tmp_path: Path) -> None:
    server = started(tmp_path, asks_for_keys=True)
    try:
        keys = Keys.open(server.data / "operational.sqlite", clock=SystemClock())
        key, text = keys.add("score", scopes=("score",), author="tests")
        with closing(Caller(server, key=text)) as caller, closing(Caller(server)) as nobody:
            caller.carry()
            with closing(Caller(server, key=text)) as other:
                other.carry()
                other.headers["authorization"] = "Bearer tg_nosuchone_nosuchone"
                assert other.ask(event(uuid4().hex))[0] == 401
                del other.headers["authorization"]
                assert other.ask(event(uuid4().hex))[0] == 401
            assert nobody.ask(event(uuid4().hex))[0] == 401
            keys.revoke(key.prefix, author="tests")
            until(lambda: caller.ask(event(uuid4().hex))[0] == 401, "a revoked key lets in")
        keys.close()
        assert server.stop() == 0
    finally:
        end(server)


# -- ends ------------------------------------------------------------------------------------------


def porters_of(server: ServerProcess) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_bytes()
            if parent == server.process.pid and b"porter.process" in command:
                found.append(int(path.parent.name))
    return found


def lives(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_server_that_is_told_to_stop_answers_what_was_asked_and_its_porters_end(
    tmp_path: Path,
) -> None:
    server = started(tmp_path, before=SLOW)
    try:
        with closing(Caller(server)) as caller, closing(Caller(server)) as idle:
            caller.carry()
            idle.carry()
            (process,) = porters_of(server)
            body = event(uuid4().hex, event_type="slow")
            caller.connection.request("POST", "/v1/score", body, caller.headers)
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            answer = caller.connection.getresponse()
            assert (answer.status, b"approve" in answer.read()) == (200, True)
        assert server.process.wait(30) == 0
        until(lambda: not lives(process), "the porter lives on")
        assert "porter_ended" not in server.errors
    finally:
        end(server)


def test_a_porter_that_is_killed_takes_no_decision_along(tmp_path: Path) -> None:
    server = started(tmp_path)
    try:
        with closing(Caller(server)) as caller:
            caller.carry()
            _, before = caller.ask(event("before", discount=70.0))
            (process,) = porters_of(server)
            os.kill(process, signal.SIGKILL)
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                caller.ask(event(uuid4().hex))
            caller.close()
            _, again = caller.ask(event("before"))
            assert told(again) == told(before) | {"duplicate": True}
            until(lambda: "porter_ended" in server.errors, "nothing was said of it")
            caller.carry()  # another one, after a while
        assert server.stop() == 0
    finally:
        end(server)


def test_porters_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    server = started(tmp_path)
    try:
        with closing(Caller(server)) as caller:
            caller.carry()
            (process,) = porters_of(server)
            server.stop(signal.SIGKILL)
            until(lambda: not lives(process), "the porter lives on")
            with pytest.raises((OSError, http.client.HTTPException)):
                caller.ask(event(uuid4().hex))
    finally:
        end(server)


def are_spread(kept: list[str]) -> bool:
    """Whether two porters got two each, one after the other, and then one each."""
    one, other = kept[0], kept[2]
    return kept[:4] == [one, one, other, other] != [one] * 4 and set(kept[4:]) == {one, other}


def test_another_porter_gets_connections_when_the_first_has_many(tmp_path: Path) -> None:
    few = "import tidegate.service.porter.lodge as lodge; lodge._CONNECTIONS_OF_ONE = 2"
    (tmp_path / "features.sql").write_text(FEATURES)
    settings = SETTINGS.replace("porters = 1", "porters = 2")
    server = launch(tmp_path, settings=settings, before=few)
    try:
        for _ in range(2):  # the second time only once those of the first time are seen to be gone
            until(lambda: are_spread(keepers(server, 6)), "they are spread in another way")
    finally:
        end(server)


def test_without_a_setting_two_processors_have_a_porter(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for processors in (1, 2, 3, 4, 8, 64):
        monkeypatch.setattr("tidegate.service.porter.lodge.processors", lambda n=processors: n)
        counts.append(lodge.porters_of(Service()))
    assert counts == [1, 1, 1, 2, 4, 4]
    assert [lodge.porters_of(Service(porters=n)) for n in (0, 3, 64)] == [0, 3, 64]


def test_few_who_wait_stay_with_the_house(tmp_path: Path) -> None:
    settings = SETTINGS.replace("porters_from = 0\n", "")
    (tmp_path / "features.sql").write_text(FEATURES)
    server = launch(tmp_path, settings=settings)
    try:
        with closing(Caller(server)) as caller:
            for _ in range(60):
                caller.ask(event(uuid4().hex))
        assert porters_of(server) == []
    finally:
        end(server)


def test_without_porters_the_house_keeps_all_connections(tmp_path: Path) -> None:
    (tmp_path / "features.sql").write_text(FEATURES)
    server = launch(tmp_path, settings=SETTINGS.replace("porters = 1", "porters = 0"))
    try:
        with closing(Caller(server)) as caller:
            answered = set()
            for _ in range(60):
                caller.ask(event(uuid4().hex))
                answered.add(caller.who)
        assert (len(answered), porters_of(server)) == (1, [])
    finally:
        end(server)


def test_of_a_storm_all_are_answered_and_who_asks_after_it_is_decided(tmp_path: Path) -> None:
    settings = '[score]\nwaiting_max = 16\ntimeout = "5 seconds"\n'
    server = started(tmp_path, settings=settings, before=SLOW)
    body = event(uuid4().hex, event_type="slow")
    asked = b"POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s"
    try:
        with ExitStack() as stack:
            first = stack.enter_context(closing(Caller(server)))
            first.carry()
            wires = [
                stack.enter_context(closing(socket.create_connection(server.address, timeout=15)))
                for _ in range(STORM)
            ]
            for wire in wires:
                wire.sendall(asked % (len(body), body))
            answers = [wire.recv(65_536) for wire in wires]
            refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 429 ")]
            decided = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200 ")]
            assert len(refused) + len(decided) == STORM
            assert len(refused) > AT_ONCE
            assert all(b"retry-after: 1\r\n" in answer for answer in refused)
            status, told = first.ask(event(uuid4().hex))
            assert (status, "fallback" in told) == (200, False)
            _, metrics = first.ask(b"", "/metrics", "GET")
        lines = metrics.decode().splitlines()
        counts = [float(n.split()[-1]) for n in lines if n.startswith(REFUSED) or TIMED in n]
        # The refused are counted, and not among those whose time says how long others wait.
        assert counts[0] == len(refused)
        assert counts[1] < len(refused)
    finally:
        end(server)
