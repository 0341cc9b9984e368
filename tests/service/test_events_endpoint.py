"""`POST /v1/events`, told over real HTTP to a real server."""

import asyncio
import gzip
import json
import zlib
from uuid import uuid4

import httpx
import pytest

from waiting import PATIENCE_SECONDS

from .process import ServerProcess, event, is_error

JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
BAD = b'{"id": "no time"}'


def key() -> str:
    return uuid4().hex


def post(client: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return client.post("/v1/events", content=body, headers=named)


def test_one_object_is_taken_with_its_offset(client: httpx.Client, server: ServerProcess) -> None:
    record = event(key())
    answer = post(client, record)
    assert answer.status_code == 202
    taken = answer.json()
    assert taken["accepted"] == 1
    assert taken["dead"] == 0
    assert taken["next_offset"] == taken["first_offset"] + 1
    assert server.kept()[taken["first_offset"]] == record


def test_a_pretty_printed_object_is_one_record_kept_as_it_was_written(
    client: httpx.Client, server: ServerProcess
) -> None:
    record = json.dumps(json.loads(event(key())), indent=4).encode()
    answer = post(client, b"\n" + record + b"\n", **JSON)
    assert answer.json()["accepted"] == 1
    assert server.kept()[answer.json()["first_offset"]] == record


@pytest.mark.parametrize("headers", [JSON, {}])
def test_an_array_is_as_many_records_as_it_has_elements(
    client: httpx.Client, server: ServerProcess, headers: dict[str, str]
) -> None:
    records = [event(key()) for _ in range(3)]
    taken = post(client, b"[" + b" ,\n".join(records) + b"]", **headers).json()
    kept = server.kept()
    assert [kept[taken["first_offset"] + i] for i in range(3)] == records


@pytest.mark.parametrize(
    "media_type",
    [
        "application/x-ndjson",
        "application/ndjson; charset=utf-8",
        "application/jsonl",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "APPLICATION/JSON",
    ],
)
def test_lines_are_records_under_every_content_type_that_is_taken(
    client: httpx.Client, media_type: str
) -> None:
    body = event(key()) + b"\r\n\n" + event(key())
    answer = post(client, body, content_type=media_type)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)


def test_bad_records_among_good_ones_are_reported_one_by_one(
    client: httpx.Client, server: ServerProcess
) -> None:
    answer = post(client, b"\n".join([event(key()), BAD, event(key()), b"?"]), **NDJSON)
    assert answer.status_code == 207
    report = answer.json()
    assert (report["accepted"], report["dead"]) == (2, 2)
    missing, broken = report["dead_letters"]
    assert (missing["index"], missing["reason"], missing["column"]) == (1, "missing_column", "ts")
    assert (broken["index"], broken["reason"], broken["column"]) == (3, "not_json", None)
    assert server.kept()[missing["id"]] == BAD
    assert server.kept()[broken["id"]] == b"?"


def test_a_request_without_any_event_is_refused_and_kept_all_the_same(
    client: httpx.Client, server: ServerProcess
) -> None:
    answer = post(client, BAD)
    assert is_error(answer, 422, "no_events")
    report = answer.json()
    assert (report["accepted"], report["dead"]) == (0, 1)
    assert server.kept()[report["dead_letters"][0]["id"]] == BAD


def test_single_events_sent_at_once_each_get_their_own_answer(server: ServerProcess) -> None:
    async def send() -> list[tuple[bytes, httpx.Response]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
            bodies = [BAD if i % 7 == 3 else event(key()) for i in range(64)]
            posts = (client.post("/v1/events", content=b) for b in bodies)
            return list(zip(bodies, await asyncio.gather(*posts), strict=True))

    answers = asyncio.run(send())
    kept = server.kept()
    assert len({a.json()["first_offset"] for _, a in answers}) == 64
    for body, answer in answers:
        assert answer.status_code == (422 if body == BAD else 202)
        assert kept[answer.json()["first_offset"]] == body
        for letter in answer.json().get("dead_letters", ()):
            assert (letter["index"], letter["id"]) == (0, answer.json()["first_offset"])


def test_a_gzip_body_of_several_members_is_inflated(
    client: httpx.Client, server: ServerProcess
) -> None:
    records = [event(key()), event(key())]
    body = b"".join(gzip.compress(r + b"\n") for r in records) + b"\0" * 100
    taken = post(client, body, content_encoding="gzip").json()
    kept = server.kept()
    assert [kept[taken["first_offset"] + i] for i in range(2)] == records


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain",
        gzip.compress(event("cut"))[:-3],
        gzip.compress(event("tail")) + b"tail",
        zlib.compress(event("zlib")),
        gzip.compress(event("sum"))[:-8] + b"12345678",
    ],
)
def test_a_broken_gzip_body_is_refused_and_nothing_of_it_is_taken(
    client: httpx.Client, server: ServerProcess, body: bytes
) -> None:
    before = len(server.kept())
    assert is_error(post(client, body, content_encoding="gzip"), 400, "bad_gzip")
    assert len(server.kept()) == before


def test_a_gzip_bomb_costs_no_more_than_the_limit(
    client: httpx.Client, server: ServerProcess
) -> None:
    bomb = gzip.compress(b" " * (500 << 20), compresslevel=9)
    assert len(bomb) < 1 << 20
    before = server.resident_bytes
    for _ in range(4):
        answer = post(client, bomb, content_encoding="gzip")
        assert is_error(answer, 413, "body_too_large")
    assert server.resident_bytes - before < 50 << 20


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_encodings_are_refused(client: httpx.Client, encoding: str) -> None:
    assert is_error(post(client, b"{}", content_encoding=encoding), 415, "unsupported_encoding")


@pytest.mark.parametrize("media_type", ["text/html", "application/xml", "multipart/form-data"])
def test_other_content_types_are_refused(client: httpx.Client, media_type: str) -> None:
    answer = post(client, event(key()), content_type=media_type)
    assert is_error(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"", b" \r\n\t", b"[]", b"[ \n ]"])
def test_a_body_without_records_is_refused(client: httpx.Client, body: bytes) -> None:
    assert is_error(post(client, body), 400, "no_records")


def test_a_body_beyond_the_limit_is_refused_by_its_announced_length(client: httpx.Client) -> None:
    assert is_error(post(client, b"x" * ((1 << 20) + 1)), 413, "body_too_large")


def test_a_body_beyond_the_limit_is_refused_when_it_comes_in_chunks(client: httpx.Client) -> None:
    chunks = (b" " * 65_536 for _ in range(40))
    answer = client.post("/v1/events", content=chunks)
    assert is_error(answer, 413, "body_too_large")


def test_a_body_of_exactly_the_limit_is_taken(client: httpx.Client) -> None:
    record = event(key())
    assert post(client, record + b" " * ((1 << 20) - len(record))).status_code == 202


def test_more_records_than_a_batch_may_have_are_refused(
    client: httpx.Client, server: ServerProcess
) -> None:
    before = len(server.kept())
    answer = post(client, b"{}\n" * 2001, **NDJSON)
    assert is_error(answer, 413, "too_many_records")
    assert len(server.kept()) == before


def test_a_large_batch_is_split_off_the_loop_and_reported_whole(
    client: httpx.Client, server: ServerProcess
) -> None:
    lines = [event(key(), note="x" * 200) if i % 2 else b"{%d" % i for i in range(2000)]
    answer = post(client, gzip.compress(b"\n".join(lines)), content_encoding="gzip", **NDJSON)
    report = answer.json()
    assert (answer.status_code, report["accepted"], report["dead"]) == (207, 1000, 1000)
    kept = server.kept()
    assert [kept[d["id"]] for d in report["dead_letters"]] == lines[::2]
