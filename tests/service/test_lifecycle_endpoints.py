"""Versions and lists over HTTP, with a server at work."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

import tidegate
from tidegate.access.keys import Keys
from tidegate.clock import SystemClock
from waiting import PATIENCE_SECONDS

from .process import RULES, ServerProcess, Start, event, is_error

LISTS = '[lists.blocked]\ntype = "text"\n[lists.stores]\ntype = "bigint"\n'
ASKS = """
[[rule]]
name = "blocked"
when = "event_type IN LIST('blocked')"
action = "block"
reason = "{event_type} is blocked"
"""


@pytest.fixture
def served(start: Start) -> ServerProcess:
    return start(columns=LISTS)


@pytest.fixture
def client(served: ServerProcess) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def files(server: ServerProcess, rules: str) -> dict[str, str]:
    text = (server.folder / "tidegate.toml").read_text()
    return {"tidegate.toml": text, "rules.toml": rules}


def decide(client: httpx.Client, key: str, **more: object) -> dict[str, object]:
    """Send an event; the decision on it."""
    assert client.post("/v1/events", content=event(key, **more)).status_code == 202
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (answer := client.get(f"/v1/decisions/{key}")).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    found: dict[str, object] = answer.json()
    return found


def test_a_version_is_published_tried_and_taken_back(
    served: ServerProcess, client: httpx.Client
) -> None:
    assert decide(client, "e1", discount=40.0)["action"] == "approve"
    stricter = files(served, RULES.replace("> 50", "> 30"))
    tried = client.post("/v1/versions", json={"files": stricter, "shadow": True})
    assert (tried.status_code, tried.json()["shadows"]) == (200, ["deep_discount"])
    assert decide(client, "e2", discount=40.0)["action"] == "approve"
    done = client.post("/v1/versions", json={"files": stricter, "message": "stricter"})
    assert done.status_code == 200, done.text
    decided = decide(client, "e3", discount=40.0)
    assert (decided["action"], decided["version"]) == ("review", done.json()["version"])
    back = client.post("/v1/versions/rollback", json={"message": "too strict"})
    assert back.status_code == 200, back.text
    assert decide(client, "e4", discount=40.0)["action"] == "approve"
    again = client.post("/v1/versions/rollback", json={"version": done.json()["version"][:6]})
    assert again.json()["change"] == "rollback"
    listed = client.get("/v1/versions").json()["versions"]
    assert [v["change"] for v in listed] == ["start", "shadow", "publish", "rollback", "rollback"]
    assert (listed[2]["author"], listed[2]["message"]) == ("local", "stricter")
    one = client.get(f"/v1/versions/{done.json()['version']}").json()
    assert one["files"] == stricter
    assert served.stop() == 0
    shop = tidegate.open(served.folder)
    assert shop.verify().equal


def test_mistakes_are_told_with_their_place_and_change_nothing(
    served: ServerProcess, client: httpx.Client
) -> None:
    wrong = files(served, RULES.replace("discount >", "discuont >"))
    answer = client.post("/v1/versions", json={"files": wrong})
    assert is_error(answer, 422, "project_mistakes")
    assert "rules.toml:4:9: there is no column `discuont`" in answer.json()["error"]["message"]
    moved = files(served, RULES)
    moved["tidegate.toml"] = moved["tidegate.toml"].replace('discount = "double?"',
                                                            'discount = "text?"')  # fmt: skip
    moved["rules.toml"] = ""
    answer = client.post("/v1/versions", json={"files": moved})
    assert is_error(answer, 422, "project_mistakes")
    assert "`discount` is declared as text" in answer.json()["error"]["message"]
    same = client.post("/v1/versions", json={"files": files(served, RULES)})
    assert is_error(same, 409, "runs_already")
    assert is_error(client.post("/v1/versions/rollback", json={}), 404, "no_version")
    assert is_error(client.get("/v1/versions/beef"), 404, "unknown_version")
    escaping = client.post("/v1/versions", json={"files": {"../x.sql": ""}})
    assert is_error(escaping, 400, "unknown_file")
    assert is_error(client.post("/v1/versions", content=b"{"), 400, "bad_request")
    assert len(client.get("/v1/versions").json()["versions"]) == 1


def test_a_list_is_changed_and_shown(served: ServerProcess, client: httpx.Client) -> None:
    asked = client.post("/v1/versions", json={"files": files(served, RULES + ASKS)})
    assert asked.status_code == 200, asked.text
    assert decide(client, "e1", event_type="a")["action"] == "approve"
    body = {"values": ["a", "b"], "until": "2026-06-01", "reason": "why"}
    assert client.post("/v1/lists/blocked", json=body).json()["values"] == 2
    assert decide(client, "e2", event_type="a")["action"] == "block"
    assert client.delete("/v1/lists/blocked", params={"value": ["a"]}).status_code == 200
    assert decide(client, "e3", event_type="a")["action"] == "approve"
    (entry,) = client.get("/v1/lists/blocked").json()["entries"]
    assert (entry["value"], entry["until"], entry["author"]) == (
        ("b", "2026-06-01T00:00:00Z", "local")
    )
    assert client.get("/v1/lists").json()["lists"] == [
        {"name": "blocked", "type": "text"},
        {"name": "stores", "type": "bigint"},
    ]
    assert client.post("/v1/lists/stores", json={"values": [7, "8"]}).status_code == 200
    part = client.get("/v1/lists/stores", params={"limit": 1}).json()
    assert ([e["value"] for e in part["entries"]], part["count"], part["more"]) == (
        (["7"], 2, True)
    )
    assert is_error(client.post("/v1/lists/no", json={"values": ["x"]}), 404, "unknown_list")
    assert is_error(client.post("/v1/lists/stores", json={"values": ["x"]}), 400, "wrong_value")
    assert is_error(client.post("/v1/lists/stores", json={}), 400, "bad_request")
    assert is_error(client.delete("/v1/lists/stores"), 422, "invalid_request")


def test_the_key_is_the_author(start: Start) -> None:
    server = start(columns=LISTS, asks_for_keys=True)
    keys = Keys.open(server.data / "operational.sqlite", clock=SystemClock())
    made, text = keys.add("night shift", scopes=("admin",), author="tests")
    keys.close()
    with server.client() as client:
        headers = {"authorization": f"Bearer {text}"}
        client.post("/v1/lists/blocked", json={"values": ["a"]}, headers=headers)
        (entry,) = client.get("/v1/lists/blocked", headers=headers).json()["entries"]
    assert entry["author"] == f"night shift ({made.prefix})"


def command(server: ServerProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tidegate", *words],
        cwd=server.folder, capture_output=True, text=True, check=False,
        timeout=2 * PATIENCE_SECONDS,
    )  # fmt: skip


def test_the_command_line_works_beside_the_server(
    served: ServerProcess, client: httpx.Client
) -> None:
    (served.folder / "rules.toml").write_text(RULES + ASKS)
    differs = command(served, "diff", ".")
    assert "rule blocked: added\n  + when = event_type IN LIST('blocked')" in differs.stdout
    done = command(served, "publish", ".", "-m", "ask for types", "--author", "ann")
    assert done.returncode == 0, done.stderr
    assert "published version" in done.stdout
    assert "tidegate" in done.stdout
    added = command(served, "list", "add", "blocked", "4711", "--until", "2027-01-01")
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("1 value put on blocked, for events from offset")
    assert decide(client, "e1", event_type="4711")["action"] == "block"
    shown = command(served, "list", "show", "blocked")
    assert "4711" in shown.stdout
    assert "2027-01-01" in shown.stdout
    back = command(served, "rollback", ".")
    assert back.returncode == 0, back.stderr
    assert decide(client, "e2", event_type="4711")["action"] == "approve"
    table = command(served, "versions", ".").stdout
    assert all(w in table for w in ("start", "publish", "rollback", "ask for types", "ann"))
    wrong = command(served, "publish", ".", "--shadow", "--timeout", "0")
    assert wrong.returncode == 2
    (served.folder / "rules.toml").write_text(RULES.replace("discount >", "x >"))
    refused = command(served, "publish", ".")
    assert (refused.returncode, "rules.toml:4:9" in refused.stderr) == (1, True)
