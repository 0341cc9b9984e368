"""A server that asks for keys: each route by each scope, keys over HTTP, wrong keys, TLS."""

import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import trustme
from starlette.routing import Mount, Route

from tidegate.access import SCOPES, Keys
from tidegate.access.secret import new_prefix, new_secret, written
from tidegate.clock import SystemClock
from tidegate.pipeline import Pipeline
from tidegate.project.project import load
from tidegate.service import create_app
from tidegate.service.access.scopes import TABLE, Row, row_of
from tidegate.testing.clock import ManualClock
from tidegate.warehouse.query import query
from waiting import PATIENCE_SECONDS, until

from .process import SETTINGS, ServerProcess, Start, end, event, is_error, launch

NOON = 1_686_139_200_000_000


def tidegate(*words: object) -> str:
    """What a command of the real command line answers."""
    command = [sys.executable, "-m", "tidegate", *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=2 * PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def keys_of(server: ServerProcess) -> Keys:
    return Keys.open(server.data / "operational.sqlite", clock=SystemClock())


def key(server: ServerProcess, *scopes: str) -> str:
    """A new key with these scopes, as the command line makes it."""
    keys = keys_of(server)
    _, text = keys.add(" ".join(scopes), scopes=scopes, author="tests")
    keys.close()
    return text


def bearing(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server that asks for keys, for all tests that only talk to it."""
    running = launch(
        tmp_path_factory.mktemp("guarded"),
        settings="producer_endpoint = true\n",
        asks_for_keys=True,
    )
    yield running
    end(running)


@pytest.fixture(scope="module")
def one_each(guarded: ServerProcess) -> dict[str, str]:
    """A key for each scope, with that scope alone."""
    return {scope: key(guarded, scope) for scope in SCOPES}


@pytest.fixture
def client(guarded: ServerProcess) -> Iterator[httpx.Client]:
    with guarded.client() as client:
        yield client


# -- the table -------------------------------------------------------------------------------------


def walked(routes: Iterable[object]) -> Iterator[tuple[str, set[str]]]:
    """The path and methods of each route, however deep."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            assert not route.include_context.prefix  # type: ignore[attr-defined] # of included ones
            yield from walked(inner.routes)
        elif isinstance(route, Mount):
            yield f"{route.path}/x", {"GET"}
        else:
            assert isinstance(route, Route), f"{route} is no route that this test knows of"
            yield route.path, set(route.methods or ()) - {"HEAD"}


def declared(tmp_path: Path) -> list[tuple[str, set[str]]]:
    """The routes of a real application: path and methods."""
    (tmp_path / "tidegate.toml").write_text(SETTINGS + "producer_endpoint = true\n")
    (tmp_path / "rules.toml").write_text("")
    pipeline = Pipeline(load(tmp_path), clock=ManualClock(NOON)).open()
    try:
        app = create_app(pipeline, bare=True)
        app.state.service.close()
        return list(walked(app.routes))
    finally:
        pipeline.close()


def test_every_route_of_the_application_is_in_the_table(tmp_path: Path) -> None:
    routes = declared(tmp_path)
    assert {"/v1/events", "/v1/keys", "/healthz", "/bare"} <= {path for path, _ in routes}
    missing = []
    for path, methods in routes:
        row = row_of(path)
        if row is None or not methods <= row.methods:
            missing.append((path, methods))
    assert not missing, "add a row for them to service/access/scopes.py"


def test_the_table_names_each_path_once_and_only_scopes_that_there_are() -> None:
    assert len({row.path for row in TABLE}) == len(TABLE)
    assert {scope for row in TABLE for scope in row.scopes} == set(SCOPES) - {"pii"}


def ask(client: httpx.Client, row: Row, method: str, **how: object) -> httpx.Response:
    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
    path = row.path.replace("*", "x")
    return client.request(method, path, content=body, **how)  # type: ignore[arg-type] # headers


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.path)
def test_a_route_is_open_to_its_scopes_and_to_no_other(
    client: httpx.Client, one_each: dict[str, str], row: Row
) -> None:
    for method in sorted(row.methods):
        for scope, text in one_each.items():
            answer = ask(client, row, method, headers=bearing(text))
            if row.scopes and scope not in row.scopes:
                assert is_error(answer, 403, "forbidden")
                assert all(f"`{s}`" in answer.json()["error"]["message"] for s in row.scopes)
            else:
                assert answer.status_code not in (401, 403, 429), (method, scope, answer.text)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.path)
def test_without_a_key_only_what_is_open_to_all_is_answered(client: httpx.Client, row: Row) -> None:
    for method in sorted(row.methods):
        answer = ask(client, row, method)
        if row.scopes:
            assert is_error(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
        else:
            assert answer.status_code not in (401, 403, 429)


def test_a_route_that_is_in_no_row_is_refused_to_every_key(
    client: httpx.Client, guarded: ServerProcess
) -> None:
    everything = bearing(key(guarded, *SCOPES))
    for path in ("/", "/v1", "/v1/", "/v1/event", "/V1/EVENTS", "/v1/events/", "//v1/events"):
        assert is_error(client.post(path, headers=everything), 404, "not_found")
        assert is_error(client.post(path), 404, "not_found")


def test_a_method_that_no_row_names_is_refused_to_every_key(
    client: httpx.Client, guarded: ServerProcess
) -> None:
    answer = client.put("/v1/events", headers=bearing(key(guarded, *SCOPES)))
    assert is_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_an_event_with_the_key_for_it_is_taken_and_its_decision_read(
    client: httpx.Client, one_each: dict[str, str]
) -> None:
    name = uuid4().hex
    for _ in range(2):  # the second time the key is known
        answer = client.post("/v1/events", content=event(name), headers=bearing(one_each["ingest"]))
        assert answer.status_code == 202
    reading = bearing(one_each["query"])
    until(lambda: client.get(f"/v1/decisions/{name}", headers=reading).status_code == 200)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic dGc6dGc=", "tg_abcdefgh_x", "Bearer tg_short_x", "Bearer ü x"],
)
def test_what_is_no_key_is_refused(client: httpx.Client, header: str) -> None:
    headers = {b"authorization": header.encode()}
    answer = client.post("/v1/events", content=event("e"), headers=headers)
    assert is_error(answer, 401, "unauthenticated")


def test_the_name_of_the_scheme_may_be_written_in_any_case(
    client: httpx.Client, one_each: dict[str, str]
) -> None:
    headers = {"authorization": f"bEARER  {one_each['query']}"}
    assert client.get("/metrics", headers=headers).status_code == 200


# -- keys over HTTP and by the command line --------------------------------------------------------


def test_an_admin_makes_lists_and_revokes_keys(
    client: httpx.Client, one_each: dict[str, str], guarded: ServerProcess
) -> None:
    admin = bearing(one_each["admin"])
    asked = {"name": "till 7", "scopes": ["score", "ingest"], "expires": "90d"}
    answer = client.post("/v1/keys", json=asked, headers=admin)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert made["scopes"] == ["ingest", "score"]
    mine = bearing(made["key"])
    assert client.post("/v1/events", content=event("till"), headers=mine).status_code == 202
    listed = client.get("/v1/keys", headers=admin)
    [shown] = [k for k in listed.json()["keys"] if k["prefix"] == made["prefix"]]
    assert (shown["name"], shown["state"]) == ("till 7", "active")
    assert shown["created_by"].startswith("admin (")
    assert made["key"].rpartition("_")[2] not in listed.text
    gone = client.delete(f"/v1/keys/{made['prefix']}", headers=admin)
    assert gone.json()["state"] == "revoked"
    # In the process that did it, at once.
    answer = client.post("/v1/events", content=event("till"), headers=mine)
    assert is_error(answer, 401, "unauthenticated")
    assert made["prefix"] in answer.json()["error"]["message"]
    until(lambda: audited(guarded, made["prefix"]) == ["key.add", "key.revoke"])


def audited(server: ServerProcess, prefix: str) -> list[str]:
    found = query(server.data / "tables", "SELECT * FROM audit ORDER BY log_offset").arrow()
    return [row["action"] for row in found.to_pylist() if row["subject"] == prefix]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"name": "a", "scopes": ["nope"]}, "unknown_scope"),
        ({"name": "a", "scopes": []}, "no_scope"),
        ({"name": "", "scopes": ["score"]}, "bad_name"),
        ({"name": "a", "scopes": ["score"], "expires": "2001-01-01"}, "bad_expiry"),
        ({"name": "a", "scopes": ["score"], "expires": "soon"}, "bad_expiry"),
        ({"name": "a", "scopes": "score"}, "bad_request"),
        ({"name": "a", "scopes": ["score"], "more": 1}, "bad_request"),
        ([], "bad_request"),
    ],
)
def test_a_key_that_cannot_be_is_refused(
    client: httpx.Client, one_each: dict[str, str], asked: object, code: str
) -> None:
    answer = client.post("/v1/keys", json=asked, headers=bearing(one_each["admin"]))
    assert is_error(answer, 400, code)


def test_there_is_no_key_to_revoke_under_another_prefix(
    client: httpx.Client, one_each: dict[str, str]
) -> None:
    answer = client.delete("/v1/keys/nosuchon", headers=bearing(one_each["admin"]))
    assert is_error(answer, 404, "unknown_key")


def test_only_who_may_see_pii_gives_that_away(
    client: httpx.Client, one_each: dict[str, str], guarded: ServerProcess
) -> None:
    asked = {"name": "a", "scopes": ["query", "pii"]}
    answer = client.post("/v1/keys", json=asked, headers=bearing(one_each["admin"]))
    assert is_error(answer, 403, "forbidden")
    both = bearing(key(guarded, "admin", "pii"))
    assert client.post("/v1/keys", json=asked, headers=both).status_code == 201


def test_the_command_line_makes_and_revokes_keys_of_a_running_server(
    client: httpx.Client, guarded: ServerProcess
) -> None:
    folder = guarded.folder
    text = tidegate("keys", folder, "add", "till", "--scope", "query", "--expires", "1h").strip()
    assert client.get("/metrics", headers=bearing(text)).status_code == 200
    assert client.get("/metrics", headers=bearing(text)).status_code == 200
    prefix = text.split("_")[1]
    listed = tidegate("keys", folder, "list")
    assert prefix in listed
    assert text.rpartition("_")[2] not in listed
    tidegate("keys", folder, "revoke", prefix)
    until(lambda: client.get("/metrics", headers=bearing(text)).status_code == 401)
    until(lambda: audited(guarded, prefix) == ["key.add", "key.revoke"])


def test_neither_keys_nor_their_secrets_are_in_the_log_or_in_what_the_server_says(
    client: httpx.Client, guarded: ServerProcess, one_each: dict[str, str]
) -> None:
    client.get("/metrics", headers=bearing(one_each["admin"]))
    metrics = client.get("/metrics", headers=bearing(one_each["admin"])).text
    written_down = (guarded.data / "log.sqlite").read_bytes() + guarded.errors.encode()
    for text in one_each.values():
        secret = text.rpartition("_")[2]
        assert secret.encode() not in written_down
        assert secret not in metrics


# -- wrong keys ------------------------------------------------------------------------------------


def test_wrong_keys_are_refused_and_then_held_off(start: Start) -> None:
    server = start(settings="[access]\nwrong_keys_per_minute = 3\n", asks_for_keys=True)
    good = bearing(key(server, "query"))
    with server.client() as client:
        assert client.get("/metrics", headers=good).status_code == 200
        for _ in range(3):
            wrong = bearing(written(new_prefix(), new_secret()))
            assert is_error(client.get("/metrics", headers=wrong), 401, "unauthenticated")
        held = client.get("/metrics", headers=bearing(written(new_prefix(), new_secret())))
        assert is_error(held, 429, "too_many_attempts")
        assert 1 <= int(held.headers["retry-after"]) <= 60
        # Whoever is known already does not suffer from a neighbour.
        assert client.get("/metrics", headers=good).status_code == 200


# -- the address and TLS ---------------------------------------------------------------------------


def test_without_keys_others_are_not_served(start: Start) -> None:
    server = start(host="0.0.0.0", is_awaited=False)
    assert server.ended() == 1
    assert "event=open_without_keys" in server.errors
    assert "access.required" in server.errors
    assert "Traceback" not in server.errors


def test_a_server_with_a_certificate_speaks_tls(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    made.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    files = f'tls_certificate = "{tmp_path}/server.pem"\ntls_key = "{tmp_path}/server.key"\n'
    server = start(settings=files, asks_for_keys=True)
    assert server.url.startswith("https://127.0.0.1:")
    text = key(server, "ingest")
    trusting = ssl.create_default_context()
    trusting.minimum_version = ssl.TLSVersion.TLSv1_2
    authority.configure_trust(trusting)
    with httpx.Client(base_url=server.url, verify=trusting, timeout=PATIENCE_SECONDS) as client:
        for i in range(3):
            answer = client.post("/v1/events", content=event(f"e{i}"), headers=bearing(text))
            assert answer.status_code == 202
        assert is_error(client.post("/v1/events", content=event("e")), 401, "unauthenticated")
    with server.client() as stranger, pytest.raises(httpx.ConnectError):
        stranger.get("/healthz")
    with httpx.Client(timeout=PATIENCE_SECONDS) as plain, pytest.raises(httpx.TransportError):
        plain.get(server.url.replace("https", "http") + "/healthz")
    assert server.stop() == 0
    assert len(server.kept()) == 3


# -- columns marked pii ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a marked column, and a feature that carries its values."""
    folder = tmp_path_factory.mktemp("marked")
    (folder / "features.sql").write_text(
        "SELECT lag(card) OVER (PARTITION BY event_type ORDER BY ts) AS before FROM events"
    )
    running = launch(
        folder,
        columns='card = "bigint? pii"\n[features]\nsql = "features.sql"\n'
        '[lists.blocked]\ntype = "bigint"\n',
        asks_for_keys=True,
    )
    yield running
    end(running)


def test_marked_columns_are_clear_to_those_alone_who_may_see_them(marked: ServerProcess) -> None:
    plain = bearing(key(marked, "score", "query"))
    seeing = bearing(key(marked, "score", "query", "pii"))
    with marked.client() as client:
        sent = event("e1", card=471147114711)
        assert client.post("/v1/score", content=sent, headers=plain).status_code == 200
        told = []
        # Twice each: the second request of a key goes the short way.
        for i, headers in enumerate([plain, plain, seeing, seeing]):
            body = event(f"f{i}", card=471147114711)
            answer = client.post("/v1/score", content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            told.append(answer.json()["features"]["before"])
        assert told[2:] == [471147114711] * 2
        assert told[0] == told[1]
        assert told[0].startswith("pii:")
        asked = {"sql": "SELECT card FROM events WHERE id = 'e1'"}

        def rows(headers: dict[str, str]) -> object:
            return client.post("/v1/query", json=asked, headers=headers).json().get("rows")

        until(lambda: rows(plain))
        assert rows(plain) == [[told[0]]]
        assert rows(seeing) == [[471147114711]]
    assert "471147114711" not in marked.errors


def test_values_on_lists_are_clear_to_those_alone_who_may_see_them(marked: ServerProcess) -> None:
    plain, seeing = bearing(key(marked, "admin")), bearing(key(marked, "admin", "pii"))
    with marked.client() as client:
        put = client.post("/v1/lists/blocked", json={"values": [471147114712]}, headers=plain)
        assert put.status_code == 200, put.text
        [hidden], [clear] = (
            client.get("/v1/lists/blocked", headers=headers).json()["entries"]
            for headers in (plain, seeing)
        )
        assert hidden["value"].startswith("pii:")
        assert clear == hidden | {"value": "471147114712"}
