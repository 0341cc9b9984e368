"""The life of a server process: it binds, serves, is told to stop, fails; and its exit code."""

import asyncio
import json
import resource
import signal
import socket
from contextlib import ExitStack, closing

import httpx

from tidegate.warehouse.query import query
from waiting import PATIENCE_SECONDS, until

from .process import HOLD, ServerProcess, Start, event, is_error


def test_told_to_stop_it_ends_with_zero_and_all_it_took_is_in_the_tables(start: Start) -> None:
    server = start()
    lines = b"\n".join(event(f"e{i}") for i in range(500))
    with server.client() as client:
        headers = {"content-type": "application/x-ndjson"}
        assert client.post("/v1/events", content=lines, headers=headers).json()["accepted"] == 500
        assert server.stop(signal.SIGTERM) == 0
    [row] = query(server.data / "tables", "SELECT count(*) AS n FROM decisions").arrow().to_pylist()
    assert row == {"n": 500}
    assert "event=stopped" in server.errors
    assert "Traceback" not in server.errors


def head(length: int) -> bytes:
    return b"POST /v1/events HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % length


def read(connection: socket.socket) -> httpx.Response:
    """What the server says until it closes: one whole answer."""
    said = b""
    while part := connection.recv(65_536):
        said += part
    first, _, body = said.partition(b"\r\n\r\n")
    lines = first.decode().split("\r\n")
    headers = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines[1:])]
    return httpx.Response(int(lines[0].split()[1]), headers=headers, content=body)


def test_a_request_that_arrives_in_time_is_answered_though_the_server_stops(start: Start) -> None:
    server = start()
    record = event("late")
    with server.connect() as connection:
        connection.sendall(head(len(record)) + record[:10])
        until(lambda: server.has_read(connection))
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "event=stopping" in server.errors)
        connection.sendall(record[10:])
        answer = read(connection)
    assert server.ended() == 0
    assert answer.status_code in (202, 503)
    kept = record in server.kept().values()
    assert kept == (answer.status_code == 202)


def test_told_to_stop_it_takes_no_connection_and_refuses_what_does_not_arrive(
    start: Start,
) -> None:
    server = start()
    with server.connect() as connection:
        connection.sendall(head(100) + b"{")
        until(lambda: server.has_read(connection))
        server.process.send_signal(signal.SIGINT)
        until(lambda: refuses(server))
        answer = read(connection)
    assert is_error(answer, 503, "shutting_down")
    assert answer.headers["retry-after"]
    assert server.ended() == 0


def refuses(server: ServerProcess) -> bool:
    """Whether it takes no new connection."""
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    server = start(before="import tidegate.pipeline as p; p.Pipeline.drain = lambda *_, **__: "
                   "__import__('time').sleep(600)")  # fmt: skip
    server.process.send_signal(signal.SIGTERM)
    until(lambda: "event=stopping" in server.errors)
    assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM


def test_a_taken_address_is_said_plainly(start: Start, server: ServerProcess) -> None:
    other = start(port=server.address[1], is_awaited=False)
    assert other.ended() == 1
    assert f"cannot_listen address=127.0.0.1:{server.address[1]}" in other.errors
    assert "Address already in use" in other.errors
    assert "Traceback" not in other.errors


def test_a_project_that_runs_already_is_said_plainly(start: Start, server: ServerProcess) -> None:
    other = start(before=f"sys.argv[1] = {str(server.folder)!r}", is_awaited=False)
    assert other.ended() == 1
    assert "event=cannot_open" in other.errors
    assert "in use by" in other.errors


def test_a_failed_engine_is_answered_logged_and_ends_the_process(start: Start) -> None:
    server = start(
        before="""
import asyncio
from tidegate.engine import Engine
from tidegate.service.server import Server
Server.on_tick, tick = None, Server.on_tick
released = Path(sys.argv[1]) / "released"
async def slow_tick(self, counter):  # so that there is time to ask
    while self._state.pipeline.failure is not None and not released.exists():
        await asyncio.sleep(0.02)
    return await tick(self, counter)
Server.on_tick = slow_tick
def fail(self, work):
    if any(b"poison" in w.entry.records.payload for w in work):
        raise RuntimeError("the engine is broken")
    return process(self, work)
process, Engine.process = Engine.process, fail
"""
    )
    with server.client() as client:
        assert client.post("/v1/events", content=event("poison")).status_code == 202
        until(lambda: client.post("/v1/events", content=event("e2")).status_code != 202)
        answer = client.post("/v1/events", content=event("e2"))
        assert is_error(answer, 503, "engine_failed")
        assert answer.headers["retry-after"]
        assert is_error(client.get("/healthz"), 503, "engine_failed")
        assert is_error(client.get("/readyz"), 503, "engine_failed")
    server.release()
    assert server.ended() == 1
    assert "event=engine_failed" in server.errors


def test_a_full_disk_acknowledges_nothing_and_the_server_goes_on(faulty: ServerProcess) -> None:
    with faulty.client() as client:
        answer = client.post("/v1/events", content=event("full"))
        assert is_error(answer, 507, "storage_full")
        assert answer.headers["retry-after"]
        assert "/secret" not in answer.text
        assert client.post("/v1/events", content=event("fine")).status_code == 202
    kept = list(faulty.kept().values())
    assert event("fine") in kept
    assert event("full") not in kept


def test_a_commit_that_takes_too_long_is_given_up(faulty: ServerProcess) -> None:
    with faulty.client() as client:
        answer = client.post("/v1/events", content=event("slow"))
        assert is_error(answer, 503, "commit_timeout")
        faulty.release()
        # Its answer comes to nobody, and nothing falls over that.
        assert client.post("/v1/events", content=event("next")).status_code == 202
        assert client.get("/healthz").status_code == 200
    assert event("slow") in faulty.kept().values()


HELD = f"""{HOLD}
from tidegate.door import Door
def commit(self, work, **how):
    hold()
    return quick(self, work, **how)
quick, Door.commit = Door.commit, commit
"""


def test_a_full_queue_holds_senders_back(start: Start) -> None:
    server = start(before=HELD)
    body = event("e", note="x" * 60_000)

    async def flood() -> list[httpx.Response]:
        lines = b"\n".join([body] * 15)
        headers = {"content-type": "text/plain"}
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS) as client:

            async def post() -> httpx.Response:
                answer = await client.post("/v1/events", content=lines, headers=headers)
                server.release()  # those that are let in are not answered before
                return answer

            return list(await asyncio.gather(*(post() for _ in range(8))))

    answers = asyncio.run(flood())
    refused = [a for a in answers if a.status_code != 202]
    assert refused
    assert len(refused) < len(answers)
    for answer in refused:
        assert is_error(answer, 429, "overloaded")
        assert answer.headers["retry-after"] == "1"
    assert len(server.kept()) == 15 * (len(answers) - len(refused))


def test_logs_are_lines_of_key_and_value_or_json(start: Start, server: ServerProcess) -> None:
    for line in server.errors.splitlines():
        assert line.startswith("timestamp=")
    as_json = "import tidegate.service; plain = tidegate.service.serve\n"
    as_json += "serve = lambda *a, **k: plain(*a, **k, json_logs=True)"
    other = start(before=as_json, host="0.0.0.0", asks_for_keys=True)
    assert other.stop() == 0
    lines = [json.loads(line) for line in other.errors.splitlines() if line.startswith("{")]
    # An address that others reach is warned of: keys would travel unencrypted.
    said = ["deciding", "open_to_others", "ready", "stopping", "stopped"]
    assert [line["event"] for line in lines] == said
    assert "open_to_others" not in server.errors


def test_more_callers_are_answered_than_the_usual_limit_of_open_files(start: Start) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, {hard}))"
    server = start(before=low)
    request = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"
    with ExitStack() as stack:
        callers = [
            stack.enter_context(closing(socket.create_connection(server.address, timeout=15)))
            for _ in range(300)
        ]
        for caller in callers:
            caller.sendall(request)
        answers = [caller.recv(4_096) for caller in callers]
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
