"""`POST /v1/score` on real server processes: decisions, duplicates, deadlines, refusals."""

import gzip
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

import tidegate
from waiting import until

from .process import HOLD, ServerProcess, end, event, is_error, launch

FEATURES = """
SELECT
  count(*)      OVER hour AS events_1h,
  sum(discount) OVER hour AS discount_1h
FROM events
WINDOW hour AS (PARTITION BY event_type ORDER BY ts
                RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW)
"""
SETTINGS = """
[features]
sql = "features.sql"
"""
# On a slow machine a decision may take long, and must not be missed for it.
PATIENT = '[score]\ntimeout = "1 minute"\n'
# A server whose engine is held up over events that ask for it.
HELD = f"""{HOLD}
from tidegate.engine import Engine

def process(self, work):
    if any(b"slow" in w.entry.records.payload for w in work):
        hold()
    yield from sound(self, work)

sound, Engine.process = Engine.process, process
"""


def started(folder: Path, *, settings: str = PATIENT, before: str = "") -> ServerProcess:
    (folder / "features.sql").write_text(FEATURES)
    return launch(folder, settings=SETTINGS + settings, before=before)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that only talk to it."""
    running = started(tmp_path_factory.mktemp("scorer"))
    yield running
    end(running)


@pytest.fixture
def client(scorer: ServerProcess) -> Iterator[httpx.Client]:
    with scorer.client() as client:
        yield client


def ask(client: httpx.Client, *events: bytes, **query: Any) -> Any:
    body = events[0] if len(events) == 1 else b"[" + b",".join(events) + b"]"
    answer = client.post("/v1/score", content=body, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_answer_is_the_decision_with_features_that_include_the_event(
    client: httpx.Client,
) -> None:
    kind = uuid4().hex
    first, second = (uuid4().hex for _ in range(2))
    ask(client, event(first, event_type=kind, discount=20.0))
    found = ask(client, event(second, event_type=kind, discount=60.5))
    assert found["latency_us"] > 0
    assert {k: v for k, v in found.items() if k not in ("latency_us", "version", "offset")} == {
        "event_id": second,
        "action": "review",
        "score": None,
        "rules": [{"name": "deep_discount", "action": "review", "reason": "Discount of 60.5 %"}],
        "features": {"events_1h": 2, "discount_1h": 80.5},
    }
    stored = client.get(f"/v1/decisions/{second}").json()
    assert (stored["action"], stored["version"]) == (found["action"], found["version"])
    assert stored["log_offset"] == found["offset"]


def test_an_array_is_answered_in_its_order(client: httpx.Client) -> None:
    ids = [uuid4().hex for _ in range(20)]
    found = ask(client, *(event(i, discount=float(n * 5)) for n, i in enumerate(ids)))
    assert [one["event_id"] for one in found] == ids
    assert [one["action"] for one in found] == ["approve"] * 11 + ["review"] * 9
    assert [one["offset"] - found[0]["offset"] for one in found] == list(range(20))


def test_an_array_of_one_is_answered_by_an_array(client: httpx.Client) -> None:
    answer = client.post("/v1/score", content=b"[" + event(uuid4().hex) + b"]")
    assert [one["action"] for one in answer.json()] == ["approve"]


def test_a_repeated_id_gets_the_first_decision_and_says_so(client: httpx.Client) -> None:
    key, kind = uuid4().hex, uuid4().hex
    first = ask(client, event(key, event_type=kind, discount=70.0))
    again = ask(client, event(key, event_type=kind, discount=0.0))
    assert again.pop("duplicate") is True
    assert {k: v for k, v in again.items() if k != "latency_us"} == {
        k: v for k, v in first.items() if k != "latency_us"
    }
    assert ask(client, event(uuid4().hex, event_type=kind))["features"]["events_1h"] == 2


def test_within_one_request_only_the_later_of_two_is_a_duplicate(client: httpx.Client) -> None:
    key = uuid4().hex
    found = ask(client, event(key, discount=70.0), event(key, discount=0.0))
    assert [one["action"] for one in found] == ["review", "review"]
    assert [one.get("duplicate", False) for one in found] == [False, True]


def test_what_was_written_long_ago_is_found_for_a_duplicate(
    client: httpx.Client, scorer: ServerProcess
) -> None:
    key, kind = uuid4().hex, uuid4().hex
    first = ask(client, event(key, event_type=kind, discount=70.0))
    scorer.settle()
    again = ask(client, event(key, event_type=kind))
    assert (again["features"], again["duplicate"]) == (first["features"], True)


def test_what_is_no_event_is_told_beside_the_decisions(client: httpx.Client) -> None:
    body = b"[" + event(uuid4().hex, discount=70.0) + b',{"id": 7},' + event(uuid4().hex) + b"]"
    answer = client.post("/v1/score", content=body)
    first, dead, last = answer.json()
    assert answer.status_code == 207
    assert (first["action"], last["action"]) == ("review", "approve")
    assert (dead["dead_letter"], dead["column"]) == (first["offset"] + 1, "id")


def test_what_is_no_event_alone_is_refused_and_kept(
    client: httpx.Client, scorer: ServerProcess
) -> None:
    answer = client.post("/v1/score", content=b'{"id": 7}')
    assert is_error(answer, 422, "no_events")
    (dead,) = answer.json()["dead_letters"]
    assert scorer.kept()[dead["dead_letter"]] == b'{"id": 7}'


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {}, 400, "no_records"),
        (b"[]", {}, 400, "no_records"),
        (b"{}", {"content-type": "text/html"}, 415, "unsupported_media_type"),
        (b"{}", {"content-encoding": "br"}, 415, "unsupported_encoding"),
        (b"[" + b",".join([b"{}"] * 1_001) + b"]", {}, 413, "too_many_records"),
    ],
)
def test_what_is_no_question_is_refused(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    assert is_error(client.post("/v1/score", content=body, headers=headers), status, code)


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "x", "", "60001", "9" * 40])
def test_a_deadline_that_is_none_is_refused(client: httpx.Client, wrong: str) -> None:
    answer = client.post("/v1/score", content=event(uuid4().hex), params={"timeout_ms": wrong})
    assert is_error(answer, 422, "invalid_request")


def test_requests_side_by_side_get_their_own_answers(client: httpx.Client) -> None:
    ids = [uuid4().hex for _ in range(300)]

    def one(key: str) -> Any:
        return ask(client, event(key, event_type=key, discount=float(len(key) + 30)))

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(one, ids))
    assert [f["event_id"] for f in found] == ids
    assert {f["features"]["events_1h"] for f in found} == {1}
    assert len({f["offset"] for f in found}) == 300


def test_past_the_deadline_the_fallback_is_answered_and_the_log_has_both(tmp_path: Path) -> None:
    settings = PATIENT + 'fallback_action = "block"\n'
    server = started(tmp_path, settings=settings, before=HELD)
    key = uuid4().hex
    try:
        with server.client() as client:
            begun = time.monotonic()
            found = ask(client, event(key, event_type="slow", discount=70.0), timeout_ms=100)
            took = time.monotonic() - begun
            server.release()
            ask(client, event(uuid4().hex))
            decided = client.get(f"/v1/decisions/{key}").json()
            assert "tidegate_score_fallbacks_total 1.0" in client.get("/metrics").text
        assert server.stop() == 0
    finally:
        end(server)
    assert took >= 0.1
    assert (found["event_id"], found["action"], found["fallback"]) == (key, "block", True)
    assert found["rules"][0]["reason"] == "no decision within 100 ms"
    assert decided["action"] == "review"
    shop = tidegate.open(tmp_path)
    (given,) = shop.query("SELECT event_id, event_offset, action FROM answers").arrow().to_pylist()
    assert given == {"event_id": key, "event_offset": decided["log_offset"], "action": "block"}
    assert shop.verify().equal


def test_an_overloaded_server_refuses_early_and_is_well_at_once(tmp_path: Path) -> None:
    server = started(tmp_path, settings=PATIENT + "waiting_max = 20\n", before=HELD)
    statuses: list[int] = []

    def post(kind: str) -> None:
        with server.client() as client:
            answer = client.post("/v1/score", content=event(uuid4().hex, event_type=kind))
            if answer.status_code == 429:
                assert is_error(answer, 429, "overloaded")
                assert int(answer.headers["retry-after"]) >= 1
            statuses.append(answer.status_code)

    try:
        threads = [threading.Thread(target=post, args=("slow",)) for _ in range(60)]
        for thread in threads:
            thread.start()
        # Of what waits nothing is decided meanwhile, so that the others find no room.
        until(lambda: statuses.count(429) >= 20)
        assert set(statuses) == {429}
        server.release()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 429}
        with server.client() as client:
            assert ask(client, event(uuid4().hex))["action"] == "approve"
    finally:
        end(server)


def test_a_full_disk_is_told_and_nothing_is_decided(faulty: ServerProcess) -> None:
    key = uuid4().hex
    with faulty.client() as client:
        answer = client.post("/v1/score", content=event(key, event_type="full"))
        assert is_error(answer, 507, "storage_full")
        assert client.get(f"/v1/decisions/{key}").status_code == 404


def test_gzip_and_chunks_are_taken_too(client: httpx.Client) -> None:
    packed = gzip.compress(event(uuid4().hex, discount=70.0))
    answer = client.post("/v1/score", content=packed, headers={"content-encoding": "gzip"})
    assert answer.json()["action"] == "review"
    chunked = client.post("/v1/score", content=iter([event(uuid4().hex, discount=70.0)]))
    assert chunked.json()["action"] == "review"


def test_an_answered_decision_is_found_equal_after_a_kill(tmp_path: Path) -> None:
    server = started(tmp_path)
    with server.client() as client:
        told = [ask(client, event(uuid4().hex, discount=float(n))) for n in range(40, 70)]
    server.stop(9)
    end(server)
    again = started(tmp_path)
    try:
        with again.client() as client:
            for one in told:
                found = client.get(f"/v1/decisions/{one['event_id']}").json()
                assert (found["action"], found["log_offset"]) == (one["action"], one["offset"])
        assert again.stop() == 0
    finally:
        end(again)
    shop = tidegate.open(tmp_path)
    assert shop.verify().equal
    assert shop.query("SELECT event_id FROM decisions").arrow().num_rows == 30
