"""Lines of the log that belong to requests."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from tidegate.service.journal import Journal

from .process import Start, event


@pytest.fixture
def lines() -> Any:
    with structlog.testing.capture_logs() as captured:
        yield captured


def test_requests_that_fail_or_take_long_have_a_line(lines: list[dict[str, Any]]) -> None:
    journal = Journal(slow_seconds=0.5, clock=lambda: 1.0)
    journal.note("POST", "/v1/events", 202, 0.49, "r1")
    journal.note("POST", "/v1/events", 429, 0.7, "r2")
    journal.note("POST", "/v1/query", 200, 0.5, "r3")
    journal.note("GET", "other", 503, 0.0, "r4")
    assert [(line["event"], line["request_id"], line["status"]) for line in lines] == [
        ("request_slow", "r3", 200),
        ("request_failed", "r4", 503),
    ]


def test_of_many_at_once_only_the_first_ten_a_second_are_written_down(
    lines: list[dict[str, Any]],
) -> None:
    now = 7.25
    journal = Journal(clock=lambda: now)
    for number in range(100):
        journal.note("POST", "/v1/events", 500, 0.0, f"r{number}")
    now = 8.0
    journal.note("POST", "/v1/events", 500, 0.0, "later")
    assert len(lines) == 11
    assert lines[-1]["left_out"] == 90
    assert "left_out" not in lines[0]


BROKEN = """
import time
import tidegate.service.query.pool as pool
from tidegate.door import Door

async def broken(self, question, deliver):
    pool._log.warning("within_the_request")
    raise RuntimeError("secret contents")

def commit(self, work, **how):
    time.sleep(0.002)  # slow, on the fastest of disks
    return quick(self, work, **how)

pool.QueryPool.run = broken
quick, Door.commit = Door.commit, commit
"""


def test_every_line_of_a_request_carries_its_id_and_none_of_its_contents(start: Start) -> None:
    server = start(settings='slow_request = "1 ms"\n', before=BROKEN)
    with server.client() as client:
        asked = {"sql": "SELECT 'secret contents'"}
        answer = client.post("/v1/query", json=asked, headers={"x-request-id": "mine-1"})
        assert answer.status_code == 500
        assert answer.json()["error"]["request_id"] == "mine-1"
        client.post("/v1/events", content=event("e1"), headers={"x-request-id": "mine-2"})
    server.stop()
    written = [line for line in server.errors.splitlines() if "mine-" in line]
    within, trace, failed, slow = written
    assert "event=within_the_request" in within
    assert "RuntimeError" in trace
    assert "event=request_failed" in failed
    assert "status=500" in failed
    assert "event=request_slow" in slow
    assert "route=/v1/events" in slow
    assert "request_id=mine-2" in slow
    assert all("request_id=mine-1" in line for line in (within, trace, failed))
    assert "secret contents" not in server.errors
