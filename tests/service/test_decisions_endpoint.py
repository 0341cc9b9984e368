"""`GET /v1/decisions/{event_id}`, with ids as odd as senders make them."""

import json
import time
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from waiting import PATIENCE_SECONDS

from .process import Start, event, is_error

# Look-ups in the tables bind the id as a parameter, which `warehouse.query` does not let through.


def ask(client: httpx.Client, path: str, *, seconds: float = PATIENCE_SECONDS) -> httpx.Response:
    """Ask until the event is decided: it is acknowledged before."""
    until = time.monotonic() + seconds
    while (answer := client.get(path)).status_code == 404 and time.monotonic() < until:
        time.sleep(0.02)
    return answer


def test_a_decision_says_what_was_decided_and_why(client: httpx.Client) -> None:
    key = uuid4().hex
    offset = client.post("/v1/events", content=event(key, discount=60)).json()["first_offset"]
    decision = ask(client, f"/v1/decisions/{key}").json()
    assert decision.pop("decided_at").endswith("Z")
    assert len(decision.pop("version")) == 12
    hit = {"name": "deep_discount", "action": "review", "mode": "live"}
    assert decision == {
        "event_id": key,
        "event_time": "2026-01-01T00:00:00Z",
        "action": "review",
        "score": None,
        "rules": [{**hit, "reason": "Discount of 60 %"}],
        "log_offset": offset,
    }


def test_a_decision_is_found_after_it_was_written_and_after_a_restart(start: Start) -> None:
    server = start()
    with server.client() as client:
        client.post("/v1/events", content=event("e1"))
        first = ask(client, "/v1/decisions/e1").json()
    assert server.stop() == 0
    again = start(before=f"sys.argv[1] = {str(server.folder)!r}")
    with again.client() as client:
        assert ask(client, "/v1/decisions/e1").json() == first


ODD = ["a/b", "a/../b", "50%", "%2F", "a?b=c#d", "  ", "žluťoučký 🦊", "\x00\n", '"', "a//b/", "+ "]


@pytest.mark.parametrize("odd", ODD)
def test_an_id_is_found_however_odd_it_is(client: httpx.Client, odd: str) -> None:
    key = f"{odd}{uuid4().hex}{odd}"
    assert client.post("/v1/events", content=event(key)).status_code == 202
    answer = ask(client, "/v1/decisions/" + quote(key, safe=""))
    assert answer.json()["event_id"] == key


@pytest.mark.parametrize("path", ["never-sent", "", "%FF%FE", "%ED%A0%80", "a%00b", "x" * 5000])
def test_an_id_without_a_decision_is_not_found(client: httpx.Client, path: str) -> None:
    assert is_error(client.get("/v1/decisions/" + path), 404, "no_decision")


def test_bytes_that_are_no_text_find_no_event_of_a_like_name(client: httpx.Client) -> None:
    key = "\ufffd" + uuid4().hex
    client.post("/v1/events", content=json.dumps(json.loads(event(key))).encode())
    assert ask(client, "/v1/decisions/" + quote(key)).status_code == 200
    assert client.get("/v1/decisions/" + quote(key).replace("%EF%BF%BD", "%FF")).status_code == 404
