"""A real server process on a free port, and what tests need to know of it."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tidegate.eventlog.contract import EntryKind
from tidegate.eventlog.sqlite import SqliteLog
from waiting import PATIENCE_SECONDS, until

SETTINGS = """
[stream]
id = "id"
event_time = "ts"
record_bytes_max = "64 KiB"
[stream.columns]
id = "text"
event_type = "text?"
ts = "timestamp"
discount = "double?"
[data]
folder = "data"
[warehouse]
commit_every = "100 ms"
[access]
required = false
[service]
body_bytes_max = "1 MiB"
batch_records_max = 2000
queue_bytes_max = "2 MiB"
"""
RULES = """
[[rule]]
name = "deep_discount"
when = "discount > 50"
action = "review"
reason = "Discount of {discount} %"
"""
RUN = """
import sys
from pathlib import Path
from tidegate.project.project import load
from tidegate.service import serve
{before}
print_url = lambda url: print(url, flush=True)
sys.exit(serve(load(Path(sys.argv[1])), host={host!r}, port={port}, on_ready=print_url))
"""


# How a server is held up until `ServerProcess.release`.
HOLD = """
import time
released = Path(sys.argv[1]) / "released"
def hold():
    while not released.exists():
        time.sleep(0.01)
"""
# A server that fails on records that ask for it.
FAULTS = f"""{HOLD}
import tidegate.service.bodies as bodies
from tidegate.door import Door
from tidegate.errors import StorageFullError

def commit(self, work, **how):
    if any(b"slow" in w.entry.records.payload for w in work):
        hold()
    if any(b"full" in w.entry.records.payload for w in work):
        raise StorageFullError("/secret/place/log.sqlite cannot be written: disk full")
    return sound(self, work, **how)

def split_body(body, **how):
    if b"secret" in body:
        raise ValueError("cannot split %r" % body)
    return split(body, **how)

sound, Door.commit = Door.commit, commit
split, bodies.split_body = bodies.split_body, split_body
"""


@dataclass
class ServerProcess:
    """`tidegate run`, so to speak: the process, where it listens and what it has."""

    process: subprocess.Popen[str]
    folder: Path
    url: str = ""

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE_SECONDS)

    def has_read(self, connection: socket.socket) -> bool:
        """Whether the server has taken a connection, and read all that came over it so far."""
        (_, mine), (_, its) = connection.getsockname(), connection.getpeername()
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            here, there, _, queues = row.split()[1:5]
            if (here[-4:], there[-4:]) == (f"{its:04X}", f"{mine:04X}"):
                return int(queues.partition(":")[2], 16) == 0
        return False

    def settle(self) -> None:
        """Wait until all that was taken is decided, and in the tables."""
        idle = ("\ntidegate_backlog_records 0.0\n", "\ntidegate_writer_pending_rows 0.0\n")
        with self.client() as client:
            until(lambda: all(map(client.get("/metrics").text.__contains__, idle)))

    def release(self) -> None:
        """Let go on what its faults hold up."""
        (self.folder / "released").touch()

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        return self.process.wait(PATIENCE_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def kept(self) -> dict[int, bytes]:
        """All records of events in the log, by offset."""
        log = SqliteLog.open(self.data / "log.sqlite")
        try:
            return {
                entry.first_offset + i: record
                for entry in log.read(0, bytes_max=1 << 30)
                if entry.kind is EntryKind.EVENTS
                for i, record in enumerate(entry.records)
            }
        finally:
            log.close()


Start = Callable[..., ServerProcess]


def launch(
    folder: Path,
    *,
    settings: str = "",
    before: str = "",
    host: str = "127.0.0.1",
    port: int = 0,
    is_awaited: bool = True,
    columns: str = "",
    asks_for_keys: bool = False,
) -> ServerProcess:
    """Start a server; `settings` end the `[service]` table, `before` is code that it runs first.

    `columns` are declared beside the others.
    """
    written = SETTINGS.replace("[data]", f"{columns}[data]") + settings
    if asks_for_keys:
        written = written.replace("[access]\nrequired = false\n", "")
    (folder / "tidegate.toml").write_text(written)
    (folder / "rules.toml").write_text(RULES)
    code = RUN.format(before=before, host=host, port=port)
    with (folder / "stderr").open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    server = ServerProcess(process, folder)
    if is_awaited:
        try:
            server.url = _said_url(process)
            assert server.url, server.errors
        except BaseException:
            end(server)
            raise
    return server


def _said_url(process: subprocess.Popen[str]) -> str:
    """What the process says first, which is its URL; nothing if it says nothing in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 2 * PATIENCE_SECONDS)
    return process.stdout.readline().strip() if ready else ""


def end(server: ServerProcess) -> None:
    with suppress(ProcessLookupError):
        server.process.kill()
    server.process.wait()
    if server.process.stdout is not None:
        server.process.stdout.close()


def event(key: str, **more: object) -> bytes:
    """A good record with this id."""
    return json.dumps({"id": key, "ts": "2026-01-01T00:00:00Z", **more}).encode()


def is_error(answer: httpx.Response, status: int, code: str) -> bool:
    """Whether an answer is this error, in the one shape."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert set(error) == {"code", "message", "request_id"}
    assert error["message"]
    return bool(answer.headers["x-request-id"] == error["request_id"])
