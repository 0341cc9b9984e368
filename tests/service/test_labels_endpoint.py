"""`POST /v1/labels`: what is taken, what is refused and how, and what becomes of labels."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import httpx
import pytest

from tidegate.controls import LabelRecord, control_record
from tidegate.eventlog.contract import EntryKind
from tidegate.eventlog.sqlite import SqliteLog
from waiting import PATIENCE_SECONDS

from .process import ServerProcess, Start, event, is_error


def post(client: httpx.Client, body: Any, **how: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/v1/labels", content=content, **how)


def logged(server: ServerProcess) -> dict[int, LabelRecord]:
    """All labels in the log, by offset."""
    log = SqliteLog.open(server.data / "log.sqlite")
    try:
        entries = log.read(0, bytes_max=1 << 30)
    finally:
        log.close()
    found = {
        entry.first_offset + i: control_record(record, offset=entry.first_offset + i)
        for entry in entries
        if entry.kind is EntryKind.CONTROL
        for i, record in enumerate(entry.records)
    }
    return {offset: record for offset, record in found.items() if isinstance(record, LabelRecord)}


def test_labels_are_in_the_log_with_their_event_when_they_are_acknowledged(
    client: httpx.Client, server: ServerProcess
) -> None:
    taken = client.post("/v1/events", content=event("told-1")).json()
    answer = post(
        client,
        {
            "event_id": "told-1",
            "label": "fraud",
            "source": "chargeback",
            "known_at": "2023-06-07T12:00:00Z",
        },
    )
    assert answer.status_code == 202
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (1, 0)
    assert body["next_offset"] == body["first_offset"] + 1
    label = logged(server)[body["first_offset"]]
    assert (label.event_id, label.label, label.source) == ("told-1", "fraud", "chargeback")
    assert label.known_at == 1_686_139_200_000_000
    assert label.author == "local"
    # It is found at once where it is decided already; else the engine finds it.
    assert label.event_offset in (None, taken["first_offset"])


@pytest.mark.parametrize("form", ["object", "array", "lines", "gzip"])
def test_one_an_array_or_lines_are_taken(
    client: httpx.Client, server: ServerProcess, form: str
) -> None:
    rows = [{"event_id": f"{form}-{i}", "label": i % 2 == 0} for i in range(3)]
    headers = {"Content-Type": "application/json"}
    body = json.dumps(rows[0] if form == "object" else rows).encode()
    if form == "lines":
        headers["Content-Type"] = "application/x-ndjson"
        body = b"\n".join(json.dumps(row).encode() for row in rows)
    if form == "gzip":
        headers["Content-Encoding"], body = "gzip", gzip.compress(body)
    answer = post(client, body, headers=headers)
    assert answer.status_code == 202, answer.text
    count = 1 if form == "object" else 3
    assert answer.json()["accepted"] == count
    first = answer.json()["first_offset"]
    found = logged(server)
    assert [found[first + i].label for i in range(count)] == ["fraud", "legitimate", "fraud"][
        :count
    ]


def test_each_bad_label_is_reported_and_the_others_are_taken(client: httpx.Client) -> None:
    good = {"event_id": "a", "label": "legitimate"}
    answer = post(client, [good, {"event_id": "a"}, good, {**good, "colour": "red"}])
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (2, 2)
    assert [(r["index"], r["reason"], r["field"]) for r in body["refusals"]] == [
        (1, "missing_column", "label"),
        (3, "unknown_field", "colour"),
    ]


def test_where_none_can_be_taken_the_answer_is_an_error(client: httpx.Client) -> None:
    answer = post(client, {"event_id": "a", "label": "perhaps"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "no_labels"
    assert answer.json()["refusals"][0]["field"] == "label"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {}, 400, "no_records"),
        (b"[]", {}, 400, "no_records"),
        (b"x" * (2 << 20), {}, 413, "body_too_large"),
        (b"{}", {"Content-Type": "image/png"}, 415, "unsupported_media_type"),
        (b"nonsense", {"Content-Encoding": "gzip"}, 400, "bad_gzip"),
    ],
)
def test_what_is_no_body_of_labels_is_refused_in_the_one_shape(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    is_error(post(client, body, headers=headers), status, code)


def test_other_methods_are_refused(client: httpx.Client) -> None:
    is_error(client.get("/v1/labels"), 405, "method_not_allowed")


def test_a_key_needs_the_scope_for_labels(start: Start) -> None:
    server = start(asks_for_keys=True)
    with server.client() as client:
        is_error(post(client, {"event_id": "a", "label": 1}), 401, "unauthenticated")


def test_labels_reach_their_table_with_the_offset_of_their_event(client: httpx.Client) -> None:
    offset = client.post("/v1/events", content=event("joined-1")).json()["first_offset"]
    post(client, [{"event_id": "joined-1", "label": 1}, {"event_id": "never-1", "label": 0}])
    sql = (
        "SELECT event_id, label, event_offset FROM labels "
        "WHERE event_id IN ('joined-1', 'never-1') ORDER BY event_id"
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(rows := client.post("/v1/query", json={"sql": sql}).json().get("rows", [])) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [list(row.values()) if isinstance(row, dict) else row for row in rows] == [
        ["joined-1", "fraud", offset],
        ["never-1", "legitimate", None],
    ]
