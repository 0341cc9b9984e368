"""`/store-events-producer-fn` answers as the function did that it stands in for."""

import json
import subprocess
from datetime import datetime
from typing import Any

import httpx
import pytest

from tidegate.service.producer.endpoints import Seeds

from .process import ServerProcess, is_error

PATH = "/store-events-producer-fn"


def test_the_answer_has_the_keys_order_and_layout_of_the_original(client: httpx.Client) -> None:
    answer = client.get(PATH, params={"count": 5})
    said = answer.json()
    assert answer.status_code == 200
    assert answer.text == json.dumps(said, indent=4)
    assert list(said) == ["miztiik_event_processed", "msg", "resp", "count", "last_processed_on"]
    counts = ["tot_msgs", "bad_msgs", "sale_evnts", "inventory_evnts", "tot_sales"]
    assert list(said["resp"]) == ["status", *counts]
    assert said["miztiik_event_processed"] is True
    assert said["resp"]["status"] is True
    assert (said["msg"], said["count"]) == ("Generated 5 messages", 5)
    assert datetime.fromisoformat(said["last_processed_on"]).tzinfo is None


def test_the_events_that_it_speaks_of_are_in_the_log(
    client: httpx.Client, server: ServerProcess
) -> None:
    before = server.kept()
    said = client.get(PATH, params={"count": 40}).json()["resp"]
    made = [json.loads(r) for offset, r in server.kept().items() if offset not in before]
    assert len(made) == said["tot_msgs"] == 40
    assert sum("bad_msg" in e for e in made) == said["bad_msgs"]
    assert sum(e["event_type"] == "sale_event" for e in made) == said["sale_evnts"]
    assert round(sum(e["price"] * e["qty"] for e in made), 2) == said["tot_sales"]


@pytest.mark.parametrize(
    ("method", "how", "count"),
    [
        ("GET", {}, 10),
        ("POST", {}, 10),
        ("POST", {"params": {"count": 3}}, 3),
        ("POST", {"json": {"count": 4}}, 4),
        ("GET", {"json": {"count": "6"}}, 6),
        ("POST", {"json": {"other": 4}}, 10),
        ("POST", {"json": [1]}, 10),
        ("POST", {"json": {"count": 4}, "params": {"count": 2}}, 2),
    ],
)
def test_the_count_comes_from_the_query_or_the_body_or_is_ten(
    client: httpx.Client, method: str, how: dict[str, Any], count: int
) -> None:
    assert client.request(method, PATH, **how).json()["count"] == count


@pytest.mark.parametrize("count", ["0", "-1", "x", "", "1.5", "10001", "9" * 40, "٣", "1e3"])
def test_a_bad_count_makes_nothing_and_says_why(
    client: httpx.Client, server: ServerProcess, count: str
) -> None:
    before = len(server.kept())
    answer = client.get(PATH, params={"count": count})
    said = answer.json()
    assert answer.status_code == 200
    assert said["miztiik_event_processed"] is False
    assert said["resp"]["status"] is False
    assert "expected" in said["resp"]["err_msg"]
    assert len(server.kept()) == before


@pytest.mark.parametrize("body", [b"{", b"[" * 50_000, b"\xff", b" " * 70_000])
def test_a_body_that_cannot_be_read_makes_nothing_and_says_why(
    client: httpx.Client, body: bytes
) -> None:
    said = client.post(PATH, content=body).json()
    assert said["miztiik_event_processed"] is False
    assert said["resp"]["err_msg"]


def test_the_printed_loop_works(server: ServerProcess) -> None:
    """`curl $PRODUCER_URL?count=30 &`, as printed."""
    before = len(server.kept())
    script = "for i in 1 2 3; do curl -s $PRODUCER_URL?count=30 & done; wait"
    url = server.url + PATH
    done = subprocess.run(["sh", "-c", script], env={"PRODUCER_URL": url, "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0
    assert len(server.kept()) == before + 90


def test_it_is_not_there_unless_it_is_asked_for(faulty: ServerProcess) -> None:
    with faulty.client() as client:
        assert is_error(client.get(PATH), 404, "not_found")


def test_no_two_requests_make_the_same_events(client: httpx.Client, server: ServerProcess) -> None:
    for _ in range(5):
        client.get(PATH, params={"count": 20})
    made = [json.loads(r) for r in server.kept().values() if b"miztiik" in r]
    assert len({e["id"] for e in made}) == len(made)


def test_seeds_ascend_even_if_the_clock_stands_still_or_goes_back() -> None:
    times = iter([1_000, 1_000, 10, 2_000])

    class Clock:
        def now(self) -> int:
            return next(times)

    seeds = Seeds(Clock())
    assert [seeds.next() for _ in range(4)] == [1_000, 1_001, 1_002, 2_000]
