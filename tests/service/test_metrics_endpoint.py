"""`/metrics`, `/healthz` and `/readyz`."""

import time
from pathlib import Path
from uuid import uuid4

import httpx
from prometheus_client.parser import text_string_to_metric_families

import payments
from tidegate.pipeline import Pipeline
from tidegate.records import Records
from tidegate.service.metrics.collector import ServiceCollector
from tidegate.service.state import State
from waiting import PATIENCE_SECONDS

from .process import ServerProcess, event

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(client: httpx.Client) -> Series:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def value(series: Series, name: str, **labels: str) -> float:
    return series.get((name, frozenset(labels.items())), 0.0)


def settled(client: httpx.Client) -> Series:
    """The metrics once all is decided and written."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        series = scrape(client)
        waits = ("tidegate_backlog_records", "tidegate_writer_pending_rows")
        if not any(value(series, name) for name in waits):
            return series
        time.sleep(0.05)
    raise AssertionError("the backlog does not end")


def test_what_was_taken_is_counted_by_what_became_of_it(client: httpx.Client) -> None:
    before = settled(client)
    keys = [uuid4().hex for _ in range(3)]
    lines = [event(k, discount=60) for k in keys] + [event(keys[0], discount=60), b"?"]
    client.post("/v1/events", content=b"\n".join(lines), headers={"content-type": "text/plain"})
    after = settled(client)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("tidegate_events_total") == 3
    assert grown("tidegate_decisions_total", action="review") == 3
    assert grown("tidegate_duplicates_total", source="http") == 1
    assert grown("tidegate_dead_letters_total", reason="not_json") == 1
    assert grown("tidegate_log_next_offset") == 5
    assert value(after, "tidegate_engine_offset") == value(after, "tidegate_log_next_offset")


def test_requests_are_counted_by_route_and_status_and_timed(client: httpx.Client) -> None:
    before = scrape(client)
    for _ in range(3):
        client.get("/healthz")
    client.get("/v1/decisions/" + uuid4().hex)
    client.get("/" + uuid4().hex)
    client.post("/v1/events", content=b"")
    after = scrape(client)

    def requests(series: Series, method: str, route: str, status: str) -> float:
        name = "tidegate_http_requests_total"
        return value(series, name, method=method, route=route, status=status)

    health = ("GET", "/healthz", "200")
    assert requests(after, *health) - requests(before, *health) == 3
    assert requests(after, "POST", "/v1/events", "400") >= 1
    assert requests(after, "GET", "other", "404") >= 1
    timed = "tidegate_http_request_seconds_count"
    for route, count in {"/healthz": 3, "/v1/decisions/{event_id}": 1, "/v1/events": 1}.items():
        assert value(after, timed, route=route) - value(before, timed, route=route) == count


def test_the_process_and_its_state_are_shown(client: httpx.Client, server: ServerProcess) -> None:
    client.post("/v1/events", content=event(uuid4().hex))
    series = settled(client)
    assert value(series, "tidegate_up") == 1
    assert value(series, "tidegate_dedupe_ids") >= 1
    assert value(series, "tidegate_dedupe_bytes") > 0
    assert value(series, "tidegate_http_body_bytes_held") == 0
    assert value(series, "tidegate_labels_let_go_total") == 0
    resident = value(series, "process_resident_memory_bytes")
    assert abs(resident / server.resident_bytes - 1) < 0.1


def test_a_server_that_works_is_healthy_and_ready(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert ready["ready"] is True
    assert ready["backlog"] >= 0


def test_what_features_remember_is_shown_by_entity(tmp_path: Path) -> None:
    with Pipeline(payments.write(tmp_path / "shop")) as pipeline:
        records = Records.of(payments.encoded(payments.payments(200)))
        pipeline.door.submit(records, source="test")
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        state = State.of(pipeline)
        samples = [s for m in ServiceCollector(state).collect() for s in m.samples]
        held = {(s.name, s.labels.get("entity")): s.value for s in samples}
        state.close()
    assert held["tidegate_feature_keys", "card"] == 6  # five cards, and none
    assert held["tidegate_feature_keys", "shop"] == 4
    assert 100 < held["tidegate_feature_rows", "card"] <= 200
    assert held["tidegate_feature_bytes", "shop"] > 0


def test_labels_that_wait_are_counted(client: httpx.Client) -> None:
    before = value(settled(client), "tidegate_labels_waiting")
    label = {"event_id": uuid4().hex, "label": "fraud"}
    assert client.post("/v1/labels", json=label).status_code == 202
    assert value(settled(client), "tidegate_labels_waiting") == before + 1
