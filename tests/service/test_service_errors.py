"""The one error shape on every route, ids of requests, and the description of it all."""

import re
from typing import Any

import httpx
import pytest

from .process import ServerProcess, is_error

# Every path that the server answers, and the methods it takes there.
ROUTES = {
    "/v1/events": {"POST"},
    "/v1/decisions/{event_id}": {"GET"},
    "/store-events-producer-fn": {"GET", "POST"},
    "/healthz": {"GET"},
    "/readyz": {"GET"},
    "/metrics": {"GET"},
    "/v1/keys": {"GET", "POST"},
    "/v1/keys/{prefix}": {"DELETE"},
    "/v1/score": {"POST"},
    "/v1/labels": {"POST"},
    "/v1/query": {"POST"},
    "/v1/lists": {"GET"},
    "/v1/lists/{name}": {"GET", "POST", "DELETE"},
    "/v1/versions": {"GET", "POST"},
    "/v1/versions/{version}": {"GET"},
    "/v1/versions/rollback": {"POST"},
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def test_the_routes_under_test_are_all_that_are_described(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    described = {path: {m.upper() for m in item} for path, item in paths.items()}
    assert described == ROUTES


@pytest.mark.parametrize("path", ROUTES)
def test_a_method_that_a_route_does_not_take_is_refused_in_the_one_shape(
    client: httpx.Client, path: str
) -> None:
    named = {"GET"} if path == "/v1/versions/rollback" else set()  # a version of that name
    for method in sorted(set(METHODS) - ROUTES[path] - named):
        answer = client.request(method, path)
        assert is_error(answer, 405, "method_not_allowed")
        allowed = set(answer.headers["allow"].split(", "))
        assert allowed - {"HEAD"} >= ROUTES[path]


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/v1", "/v1/events/", "/healthz/x", "/%00", "/v1//"]
)
def test_a_path_that_is_none_is_refused_in_the_one_shape(client: httpx.Client, path: str) -> None:
    for method in METHODS:
        assert is_error(client.request(method, path), 404, "not_found")


def test_assets_that_are_missing_are_refused_in_the_one_shape(client: httpx.Client) -> None:
    assert is_error(client.get("/static-offline-docs/nope.js"), 404, "not_found")


def test_what_fails_inside_is_answered_in_the_one_shape_and_logged_without_contents(
    faulty: ServerProcess,
) -> None:
    with faulty.client() as client:
        answer = client.post("/v1/events", content=b'{"id":\n "secret"}')
        assert is_error(answer, 500, "internal_error")
        assert client.get("/healthz").status_code == 200
    assert "request_failed" in faulty.errors
    assert "secret" not in faulty.errors


def test_a_request_id_is_taken_over_if_it_is_a_sane_one(client: httpx.Client) -> None:
    answer = client.get("/nope", headers={"x-request-id": "order-7/a=b"})
    assert answer.headers["x-request-id"] == "order-7/a=b"
    assert answer.json()["error"]["request_id"] == "order-7/a=b"


@pytest.mark.parametrize("given", ["", "a b", 'x"}', "x" * 129, "ü"])
def test_a_request_id_that_is_not_sane_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/healthz", headers={b"x-request-id": given.encode()})
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", answer.headers["x-request-id"])


def test_every_answer_has_an_id_of_its_own(client: httpx.Client) -> None:
    ids = [client.get(path).headers["x-request-id"] for path in ("/healthz", "/metrics", "/nope")]
    assert len(set(ids)) == 3


# -- the OpenAPI document --------------------------------------------------------------------------


@pytest.fixture
def document(client: httpx.Client) -> Any:
    return client.get("/openapi.json").json()


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(v) for v in node.values()))
    if isinstance(node, list):
        return set[str]().union(*map(references, node))
    return set()


def test_every_schema_that_the_document_names_is_in_it(document: Any) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) == known - {"#/components/schemas/" + n for n in UNUSED}


UNUSED: set[str] = set()


def test_every_error_in_the_document_has_the_one_shape(document: Any) -> None:
    shapes = {
        reference.rpartition("/")[2]
        for item in document["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        if int(status) >= 400
        for reference in references(response["content"]["application/json"]["schema"])
    }
    # All but the first are reports with the error in them.
    assert shapes == {"ErrorBody", "NoneTaken", "NoneScored", "NoLabelsTaken"}
    for name in shapes:
        assert "error" in document["components"]["schemas"][name]["required"]


def test_the_hot_route_describes_its_bodies_and_answers(document: Any) -> None:
    operation = document["paths"]["/v1/events"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "application/x-ndjson"}
    assert {"202", "207", "400", "408", "413", "415", "422", "429", "503", "507"} <= set(
        operation["responses"]
    )


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_loads_nothing_from_elsewhere(client: httpx.Client, page: str) -> None:
    text = client.get(page).text
    loaded = re.findall(r"""(?:src|href)="([^"]+)\"""", text)
    assert loaded
    assert all(place.startswith("/") and not place.startswith("//") for place in loaded)
    assert all(client.get(place).status_code == 200 for place in loaded)


def test_logs_hold_no_line_for_requests(client: httpx.Client, server: ServerProcess) -> None:
    before = server.errors
    client.post("/v1/events", content=b"{}")
    client.get("/nope")
    assert server.errors == before
